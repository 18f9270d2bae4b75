"""Stores a body at the nodes, segment by segment, several at a time (paper, section 3.1, steps 2 to 4).

A small body is stored in whole copies, a large one in erasure-coded shares where that is cheaper
(mail/availability/erasure_code.py). Memory is bounded by a few segments, whatever the size of the message.
mail/send/sender.py decides who is notified, and when.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from mail.availability.erasure_code import CODED_FROM
from mail.sealed.body import SealingError, seal_body
from mail.sealed.erasure_shares import BodyCoding, CodingPlan, make_shares
from mail.sealed.segments import Segment
from mail.send.rules import deleter_hashes, segment_key
from overlay.client import Outcome, Overlay
from overlay.ids import Kind
from storage.user.outbox import Recipient, Secrets

AT_ONCE = 3
"""Segments uploaded at the same time: 3 MiB of memory, whatever the size of the message."""


class BodyChanged(SealingError):
    """The message seals to other bytes than before: the file was changed, or zlib has another version."""


@dataclass(frozen=True, slots=True)
class StoredBody:
    """A stored body: its segments, their coding, and the outcome for each group of recipients.

    An outcome counts copies (or shares) of the rarest segment, with the reasons of nodes that refused. `have` is 0
    while there are too few shares to restore the segment, because nobody could read it.
    """

    segments: tuple[Segment, ...]
    coding: BodyCoding | None
    outcomes: Mapping[bytes, Outcome]

    @property
    def many(self) -> bool:
        """Whether it has several segments."""
        return len(self.segments) > 1


async def store_body(  # noqa: PLR0913 - each is named at the one call
    overlay: Overlay,
    file: Path,
    message_id: str,
    *,
    secrets: Secrets,
    groups: Mapping[bytes, Sequence[Recipient]],
    progress: Callable[[int], None],
    ttl: float,
    plan: Callable[[bytes], Awaitable[CodingPlan | None]],
    again: bool,
) -> StoredBody:
    """Seal the message in `file`, and store it for `ttl` seconds for each of `groups`; its members may delete it.

    `plan` chooses the coding of a large body, given its first object's key, unless `secrets` has it. For a body of
    several segments or groups, `progress` receives the number of sealed bytes stored (for the average group). `again`:
    an earlier attempt began to store it for these members, so what nodes already have isn't sent again. Raises
    BodyChanged when the body differs from what `secrets` says, TooLarge, SealingError, Unreachable, OSError; no upload
    is left running then.
    """
    segments: list[Segment] = []
    upload = _Upload(overlay, message_id, groups, progress=progress, ttl=ttl, again=again)
    source = await asyncio.to_thread(file.open, "rb")
    try:
        parts = seal_body(source, secrets.session_key)
        # A body of one segment lies under the Message-ID itself. Whether there are more shows after the first one.
        buffered = await asyncio.to_thread(_take, parts, 2)
        many = len(buffered) > 1
        coded = CodingPlan.decode(secrets.coding) if secrets.coding else None
        if coded is None and not secrets.segments and (many or buffered[0][0].size > CODED_FROM):
            coded = await plan(segment_key(message_id, 0, many, min(groups)))
        while buffered:
            segment, data = buffered.pop(0)
            _check(segment, secrets)
            segments.append(segment)
            await upload.begin(segment, data, coded, many=many)
            if not buffered:
                buffered = await asyncio.to_thread(_take, parts, 1)
        await upload.finish()
    finally:
        await upload.stop()
        source.close()
    if secrets.segments and len(segments) != len(secrets.segments):
        raise _changed()
    outcomes = {group: _worst(of_segments) for group, of_segments in upload.outcomes.items()}
    return StoredBody(tuple(segments), coded.coding if coded else None, outcomes)


class _Upload:
    """Uploads the segments of one body, AT_ONCE at a time."""

    def __init__(
        self,
        overlay: Overlay,
        message_id: str,
        groups: Mapping[bytes, Sequence[Recipient]],
        *,
        progress: Callable[[int], None],
        ttl: float,
        again: bool,
    ) -> None:
        self.outcomes: dict[bytes, list[Outcome]] = {group: [] for group in groups}
        self._overlay, self._message_id, self._groups = overlay, message_id, groups
        self._progress, self._ttl, self._again = progress, ttl, again
        self._running: set[asyncio.Task[None]] = set()
        self._sent = 0

    async def begin(self, segment: Segment, data: bytes, coded: CodingPlan | None, *, many: bool) -> None:
        """Start storing a segment for each group, and wait until another upload may start."""
        for group in self._groups:
            self._running.add(asyncio.create_task(self._store(segment, data, coded, many=many, group=group)))
            if len(self._running) >= AT_ONCE:
                self._running = await _wait_for_one(self._running)

    async def finish(self) -> None:
        """Wait for all uploads. Raises the first error of one."""
        while self._running:
            self._running = await _wait_for_one(self._running)

    async def stop(self) -> None:
        """Cancel the uploads that still run, and wait for their end."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _store(
        self, segment: Segment, data: bytes, coded: CodingPlan | None, *, many: bool, group: bytes
    ) -> None:
        key = segment_key(self._message_id, segment.index, many, group)
        deleters, ttl, again = deleter_hashes(key, self._groups[group]), self._ttl, self._again
        if coded is None:
            outcome = await self._overlay.store(Kind.BODY, key, data, deleters=deleters, ttl=ttl, again=again)
        else:
            shares = await asyncio.to_thread(make_shares, data, key, coded)
            outcome = await self._overlay.spread(Kind.SHARE, key, shares, deleters=deleters, ttl=ttl, again=again)
            outcome = outcome if outcome.have >= coded.m else replace(outcome, have=0)
        self.outcomes[group].append(outcome)
        self._sent += len(data)
        if many or len(self._groups) > 1:
            self._progress(self._sent // len(self._groups))


def _worst(outcomes: Sequence[Outcome]) -> Outcome:
    """The outcome of the rarest segment, with the refusals of all segments."""
    refusals = tuple(dict.fromkeys(reason for outcome in outcomes for reason in outcome.refusals))
    return Outcome(max(o.want for o in outcomes), min(o.have for o in outcomes), refusals)


async def _wait_for_one(running: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    """Wait until an upload ends; returns those still running. If it failed, cancels the others and raises its error."""
    done, left = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    errors = [error for error in (task.exception() for task in done) if error is not None]
    if errors:
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        raise errors[0]
    return left


def _check(segment: Segment, secrets: Secrets) -> None:
    """Compare a segment with the same one of an earlier attempt. Raises BodyChanged."""
    known = secrets.segments
    if known and (segment.index >= len(known) or tuple(known[segment.index]) != (segment.size, segment.digest)):
        raise _changed()


def _changed() -> BodyChanged:
    return BodyChanged("The message isn't what it was when it was first sent, so it is not sent again under its name.")


def _take(parts: Iterator[tuple[Segment, bytes]], count: int) -> list[tuple[Segment, bytes]]:
    return list(islice(parts, count))
