"""Fetching a body: its segments, some ahead, opened in order; what came before a crash is kept and used again.

What is fetched when, and what a failure means, is mail/receive/receiver.py's.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from mail.asyncio_tools import shielded_to_thread
from mail.events import Event, Progress
from mail.receive.segment_cache import CachedSegments, NoRoomToReceive, SegmentCache
from mail.sealed.body import Opener, SealingError
from mail.sealed.erasure_shares import BodyCoding, GatheredShares
from mail.sealed.notification import Notification
from mail.sealed.segments import Segment
from mail.send.rules import segment_key
from overlay.client import Overlay
from overlay.ids import Kind
from storage import durable, space

SEGMENTS_AHEAD = 3
"""Segments fetched ahead of the one that is being opened: 4 MiB held a message, whatever its size."""
CODED_AHEAD = 1
"""The same of segments in shares, each of which comes from many nodes at once."""


class BodyDownload:
    """Brings bodies into the spool."""

    def __init__(self, overlay: Overlay, spool: SegmentCache, tell: Callable[[Event], None]) -> None:
        self._overlay = overlay
        self._spool = spool
        self._tell = tell
        self._busy: set[bytes] = set()

    @asynccontextmanager
    async def body(self, hash_: bytes, notification: Notification) -> AsyncIterator[Path]:
        """The message, whole, in a file that is gone afterwards; its parts stay until `settled`.

        Raises NoRoom, NotFound, Unreachable, SealingError, OSError.
        """
        await asyncio.to_thread(durable.make_folder, self._spool.folder)
        target = self._spool.target(hash_)
        self._busy.add(hash_)
        try:
            await self._fetch(hash_, notification, target)
            yield target
        finally:
            self._busy.discard(hash_)
            await asyncio.to_thread(target.unlink, missing_ok=True)

    async def settled(self, hash_: bytes) -> None:
        """The message was filed, or its parts are of no use any more."""
        await asyncio.to_thread(self._spool.parts(hash_).drop)

    async def _fetch(self, hash_: bytes, notification: Notification, target: Path) -> None:
        segments = notification.segments
        many = len(segments) > 1
        parts = self._spool.parts(hash_) if many else None
        sealed = sum(segment.size for segment in segments)
        kept = await asyncio.to_thread(parts.have, segments) if parts else 0
        if many:
            await asyncio.to_thread(self._spool.trim, self._busy)
        needed = notification.original_size + (sealed - kept if many else 0)
        if not await asyncio.to_thread(self._spool.make_room, needed, self._busy):
            size = notification.original_size + sealed if many else notification.original_size
            raise NoRoomToReceive(f"it needs {space.format_size(size)} on the disk, which aren't free")
        ahead = SEGMENTS_AHEAD if notification.coding is None else CODED_AHEAD
        left = list(segments)
        running: list[asyncio.Task[bytes]] = []
        again = ", going on where it was" if kept else ""
        what = f"collecting {notification.subject or notification.message_id}{again}"
        target.unlink(missing_ok=True)  # a file that has another name too must not be emptied
        with target.open("xb") as file:
            opener = Opener(notification.session_key, notification.original_size, file)
            try:
                while left or running:
                    while left and len(running) <= ahead:
                        running.append(asyncio.create_task(self._segment(notification, left.pop(0), parts)))
                    await asyncio.to_thread(opener.feed, await running[0])
                    running.pop(0)
                    if many:
                        done = min(opener.written, notification.original_size - 1)
                        self._tell(Progress(what, done, notification.original_size))
                await asyncio.to_thread(opener.finish)
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)
        # What is filed is deleted at the nodes, so what the disk has of it is looked at, not what was written.
        size = (await asyncio.to_thread(target.stat)).st_size
        if size != notification.original_size:
            raise OSError(errno.EIO, f"the disk has {size:,} bytes of it, not {notification.original_size:,}")
        if many:
            self._tell(Progress(what, notification.original_size, notification.original_size))

    async def _segment(self, notification: Notification, segment: Segment, parts: CachedSegments | None) -> bytes:
        """One segment, from the disk if it is there. Raises NotFound, Unreachable, SealingError."""
        if parts is not None and (data := await asyncio.to_thread(parts.load, segment)) is not None:
            return data
        key = segment_key(notification.message_id, segment.index, parts is not None, notification.group)
        if notification.coding is not None:
            data = await self._gather(notification.coding, key, segment)
        else:
            # One who is alone with it deletes it in a moment: its copies needn't be mended.
            others = len(notification.to) + len(notification.cc) + notification.left_out > 1
            data = await self._overlay.fetch(Kind.BODY, key, digest=segment.digest, repair=others)
        if parts is not None:
            await shielded_to_thread(parts.keep, segment, data)
        return data

    async def _gather(self, coding: BodyCoding, key: bytes, segment: Segment) -> bytes:
        """A segment from its shares. Raises NotFound, Unreachable, SealingError."""
        gathered = GatheredShares(coding, key, segment.size)
        await self._overlay.gather(Kind.SHARE, key, gathered, coding.n)
        data = await asyncio.to_thread(gathered.segment)
        if hashlib.sha256(data).digest() != segment.digest:  # its shares are signed: the sender made them so
            raise SealingError("The body isn't what its sender announced.")
        return data
