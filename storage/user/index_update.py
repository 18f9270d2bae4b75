"""Bringing the index up to date with the folders, in small transactions, so that nobody waits for a long one.

What changed is decided in storage/user/folder_diff.py; the tables are in storage/user/index_schema.py.

Theory of operation
-------------------
The folders are the truth and the index is a copy of what they show. Other programs may deliver, rename, flag, move and
delete at any moment, without a lock. One update goes through these steps:

    1. Recorded: the times of new/ and cur/ of each folder, as they were at the last update.
    2. Scan: a folder whose times are the recorded ones is passed over. Of the others all names are listed, and compared
       with the rows. Where a name is missing and the times changed meanwhile, the folder is listed a second time: a
       listing may skip a file that is being renamed.
    3. Moves: a row that one folder lost, and a file that another gained, are one message if unique name, size and time
       agree. Its row moves along, and the file isn't read again.
    4. Apply: renames, moves and removals are committed.
    5. Read: new messages are read, latest delivery first, and committed in batches. The first is small, so that a
       screen fills soon.
    6. Finish: the times of step 2 are recorded. Folders that are gone are forgotten.

Invariants:

- Times are recorded last, and are those from before the listing. Whatever changes during an update, or is missed
  because a file was renamed, changes the folder's times, so the next update looks again. A crash between two steps
  costs only the steps that are left.
- Times younger than SETTLED aren't recorded: with a coarse clock a later change might leave them the same.
- A row is removed only when its folder is gone, or each listing made of the folder misses its file.
- A row keeps its number when its message is renamed or moved, and the number isn't used again: lists hold numbers.
- A message that can't be read, or whose summary raises, gets a row that says so. It doesn't keep others from the list.
- Messages are read outside transactions, so a slow disk doesn't hold up other writers of the index.

The text index has no words taken out of it when a message goes (they aren't stored anywhere to be taken out by). When
there are more deleted messages than MUCH_GONE and than those that are left, everything is read anew.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from storage.user.folder_diff import Difference, difference
from storage.user.folders import QUARANTINE, FolderEntry, Folders, FolderTimes, delivery_time, entry_of
from storage.user.index_summary import Summary, bounded, unreadable
from storage.user.search import indexed

T = TypeVar("T")

FIRST_BATCH, BATCH = 100, 1000
"""Messages read between two commits: the first screenful comes at once."""

SETTLED = 2.0
"""Seconds a folder must have rested before its times are trusted: clocks of filesystems tick coarsely (FAT: 2 s)."""

FUTURE = 86400.0
"""Seconds by which a message's Date may be later than its arrival; a later one would stay on top for years."""

MUCH_GONE = 10_000
"""Deleted messages (beyond as many as there are) whose words may stay in the text index before it is made anew."""

Summarise = Callable[[Path], Summary]
Progress = Callable[[int, int], None]


class Transaction(Protocol):
    """Runs an action on the index; with `writes`, in a transaction."""

    def __call__(self, action: Callable[[sqlite3.Connection], T], *, writes: bool = True) -> T: ...


@dataclass(frozen=True, slots=True)
class Changes:
    """What an update did: messages added, removed, and moved or reflagged; false when nothing was to do."""

    added: int = 0
    removed: int = 0
    changed: int = 0
    folders: frozenset[str] = frozenset()
    """The folders whose lists or counts are different now."""

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed or self.folders)


@dataclass(slots=True)
class _FolderScan:
    folder: str
    times: FolderTimes
    trusted: bool
    difference: Difference


@dataclass(frozen=True, slots=True)
class ReadMessage:
    """A message that was read, ready to be put into the index. `changed`: its file's time in nanoseconds."""

    folder: str
    entry: FolderEntry
    changed: int
    summary: Summary


