"""The one way to put a file on disk that is still there after a power cut.

Written to a temporary file beside its place, synced, renamed over it, and the folder synced too: `mailbox.Maildir`
and most programs leave the last step out, and lose the name while they keep the bytes. What lives here writes
files; what to write, and when it may be acknowledged, is decided elsewhere.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def sync_file(path: Path) -> None:
    """Make the bytes of an existing file durable (its name may not be yet). Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable (fsync of the directory). Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path, mode: int = 0o700) -> None:
    """Create `folder` and its parents, durably. Does nothing where it exists. Raises OSError."""
    if folder.is_dir():
        return
    make_folder(folder.parent, mode)
    folder.mkdir(mode=mode, exist_ok=True)
    sync_folder(folder.parent)


@contextmanager
def writing(path: Path, mode: int = 0o600) -> Iterator[BinaryIO]:
    """A file open for writing that appears at `path`, whole and durable, when the block ends without an error.

    On an error before that, nothing appears at `path`, what stood there is untouched, and the temporary file is
    gone. Only when the very last step fails, the sync of the folder, the new file is there, whole, and may be gone
    again after a power cut. Either way OSError (ENOSPC, EIO) is raised: the caller must then refuse whatever it was
    about to acknowledge.
    """
    # The temporary name is short and its own: a name of 255 bytes can be written too.
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):  # the first error is the one to tell
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Put `data` at `path` durably, replacing what was there. Raises OSError."""
    with writing(path, mode) as file:
        file.write(data)


def move(source: Path, target: Path) -> None:
    """Rename within one filesystem, durably on both sides. Raises OSError.

    The bytes of `source` must be durable already (`sync_file`, when it wasn't written by `writing`). The side where
    the name appears is synced first, so that a power cut leaves the file under one of the names or both.
    """
    source.replace(target)
    sync_folder(target.parent)
    if source.parent != target.parent:
        sync_folder(source.parent)


def remove(path: Path) -> None:
    """Delete a file durably; a file (or its folder) that is already gone is fine. Raises OSError."""
    path.unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        sync_folder(path.parent)
