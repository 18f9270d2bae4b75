"""Real databases in a simulated world: in the loop's own thread, so that the same seed gives the same order.

They aren't synced there, since a simulated crash isn't one of this machine; what a crash of the disk does is
tests/simulation/disk.py's affair.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

from overlay.limits import stamps
from storage import database, durable, durable_db
from storage.database import Database, DatabaseError, _Work
from storage.node import store

T = TypeVar("T")
_connect = database.connect


def connect(path: Path, schema: str) -> sqlite3.Connection:
    """As storage/database.py does, but nothing is synced."""
    connection = _connect(path, schema)
    connection.execute("PRAGMA synchronous=OFF")
    return connection


def connect_alone(path: Path, schema: str) -> sqlite3.Connection:
    """The same for a node's store, which no other program opens: what undoes a transaction is in memory."""
    connection = connect(path, schema)
    for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=MEMORY"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return connection


class _InlineFuture(Future[Any]):
    """A future without the locks of one that threads share."""

    def __init__(self) -> None:
        self.result: Any = None
        self.error: BaseException | None = None

    def set_result(self, result: Any) -> None:
        self.result = result

    def set_exception(self, exception: BaseException | None) -> None:
        self.error = exception


class InlineDatabase(Database):
    """Does each piece of work at once, in a transaction of its own."""

    def __init__(self, path: Path, schema: str) -> None:
        self.path = path
        self._connection = connect_alone(path, schema)
        self._closed = False

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._connection.close()

    async def write(self, action: Callable[[sqlite3.Connection], T]) -> T:
        return await self._do(action, writes=True)

    async def read(self, action: Callable[[sqlite3.Connection], T]) -> T:
        return await self._do(action, writes=False)

    async def _do(self, action: Callable[[sqlite3.Connection], T], *, writes: bool) -> T:
        if self._closed:
            raise DatabaseError(f"{self.path} is closed; nothing was done.")
        answer = _InlineFuture()
        work = _Work(action, writes, answer)
        for done in self._commit([work]) if writes else [self._run_one(work)]:
            self._answer(done)
        await asyncio.sleep(0)  # others get their turn meanwhile, as they do beside a thread
        if answer.error is not None:
            raise answer.error
        return cast(T, answer.result)


@contextmanager
def databases() -> Iterator[None]:
    """While the block runs, stores and ledgers are opened so.

    Stamps cost next to nothing, since a world has no CPU, and the same everywhere: of how many bits one is that was
    made for fewer hangs on what is sealed, which no seed decides.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "Database", InlineDatabase)
        patch.setattr(durable_db, "connect", connect)
        patch.setattr(durable_db, "check", lambda connection, path: None)
        patch.setattr(durable, "sync_folder", lambda folder: None)
        patch.setattr(os, "fsync", lambda handle: None)
        patch.setattr(stamps, "FEWEST", 4)
        patch.setattr(stamps, "MOST", 4)
        yield
