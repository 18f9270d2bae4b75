"""What a node keeps, as the repair of its copies needs it: by key, with deletes and notifications.

Functions here read inside a transaction of database.py and change nothing. Where copies belong is decided in the
overlay (overlay/primitives/placement.py); how they are kept is in objects.py and inboxes.py.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from storage.limits import INBOX
from storage.node.objects import Tombstone


@dataclass(frozen=True, slots=True)
class PendingNotification:
    """A notification that nobody has acknowledged; `expires` in seconds since the epoch."""

    id: int
    hash: bytes
    data: bytes
    expires: float


def keys(connection: sqlite3.Connection, after: tuple[bytes, int], limit: int, now: float) -> list[tuple[bytes, int]]:
    """Up to `limit` (key, kind) past `after`, in order, under which an object, a tombstone or an inbox is kept."""
    return [
        (key, kind)
        for key, kind in connection.execute(
            "SELECT key, kind FROM objects WHERE (key, kind) > (:key, :kind) AND expires > :now"
            " UNION SELECT key, kind FROM tombstones WHERE (key, kind) > (:key, :kind) AND expires > :now"
            " UNION SELECT key, :inbox FROM inboxes WHERE (key, :inbox) > (:key, :kind)"
            " ORDER BY 1, 2 LIMIT :limit",
            {"key": after[0], "kind": after[1], "now": now, "limit": limit, "inbox": INBOX},
        )
    ]


def last_delete(connection: sqlite3.Connection, kind: int, key: bytes, now: float) -> float | None:
    """When the newest delete of the key expires."""
    sql = "SELECT max(expires) FROM tombstones WHERE key = ? AND kind = ? AND expires > ?"
    found: float | None = connection.execute(sql, (key, kind, now)).fetchone()[0]
    return found


def tombstones(
    connection: sqlite3.Connection, kind: int, key: bytes, *, after: bytes, limit: int, now: float
) -> list[Tombstone]:
    """Up to `limit` signed deletes of the key, by their deleters' hashes, past `after`."""
    rows = connection.execute(
        "SELECT deleter, proof, expires FROM tombstones WHERE key = ? AND kind = ? AND deleter > ? AND expires > ?"
        " ORDER BY deleter LIMIT ?",
        (key, kind, after, now, limit),
    )
    return [Tombstone(kind, key, deleter, proof, expires) for deleter, proof, expires in rows]


def deleters(connection: sqlite3.Connection, kind: int, key: bytes, now: float) -> list[bytes]:
    """The deleters' hashes of all deletes of the key, in ascending order."""
    rows = connection.execute(
        "SELECT deleter FROM tombstones WHERE key = ? AND kind = ? AND expires > ? ORDER BY deleter", (key, kind, now)
    )
    return [deleter for (deleter,) in rows]


def pending_notifications(
    connection: sqlite3.Connection, key: bytes, after: int, limit: int, now: float
) -> list[PendingNotification]:
    """Up to `limit` notifications of an inbox in the order of arrival, past the one with the id `after`."""
    rows = connection.execute(
        "SELECT id, hash, data, expires FROM notifications WHERE key = ? AND id > ? AND expires > ?"
        " ORDER BY id LIMIT ?",
        (key, after, now, limit),
    )
    return [PendingNotification(*row) for row in rows]


def known(connection: sqlite3.Connection, key: bytes, hashes: Iterable[bytes], now: float) -> list[bool]:
    """Of each hash, whether that notification waits in the inbox or was acknowledged here."""
    query = (
        "SELECT EXISTS (SELECT 1 FROM notifications WHERE key = ?1 AND hash = ?2 AND expires > ?3)"
        " OR EXISTS (SELECT 1 FROM acknowledged WHERE key = ?1 AND hash = ?2 AND expires > ?3)"
    )
    return [bool(connection.execute(query, (key, digest, now)).fetchone()[0]) for digest in hashes]
