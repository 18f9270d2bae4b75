"""Downloads a body: fetches its segments, some ahead, and opens them in order into a file.

Theory of operation
-------------------
mail/receive/receiver.py decides when a message is fetched and what a failure means. One call of `fetch` is one attempt:

    1. Mark the message busy, so that mail/receive/segment_cache.py doesn't remove its segments to free space.
    2. Check that the disk has room for the message and for the segments that aren't cached yet. Idle messages' segments
       make way if necessary. Otherwise NoRoomToReceive: nothing is fetched.
    3. Fetch the segments in order, SEGMENTS_AHEAD (or CODED_AHEAD) of them ahead of the one that is being opened.
       Each is verified by its digest. Those of a body with several segments are cached before they are opened.
    4. Open each segment in turn, and append the plaintext to the target file.
    5. Check the end of the sealed stream and the size of the file on disk, and hand the file to the caller.
    6. Remove the target file, unless the caller has moved it into a folder, and mark the message idle.

A failure or a cancellation at any step ends the fetches that still run, and removes the target file. The cached
segments stay, so that the next attempt fetches only the others. `discard` removes them: the receiver calls it when the
message was filed, when it has given up, or when the segments can't be opened and must be fetched anew.

A crash leaves the cached segments and perhaps a target file. The next process removes the file (SegmentCache.sweep),
and reads each segment again with a check of its digest. A segment that was cut off by the crash is fetched again.

Invariants:

- The caller sees a file only after the whole sealed stream was authenticated, and its size on disk is as announced.
  The receiver deletes the body at the nodes afterwards, so the disk is asked, not the counter of written bytes.
- Memory is bounded by SEGMENTS_AHEAD + 1 segments for each message, whatever its size.
- A body of one segment isn't cached: fetching it again costs no more than one request.
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
"""Segments fetched ahead of the one that is being opened: 4 MiB of memory for a message, whatever its size."""
CODED_AHEAD = 1
"""The same for erasure-coded segments, each of which comes from many nodes at once."""


class BodyDownload:
    """Downloads bodies into the spool folder."""

    def __init__(self, overlay: Overlay, cache: SegmentCache, tell: Callable[[Event], None]) -> None:
        self._overlay = overlay
        self._cache = cache
        self._tell = tell
        self._busy: set[bytes] = set()

    @asynccontextmanager
    async def fetch(self, hash_: bytes, notification: Notification) -> AsyncIterator[Path]:
        """The whole message in a file, which is removed afterwards; cached segments stay until `discard`.

        Raises NoRoomToReceive, NotFound, Unreachable, SealingError, OSError.
        """
        await asyncio.to_thread(durable.make_folder, self._cache.folder)
        target = self._cache.target(hash_)
        self._busy.add(hash_)
        try:
            await self._fetch(hash_, notification, target)
            yield target
        finally:
            self._busy.discard(hash_)
            await asyncio.to_thread(target.unlink, missing_ok=True)

    async def discard(self, hash_: bytes) -> None:
        """Remove the message's cached segments: it was filed, or they are of no use."""
        await asyncio.to_thread(self._cache.segments(hash_).remove)

    async def _fetch(self, hash_: bytes, notification: Notification, target: Path) -> None:
        many = len(notification.segments) > 1
        cached = self._cache.segments(hash_) if many else None
        kept = await asyncio.to_thread(cached.size_of, notification.segments) if cached else 0
        await self._require_space(notification, kept, many=many)
        ahead = SEGMENTS_AHEAD if notification.coding is None else CODED_AHEAD
        left = list(notification.segments)
        running: list[asyncio.Task[bytes]] = []
        again = ", going on where it was" if kept else ""
        what = f"collecting {notification.subject or notification.message_id}{again}"
        target.unlink(missing_ok=True)  # the file may have a second name in a folder, and must not be truncated
        with target.open("xb") as file:
            opener = Opener(notification.session_key, notification.original_size, file)
            try:
                while left or running:
                    while left and len(running) <= ahead:
                        running.append(asyncio.create_task(self._segment(notification, left.pop(0), cached)))
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
        # The nodes delete the body after filing, so check what the disk has, not what was written.
        size = (await asyncio.to_thread(target.stat)).st_size
        if size != notification.original_size:
            raise OSError(errno.EIO, f"the disk has {size:,} bytes of it, not {notification.original_size:,}")
        if many:
            self._tell(Progress(what, notification.original_size, notification.original_size))

    async def _require_space(self, notification: Notification, kept: int, *, many: bool) -> None:
        """Raises NoRoomToReceive unless the message fits on the disk, and the segments that will be cached with it.

        `kept`: bytes of its segments that are cached already. Idle messages' segments make way.
        """
        sealed = sum(segment.size for segment in notification.segments) if many else 0
        if many:
            await asyncio.to_thread(self._cache.trim, self._busy)
        needed = notification.original_size + sealed - kept
        if not await asyncio.to_thread(self._cache.make_room, needed, self._busy):
            size = space.format_size(notification.original_size + sealed)
            raise NoRoomToReceive(f"it needs {size} on the disk, which aren't free")

    async def _segment(self, notification: Notification, segment: Segment, cached: CachedSegments | None) -> bytes:
        """One segment, from the cache or from nodes. Raises NotFound, Unreachable, SealingError."""
        if cached is not None and (data := await asyncio.to_thread(cached.load, segment)) is not None:
            return data
        key = segment_key(notification.message_id, segment.index, cached is not None, notification.group)
        if notification.coding is not None:
            data = await self._gather(notification.coding, key, segment)
        else:
            # A sole recipient deletes the body in a moment, so its copies needn't be repaired.
            others = len(notification.to) + len(notification.cc) + notification.left_out > 1
            data = await self._overlay.fetch(Kind.BODY, key, digest=segment.digest, repair=others)
        if cached is not None:
            await shielded_to_thread(cached.save, segment, data)
        return data

    async def _gather(self, coding: BodyCoding, key: bytes, segment: Segment) -> bytes:
        """A segment restored from its shares. Raises NotFound, Unreachable, SealingError."""
        gathered = GatheredShares(coding, key, segment.size)
        await self._overlay.gather(Kind.SHARE, key, gathered, coding.n)
        data = await asyncio.to_thread(gathered.segment)
        # Each share carries the sender's signature, so if the segment is wrong, the sender made it so.
        if hashlib.sha256(data).digest() != segment.digest:
            raise SealingError("The body isn't what its sender announced.")
        return data
