"""What the user agent must not forget: notifications it took over, deletes it owes, what spam looks like, figures.

One SQLite file with synchronous=FULL. A notification that is in here is this user agent's responsibility alone (the
nodes have been told to delete it, paper, section 3.2), so it stays until its message is filed or given up with a word.
"""

# Note to helper S2: the lead wrote outbox.py and state.py; please review and test them instead of writing your own.

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

from storage.database import connect

SCHEMA = """
CREATE TABLE IF NOT EXISTS notifications (
    hash BLOB PRIMARY KEY,
    content BLOB,
    taken REAL NOT NULL,
    fate TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt REAL NOT NULL DEFAULT 0,
    folder TEXT,
    file TEXT
);
CREATE INDEX IF NOT EXISTS pending ON notifications (fate, next_attempt);
CREATE TABLE IF NOT EXISTS messages (
    message_id TEXT NOT NULL,
    sender TEXT NOT NULL,
    filed REAL NOT NULL,
    PRIMARY KEY (message_id, sender)
);
CREATE TABLE IF NOT EXISTS deletes (
    key BLOB NOT NULL,
    salt BLOB NOT NULL,
    owed REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (key, salt)
);
CREATE TABLE IF NOT EXISTS quarantine (file TEXT PRIMARY KEY, reason TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS tokens (token TEXT PRIMARY KEY, spam INTEGER NOT NULL, ham INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value BLOB NOT NULL);
"""


class Fate(StrEnum):
    """What became of a notification that was taken over."""

    PENDING = "pending"
    FILED = "filed"
    REJECTED = "rejected"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Taken:
    """A notification that was taken over. `folder` and `file`: where its message is about to be filed, if it is."""

    hash: bytes
    content: bytes
    taken: float
    attempts: int
    reason: str
    folder: str | None
    file: str | None


@dataclass(frozen=True, slots=True)
class OwedDelete:
    """A body object that this user agent has collected and must still take its hash from."""

    key: bytes
    salt: bytes
    owed: float
    attempts: int


