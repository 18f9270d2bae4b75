"""Lasting notices: what the user must know, kept until it was seen, whichever process found it out.
 A table of the user's state (storage/user/state.py). What deserves a notice is decided by the caller; that it
is kept before anybody is told is mail/notices.py's."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from storage.durable_db import DurableDB

KEPT = 1000
"""Notices that are kept; beyond that those that were seen go first, then the oldest."""

SCHEMA = """CREATE TABLE IF NOT EXISTS notice (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, text TEXT NOT NULL, seen REAL)"""


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing that the user must know. `id` grows with each notice; `at` and `seen` are epoch seconds."""

    id: int
    at: float
    text: str
    seen: float | None = None
    """When the user saw it, None while it is unseen."""


class Notices:
    """The notices in a database. For worker threads; every call raises DatabaseError when the disk refuses."""

    def __init__(self, db: DurableDB) -> None:
        self._db = db

    def add(self, text: str, now: float) -> bool:
        """Keep a notice; False when the same one is there already and wasn't seen yet."""

        def add(connection: sqlite3.Connection) -> bool:
            sql = "SELECT 1 FROM notice WHERE text = ? AND seen IS NULL"
            if connection.execute(sql, (text,)).fetchone():
                return False
            connection.execute("INSERT INTO notice(at, text) VALUES(?, ?)", (now, text))
            connection.execute(
                "DELETE FROM notice WHERE id IN"
                " (SELECT id FROM notice ORDER BY seen IS NULL DESC, id DESC LIMIT -1 OFFSET ?)",
                (KEPT,),
            )
            return True

        return self._db.write(add)

    def unseen(self, after: int = 0) -> list[Notice]:
        """Those that the user hasn't seen, newest first; only those made after the notice `after`."""
        return self._find("seen IS NULL AND id > ?", after)

    def all(self) -> list[Notice]:
        """All that are kept, newest first."""
        return self._find("id > ?", 0)

    def newest(self) -> int:
        """The id of the newest notice, 0 when there never was one."""
        sql = "SELECT seq FROM sqlite_sequence WHERE name = 'notice'"
        row = self._db.read(lambda connection: connection.execute(sql).fetchone())
        return int(row[0]) if row else 0

    def mark_seen(self, newest: int, now: float) -> int:
        """The user has seen the notices up to the id `newest`; how many of them were unseen."""
        sql = "UPDATE notice SET seen = ? WHERE id <= ? AND seen IS NULL"
        return self._db.write(lambda connection: connection.execute(sql, (now, newest)).rowcount)

    def _find(self, condition: str, *parameters: object) -> list[Notice]:
        sql = f"SELECT id, at, text, seen FROM notice WHERE {condition} ORDER BY id DESC"  # noqa: S608 - our own words
        rows = self._db.read(lambda connection: connection.execute(sql, parameters).fetchall())
        return [Notice(*row) for row in rows]
