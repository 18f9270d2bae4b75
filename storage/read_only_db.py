"""SQLite files read without writing a byte: on a read-only or full disk, or in somebody else's profile.

A database with a write-ahead log usually needs to write beside itself even to be read; here are the ways around that.
For commands that look and end: a process that has the same file open for writing would lose its locks by the copying.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from storage.database import explain


def open_to_read(path: Path) -> tuple[sqlite3.Connection, bool]:
    """A connection that writes nothing, and whether it shows everything that was written. Raises DatabaseError.

    Without the last commits (False) where the log has some and there is no place to put log and database together.
    """
    with suppress(sqlite3.Error):
        return _connect(path, "mode=ro"), True
    log = path.with_name(f"{path.name}-wal")
    try:
        if not log.exists() or not log.stat().st_size:
            return _connect(path, "mode=ro&immutable=1"), True
        with suppress(OSError, sqlite3.Error):
            return _copied(path, log), True
        return _connect(path, "mode=ro&immutable=1"), False
    except (OSError, sqlite3.Error) as error:
        raise explain(path, error, "can't be read", "it was left as it is") from error


def _connect(path: Path, how: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?{how}", uri=True, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA busy_timeout=5000")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _copied(path: Path, log: Path) -> sqlite3.Connection:
    """Database and log put together in a temporary folder, then in memory."""
    with tempfile.TemporaryDirectory(prefix="p2pmail-") as folder:
        copy = Path(folder) / "copy"
        shutil.copyfile(path, copy)
        shutil.copyfile(log, copy.with_name("copy-wal"))
        with closing(sqlite3.connect(copy)) as source:
            return in_memory(source)


def in_memory(source: sqlite3.Connection) -> sqlite3.Connection:
    """All that a database holds, in memory. Raises sqlite3.Error."""
    memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    try:
        source.backup(memory)
    except BaseException:
        memory.close()
        raise
    return memory
