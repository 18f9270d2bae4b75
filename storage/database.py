"""SQLite as this project uses it: WAL, synchronous=FULL, writes of one moment committed together.

Theory of operation
-------------------
One thread owns the connection. The event loop puts actions into a queue and awaits their futures; the thread takes all
that wait, GROUP_LIMIT at most, as one group. A group passes through these steps:

    1. Taken: futures that were cancelled meanwhile are dropped. From here on a future can't be cancelled.
    2. Reads run, one after the other, and are answered at once.
    3. Writes run in one transaction, in the order in which they were handed in. Each has a savepoint, unless it is the
       only one.
    4. COMMIT syncs the log once for the whole group. Then every write of the group is answered.

How a write can end:

- Its action returns: it is answered with the result after the commit.
- Its action raises: only that action is undone. It is answered after the commit too, because its refusal may rest on
  what another write of the group did.
- The commit fails, or SQLite undoes the whole transaction at a statement, as it does on a full disk
  (`_run_in_savepoint` detects that): nothing of the group is kept, and each of its writes raises DatabaseError.

`close` puts None into the queue and waits for the thread. What was handed in before is still done; what comes later is
refused.

Invariants:

- No write is answered with a result before it is on disk.
- A read sees every write that was answered before the read was handed in, and nothing uncommitted.
- Every future that was taken is answered: an action may raise anything without ending the thread.
- Once it is open only actions use the connection, and only this thread runs them. So they may keep state of their own
  without a lock.
- Nothing follows the None in the queue (`_gate`), so no caller waits for a thread that has ended.

No table is known here. After an unclean end SQLite replays its log when the file is opened again.
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

from storage import durable
from storage.errors import TEMPORARY, P2PMailError

T = TypeVar("T")

GROUP_LIMIT = 256
"""Pieces of work in one commit, so that the first of a flood doesn't wait for the last."""

WAL_KEPT = 8 * 1024 * 1024
"""Bytes of write-ahead log left on disk after a checkpoint, so that one busy hour doesn't keep its space for ever."""

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_OURS = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError)
"""Errors of the action itself, which are raised as they are; all others say that the file or the disk failed."""


class DatabaseError(P2PMailError):
    """The database can't be used: what happened, and what to do, is in the message."""

    exit_code = TEMPORARY


class DatabaseDamaged(DatabaseError):
    """The file is not a database or is damaged. It was left as it is; storage.node.integrity sets such a file aside."""


