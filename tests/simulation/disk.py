"""A disk that forgets what wasn't synced: what a folder would be after a power cut at this moment.

Real files are written by the real code. What it syncs (os.fsync here, xSync of SQLite through a VFS that is put under
it) is noted; `cut` makes a copy in which everything else is as the disk may have left it: of a file that wasn't synced
since it was written each page is the old or the new one, a name that wasn't synced is there or isn't. The same chance
gives the same copy.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PAGE = 4096

_lib = ctypes.CDLL(ctypes.util.find_library("sqlite3"))
# The name is an address that SQLite goes on reading after the call, behind its end too: never a copy of the text.
_OPEN = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
_WRITE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64)
_SYNC = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)


class _Vfs(ctypes.Structure):
    """sqlite3_vfs (sqlite.org/c3ref/vfs.html)."""

    _fields_ = [
        ("version", ctypes.c_int), ("file_size", ctypes.c_int), ("path_size", ctypes.c_int),
        ("next", ctypes.c_void_p), ("name", ctypes.c_char_p), ("data", ctypes.c_void_p), ("open", ctypes.c_void_p),
        *[(f"other{number}", ctypes.c_void_p) for number in range(14)],
    ]  # fmt: skip


class _Methods(ctypes.Structure):
    """sqlite3_io_methods (sqlite.org/c3ref/io_methods.html)."""

    _fields_ = [
        ("version", ctypes.c_int), ("close", ctypes.c_void_p), ("read", ctypes.c_void_p), ("write", ctypes.c_void_p),
        ("truncate", ctypes.c_void_p), ("sync", ctypes.c_void_p),
        *[(f"other{number}", ctypes.c_void_p) for number in range(13)],
    ]  # fmt: skip


class Disk:
    """Watches what is synced below `root`. `on_write` is called before each write of SQLite's, `on_sync` before each
    os.fsync; both of whatever file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.on_write: Callable[[], None] = lambda: None
        self.on_sync: Callable[[], None] = lambda: None
        self._contents: dict[int, bytes] = {}
        self._names: dict[Path, dict[str, int]] = {}
        self._held: dict[int, int] = {}
        self._names[root] = {}

    def synced(self, path: Path) -> None:
        """A file's bytes, or a folder's names, are on the disk now."""
        if path != self.root and self.root not in path.parents:
            return
        if path.is_dir():
            self._names[path] = _names_in(path)
            return
        handle = os.open(path, os.O_RDONLY)
        inode = os.fstat(handle).st_ino
        if inode in self._held:
            os.close(handle)
        else:
            self._held[inode] = handle  # so that no new file gets its number
        self._contents[inode] = path.read_bytes()

    def synced_name(self, path: Path) -> None:
        """SQLite has synced the folder for this file (it does when it syncs a log for the first time)."""
        if self.root in path.parents and path.exists():
            self._names.setdefault(path.parent, {})[path.name] = path.stat().st_ino

    def cut(self, target: Path, chance: random.Random) -> None:
        """Write to `target` what is left of `root` when the power fails now.

        Other threads may go on meanwhile: what they promise or take back in that time may be there or not.
        """
        self._cut(self.root, target, chance)

    def close(self) -> None:
        """Let go of the files."""
        for handle in self._held.values():
            os.close(handle)
        self._held.clear()

    def _cut(self, folder: Path, target: Path, chance: random.Random) -> None:
        target.mkdir(parents=True, exist_ok=True)
        durable, current = self._names.get(folder, {}), _names_in(folder)
        for name in sorted({*durable, *current}):
            old, new = durable.get(name), current.get(name)
            inode = new if old == new else chance.choice((old, new))
            path = folder / name
            if inode is None:
                continue
            if path.is_dir():
                self._cut(path, target / name, chance)
                continue
            try:
                now = path.read_bytes() if inode == new else None
            except FileNotFoundError:  # another thread has removed it since the folder was read
                continue
            (target / name).write_bytes(_left(self._contents.get(inode), now, chance))


