"""Caches segments of messages that are being collected on disk, so that an interrupted download can resume.

Theory of operation
-------------------
The spool folder has, for each notification (HASH: its SHA-256 in hexadecimal):

    HASH.parts/NNNN    sealed segment NNNN of its message, as the nodes have it
    HASH.eml           the message, while mail/receive/body_download.py opens it

A message's segments are in one of these states:

    busy       a download is running (BodyDownload passes the hashes of all busy messages); nothing may remove them
    idle       an attempt has failed or was interrupted, and the next one will use them
    removed    the message was filed or given up (`remove`), they made way (`trim`), or nobody wants them (`sweep`)

        busy <----> idle ----> removed
          |                      ^
          +----------------------+

Idle segments take at most LIMIT bytes. A download that needs space removes more of them, those untouched for longest
first, until MARGIN is left free besides the space that it needs (SMALL_MARGIN for a small message, so that ordinary
mail still arrives on a small disk).

`sweep` runs once in a process, before its first download. No message is busy then, so each HASH.eml was left by a
process that died. It also removes segments whose notification is no longer pending, and old files that an interrupted
`send` left in the same folder (mail/cli/user.py, mail/write/submit_draft.py).

Invariants:

- Nothing is lost when all of this disappears: it is a cache, and the nodes have each segment until the message is
  filed. Nothing is synced.
- A segment is used only if its digest is right, so that torn or changed files are fetched again.
- Only sealed bytes stay here. A message in plain text lies in HASH.eml, and only while it is being collected.
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
"""Bytes that idle segments may take; those untouched for longest are removed first."""

MARGIN = 64 << 20
"""Bytes that collecting a large message leaves free on the disk: the outbox and the state need some too."""
SMALL, SMALL_MARGIN = 8 << 20, 1 << 20
"""A message that needs fewer bytes than SMALL leaves only SMALL_MARGIN free: mail must arrive on a small disk too."""

STALE = STALE_TMP
"""Age in seconds at which a half-written message here was left by a program that died, as in a Maildir's tmp/."""

_ACCEPTED = re.compile(r"[0-9a-f]{16}\.eml")
_OURS = re.compile(r"([0-9a-f]{64})\.(parts|eml)")


class NoRoomToReceive(P2PMailError):
    """The disk has no room for a message. The nodes keep it."""

    exit_code = TEMPORARY


class CachedSegments:
    """The cached segments of one message."""

    def __init__(self, spool: Path, hash_: bytes) -> None:
        self.folder = spool / f"{hash_.hex()}.parts"

    def size_of(self, segments: Iterable[Segment]) -> int:
        """Bytes of these segments that are cached. Their digests aren't checked."""
        return sum(segment.size for segment in segments if self._size(segment) == segment.size)

    def load(self, segment: Segment) -> bytes | None:
        """The segment, or None if it isn't cached or is damaged."""
        try:
            data = self._path(segment).read_bytes()
        except OSError:
            return None
        return data if hashlib.sha256(data).digest() == segment.digest else None

    def save(self, segment: Segment, data: bytes) -> None:
        """Cache a segment, if the disk allows."""
        with suppress(OSError):
            durable.make_folder(self.folder)
            self._path(segment).write_bytes(data)

    def remove(self) -> None:
        """Remove all cached segments of the message."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, segment: Segment) -> Path:
        return self.folder / f"{segment.index:04}"

    def _size(self, segment: Segment) -> int:
        try:
            return self._path(segment).stat().st_size
        except OSError:
            return -1


class SegmentCache:
    """The cached segments of all messages that are being collected. For worker threads."""

    def __init__(
        self, folder: Path, free: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free
    ) -> None:
        """`free` returns the number of free bytes on the disk of a folder."""
        self.folder = folder
        self._free = free

    def segments(self, hash_: bytes) -> CachedSegments:
        """The cached segments of this notification's message."""
        return CachedSegments(self.folder, hash_)

    def target(self, hash_: bytes) -> Path:
        """The file into which the message is opened."""
        return self.folder / f"{hash_.hex()}.eml"

    def sweep(self, wanted: Collection[bytes], now: float) -> None:
        """Remove what a process that died left, except the segments of notifications that are still `wanted`.

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
        """Whether `needed` bytes can be written. Removes segments of messages that aren't `busy` if necessary."""
        wanted = needed + (SMALL_MARGIN if needed < SMALL else MARGIN)
        lacking = wanted - self._free(self.folder)
        if lacking > 0:
            idle = sum(size for _, size in self._idle(busy))
            self.trim(busy, max(0, idle - lacking))
        return self._free(self.folder) >= wanted

    def trim(self, busy: Collection[bytes], limit: int = LIMIT) -> None:
        """Remove segments of messages that aren't `busy`, longest untouched first, until `limit` bytes are left."""
        idle = self._idle(busy)
        total = sum(size for _, size in idle)
        for path, size in idle:
            if total <= limit:
                return
            shutil.rmtree(path, ignore_errors=True)
            total -= size

    def _idle(self, busy: Collection[bytes]) -> list[tuple[Path, int]]:
        """Folders of messages that aren't `busy` with their sizes in bytes, longest untouched first."""
        names = {f"{hash_.hex()}.parts" for hash_ in busy}
        found = []
        with suppress(FileNotFoundError):
            for path in self.folder.glob("*.parts"):
                with suppress(OSError):
                    if path.name not in names:
                        size = sum(file.stat().st_size for file in path.iterdir())
                        found.append((path.stat().st_mtime, path, size))
        return [(path, size) for _, path, size in sorted(found)]
