"""Segments of messages that are being collected, kept on disk so that a process that died goes on where it was.

A cache: each segment is sealed, and known by its digest when it is used again, so nothing here is synced, and what is
torn is fetched again. What a message has lies in PLACE.parts in the spool; the message itself is opened into PLACE.eml.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path

from mail.sealed.segments import Segment
from storage import durable
from storage.errors import TEMPORARY, P2PMailError
from storage.user.folders import STALE_TMP

LIMIT = 2 << 30
"""Bytes that may be kept of messages of which nothing comes at the moment; the longest untouched goes first."""

MARGIN = 64 << 20
"""Bytes that collecting a large message leaves free on the disk: outbox and state need some too."""
SMALL, SMALL_MARGIN = 8 << 20, 1 << 20
"""A message that needs fewer bytes than SMALL leaves SMALL_MARGIN free: on a small disk ordinary mail arrives."""

STALE = STALE_TMP
"""Seconds after which a message that was being written here is taken to be from a program that died, as in tmp/."""

_ACCEPTED = re.compile(r"[0-9a-f]{16}\.eml")
_OURS = re.compile(r"([0-9a-f]{64})\.(parts|eml)")


class NoRoomToReceive(P2PMailError):
    """The disk has no room for a message; nothing of it is lost by that."""

    exit_code = TEMPORARY


class CachedSegments:
    """What one message has on disk."""

    def __init__(self, spool: Path, hash_: bytes) -> None:
        self.folder = spool / f"{hash_.hex()}.parts"

    def have(self, segments: Iterable[Segment]) -> int:
        """Bytes that seem to be here of these segments: their digests aren't looked at."""
        return sum(segment.size for segment in segments if self._size(segment) == segment.size)

    def load(self, segment: Segment) -> bytes | None:
        """The segment, if it is here and whole."""
        try:
            data = self._path(segment).read_bytes()
        except OSError:
            return None
        return data if hashlib.sha256(data).digest() == segment.digest else None

    def keep(self, segment: Segment, data: bytes) -> None:
        """Keep it, if the disk allows."""
        with suppress(OSError):
            durable.make_folder(self.folder)
            self._path(segment).write_bytes(data)

    def drop(self) -> None:
        """Forget all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, segment: Segment) -> Path:
        return self.folder / f"{segment.index:04}"

    def _size(self, segment: Segment) -> int:
        try:
            return self._path(segment).stat().st_size
        except OSError:
            return -1


class SegmentCache:
    """The parts of all messages that are being collected. For worker threads."""

    def __init__(
        self, folder: Path, free: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free
    ) -> None:
        """`free` tells the bytes that are free on the disk of a folder."""
        self.folder = folder
        self._free = free

    def parts(self, hash_: bytes) -> CachedSegments:
        """What the message of this notification has here."""
        return CachedSegments(self.folder, hash_)

    def target(self, hash_: bytes) -> Path:
        """Where the message is opened into."""
        return self.folder / f"{hash_.hex()}.eml"

    def sweep(self, wanted: Collection[bytes], now: float) -> None:
        """Remove what a process that died left, but for the parts of the notifications that are still `wanted`.

        `now` in epoch seconds.
        """
        names = {hash_.hex() for hash_ in wanted}
        with suppress(FileNotFoundError):
            for path in list(self.folder.iterdir()):
                found = _OURS.fullmatch(path.name)
                if found is None:
                    if _ACCEPTED.fullmatch(path.name) and now - path.stat().st_mtime > STALE:
                        path.unlink(missing_ok=True)
                elif found[2] == "eml":
                    path.unlink(missing_ok=True)
                elif found[1] not in names:
                    shutil.rmtree(path, ignore_errors=True)

    def make_room(self, needed: int, busy: Collection[bytes]) -> bool:
        """Whether so many bytes can be written, once the parts of messages that aren't `busy` have made way."""
        wanted = needed + (SMALL_MARGIN if needed < SMALL else MARGIN)
        lacking = wanted - self._free(self.folder)
        if lacking > 0:
            idle = sum(size for _, size in self._idle(busy))
            self.trim(busy, max(0, idle - lacking))
        return self._free(self.folder) >= wanted

    def trim(self, busy: Collection[bytes], limit: int = LIMIT) -> None:
        """Forget parts of messages that aren't `busy`, the longest untouched first, until `limit` bytes are left."""
        idle = self._idle(busy)
        total = sum(size for _, size in idle)
        for path, size in idle:
            if total <= limit:
                return
            shutil.rmtree(path, ignore_errors=True)
            total -= size

    def _idle(self, busy: Collection[bytes]) -> list[tuple[Path, int]]:
        """Parts of messages that aren't `busy` with their bytes, the longest untouched first."""
        names = {f"{hash_.hex()}.parts" for hash_ in busy}
        found = []
        with suppress(FileNotFoundError):
            for path in self.folder.glob("*.parts"):
                with suppress(OSError):
                    if path.name not in names:
                        size = sum(file.stat().st_size for file in path.iterdir())
                        found.append((path.stat().st_mtime, path, size))
        return [(path, size) for _, path, size in sorted(found)]