def read_message(folders: Folders, folder: str, entry: FolderEntry, summarise: Summarise) -> ReadMessage | None:
    """Read one message. None when it is gone or isn't a file; an unreadable one is shown as such."""
    path = folders.folder(folder) / entry.place
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            return None
        summary = _summary(path, facts.st_size, summarise)
    except FileNotFoundError:
        return None
    except OSError as error:
        return ReadMessage(folder, entry, 0, unreadable(error.strerror or str(error)))
    arrived = facts.st_mtime
    date = min(summary.date, arrived + FUTURE) if summary.date else arrived
    text = "" if folder == QUARANTINE else summary.text
    return ReadMessage(folder, entry, facts.st_mtime_ns, _with_facts(summary, date, facts.st_size, text))


def _with_facts(summary: Summary, date: float, size: int, text: str) -> Summary:
    """The summary with what the file itself tells. (dataclasses.replace takes three times as long.)"""
    return Summary(
        summary.message_id,
        summary.sender,
        summary.recipients,
        summary.subject,
        date,
        summary.in_reply_to,
        summary.references,
        size,
        summary.attachments,
        text,
    )


def _summary(path: Path, size: int, summarise: Summarise) -> Summary:
    try:
        return bounded(summarise(path))
    except OSError:
        raise
    except Exception as error:  # one message, whatever is in it, must not keep the others from the list
        return unreadable(type(error).__name__, size)


def insert(connection: sqlite3.Connection, reading: ReadMessage) -> int | None:
    """Put a message into the index; its row, or None when that place was there already."""
    summary, flags = reading.summary, reading.entry.flags
    cursor = connection.execute(
        "INSERT OR IGNORE INTO message(folder, place, flags, unread, date, size, changed, attachments, message_id,"
        " sender, recipients, subject, in_reply_to, refs) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            folder_id(connection, reading.folder),
            os.fsencode(reading.entry.place),
            flags,
            "S" not in flags,
            summary.date,
            summary.size,
            reading.changed,
            summary.attachments,
            summary.message_id,
            summary.sender,
            "\n".join(summary.recipients),
            summary.subject,
            summary.in_reply_to,
            "\n".join(summary.references),
        ),
    )
    if not cursor.rowcount:
        return None
    connection.execute(
        "INSERT INTO text(rowid, subject, sender, recipients, body, files) VALUES(?, ?, ?, ?, ?, ?)",
        (
            cursor.lastrowid,
            *map(
                indexed,
                (
                    summary.subject,
                    summary.sender,
                    " ".join(summary.recipients),
                    summary.text,
                    " ".join(summary.file_names),
                ),
            ),
        ),
    )
    return cursor.lastrowid


def relocate(connection: sqlite3.Connection, row: int, folder: str, entry: FolderEntry) -> None:
    """Note that a message lies elsewhere. Where an update was quicker and made a row of the new place, ours stays."""
    place, number = os.fsencode(entry.place), folder_id(connection, folder)
    twin = connection.execute("SELECT id FROM message WHERE folder = ? AND place = ?", (number, place)).fetchone()
    if twin is not None and twin[0] != row:
        drop(connection, [twin[0]])
    connection.execute(
        "UPDATE message SET folder = ?, place = ?, flags = ?, unread = ? WHERE id = ?",
        (number, place, entry.flags, "S" not in entry.flags, row),
    )


def drop(connection: sqlite3.Connection, rows: Sequence[int]) -> None:
    """Forget messages that are gone. Their words stay in the text index, where nothing finds them any more."""
    count = connection.executemany("DELETE FROM message WHERE id = ?", [(row,) for row in rows]).rowcount
    connection.execute("UPDATE gone SET count = count + ?", (count,))


def folder_id(connection: sqlite3.Connection, name: str) -> int:
    """The number of a folder, given to it when it is new."""
    found = connection.execute("SELECT id FROM folder WHERE name = ?", (name,)).fetchone()
    if found is not None:
        return int(found[0])
    return int(connection.execute("INSERT INTO folder(name) VALUES(?) RETURNING id", (name,)).fetchone()[0])


