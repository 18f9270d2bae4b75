"""What the user agent must not forget: notifications taken over, messages had already, deletes owed, words learned,
notices that the user hasn't seen.

Facts on disk and nothing else. What follows from them is decided in mail/receive/receiver.py and mail/checks/.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from storage.durable_db import DurableDB
from storage.limits import DAY, RETENTION
from storage.user import notices

REMEMBERED = 3 * RETENTION
"""Seconds that a notification is known again: three times as long as a node may keep it."""

OWED = RETENTION + DAY
"""Seconds after which a delete needn't be made any more: the nodes have let the object go by then."""

AT_ONCE = 1000
"""Notifications or deletes handed out at once: what a flood left is worked off in bounded memory."""

LONGEST_PAUSE = 2 * DAY
"""Seconds to the next attempt that nothing waits longer than: what is due later was written under a wrong clock."""

KEPT_REJECTED = 10_000
"""Hashes of notifications that brought nothing and are known again; an older one is looked at again if it comes."""

DAMAGED = "damaged"
"""`Taken.hold` of a message whose body is here and can't be opened: to fetch it again costs much."""

_PARAMETERS = 500
_SCHEMA = f"""
{notices.SCHEMA};
CREATE TABLE IF NOT EXISTS taken (
    hash BLOB PRIMARY KEY, content BLOB NOT NULL, taken REAL NOT NULL, attempts INTEGER NOT NULL,
    next_attempt REAL NOT NULL, reason TEXT NOT NULL, folder TEXT, file TEXT,
    hold TEXT NOT NULL DEFAULT '', opener TEXT NOT NULL DEFAULT '', lost REAL,
    scheduled REAL NOT NULL DEFAULT 0, sender TEXT NOT NULL DEFAULT '');
CREATE INDEX IF NOT EXISTS taken_hold ON taken(hold);
CREATE INDEX IF NOT EXISTS taken_sender ON taken(sender);
CREATE TABLE IF NOT EXISTS seen (
    hash BLOB PRIMARY KEY, message_id TEXT NOT NULL, sender TEXT NOT NULL, fate TEXT NOT NULL, reason TEXT NOT NULL,
    at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS seen_message ON seen(message_id, sender);
CREATE INDEX IF NOT EXISTS seen_at ON seen(at);
CREATE TABLE IF NOT EXISTS owed (
    key BLOB NOT NULL, salt BLOB NOT NULL, attempts INTEGER NOT NULL, next_attempt REAL NOT NULL, expires REAL NOT NULL,
    kind INTEGER NOT NULL DEFAULT 1, scheduled REAL NOT NULL DEFAULT 0, PRIMARY KEY (key, salt));
CREATE TABLE IF NOT EXISTS token (token TEXT PRIMARY KEY, spam INTEGER NOT NULL, ham INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS quarantine (file TEXT PRIMARY KEY, reason TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value BLOB NOT NULL);
"""


_VERSION = 6
_UPGRADES = {
    1: ("ALTER TABLE owed ADD COLUMN kind INTEGER NOT NULL DEFAULT 1",),
    2: (notices.SCHEMA,),
    3: (
        "ALTER TABLE taken ADD COLUMN hold TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE taken ADD COLUMN opener TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE taken ADD COLUMN lost REAL",
        "CREATE INDEX IF NOT EXISTS taken_hold ON taken(hold)",
    ),
    4: (
        "ALTER TABLE taken ADD COLUMN scheduled REAL NOT NULL DEFAULT 0",
        "ALTER TABLE owed ADD COLUMN scheduled REAL NOT NULL DEFAULT 0",
    ),
    5: (
        "ALTER TABLE taken ADD COLUMN sender TEXT NOT NULL DEFAULT ''",
        "CREATE INDEX IF NOT EXISTS taken_sender ON taken(sender)",
    ),
}


