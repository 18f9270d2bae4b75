"""The index of all folders: lists of 100,000 messages at once, full-text search, unread counts.
 A copy of what the folders hold, which is made again whenever it is damaged: nothing is kept here alone. What a
message says is read by a function that mail/ hands in; bringing the index up to date is in
storage/user/index_update.py."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeVar

from storage import database
from storage.errors import TEMPORARY, P2PMailError
from storage.user import index_schema, search
from storage.user.folders import QUARANTINE, Counts, FolderEntry, Folders, entry_of
from storage.user.index_update import Changes, Progress, Summarise, Update, drop, insert, read_message, relocate

T = TypeVar("T")

_ROW = "m.id, f.name, m.place, m.flags, m.date, m.size, m.attachments, m.message_id, m.sender, m.recipients, m.subject"
_ROWS = f"SELECT {_ROW}, m.in_reply_to, m.refs FROM message m JOIN folder f ON f.id = m.folder"  # noqa: S608
_AT_ONCE = 500
"""Rows of one statement; SQLite takes 999 parameters at least."""


class IndexUnavailable(P2PMailError):
    """The index can't be used now; the mail itself is untouched. The message says what to do."""

    exit_code = TEMPORARY


@dataclass(frozen=True, slots=True)
class Row:
    """A message as a list shows it. `date` in seconds since the epoch, `size` in bytes, `flags` sorted letters."""

    id: int
    folder: str
    unique: str
    message_id: str
    sender: str
    recipients: tuple[str, ...]
    subject: str
    date: float
    flags: str
    size: int
    attachments: bool
    in_reply_to: str
    references: tuple[str, ...]
    place: str = ""
    """Where it lay in its folder when the index looked; what `Folders` takes as `known`."""
    who: str = ""
    """The sender as a list shows it, which mail/mailbox.py decides."""

    @property
    def unread(self) -> bool:
        """Whether nobody has read it yet."""
        return "S" not in self.flags


