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


async def store_body(
    overlay: Overlay,
    file: Path,
    message_id: str,
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
    outcomes: dict[bytes, list[Outcome]] = {group: [] for group in groups}
    running: set[asyncio.Task[None]] = set()
    sent = 0

    async def store(segment: Segment, data: bytes, coded: CodingPlan | None, *, many: bool, group: bytes) -> None:
        nonlocal sent
        key = segment_key(message_id, segment.index, many, group)
        deleters = deleters_of(key, groups[group])
        if coded is None:
            outcomes[group].append(await overlay.store(Kind.BODY, key, data, deleters=deleters, ttl=ttl, again=again))
        else:
            shares = await asyncio.to_thread(make_shares, data, key, coded)
            spread = await overlay.spread(Kind.SHARE, key, shares, deleters=deleters, ttl=ttl, again=again)
            outcomes[group].append(spread if spread.have >= coded.m else replace(spread, have=0))
        sent += len(data)
        if many or len(groups) > 1:
            progress(sent // len(groups))

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
            for group in groups:
                running.add(asyncio.create_task(store(segment, data, coded, many=many, group=group)))
                if len(running) >= AT_ONCE:
                    running = await _some_done(running)
            if not buffered:
                buffered = await asyncio.to_thread(_take, parts, 1)
        while running:
            running = await _some_done(running)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        source.close()
    if secrets.segments and len(segments) != len(secrets.segments):
        raise _changed()
    together = {group: _together(of_segments) for group, of_segments in outcomes.items()}
    return StoredBody(tuple(segments), coded.coding if coded else None, together)


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