class Update:
    """One update: look into the folders, apply what moved, read what is new."""

    def __init__(
        self,
        folders: Folders,
        summarise: Summarise,
        progress: Progress | None,
        transaction: Transaction,
        now: Callable[[], float],
    ) -> None:
        self._folders = folders
        self._summarise = summarise
        self._progress = progress
        self._transaction = transaction
        self._now = now

    def run(self, everything: bool) -> Changes:
        """Update the index; `everything` scans folders that seem unchanged too."""
        recorded = self._transaction(_recorded)
        names = self._folders.names()
        vanished = [name for name in recorded if name not in names]
        scans = [
            scan for name in names if (scan := self._scan(name, None if everything else recorded.get(name))) is not None
        ]
        scans += [
            _FolderScan(name, FolderTimes(0, 0), False, difference(self._known(name), set())) for name in vanished
        ]
        if not scans:
            return Changes()
        moved = self._follow_moves(scans)
        changed, removed = self._apply(scans, moved)
        added = self._read_new(scans)
        self._transaction(lambda connection: _finish(connection, scans, vanished))
        touched = {scan.folder for scan in scans if scan.difference}
        touched.update(name for origin, target, _ in moved.values() for name in (origin, target))
        return Changes(added, removed, changed, frozenset(touched))

    def _known(self, folder: str) -> dict[str, int]:
        sql = "SELECT place, id FROM message WHERE folder = (SELECT id FROM folder WHERE name = ?)"
        rows = self._transaction(lambda connection: connection.execute(sql, (folder,)).fetchall(), writes=False)
        return {os.fsdecode(place): row for place, row in rows}

    def _scan(self, folder: str, recorded: FolderTimes | None) -> _FolderScan | None:
        times = self._folders.times(folder)
        if times == recorded:
            return None
        trusted = self._now() - max(times) / 1e9 > SETTLED
        known = self._known(folder)
        result = difference(known, self._folders.places(folder))
        if result.removed and self._folders.times(folder) != times:
            # Somebody renamed files while we listed them, and a listing may skip a name that is being renamed:
            # gone is only what a second look doesn't find either.
            again = difference(known, self._folders.places(folder))
            again.removed = {row: place for row, place in again.removed.items() if row in result.removed}
            result = again
        return _FolderScan(folder, times, trusted, result)

    def _follow_moves(self, scans: list[_FolderScan]) -> dict[int, tuple[str, str, str]]:
        """Messages that left one folder and are in another: row -> (from, to, place). They needn't be read again."""
        left = {entry_of(p).unique: (row, scan) for scan in scans for row, p in scan.difference.removed.items()}
        moved: dict[int, tuple[str, str, str]] = {}
        if not left:
            return moved
        for scan in scans:
            for place in list(scan.difference.added):
                row, origin = left.get(entry_of(place).unique, (0, scan))
                if origin is scan or row in moved or not self._is_same(row, scan.folder, place):
                    continue
                moved[row] = (origin.folder, scan.folder, place)
                del origin.difference.removed[row]
                scan.difference.added.remove(place)
        return moved

    def _is_same(self, row: int, folder: str, place: str) -> bool:
        """Whether the file is the message of that row: a unique name alone isn't proof (some programs count)."""
        sql = "SELECT size, changed FROM message WHERE id = ?"
        facts = self._transaction(lambda connection: connection.execute(sql, (row,)).fetchone(), writes=False)
        try:
            found = (self._folders.folder(folder) / place).stat()
        except OSError:
            return False
        return facts is not None and tuple(facts) == (found.st_size, found.st_mtime_ns)

    def _apply(self, scans: list[_FolderScan], moved: dict[int, tuple[str, str, str]]) -> tuple[int, int]:
        steps = [(row, scan.folder, place) for scan in scans for row, place in scan.difference.renamed]
        steps += [(row, target, place) for row, (_, target, place) in moved.items()]
        removed = [row for scan in scans for row in scan.difference.removed]

        def apply(connection: sqlite3.Connection) -> None:
            for row, folder, place in steps:
                relocate(connection, row, folder, entry_of(place))
            drop(connection, removed)

        if steps or removed:
            self._transaction(apply)
        return len(steps), len(removed)

    def _read_new(self, scans: list[_FolderScan]) -> int:
        waiting = [(scan.folder, place) for scan in scans for place in scan.difference.added]
        waiting.sort(key=lambda item: delivery_time(item[1]), reverse=True)
        done = added = 0
        while done < len(waiting):
            if self._progress is not None:
                self._progress(done, len(waiting))
            batch = waiting[done : done + (BATCH if done else FIRST_BATCH)]
            added += self._put(batch)
            done += len(batch)
        if waiting and self._progress is not None:
            self._progress(done, len(waiting))
        return added

    def _put(self, batch: list[tuple[str, str]]) -> int:
        readings = []
        for folder, place in batch:
            reading = read_message(self._folders, folder, entry_of(place), self._summarise)
            if reading is not None:
                readings.append(reading)

        def put(connection: sqlite3.Connection) -> int:
            return sum(self._put_one(connection, reading) for reading in readings)

        return self._transaction(put)

    def _put_one(self, connection: sqlite3.Connection, reading: ReadMessage) -> bool:
        """Insert a message, or relocate the row it has under a name that was gone by now."""
        folder, here = folder_id(connection, reading.folder), os.fsencode(self._folders.folder(reading.folder))
        for row, place in _namesakes(connection, folder, reading):
            if not os.path.lexists(here + b"/" + place):
                relocate(connection, row, reading.folder, reading.entry)
                return False
        return insert(connection, reading) is not None