def _left(synced: bytes | None, now: bytes | None, chance: random.Random) -> bytes:
    """What is left of a file: page by page what was synced, or what was written since."""
    if now is None or synced == now:
        return synced or b""
    synced = synced or b""
    size = chance.choice((len(synced), len(now)))
    pages = [
        chance.choice((synced[at : at + PAGE], now[at : at + PAGE])).ljust(min(PAGE, size - at), b"\0")
        for at in range(0, size, PAGE)
    ]
    return b"".join(pages)[:size]


def _names_in(folder: Path) -> dict[str, int]:
    return {entry.name: entry.inode() for entry in os.scandir(folder)} if folder.is_dir() else {}


@contextmanager
def watched(disk: Disk) -> Iterator[None]:
    """Have os.fsync and SQLite's syncs noted by `disk`, in this whole process."""
    real = os.fsync

    def fsync(handle: Any) -> None:
        disk.on_sync()
        real(handle)
        number = handle if isinstance(handle, int) else handle.fileno()
        disk.synced(Path(f"/proc/self/fd/{number}").readlink())

    os.fsync = fsync  # type: ignore[assignment]
    try:
        with _under_sqlite(disk):
            yield
    finally:
        os.fsync = real


@contextmanager
def _under_sqlite(disk: Disk) -> Iterator[None]:
    """A VFS that is the default while the block runs: the system's, but that writes and syncs are told of."""
    sqlite3.connect(":memory:").close()  # SQLite is initialised
    _lib.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
    _lib.sqlite3_vfs_find.argtypes = [ctypes.c_char_p]
    _lib.sqlite3_vfs_register.argtypes = [ctypes.POINTER(_Vfs), ctypes.c_int]
    _lib.sqlite3_vfs_unregister.argtypes = [ctypes.POINTER(_Vfs)]
    usual = _lib.sqlite3_vfs_find(None)
    shim = _Vfs.from_buffer_copy(usual.contents)
    shim.name, shim.next = b"forgetful", None
    real_open = _OPEN(usual.contents.open)
    methods: dict[int, _Methods] = {}
    paths: dict[int, Path] = {}
    kept: list[Any] = []

    def on_open(vfs: int, name: int | None, file: int, flags: int, out: int) -> int:
        result = real_open(vfs, name, file, flags, out)
        slot = ctypes.cast(file, ctypes.POINTER(ctypes.c_void_p))
        if result == 0 and name is not None and slot[0]:
            usual_methods = int(slot[0])
            if usual_methods not in methods:
                methods[usual_methods] = wrapped(usual_methods)
            slot[0] = ctypes.addressof(methods[usual_methods])
            paths[file] = Path(os.fsdecode(ctypes.string_at(name)))
        return int(result)

    def wrapped(address: int) -> _Methods:
        own = _Methods.from_buffer_copy(_Methods.from_address(address))
        write, sync = _WRITE(own.write), _SYNC(own.sync)

        def on_write(file: int, data: int, size: int, offset: int) -> int:
            disk.on_write()
            return int(write(file, data, size, offset))

        def on_sync(file: int, flags: int) -> int:
            result = sync(file, flags)
            path = paths.get(file)
            if result == 0 and path is not None:
                disk.synced(path)
                if path.name.endswith(("-wal", "-journal")):
                    disk.synced_name(path)
            return int(result)

        writing, syncing = _WRITE(on_write), _SYNC(on_sync)
        kept.extend((writing, syncing))
        own.write = ctypes.cast(writing, ctypes.c_void_p).value
        own.sync = ctypes.cast(syncing, ctypes.c_void_p).value
        return own

    opening = _OPEN(on_open)
    shim.open = ctypes.cast(opening, ctypes.c_void_p).value
    _lib.sqlite3_vfs_register(ctypes.byref(shim), 1)
    try:
        yield
    finally:
        _lib.sqlite3_vfs_unregister(ctypes.byref(shim))
        _lib.sqlite3_vfs_register(usual, 1)
