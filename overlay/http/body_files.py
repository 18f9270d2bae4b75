"""The ends of a transfer over HTTP that are files: read on the way out, written and hashed on the way in.

All of it is for threads or awaits one; nothing here is synced to disk, that is the affair of whoever keeps a file.
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
"""Bytes written, hashed or read by one call of a thread."""
SLICE = 64 * 1024
"""Bytes sent at a time: each is a sign of life."""


def private(path: str, flags: int) -> int:
    """An opener for files that nobody else may read."""
    return os.open(path, flags, 0o600)


def measure(path: Path) -> tuple[int, bytes]:
    """A file's size in bytes and its SHA-256. Raises OSError."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
        return file.tell(), digest


def write(file: BinaryIO, hasher: hashlib._Hash, pieces: Sequence[bytes]) -> None:
    """Hash and write what came. Flushed, so that a full disk shows here. Raises OSError."""
    for piece in pieces:
        hasher.update(piece)
        file.write(piece)
    file.flush()


class Source:
    """A body on its way out, in slices; `moved` is called for each, so that a slow way isn't taken for a dead one."""

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
    """A file that grows while it is fetched, to `limit` bytes; `resume`: it goes on from what is there."""

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
        """The answer's head: go on where the file ends, or start over; bytes that may come. Raises NoAnswer."""
        if status == 206:
            if not headers.get("Content-Range", "").startswith(f"bytes {self.size}-"):
                raise NoAnswer("a node sends another part than was asked for")
        elif self.size:  # all of it comes (200), or what is here is longer than all of it (416)
            self.start_over()
        return self._limit - self.size

    async def add(self, piece: bytes) -> None:
        """Append what came. Raises OSError."""
        await asyncio.to_thread(write, self._file, self.hasher, [piece])
        self.size += len(piece)

    def close(self, *, keep: bool) -> None:
        """Close the file, and remove it unless it is to be kept. Raises OSError."""
        self._file.close()
        if not keep:
            self._path.unlink(missing_ok=True)

    def start_over(self) -> None:
        """Forget what is there."""
        self._file.truncate(0)
        self.hasher = hashlib.sha256()
        self.size = 0
