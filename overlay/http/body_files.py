"""Files as the source or target of an HTTP transfer: read when sending, written and hashed when receiving.

Blocking calls run in threads. Nothing is synced to disk here; that is up to the code that keeps the file.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from overlay.errors import NoAnswer

BLOCK = 256 * 1024
"""Bytes written, hashed or read by one call in a thread."""
SLICE = 64 * 1024
"""Bytes sent at a time; each of them counts as progress."""


def private(path: str, flags: int) -> int:
    """An opener for files that only this user may read."""
    return os.open(path, flags, 0o600)


def measure(path: Path) -> tuple[int, bytes]:
    """A file's size in bytes and its SHA-256. Raises OSError."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
        return file.tell(), digest


def write(file: BinaryIO, hasher: hashlib._Hash, pieces: Sequence[bytes]) -> None:
    """Hash and write the pieces, and flush, so that a full disk is noticed here. Raises OSError."""
    for piece in pieces:
        hasher.update(piece)
        file.write(piece)
    file.flush()


class Source:
    """A body to be sent in slices; `moved` is called for each, so that a slow connection doesn't count as dead."""

    def __init__(self, content: bytes | Path, moved: Callable[[], None]) -> None:
        self._content = content
        self._moved = moved
        self._file: BinaryIO | None = None

    async def __aiter__(self) -> AsyncIterator[bytes | memoryview]:
        at = 0
        while block := await self._next(at):
            for start in range(0, len(block), SLICE):
                self._moved()
                yield memoryview(block)[start : start + SLICE]
            at += len(block)

    async def _next(self, at: int) -> bytes:
        if isinstance(self._content, bytes):
            return b"" if at else self._content
        if self._file is None:
            self._file = await asyncio.to_thread(self._content.open, "rb")
        return await asyncio.to_thread(self._file.read, BLOCK)

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._file is not None:
            self._file.close()


class GrowingFile:
    """A file that is being downloaded, at most `limit` bytes; `resume`: keep what is there and continue."""

    def __init__(self, path: Path, limit: int, *, resume: bool) -> None:
        self._path = path
        self._limit = limit
        self._file: BinaryIO = open(path, "a+b", opener=private)  # noqa: SIM115 - closed by close()
        self.hasher = hashlib.sha256()
        self.size = 0
        self._file.seek(0)
        while resume and self.size <= limit and (block := self._file.read(BLOCK)):
            self.hasher.update(block)
            self.size += len(block)
        if not resume or self.size > limit:
            self.start_over()

    def begin(self, status: int, headers: Mapping[str, str]) -> int:
        """Continue at the end of the file or start over, by the status; bytes that may follow. Raises NoAnswer."""
        if status == 206:
            if not headers.get("Content-Range", "").startswith(f"bytes {self.size}-"):
                raise NoAnswer("a node sends another part than was asked for")
        elif self.size:  # the whole object follows (200), or the file is longer than it (416)
            self.start_over()
        return self._limit - self.size

    async def add(self, piece: bytes) -> None:
        """Append a piece. Raises OSError."""
        await asyncio.to_thread(write, self._file, self.hasher, [piece])
        self.size += len(piece)

    def close(self, *, keep: bool) -> None:
        """Close the file, and remove it unless it is to be kept. Raises OSError."""
        self._file.close()
        if not keep:
            self._path.unlink(missing_ok=True)

    def start_over(self) -> None:
        """Empty the file."""
        self._file.truncate(0)
        self.hasher = hashlib.sha256()
        self.size = 0
