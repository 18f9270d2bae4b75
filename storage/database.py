"""SQLite as this project uses it: WAL, synchronous=FULL, writes of one moment committed together.

A database belongs to one thread of its own; the event loop hands it work and awaits. Work that waits together is
committed together (one fsync for all of it), and nothing is answered before its commit is on disk. No table is
known here.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

GROUP_LIMIT = 256
"""Pieces of work in one commit, so that the first of a flood doesn't wait for the last."""


class DatabaseError(Exception):
    """The database can't be used: what happened, and what to do, is in the message."""


def connect(path: Path, schema: str) -> sqlite3.Connection:
    """Open (or create) the database at `path` and apply `schema` (idempotent SQL).

    Raises DatabaseError when the file is not a database or is damaged; the file is left as it was.
    """
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA busy_timeout=5000")
        connection.executescript(schema)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise DatabaseError(
            f"{path} can't be opened as a database ({error}); it was left as it is."
        ) from error
    return connection


@dataclass(slots=True)
class _Work:
    action: Callable[[sqlite3.Connection], Any]
    writes: bool
    answer: Future[Any]


class Database:
    """One SQLite file with a thread of its own. Use from any event loop; `close` waits for what was handed in."""

    def __init__(self, path: Path, schema: str) -> None:
        self.path = path
        self._connection = connect(path, schema)
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"database {path.name}", daemon=True)
        self._thread.start()

    async def write(self, action: Callable[[sqlite3.Connection], T]) -> T:
        """Run `action` in a transaction; return its result once it is committed to disk.

        An exception from `action` undoes that action alone and is raised here. A failing commit (full disk)
        raises sqlite3.Error here for every action of the group: none of them may be acknowledged.
        """
        return await asyncio.wrap_future(self._submit(action, writes=True))

    async def read(self, action: Callable[[sqlite3.Connection], T]) -> T:
        """Run `action`, which only reads, in order with the writes; return its result."""
        return await asyncio.wrap_future(self._submit(action, writes=False))

    def close(self) -> None:
        """Finish what was handed in, then close. Further work raises DatabaseError."""
        if not self._closed:
            self._closed = True
            self._work.put(None)
            self._thread.join()

    def _submit(self, action: Callable[[sqlite3.Connection], T], *, writes: bool) -> Future[T]:
        if self._closed:
            raise DatabaseError(f"{self.path} is closed.")
        answer: Future[T] = Future()
        self._work.put(_Work(action, writes, answer))
        return answer

    def _run(self) -> None:
        open_for_work = True
        while open_for_work:
            group = [self._work.get()]
            with suppress(queue.Empty):
                while len(group) < GROUP_LIMIT:
                    group.append(self._work.get_nowait())
            open_for_work = None not in group
            self._commit([work for work in group if work is not None])
        self._connection.close()

    def _commit(self, group: list[_Work]) -> None:
        """Run a group; answer reads at once, writes after the commit that makes them durable."""
        done: list[tuple[_Work, Any]] = []
        try:
            writing = any(work.writes for work in group)
            if writing:
                self._connection.execute("BEGIN IMMEDIATE")
            for work in group:
                if work.answer.set_running_or_notify_cancel():
                    self._run_one(work, done)
            if writing:
                self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            for work in group:
                if not work.answer.done() and not work.answer.cancelled():
                    work.answer.set_exception(error)
        else:
            for work, result in done:
                work.answer.set_result(result)

    def _run_one(self, work: _Work, done: list[tuple[_Work, Any]]) -> None:
        if not work.writes:
            try:
                done.append((work, work.action(self._connection)))
            except Exception as error:
                work.answer.set_exception(error)
            return
        self._connection.execute("SAVEPOINT one")
        try:
            result = work.action(self._connection)
        except Exception as error:
            self._connection.execute("ROLLBACK TO one")
            work.answer.set_exception(error)
        else:
            done.append((work, result))
        self._connection.execute("RELEASE one")
