"""What the user agent must not forget: notifications taken over, messages had already, deletes owed, words learned,
notices that the user hasn't seen.

Facts on disk and nothing else. What follows from them is decided in mail/receiving.py and mail/checks/.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from storage import notices
from storage.ledger import Ledger

DAY = 86400.0

REMEMBERED = 90 * DAY
"""Seconds that a notification is known again: three times as long as a node may keep it."""

OWED = 31 * DAY
"""Seconds after which a delete needn't be made any more: the nodes have let the object go by then."""

AT_ONCE = 1000
"""Notifications or deletes handed out at once: what a flood left is worked off in bounded memory."""

_PARAMETERS = 500
_SCHEMA = f"""
{notices.SCHEMA};
CREATE TABLE IF NOT EXISTS taken (
    hash BLOB PRIMARY KEY, content BLOB NOT NULL, taken REAL NOT NULL, attempts INTEGER NOT NULL,
    next_attempt REAL NOT NULL, reason TEXT NOT NULL, folder TEXT, file TEXT);
CREATE TABLE IF NOT EXISTS seen (
    hash BLOB PRIMARY KEY, message_id TEXT NOT NULL, sender TEXT NOT NULL, fate TEXT NOT NULL, reason TEXT NOT NULL,
    at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS seen_message ON seen(message_id, sender);
CREATE INDEX IF NOT EXISTS seen_at ON seen(at);
CREATE TABLE IF NOT EXISTS owed (
    key BLOB NOT NULL, salt BLOB NOT NULL, attempts INTEGER NOT NULL, next_attempt REAL NOT NULL, expires REAL NOT NULL,
    kind INTEGER NOT NULL DEFAULT 1, PRIMARY KEY (key, salt));
CREATE TABLE IF NOT EXISTS token (token TEXT PRIMARY KEY, spam INTEGER NOT NULL, ham INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS quarantine (file TEXT PRIMARY KEY, reason TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value BLOB NOT NULL);
"""


_UPGRADES = {1: "ALTER TABLE owed ADD COLUMN kind INTEGER NOT NULL DEFAULT 1", 2: notices.SCHEMA}


class Fate(StrEnum):
    """How a notification ended."""

    FILED = "filed"
    """Its message is in a folder."""
    REJECTED = "rejected"
    """It wasn't one, or not for us, or not from whom it said."""
    LOST = "lost"
    """Nobody has its message any more."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A notification that we are responsible for since `taken` (epoch seconds). `hash`: SHA-256 of `content`."""

    hash: bytes
    content: bytes = field(repr=False)
    taken: float
    attempts: int
    reason: str
    folder: str | None
    """Where its message was about to be filed, and under which name, when it was last worked on."""
    file: str | None


@dataclass(frozen=True, slots=True)
class Owed:
    """A delete that nodes haven't heard of yet."""

    kind: int
    key: bytes
    salt: bytes
    attempts: int


