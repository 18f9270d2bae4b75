"""Storing a body: sealed segment by segment, some on their way at the same time (paper, section 3.1, steps 2 to 4).

A small one in whole copies, a large one in shares where that is cheaper (mail/availability/erasure_code.py).

Holds a few segments whatever the size of the message. Who is told of the body, and when, is mail/send/sender.py's.
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
from mail.send.rules import deleters_of, segment_key
from overlay.client import Outcome, Overlay
from overlay.ids import Kind
from storage.user.outbox import Recipient, Secrets

AT_ONCE = 3
"""Segments on their way at the same time: 3 MiB held, whatever the size of the message."""


class BodyChanged(SealingError):
    """The message seals to other bytes than before: the file was changed, or zlib is another one now."""


@dataclass(frozen=True, slots=True)
class StoredBody:
    """A body's segments, how they are coded, and of each group of recipients what became of what was stored for it.

    An outcome counts copies (or shares) of the rarest segment, and has what nodes said that took none. `have` is 0
    while there are fewer shares than make the segment: nobody could read it.
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
    """Seal the message in `file` and store it for `ttl` seconds for each of `groups`, to be deleted by its members.

    `plan` is asked, with its first object's key, how a large body is to be coded, unless `secrets` say it. `progress`
    hears, for a body of several segments or groups, how many of its sealed bytes are stored (for the average group).
    `again`: an earlier attempt began to store it for these members, and what nodes have of that isn't sent again.
    Raises Changed when it isn't what `secrets` says it was before, TooLarge, SealingError, Unreachable, OSError; then
    no upload is left running.
    """
    segments: list[Segment] = []
    upload = _Upload(overlay, message_id, groups, progress=progress, ttl=ttl, again=again)
    source = await asyncio.to_thread(file.open, "rb")
    try:
        parts = seal_body(source, secrets.session_key)
        # A body of one segment lies under the Message-ID itself, and how many there are is known after the first.
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
    together = {group: _together(of_segments) for group, of_segments in upload.outcomes.items()}
    return StoredBody(tuple(segments), coded.coding if coded else None, together)


class _Upload:
    """The segments of one body on their way to the nodes, AT_ONCE of them at the same time."""

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
        """Begin to store a segment for each group, and wait until there is room for the next one."""
        for group in self._groups:
            self._running.add(asyncio.create_task(self._store(segment, data, coded, many=many, group=group)))
            if len(self._running) >= AT_ONCE:
                self._running = await _some_done(self._running)

    async def finish(self) -> None:
        """Wait for all. Raises what one of them raised."""
        while self._running:
            self._running = await _some_done(self._running)

    async def stop(self) -> None:
        """Cancel what still runs."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _store(
        self, segment: Segment, data: bytes, coded: CodingPlan | None, *, many: bool, group: bytes
    ) -> None:
        key = segment_key(self._message_id, segment.index, many, group)
        deleters, ttl, again = deleters_of(key, self._groups[group]), self._ttl, self._again
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


def _together(outcomes: Sequence[Outcome]) -> Outcome:
    """That of the rarest segment, with what was said of any."""
    refusals = tuple(dict.fromkeys(reason for outcome in outcomes for reason in outcome.refusals))
    return Outcome(max(o.want for o in outcomes), min(o.have for o in outcomes), refusals)


async def _some_done(running: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    """Wait for the next one; those still running. Raises what one of them raised, the others being looked at too."""
    done, left = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    errors = [error for error in (task.exception() for task in done) if error is not None]
    if errors:
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        raise errors[0]
    return left


def _check(segment: Segment, secrets: Secrets) -> None:
    """Compare a segment with what it was at an earlier attempt. Raises Changed."""
    known = secrets.segments
    if known and (segment.index >= len(known) or tuple(known[segment.index]) != (segment.size, segment.digest)):
        raise _changed()


def _changed() -> BodyChanged:
    return BodyChanged("The message isn't what it was when it was first sent, so it is not sent again under its name.")


def _take(parts: Iterator[tuple[Segment, bytes]], count: int) -> list[tuple[Segment, bytes]]:
    return list(islice(parts, count))