class UserState:
    """Synchronous and thread-safe; durable when a method returns. Raises DatabaseError, sqlite3.Error."""

    def __init__(self, path: Path) -> None:
        self._connection = connect(path, SCHEMA)
        self._lock = threading.RLock()  # protects the connection, and makes each method one transaction

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._connection.close()

    # Notifications

    def take(self, notifications: Iterable[bytes], now: float) -> int:
        """Take over notifications: when this returns, nodes may delete theirs. How many were new."""
        rows = [(sha256(content).digest(), content, now, Fate.PENDING.value) for content in notifications]
        with self._writing() as connection:
            before = connection.total_changes
            connection.executemany(
                "INSERT OR IGNORE INTO notifications (hash, content, taken, fate) VALUES (?, ?, ?, ?)", rows
            )
            return connection.total_changes - before

    def pending(self, now: float) -> list[Taken]:
        """Notifications whose messages are to be fetched now, oldest first."""
        rows = self._read(
            "SELECT hash, content, taken, attempts, reason, folder, file FROM notifications"
            " WHERE fate = 'pending' AND next_attempt <= ? ORDER BY taken, rowid",
            (now,),
        )
        return [Taken(*row) for row in rows]

    def waiting(self) -> int:
        """How many notifications have no fate yet."""
        return int(self._read("SELECT COUNT(*) FROM notifications WHERE fate = 'pending'", ())[0][0])

    def postpone(self, hash_: bytes, reason: str, next_attempt: float) -> None:
        """The message couldn't be had yet."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE notifications SET attempts = attempts + 1, reason = ?, next_attempt = ? WHERE hash = ?",
                (reason, next_attempt, hash_),
            )

    def filing(self, hash_: bytes, folder: str, file: str) -> None:
        """The message is about to be filed under this name: after a crash it is looked for there first."""
        with self._writing() as connection:
            connection.execute("UPDATE notifications SET folder = ?, file = ? WHERE hash = ?", (folder, file, hash_))

    def filed(
        self, hash_: bytes, message_id: str, sender: str, deletes: Iterable[tuple[bytes, bytes]], now: float
    ) -> None:
        """The message is on disk: remember it, owe the deletes of its objects, let the notification go."""
        with self._writing() as connection:
            connection.execute("INSERT OR IGNORE INTO messages VALUES (?, ?, ?)", (message_id, sender, now))
            connection.executemany(
                "INSERT OR IGNORE INTO deletes (key, salt, owed) VALUES (?, ?, ?)",
                [(key, salt, now) for key, salt in deletes],
            )
            connection.execute(
                "UPDATE notifications SET fate = 'filed', content = NULL, reason = '' WHERE hash = ?", (hash_,)
            )

    def reject(self, hash_: bytes, fate: Fate, reason: str) -> None:
        """Give a notification up, and keep the reason; its content stays when the mail was LOST."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE notifications SET fate = ?, reason = ?,"
                " content = CASE WHEN ? = 'lost' THEN content ELSE NULL END WHERE hash = ?",
                (fate.value, reason, fate.value, hash_),
            )

    def have(self, message_id: str, sender: str) -> bool:
        """Whether this message of this sender was filed before."""
        return bool(self._read("SELECT 1 FROM messages WHERE message_id = ? AND sender = ?", (message_id, sender)))

    def forget_before(self, moment: float) -> None:
        """Forget hashes of notifications and messages that no node can hand out any more."""
        with self._writing() as connection:
            connection.execute("DELETE FROM notifications WHERE fate IN ('filed', 'rejected') AND taken < ?", (moment,))
            connection.execute("DELETE FROM messages WHERE filed < ?", (moment,))
            connection.execute("DELETE FROM deletes WHERE owed < ?", (moment,))

    # Deletes

    def owed(self, now: float) -> list[OwedDelete]:
        """Deletes that are due, oldest first."""
        rows = self._read(
            "SELECT key, salt, owed, attempts FROM deletes WHERE next_attempt <= ? ORDER BY owed, rowid", (now,)
        )
        return [OwedDelete(*row) for row in rows]

    def deleted(self, key: bytes, salt: bytes) -> None:
        """The nodes know."""
        with self._writing() as connection:
            connection.execute("DELETE FROM deletes WHERE key = ? AND salt = ?", (key, salt))

    def delete_later(self, key: bytes, salt: bytes, next_attempt: float) -> None:
        """Too few nodes heard of it."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE deletes SET attempts = attempts + 1, next_attempt = ? WHERE key = ? AND salt = ?",
                (next_attempt, key, salt),
            )

    # Why messages were set apart

    def quarantined(self, file: str, reason: str) -> None:
        """Note why the message under this unique name was put into Quarantine or Junk."""
        with self._writing() as connection:
            connection.execute("INSERT OR REPLACE INTO quarantine VALUES (?, ?)", (file, reason))

    def why_quarantined(self, file: str) -> str:
        """Why, or nothing when that isn't known."""
        rows = self._read("SELECT reason FROM quarantine WHERE file = ?", (file,))
        return str(rows[0][0]) if rows else ""

    # What spam looks like (mail/checks/spam.py)

    def tokens(self, wanted: Iterable[str]) -> dict[str, tuple[int, int]]:
        """(times seen in spam, times seen in ham) of each token that was ever seen."""
        found: dict[str, tuple[int, int]] = {}
        names = list(wanted)
        for start in range(0, len(names), 500):
            some = names[start : start + 500]
            marks = ",".join("?" * len(some))
            for token, spam, ham in self._read(f"SELECT token, spam, ham FROM tokens WHERE token IN ({marks})", some):  # noqa: S608
                found[str(token)] = (int(spam), int(ham))
        return found

    def add_tokens(self, changes: Mapping[str, tuple[int, int]]) -> None:
        """Add to (or, negative, take from) counts; none falls below 0."""
        with self._writing() as connection:
            connection.executemany(
                "INSERT INTO tokens (token, spam, ham) VALUES (?, MAX(0, ?), MAX(0, ?)) ON CONFLICT (token) DO UPDATE"
                " SET spam = MAX(0, spam + excluded.spam), ham = MAX(0, ham + excluded.ham)",
                [(token, spam, ham) for token, (spam, ham) in changes.items() if spam >= 0 and ham >= 0],
            )
            connection.executemany(
                "UPDATE tokens SET spam = MAX(0, spam + ?), ham = MAX(0, ham + ?) WHERE token = ?",
                [(spam, ham, token) for token, (spam, ham) in changes.items() if spam < 0 or ham < 0],
            )
            connection.execute("DELETE FROM tokens WHERE spam = 0 AND ham = 0")

    # Single facts

    def fact(self, name: str) -> bytes | None:
        """A named fact, as it was kept."""
        rows = self._read("SELECT value FROM facts WHERE name = ?", (name,))
        return bytes(rows[0][0]) if rows else None

    def keep_fact(self, name: str, value: bytes) -> None:
        """Keep a named fact."""
        with self._writing() as connection:
            connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def _read(self, sql: str, parameters: Iterable[object]) -> list[tuple]:  # type: ignore[type-arg]
        with self._lock:
            return self._connection.execute(sql, tuple(parameters)).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