class UserState:
    """The facts in the file at `path`; each change is on disk when its call returns. For worker threads.

    Every call raises database.DatabaseError when the disk refuses; then nothing of it was kept.
    """

    def __init__(self, path: Path, *, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._ledger = Ledger(path, _SCHEMA, version=3, upgrades=_UPGRADES, checked=False)
        self.notices = notices.Notices(self._ledger)
        """What the user must know, until she has seen it."""

    def close(self) -> None:
        """Close the file."""
        self._ledger.close()

    # -- notifications (paper, section 3.2: the user agent becomes wholly responsible for them)

    def take(self, notifications: Iterable[bytes], now: float) -> int:
        """Take over notifications; the new ones among them are counted. Only then may nodes delete them."""
        rows = [(hashlib.sha256(content).digest(), content, now, now) for content in notifications]

        def take(connection: sqlite3.Connection) -> int:
            connection.execute("DELETE FROM seen WHERE at < ?", (now - REMEMBERED,))
            fresh = connection.executemany(
                "INSERT OR IGNORE INTO taken SELECT ?1, ?2, ?3, 0, ?4, '', NULL, NULL"
                " WHERE NOT EXISTS (SELECT 1 FROM seen WHERE hash = ?1)",
                rows,
            )
            return max(fresh.rowcount, 0)

        return self._ledger.write(take) if rows else 0

    def pending(self, now: float) -> list[Taken]:
        """Notifications to be worked on by `now`, oldest first, at most AT_ONCE."""
        sql = """SELECT hash, content, taken, attempts, reason, folder, file FROM taken
            WHERE next_attempt <= ? ORDER BY taken, rowid LIMIT ?"""
        rows = self._ledger.read(lambda connection: connection.execute(sql, (now, AT_ONCE)).fetchall())
        return [Taken(*row) for row in rows]

    def postpone(self, hash_: bytes, reason: str, next_attempt: float) -> None:
        """Note that an attempt failed, why, and when (epoch seconds) the next is due."""
        sql = "UPDATE taken SET attempts = attempts + 1, reason = ?, next_attempt = ? WHERE hash = ?"
        self._change(sql, reason, next_attempt, hash_)

    def filing(self, hash_: bytes, folder: str, file: str) -> None:
        """Note under which unique name the message is about to be filed: after a crash it is looked for there."""
        self._change("UPDATE taken SET folder = ?, file = ? WHERE hash = ?", folder, file, hash_)

    def filed(
        self, hash_: bytes, message_id: str, sender: str, deletes: Iterable[tuple[int, bytes, bytes]], now: float
    ) -> None:
        """The message is in its folder: the notification is done, and these (kind, key, salt) nodes are to delete."""
        owed = [(key, salt, now, now + OWED, kind) for kind, key, salt in deletes]

        def file(connection: sqlite3.Connection) -> None:
            _done(connection, hash_, message_id, sender, Fate.FILED, "", now)
            connection.executemany("INSERT OR IGNORE INTO owed VALUES(?, ?, 0, ?, ?, ?)", owed)

        self._ledger.write(file)

    def reject(self, hash_: bytes, fate: Fate, reason: str) -> None:
        """Give a notification up; the same bytes aren't taken again."""
        self._ledger.write(lambda connection: _done(connection, hash_, "", "", fate, reason, self._now()))

    def have(self, message_id: str, sender: str) -> bool:
        """Whether a message of this sender with this Message-ID was filed: another notification of it is a duplicate.

        (Of this sender, because anybody could use up somebody else's Message-ID.)
        """
        sql = "SELECT 1 FROM seen WHERE message_id = ? AND sender = ? AND fate = ?"
        return self._one(sql, message_id, sender, Fate.FILED) is not None

    def lost(self) -> list[str]:
        """What the user was told of messages that nobody has any more, newest first."""
        sql = "SELECT reason FROM seen WHERE fate = ? ORDER BY at DESC"
        rows = self._ledger.read(lambda connection: connection.execute(sql, (Fate.LOST,)).fetchall())
        return [reason for (reason,) in rows]

    # -- deletes owed to nodes (paper, section 3.3)

    def owed(self, now: float) -> list[Owed]:
        """Deletes to be made by `now`, at most AT_ONCE; those that expiry has overtaken are dropped."""

        def ask(connection: sqlite3.Connection) -> list[Owed]:
            connection.execute("DELETE FROM owed WHERE expires < ?", (now,))
            sql = "SELECT kind, key, salt, attempts FROM owed WHERE next_attempt <= ? ORDER BY next_attempt LIMIT ?"
            return [Owed(*row) for row in connection.execute(sql, (now, AT_ONCE))]

        return self._ledger.write(ask)

    def deleted(self, key: bytes, salt: bytes) -> None:
        """Enough nodes have heard it."""
        self._change("DELETE FROM owed WHERE key = ? AND salt = ?", key, salt)

    def delete_later(self, key: bytes, salt: bytes, next_attempt: float) -> None:
        """Too few nodes have heard it; the next attempt is due at `next_attempt` (epoch seconds)."""
        sql = "UPDATE owed SET attempts = attempts + 1, next_attempt = ? WHERE key = ? AND salt = ?"
        self._change(sql, next_attempt, key, salt)

    # -- Quarantine, and small facts of others

    def quarantined(self, file: str, reason: str) -> None:
        """Remember why the message of this unique name is not in the Inbox."""
        self._change("INSERT OR REPLACE INTO quarantine VALUES(?, ?)", file, reason)

    def why_quarantined(self, file: str) -> str | None:
        """Why the message of this unique name is not in the Inbox, if that is known."""
        found = self._one("SELECT reason FROM quarantine WHERE file = ?", file)
        return None if found is None else str(found)

    def fact(self, name: str) -> bytes | None:
        """What was kept under `name`, if anything."""
        found = self._one("SELECT value FROM fact WHERE name = ?", name)
        return found if isinstance(found, bytes) else None

    def keep_fact(self, name: str, value: bytes) -> None:
        """Keep `value` under `name`, in place of what was there; b"" drops it."""
        if value:
            self._change("INSERT OR REPLACE INTO fact VALUES(?, ?)", name, value)
        else:
            self._change("DELETE FROM fact WHERE name = ?", name)

    # -- the spam classifier's counts (mail.checks.bayes.TokenCounts)

    def tokens(self, wanted: Iterable[str]) -> dict[str, tuple[int, int]]:
        """(times in spam, times in ham) of those tokens of `wanted` that were ever seen."""
        names = [_storable(token) for token in wanted]

        def ask(connection: sqlite3.Connection) -> dict[str, tuple[int, int]]:
            found: dict[str, tuple[int, int]] = {}
            for start in range(0, len(names), _PARAMETERS):
                some = names[start : start + _PARAMETERS]
                sql = f"SELECT token, spam, ham FROM token WHERE token IN ({','.join('?' * len(some))})"  # noqa: S608
                found.update((token, (spam, ham)) for token, spam, ham in connection.execute(sql, some))
            return found

        return self._ledger.read(ask)

    def add_tokens(self, changes: Mapping[str, tuple[int, int]]) -> None:
        """Add to the counts, all or none; none falls below 0, and a token never seen any more is dropped."""
        rows = [(_storable(token), spam, ham) for token, (spam, ham) in changes.items()]

        def add(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT INTO token VALUES(?1, max(?2, 0), max(?3, 0)) ON CONFLICT(token)"
                " DO UPDATE SET spam = max(spam + ?2, 0), ham = max(ham + ?3, 0)",
                rows,
            )
            connection.executemany(
                "DELETE FROM token WHERE token = ? AND spam = 0 AND ham = 0", [(token,) for token, *_ in rows]
            )

        self._ledger.write(add)

    # -- inside

    def _change(self, sql: str, *parameters: object) -> None:
        self._ledger.write(lambda connection: connection.execute(sql, parameters) and None)

    def _one(self, sql: str, *parameters: object) -> object:
        row = self._ledger.read(lambda connection: connection.execute(sql, parameters).fetchone())
        return None if row is None else row[0]


def _done(
    connection: sqlite3.Connection, hash_: bytes, message_id: str, sender: str, fate: Fate, reason: str, at: float
) -> None:
    connection.execute("DELETE FROM taken WHERE hash = ?", (hash_,))
    values = (hash_, message_id, sender, fate, reason, at)
    connection.execute("INSERT OR REPLACE INTO seen VALUES(?, ?, ?, ?, ?, ?)", values)


def _storable(token: str) -> str:
    return token if token.isascii() else token.encode("utf-8", "replace").decode("utf-8")
