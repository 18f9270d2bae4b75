"""Whether the disks have room for what is about to be written: asked before, so that a refusal comes at once.

A promise of nothing: another program may fill the disk meanwhile. What is written is checked as ever.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from storage.errors import TEMPORARY, P2PMailError


class NoDiskSpace(P2PMailError, OSError):
    """The disk is too full for it; nothing was written."""

    exit_code = TEMPORARY

    def __init__(self, folder: Path, needed: int, free: int) -> None:
        super().__init__(
            errno.ENOSPC,
            f"The disk with {folder} is too full: {format_size(needed)} are needed and {format_size(free)} are free."
            " Nothing was kept; make room, then try again",
        )


def free_bytes(folder: Path) -> int:
    """Bytes that this user may still write to the file system of `folder`. Raises OSError."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def require_room(needs: Mapping[Path, int], free: Callable[[Path], int] | None = None) -> None:
    """Raise NoRoom unless each folder has room for its bytes; folders on one file system count together.

    Of a folder that isn't there yet its parent is asked. What can't be asked is taken to have room.
    """
    free = free or free_bytes
    by_device: dict[int, tuple[Path, int]] = {}
    for folder, needed in needs.items():
        there = next((place for place in (folder, *folder.parents) if place.exists()), folder)
        with suppress(OSError):
            device = there.stat().st_dev
            by_device[device] = there, by_device.get(device, (there, 0))[1] + needed
    for there, needed in by_device.values():
        try:
            left = free(there)
        except OSError:
            continue
        if left < needed:
            raise NoDiskSpace(there, needed, left)


def format_size(size: int) -> str:
    """A size as a user reads it: 40.0 kB, 2.5 MB."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
