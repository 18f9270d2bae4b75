"""Real databases in a simulated world: in the loop's own thread, so that the same seed gives the same order.

They aren't synced there, since a simulated crash isn't one of this machine; what a crash of the disk does is
tests/simulation/disk.py's affair.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from overlay import stamps
from storage import database, durable, ledger, node_store
from storage.database import Database, DatabaseError, _Work

T = TypeVar("T")
_connect = database.connect


def connect(path: Path, schema: str) -> sqlite3.Connection:
    """As storage/database.py does, but nothing is synced."""
    connection = _connect(path, schema)
    connection.execute("PRAGMA synchronous=OFF")
    return connection


class InlineDatabase(Database):
    """Does each piece of work at once, in a transaction of its own."""

    def __init__(self, path: Path, schema: str) -> None:
        self.path = path
        self._connection = connect(path, schema)
        self._closed = False

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._connection.close()

    def _submit(self, action: Callable[[sqlite3.Connection], T], *, writes: bool) -> Future[T]:
        answer: Future[T] = Future()
        if self._closed:
            raise DatabaseError(f"{self.path} is closed; nothing was done.")
        work = _Work(action, writes, answer)
        answer.set_running_or_notify_cancel()
        for done in self._commit([work]) if writes else [self._run_one(work)]:
            self._answer(done)
        return answer


@contextmanager
def databases() -> Iterator[None]:
    """While the block runs, stores and ledgers are opened so. Stamps cost next to nothing: a world has no CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node_store, "Database", InlineDatabase)
        patch.setattr(ledger, "connect", connect)
        patch.setattr(ledger, "check", lambda connection, path: None)
        patch.setattr(durable, "sync_folder", lambda folder: None)
        patch.setattr(os, "fsync", lambda handle: None)
        patch.setattr(stamps, "FEWEST", 4)
        patch.setattr(stamps, "MOST", 8)
        yield