def connect(path: Path, schema: str) -> sqlite3.Connection:
    """Open (or create) the database at `path` and apply `schema` (idempotent SQL).

    Raises DatabaseDamaged when the file is not a database or is damaged, DatabaseError when it can't be opened
    (permissions, full disk, another version); the file is left as it was.
    """
    connection: sqlite3.Connection | None = None
    try:
        fresh = not path.exists()
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        # Where there is no WAL (some network filesystems) only EXTRA also syncs the deletion of the journal.
        connection.execute("PRAGMA synchronous=FULL" if mode == "wal" else "PRAGMA synchronous=EXTRA")
        connection.execute(f"PRAGMA journal_size_limit={WAL_KEPT}")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA busy_timeout=5000")
        connection.executescript(schema)
        if fresh:
            durable.sync_folder(path.parent)
    except (sqlite3.Error, OSError) as error:
        if connection is not None:
            connection.close()
        raise explain(path, error, "can't be opened as a database", "it was left as it is") from error
    return connection


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Read the whole database and look for damage (about a second for a GiB). Raises DatabaseDamaged."""
    try:
        findings = [str(row[0]) for row in connection.execute("PRAGMA quick_check(1)")]
    except sqlite3.Error as error:
        raise explain(path, error, "can't be read", "it was left as it is") from error
    if findings != ["ok"]:
        raise DatabaseDamaged(f"{path} is damaged ({findings[0]}); it was left as it is.")


def explain(path: Path, error: BaseException, happened: str, kept: str) -> DatabaseError:
    """The readable error for an sqlite3.Error or OSError at `path`; DatabaseDamaged when the file itself is bad."""
    # The low byte is the error, the rest its extended form (SQLITE_CORRUPT_INDEX is SQLITE_CORRUPT too).
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    kind = DatabaseDamaged if code in _DAMAGE else DatabaseError
    return kind(f"{path} {happened} ({error}); {kept}.")


@dataclass(slots=True)
class _Work:
    action: Callable[[sqlite3.Connection], Any]
    writes: bool
    answer: Future[Any]


@dataclass(slots=True)
class _Done:
    work: _Work
    result: Any = None
    error: BaseException | None = None


class Database:
    """One SQLite file with a thread of its own. Use from any event loop; `close` waits for what was handed in.

    Actions run in that thread, in a transaction that isn't theirs: they neither BEGIN nor COMMIT, and use no
    `executescript` (it commits). They may keep state that only actions touch.
    """

    def __init__(self, path: Path, schema: str) -> None:
        self.path = path
        self._connection = connect(path, schema)
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._closed = False
        self._gate = threading.Lock()  # nothing enters the queue behind the None that ends it
        self._thread = threading.Thread(target=self._run, name=f"database {path.name}", daemon=True)
        self._thread.start()

    async def write(self, action: Callable[[sqlite3.Connection], T]) -> T:
        """Run `action` in a transaction; return its result once it is committed to disk.

        An exception from `action` undoes that action alone and is raised here. A failing disk (ENOSPC, EIO, at a
        statement or at the commit) raises DatabaseError here for every action of the group: none of them may be
        acknowledged. A caller that is cancelled doesn't know whether it was written.
        """
        return await asyncio.wrap_future(self._submit(action, writes=True))

    async def read(self, action: Callable[[sqlite3.Connection], T]) -> T:
        """Run `action`, which only reads; return its result without waiting for a commit.

        It sees every write that was answered before it was handed in, and nothing that isn't on disk. Raises what
        `action` raises, and DatabaseError when the file can't be read.
        """
        return await asyncio.wrap_future(self._submit(action, writes=False))

    def close(self) -> None:
        """Finish what was handed in, then close. Further work raises DatabaseError. May be called again."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._work.put(None)
        self._thread.join()

    def _submit(self, action: Callable[[sqlite3.Connection], T], *, writes: bool) -> Future[T]:
        answer: Future[T] = Future()
        with self._gate:
            if self._closed:
                raise DatabaseError(f"{self.path} is closed; nothing was done.")
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
            # From here on a future can't be cancelled any more, so that answering it can't fail.
            works = [work for work in group if work is not None and work.answer.set_running_or_notify_cancel()]
            # Reads first: they see what is on disk, and don't wait for the fsync of the others.
            for work in works:
                if not work.writes:
                    self._answer(self._run_one(work))
            writes = [work for work in works if work.writes]
            if writes:
                for done in self._commit(writes):
                    self._answer(done)
        with suppress(sqlite3.Error):  # everything acknowledged is in the log, whether or not the checkpoint works
            self._connection.close()

    def _commit(self, writes: list[_Work]) -> list[_Done]:
        """Run the writes in one transaction; nobody is answered before it is on disk, refusals included.

        (A refusal may rest on what another action of the same group wrote.)
        """
        try:
            if self._connection.in_transaction:  # an earlier ROLLBACK failed as well
                self._connection.execute("ROLLBACK")
            self._connection.execute("BEGIN IMMEDIATE")
            if len(writes) == 1:  # the savepoint would be the transaction itself
                done = [self._run_one(writes[0])]
                if done[0].error is not None:
                    self._roll_back()
                    return done
            else:
                done = [self._run_in_savepoint(work) for work in writes]
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            return [_Done(work, error=error) for work in writes]
        return done

    def _run_in_savepoint(self, work: _Work) -> _Done:
        self._connection.execute("SAVEPOINT one")
        done = self._run_one(work)
        if done.error is not None:
            if not self._connection.in_transaction:
                # A full or failing disk makes SQLite undo the whole transaction: nothing of the group is left.
                if isinstance(done.error, sqlite3.Error):
                    raise done.error
                raise sqlite3.OperationalError(str(done.error)) from done.error
            self._connection.execute("ROLLBACK TO one")
        self._connection.execute("RELEASE one")
        return done

    def _run_one(self, work: _Work) -> _Done:
        try:
            return _Done(work, result=work.action(self._connection))
        except BaseException as error:  # whatever it is belongs to the caller; this thread must live
            return _Done(work, error=error)

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _answer(self, done: _Done) -> None:
        error = done.error
        if error is None:
            done.work.answer.set_result(done.result)
        elif isinstance(error, sqlite3.Error) and not isinstance(error, _OURS):
            # One exception object each: several tasks raise them.
            failed = explain(self.path, error, "failed", "nothing of this was kept")
            failed.__cause__ = error
            done.work.answer.set_exception(failed)
        elif isinstance(error, StopIteration):  # asyncio can't carry it: its caller would wait for ever
            done.work.answer.set_exception(RuntimeError("the action raised StopIteration"))
        else:
            done.work.answer.set_exception(error)