def _namesakes(connection: sqlite3.Connection, folder: int, reading: ReadMessage) -> list[tuple[int, bytes]]:
    """Rows of the folder that have the message's unique name, size and time: id and place."""
    parameters: list[int | bytes] = []
    for subdir in ("new", "cur"):
        begin = os.fsencode(f"{subdir}/{reading.entry.unique}")
        # The bare name, with flags behind it (":2,S"), with additions (",U=7:2,S").
        for low, high in ((begin, begin), (begin + b":", begin + b";"), (begin + b",", begin + b"-")):
            parameters += [folder, low, high, reading.summary.size, reading.changed]
    # Several questions in one, because an OR of them would go through the whole folder.
    one = "SELECT id, place FROM message WHERE folder = ? AND place BETWEEN ? AND ? AND size = ? AND changed = ?"
    rows = connection.execute(" UNION ALL ".join([one] * 6), parameters).fetchall()
    return [(row, place) for row, place in rows if entry_of(os.fsdecode(place)).unique == reading.entry.unique]


def _recorded(connection: sqlite3.Connection) -> dict[str, FolderTimes]:
    """The stamps of the last time. Starts from nothing when most words of the text index belong to deleted mail."""
    (gone,) = connection.execute("SELECT count FROM gone").fetchone()
    if gone > MUCH_GONE and gone > MUCH_GONE + connection.execute("SELECT count(*) FROM message").fetchone()[0]:
        connection.execute("DELETE FROM message")
        connection.execute("INSERT INTO text(text) VALUES('delete-all')")
        connection.execute("UPDATE gone SET count = 0")
        connection.execute("UPDATE folder SET new_changed = NULL, cur_changed = NULL")
    rows = connection.execute("SELECT name, new_changed, cur_changed FROM folder")
    return {name: FolderTimes(-1 if new is None else new, -1 if cur is None else cur) for name, new, cur in rows}


def _finish(connection: sqlite3.Connection, scans: list[_FolderScan], vanished: list[str]) -> None:
    """Note what the folders looked like, so that they are passed over until they change; forget those that are gone."""
    for scan in scans:
        folder_id(connection, scan.folder)
        new, cur = scan.times if scan.trusted else (None, None)
        connection.execute("UPDATE folder SET new_changed = ?, cur_changed = ? WHERE name = ?", (new, cur, scan.folder))
    connection.executemany("DELETE FROM folder WHERE name = ?", [(name,) for name in vanished])