class Fate(StrEnum):
    """How a notification ended."""

    FILED = "filed"
    """Its message is in a folder."""
    REJECTED = "rejected"
    """It wasn't one, or not for us, or not from the sender that it named."""
    LOST = "lost"
    """Its message couldn't be had. If it comes again it is taken again: the node that has it may have the message."""


@dataclass(frozen=True, slots=True)
class TakenNotification:
    """A notification that we are responsible for since `taken` (epoch seconds). `hash`: SHA-256 of `content`."""

    hash: bytes
    content: bytes = field(repr=False)
    taken: float
    attempts: int
    reason: str
    folder: str | None
    """Where its message was about to be filed, and under which name, when it was last worked on."""
    file: str | None
    hold: str = ""
    """Why it can't be opened: DAMAGED, or the place that it was set aside in. "": it can, as far as is known."""
    lost: float | None = None
    """When the user was told that it is lost; the notification is kept all the same for some time."""


@dataclass(frozen=True, slots=True)
class OwedDelete:
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
        self._db = DurableDB(path, _SCHEMA, _VERSION, upgrades=_UPGRADES, checked=False)
        self.notices = notices.Notices(self._db)
        """What the user must know, until it was seen."""

    @classmethod
    def to_read(cls, path: Path) -> tuple[UserState, bool]:
        """The state without writing to its disk, and whether it shows everything that was written.

        Raises DatabaseError, also for an older version: open that one for writing.
        """
        state = cls.__new__(cls)
        state._db, whole = DurableDB.to_read(path, _VERSION)
        state.notices = notices.Notices(state._db)
        return state, whole

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # -- notifications (paper, section 3.2: the user agent becomes wholly responsible for them)

    def take_over(self, notifications: Iterable[bytes], now: float) -> int:
        """Take over notifications; the new ones among them are counted. Only then may nodes delete them."""
        rows = [(hashlib.sha256(content).digest(), content, now) for content in notifications]

        def take(connection: sqlite3.Connection) -> int:
            connection.execute("DELETE FROM seen WHERE at < ?", (now - REMEMBERED,))
            connection.execute(
                "DELETE FROM seen WHERE fate <> ?1 AND rowid <="
                " (SELECT rowid FROM seen WHERE fate <> ?1 ORDER BY rowid DESC LIMIT 1 OFFSET ?2)",
                (Fate.FILED, KEPT_REJECTED),
            )
            fresh = connection.executemany(
                "INSERT OR IGNORE INTO taken(hash, content, taken, attempts, next_attempt, reason, scheduled)"
                " SELECT ?1, ?2, ?3, 0, ?3, '', ?3"
                " WHERE NOT EXISTS (SELECT 1 FROM seen WHERE hash = ?1 AND fate <> 'lost')",
                rows,
            )
            return max(fresh.rowcount, 0)

        return self._db.write(take) if rows else 0

    def pending(self, now: float, *, everything: bool = False, opener: str = "") -> list[TakenNotification]:
        """Notifications to be worked on by `now`, the longest due first, at most AT_ONCE.

        `everything`: those too that aren't due, but what is DAMAGED or lost only when it is. Whatever another
        `opener` (a version of the program) couldn't open is due at once.
        """
        sql = f"""SELECT hash, content, taken, attempts, reason, folder, file, hold, lost FROM taken
            WHERE next_attempt <= :now OR scheduled > :now OR next_attempt > :now + {LONGEST_PAUSE}
            OR (:everything AND hold <> '{DAMAGED}' AND lost IS NULL) OR (hold <> '' AND opener <> :opener)
            ORDER BY next_attempt, taken, rowid LIMIT {AT_ONCE}"""  # noqa: S608 - our own constants
        values = {"now": now, "everything": everything, "opener": opener}
        rows = self._db.read(lambda connection: connection.execute(sql, values).fetchall())
        return [TakenNotification(*row) for row in rows]

    def postpone(
        self,
        hash_: bytes,
        reason: str,
        next_attempt: float,
        *,
        hold: str = "",
        opener: str = "",
        answered: bool = True,
        sender: str = "",
    ) -> None:
        """Note that an attempt failed, why, and when (epoch seconds) the next is due.

        `hold`: why it can't be opened, by which `opener`. One at which nobody `answered` isn't counted. `sender`: whose
        message it is, when it can't be had from nodes that answered (`lacking`).
        """
        sql = """UPDATE taken SET attempts = attempts + ?, reason = ?, next_attempt = ?, hold = ?, opener = ?,
            scheduled = ?, sender = ? WHERE hash = ?"""
        self._change(sql, answered, reason, next_attempt, hold, opener, self._now(), sender, hash_)

    def count_unavailable(self, sender: str) -> int:
        """How many messages of this sender can't be had."""
        return self._db.read(lambda connection: _lacking(connection, sender))

    def drop_if_too_many(self, hash_: bytes, sender: str, reason: str, *, room: int) -> bool:
        """Give a notification up as lost, if more than `room` messages of its sender can't be had; whether it was."""

        def drop(connection: sqlite3.Connection) -> bool:
            if _lacking(connection, sender) <= room:
                return False
            _done(connection, hash_, message_id="", sender="", fate=Fate.LOST, reason=reason, at=self._now())
            return True

        return self._db.write(drop)

    def set_aside(self, hash_: bytes, reason: str, next_attempt: float, *, hold: str, opener: str, room: int) -> bool:
        """As `postpone`, unless `room` others are set aside in the place `hold`; whether there was room."""

        def aside(connection: sqlite3.Connection) -> bool:
            sql = "SELECT count(*) FROM taken WHERE hold = ? AND hash <> ?"
            (others,) = connection.execute(sql, (hold, hash_)).fetchone()
            if others >= room:
                return False
            connection.execute(
                "UPDATE taken SET attempts = attempts + 1, reason = ?, next_attempt = ?, hold = ?, opener = ?,"
                " scheduled = ? WHERE hash = ?",
                (reason, next_attempt, hold, opener, self._now(), hash_),
            )
            return True

        return self._db.write(aside)

    def mark_lost(self, hash_: bytes, now: float) -> None:
        """The user is told that its message is lost; the notification is kept until `reject`."""
        self._change("UPDATE taken SET lost = ? WHERE hash = ?", now, hash_)

    def count_waiting(self, without: Iterable[str]) -> int:
        """Messages that couldn't be collected when last tried and aren't lost; not those held in places `without`."""
        skipped = tuple(without)
        marks = ",".join("?" * len(skipped))
        sql = f"SELECT count(*) FROM taken WHERE attempts > 0 AND lost IS NULL AND hold NOT IN ({marks})"  # noqa: S608
        (count,) = self._db.read(lambda connection: connection.execute(sql, skipped).fetchone())
        return int(count)

    def hashes(self) -> set[bytes]:
        """Of all notifications that we are responsible for."""
        rows = self._db.read(lambda connection: connection.execute("SELECT hash FROM taken").fetchall())
        return {hash_ for (hash_,) in rows}

    def note_filing(self, hash_: bytes, folder: str, file: str) -> None:
        """Note under which unique name the message is about to be filed: after a crash it is looked for there."""
        self._change("UPDATE taken SET folder = ?, file = ? WHERE hash = ?", folder, file, hash_)

    def mark_filed(
        self, hash_: bytes, message_id: str, sender: str, deletes: Iterable[tuple[int, bytes, bytes]], now: float
    ) -> None:
        """The message is in its folder: the notification is done, and these (kind, key, salt) nodes are to delete."""
        owed = [(key, salt, now, now + OWED, kind) for kind, key, salt in deletes]

        def file(connection: sqlite3.Connection) -> None:
            _done(connection, hash_, message_id=message_id, sender=sender, fate=Fate.FILED, reason="", at=now)
            sql = (
                "INSERT OR IGNORE INTO owed(key, salt, attempts, next_attempt, scheduled, expires, kind)"
                " VALUES(?1, ?2, 0, ?3, ?3, ?4, ?5)"
            )
            connection.executemany(sql, owed)

        self._db.write(file)

    def reject(self, hash_: bytes, fate: Fate, reason: str) -> None:
        """Give a notification up; the same bytes aren't taken again."""
        self._db.write(
            lambda connection: _done(
                connection, hash_, message_id="", sender="", fate=fate, reason=reason, at=self._now()
            )
        )

    def has_message(self, message_id: str, sender: str) -> bool:
        """Whether a message of this sender with this Message-ID was filed: another notification of it is a duplicate.

        (Of this sender, because anybody could use up somebody else's Message-ID.)
        """
        sql = "SELECT 1 FROM seen WHERE message_id = ? AND sender = ? AND fate = ?"
        return self._one(sql, message_id, sender, Fate.FILED) is not None

    # -- deletes owed to nodes (paper, section 3.3)

    def owed_deletes(self, now: float) -> list[OwedDelete]:
        """Deletes to be made by `now`, at most AT_ONCE; those that expiry has overtaken are dropped."""

        def ask(connection: sqlite3.Connection) -> list[OwedDelete]:
            # Not before it was tried: the clock alone may be wrong.
            connection.execute("DELETE FROM owed WHERE expires < ? AND attempts > 0", (now,))
            sql = """SELECT kind, key, salt, attempts FROM owed
                WHERE next_attempt <= ?1 OR scheduled > ?1 OR next_attempt > ?2 ORDER BY next_attempt LIMIT ?3"""
            return [OwedDelete(*row) for row in connection.execute(sql, (now, now + LONGEST_PAUSE, AT_ONCE))]

        return self._db.write(ask)

    def delete_done(self, key: bytes, salt: bytes) -> None:
        """Enough nodes have heard it."""
        self._change("DELETE FROM owed WHERE key = ? AND salt = ?", key, salt)

    def postpone_delete(self, key: bytes, salt: bytes, next_attempt: float, *, answered: bool = True) -> None:
        """Too few nodes have heard it; the next attempt is due at `next_attempt` (epoch seconds).

        One at which nobody `answered` isn't counted.
        """
        sql = "UPDATE owed SET attempts = attempts + ?, next_attempt = ?, scheduled = ? WHERE key = ? AND salt = ?"
        self._change(sql, answered, next_attempt, self._now(), key, salt)

    # -- Quarantine, and small facts of others

    def note_quarantine_reason(self, file: str, reason: str) -> None:
        """Remember why the message of this unique name is not in the Inbox."""
        self._change("INSERT OR REPLACE INTO quarantine VALUES(?, ?)", file, reason)

    def quarantine_reason(self, file: str) -> str | None:
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

        return self._db.read(ask)

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

        self._db.write(add)

    # -- inside

    def _change(self, sql: str, *parameters: object) -> None:
        self._db.write(lambda connection: connection.execute(sql, parameters) and None)

    def _one(self, sql: str, *parameters: object) -> object:
        row = self._db.read(lambda connection: connection.execute(sql, parameters).fetchone())
        return None if row is None else row[0]


def _lacking(connection: sqlite3.Connection, sender: str) -> int:
    (count,) = connection.execute("SELECT count(*) FROM taken WHERE sender = ?", (sender,)).fetchone()
    return int(count)


def _done(
    connection: sqlite3.Connection, hash_: bytes, *, message_id: str, sender: str, fate: Fate, reason: str, at: float
) -> None:
    connection.execute("DELETE FROM taken WHERE hash = ?", (hash_,))
    values = (hash_, message_id, sender, fate, reason, at)
    connection.execute("INSERT OR REPLACE INTO seen VALUES(?, ?, ?, ?, ?, ?)", values)


def _storable(token: str) -> str:
    return token if token.isascii() else token.encode("utf-8", "replace").decode("utf-8")