class _Channel:
    """A connection that one thread at a time uses; its lock is held for one statement or transaction only."""

    def __init__(self, path: Path, opens: Callable[[Path], sqlite3.Connection]) -> None:
        self.lock = threading.Lock()
        self._path = path
        self._opens = opens
        self._connection: sqlite3.Connection | None = None

    def run(self, action: Callable[[sqlite3.Connection], T], *, writes: bool = False) -> T:
        with self.lock:
            if self._connection is None:
                self._connection = self._opens(self._path)
            connection = self._connection
            if not writes:
                return action(connection)
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = action(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return result

    def close(self) -> None:
        with self.lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


class Index:
    """The index at `path`. Safe to use from several threads: lists, searches and updates don't wait for each other."""

    def __init__(self, path: Path, now: Callable[[], float] = time.time, *, in_memory: bool = False) -> None:
        """`in_memory`: a copy in memory, for where nothing can be written; `update` makes it true all the same."""
        self.path = path
        self._in_memory = in_memory
        self.damaged: Path | None = None
        """Where a damaged file was set aside; the index is empty after that until the next `update`."""
        self._now = now
        opens = index_schema.open_copy if in_memory else index_schema.open_index
        self._lists = _Channel(path, opens)
        self._searches, self._writes = (
            (self._lists, self._lists) if in_memory else (_Channel(path, opens), _Channel(path, opens))
        )
        self._updating = threading.Lock()
        self._recovering = threading.Lock()
        self._generation = 0  # counts the files set aside: what began on an older one begins again
        self._inode = 0
        self._run(self._lists, lambda connection: None)
        self._inode = 0 if in_memory else path.stat().st_ino

    @classmethod
    def open(cls, path: Path, now: Callable[[], float] = time.time) -> Index:
        """Open or create the index. A damaged file is set aside (see `damaged`). Raises IndexUnavailable."""
        return cls(path, now)

    def close(self) -> None:
        """Close the file; the index opens again when it is used again."""
        for channel in (self._lists, self._searches, self._writes):
            channel.close()

    # -- asking

    def ids(self, folder: str) -> array[int]:
        """The rows of a folder's messages, newest first."""
        sql = "SELECT id FROM message WHERE folder = (SELECT id FROM folder WHERE name = ?) ORDER BY date DESC, id DESC"
        return self._run(self._lists, lambda connection: _ids(connection, sql, (folder,)))

    def rows(self, ids: Sequence[int]) -> list[Row]:
        """These messages, in this order; one that is gone meanwhile is left out."""
        found: dict[int, Row] = {}
        for start in range(0, len(ids), _AT_ONCE):
            some = list(ids[start : start + _AT_ONCE])
            sql = f"{_ROWS} WHERE m.id IN ({','.join('?' * len(some))})"
            found.update((row.id, row) for row in self._run(self._lists, partial(_rows, sql=sql, parameters=some)))
        return [found[number] for number in ids if number in found]

    def row(self, number: int) -> Row | None:
        """One message, or None when it is gone."""
        return next(iter(self.rows([number])), None)

    def by_message_id(self, message_id: str) -> list[Row]:
        """The messages with this Message-ID: several when copies lie in several folders."""
        return self._run(
            self._lists, lambda connection: _rows(connection, f"{_ROWS} WHERE m.message_id = ?", [message_id])
        )

    def by_unique(self, unique: str) -> list[Row]:
        """The messages whose file has this name, its flags aside."""
        sql = f"{_ROWS} WHERE instr(m.place, ?)"
        found = self._run(self._lists, lambda connection: _rows(connection, sql, [unique]))
        return [row for row in found if row.unique == unique]

    def shared_message_ids(self) -> set[str]:
        """The Message-IDs that several messages have."""
        sql = "SELECT message_id FROM message WHERE message_id != '' GROUP BY message_id HAVING count(*) > 1"
        return self._run(self._lists, lambda connection: {name for (name,) in connection.execute(sql)})

    def correspondents(self, sent: str, others: Sequence[str], limit: int) -> tuple[set[str], set[str]]:
        """The people in the newest `limit` messages of the folder `sent`, and the senders of the `limit` that came last
        outside `sent` and `others`."""
        to = """SELECT sender || char(10) || recipients FROM message
            WHERE folder = (SELECT id FROM folder WHERE name = ?) ORDER BY date DESC LIMIT ?"""
        without = (sent, *others)
        marks = ",".join("?" * len(without))
        by = f"""SELECT sender FROM message
            WHERE folder NOT IN (SELECT id FROM folder WHERE name IN ({marks})) ORDER BY id DESC LIMIT ?"""  # noqa: S608

        def ask(connection: sqlite3.Connection) -> tuple[set[str], set[str]]:
            people = {one for (text,) in connection.execute(to, (sent, limit)) for one in text.split("\n") if one}
            return people, {sender for (sender,) in connection.execute(by, (*without, limit))}

        return self._run(self._lists, ask)

    def counts(self) -> dict[str, Counts]:
        """Messages and unread messages of every folder that the index knows."""
        sql = """SELECT name, (SELECT count(*) FROM message WHERE folder = f.id),
            (SELECT count(*) FROM message WHERE folder = f.id AND unread = 1) FROM folder f"""
        answer = self._run(self._lists, lambda connection: connection.execute(sql).fetchall())
        return {name: Counts(total, unread) for name, total, unread in answer}

    def search(self, query: str | search.Query, folder: str | None = None, limit: int = -1) -> array[int]:
        """The rows that the query finds, newest first, at most `limit` (-1: all); see storage/user/search.py.

        Without a folder Quarantine is left out. Raises search.SearchError for a query that can't be understood.
        """
        asked = search.parse(query) if isinstance(query, str) else query
        if asked.empty:
            return array("q")
        where = list(asked.conditions)
        parameters: list[str | float] = list(asked.parameters)
        if asked.match:
            where.append("id IN (SELECT rowid FROM text WHERE text MATCH ?)")
            parameters.append(asked.match)
        folder = folder or asked.folder
        here = "folder = " if folder else "folder <> "
        where.append(here + "ifnull((SELECT id FROM folder WHERE name = ? COLLATE NOCASE), 0)")  # noqa: S608
        parameters += [folder or QUARANTINE, limit]
        sql = f"SELECT id FROM message WHERE {' AND '.join(where)} ORDER BY date DESC, id DESC LIMIT ?"  # noqa: S608
        return self._run(self._searches, lambda connection: _ids(connection, sql, parameters))

    # -- changing

    def update(
        self,
        folders: Folders,
        summarise: Summarise,
        progress: Progress | None = None,
        *,
        everything: bool = False,
    ) -> Changes:
        """Make the index say what the folders hold: new, removed, moved and reflagged messages.

        Folders whose names haven't changed since the last time are passed over (unless `everything`). `summarise`
        reads one file; `progress` hears (done, all) for messages read, newest first, and may raise to stop: what is
        done stays done. Two updates at once wait for each other. Raises IndexUnavailable.
        """
        with self._updating:
            for _ in range(2):
                generation = self._generation
                changes = Update(folders, summarise, progress, self._write, self._now).run(everything)
                if generation == self._generation:
                    break  # else the file was damaged, and a new one holds only a part
            return changes

    def add(self, folders: Folders, folder: str, unique: str, summarise: Summarise) -> int | None:
        """Index one message at once, such as one that was just filed; its row, or None when it is gone."""
        entry = folders.find(folder, unique)
        reading = None if entry is None else read_message(folders, folder, entry, summarise)
        if reading is None:
            return None
        found = reading
        return self._write(lambda connection: insert(connection, found))

    def relocate(self, row: int, folder: str, entry: FolderEntry) -> None:
        """Show at once that a message was moved or reflagged, as `Folders` answered (`update` would find out too)."""
        self._write(lambda connection: relocate(connection, row, folder, entry))

    def drop(self, rows: Sequence[int]) -> None:
        """Show at once that messages were deleted (`update` would find out too)."""
        self._write(lambda connection: drop(connection, rows))

    # -- inside

    def _write(self, action: Callable[[sqlite3.Connection], T], *, writes: bool = True) -> T:
        return self._run(self._writes, action, writes=writes)

    def _run(self, channel: _Channel, action: Callable[[sqlite3.Connection], T], *, writes: bool = False) -> T:
        """Run it, a second time with a new file when this one turns out to be damaged."""
        generation = self._generation
        try:
            try:
                return channel.run(action, writes=writes)
            except (sqlite3.Error, database.DatabaseError) as error:
                if self._in_memory or not index_schema.is_damage(error):
                    raise
            self._set_damaged_aside(generation)
            return channel.run(action, writes=writes)
        except (sqlite3.Error, database.DatabaseError, OSError) as error:
            raise IndexUnavailable(
                f"The index {self.path} can't be used ({error}). Your mail is not touched; when the cause is gone"
                " (a full disk, missing permissions) the index will be made again from it."
            ) from error

    def _set_damaged_aside(self, generation: int) -> None:
        """Set the damaged file aside, once for all threads, and not the new one that another process made."""
        with self._recovering:
            if generation != self._generation:
                return
            self.close()
            with suppress(FileNotFoundError):
                if self._inode in (0, self.path.stat().st_ino):
                    self.damaged = index_schema.set_aside(self.path, self._now())
            self._generation += 1
            self._inode = 0


def _ids(connection: sqlite3.Connection, sql: str, parameters: Sequence[str | float]) -> array[int]:
    return array("q", chain.from_iterable(connection.execute(sql, parameters)))


def _rows(connection: sqlite3.Connection, sql: str, parameters: Sequence[str | int]) -> list[Row]:
    return [_row(*values) for values in connection.execute(sql, parameters)]


def _row(  # noqa: PLR0913, PLR0917 - the columns of _ROW, in their order
    number: int,
    folder: str,
    place: bytes,
    flags: str,
    date: float,
    size: int,
    attachments: int,
    message_id: str,
    sender: str,
    recipients: str,
    subject: str,
    in_reply_to: str,
    references: str,
) -> Row:
    name = os.fsdecode(place)
    return Row(
        number,
        folder,
        entry_of(name).unique,
        message_id,
        sender,
        tuple(recipients.split("\n")) if recipients else (),
        subject,
        date,
        flags,
        size,
        bool(attachments),
        in_reply_to,
        tuple(references.split("\n")) if references else (),
        name,
    )
