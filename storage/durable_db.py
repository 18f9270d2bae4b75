"""A small database of facts that must not be lost: private, synced at every commit, used from any thread.

The user's outbox and state are such ledgers. (The node's store, which takes hundreds of writes a second, has the
thread of storage/database.py instead.) No table is known here.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from storage import durable
from storage.database import DatabaseError, check, connect, explain
from storage.read_only_db import open_to_read

T = TypeVar("T")


_making = threading.Lock()
"""Held while a file is made: no connection of this process may be on it when its first handle is closed."""


def _make_private(path: Path) -> None:
    """Make the file, readable by the user alone, where there is none yet. Raises OSError.

    One that is there is never opened but by SQLite: closing any other handle on it drops all POSIX locks that this
    process has on it, and another process would then take the log away under us (sqlite.org/howtocorrupt, 2.2).
    """
    with _making, suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        durable.sync_folder(path.parent)


class DurableDB:
    """The database at `path`, whose tables are those of `schema` (idempotent SQL) in version `version`."""

    def __init__(
        self,
        path: Path,
        schema: str,
        version: int,
        *,
        upgrades: Mapping[int, tuple[str, ...]] | None = None,
        checked: bool = True,
    ) -> None:
        """Open or create it; unless `checked` is false, look for damage first (about a second for a GiB).

        `upgrades` are the statements that make the next version of an older one, by the older one's number.

        Raises DatabaseError; DatabaseDamaged when it is damaged. It is then left as it is.
        """
        self.path = path
        self._lock = threading.Lock()  # one thread at a time on the connection; a transaction is never shared
        try:
            durable.make_folder(path.parent)
            _make_private(path)
        except OSError as error:
            raise explain(path, error, "can't be opened", "nothing was changed") from error
        self._connection = connect(path, "")
        try:
            if checked:
                check(self._connection, path)
            self._set_up(schema, version, upgrades or {})
        except BaseException:
            self._connection.close()
            raise

    @classmethod
    def to_read(cls, path: Path, version: int) -> tuple[DurableDB, bool]:
        """The database without writing to its disk, and whether it shows everything that was written.

        Raises DatabaseError, also for another version than `version`.
        """
        database = cls.__new__(cls)
        database.path, database._lock = path, threading.Lock()
        database._connection, whole = open_to_read(path)
        if database.read(lambda connection: connection.execute("PRAGMA user_version").fetchone()) != (version,):
            database.close()
            raise DatabaseError(f"{path} was written by another version of p2pmail.")
        return database, whole

    def _set_up(self, schema: str, version: int, upgrades: Mapping[int, tuple[str, ...]]) -> None:
        try:
            (found,) = self._connection.execute("PRAGMA user_version").fetchone()
            if found == 0:
                self._connection.executescript(f"{schema}; PRAGMA user_version={version};")
            while 0 < found < version and found in upgrades:
                self._connection.execute("BEGIN IMMEDIATE")  # another process may be at it too
                (found,) = self._connection.execute("PRAGMA user_version").fetchone()
                if found in upgrades:
                    for statement in upgrades[found]:
                        self._connection.execute(statement)
                    found += 1
                    self._connection.execute(f"PRAGMA user_version={found}")
                self._connection.execute("COMMIT")
            if found not in (0, version):
                raise DatabaseError(f"{self.path} was written by a newer p2pmail (format {found}); use that one.")
        except sqlite3.Error as error:
            raise explain(self.path, error, "can't be set up", "it was left as it is") from error

    def read(self, action: Callable[[sqlite3.Connection], T]) -> T:
        """Run `action`, which only reads. Raises DatabaseError."""
        with self._lock:
            try:
                return action(self._connection)
            except sqlite3.Error as error:
                raise explain(self.path, error, "can't be read", "it was left as it is") from error

    def write(self, action: Callable[[sqlite3.Connection], T]) -> T:
        """Run `action` in a transaction; what it did is on disk when this returns, or undone when it raises.

        Raises DatabaseError (full disk, damage), or what `action` raises.
        """
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                result = action(self._connection)
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._undo()
                raise explain(self.path, error, "can't be written", "nothing of this was kept") from error
            except BaseException:
                self._undo()
                raise
            return result

    def close(self) -> None:
        """Close it; it can't be used any more."""
        with self._lock, suppress(sqlite3.Error):
            self._connection.close()

    def _undo(self) -> None:
        with suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
