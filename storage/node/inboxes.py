"""A node's inboxes: notifications that wait, those that were acknowledged, and who holds a lease on which.

Functions here run inside a transaction of database.py (paper 2.2 append-inbox and read-inbox; design 4). Who may read
an inbox is decided elsewhere.

Theory of operation
-------------------
A notification is known by its inbox's key and its SHA-256. It is in one of these states:

    absent        never here, or forgotten. `append` makes it waiting.
    waiting       a row on disk. `read` hands it out; `acknowledge` deletes it; at its expiry it counts as absent.
    acknowledged  only its hash is on disk, for the retention. `append` doesn't take it again.

`acknowledge` also remembers hashes of notifications that were never here: their owner read them at another node, and
a late copy must not appear as new mail. MAX_REMEMBERED bounds this for each inbox.

A waiting notification is free, or leased to one reader (one of the owner's programs). `read` returns the oldest that
no other reader holds, and leases them to the caller. So two programs of one user don't work on the same notification
at once. A lease ends at its time, when the node restarts, or when the clock is put back to before its beginning. Then
the notification is handed out again. Leases are kept in memory only: losing them shows a notification once more, which
loses nothing.

`append` decides in this order: known already (False); what `admit` says; the inbox's own limits (InboxFull, after its
expired notifications were removed); the share of all inboxes (NoSpace, which collecting objects doesn't help); the
quota (NoSpace).

Invariants:

- Reading removes nothing. A notification leaves the disk only when its owner acknowledges it or when it expires.
- A notification that waits or was acknowledged isn't taken a second time.
- An acknowledged notification that was here is always remembered; the quota never refuses an acknowledgement.
- A lease hides, and never deletes; its own holder sees the notification again at once.
- Row ids are never used twice (AUTOINCREMENT), so a lease that outlives its row can't hide another notification.
- `Leases` is touched only by actions of the database, which run in one thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from storage.limits import MAX_INBOX_NOTIFICATIONS
from storage.node.objects import NoSpace, Origin, StoreRefused, origin_columns

MAX_INBOX_BYTES = 16 * 1024 * 1024
"""One inbox, so that a flood of one recipient takes no room from the others. What the k nodes hold may differ."""

MAX_REMEMBERED = 10_000
"""Hashes that an owner may acknowledge here without their notifications ever having been here."""

INBOX_SHARE = 0.5
"""Of the quota, for all inboxes together: appending is open to anybody, and must leave room for bodies."""

NOTIFICATION_OVERHEAD = 256
REMEMBERED_CHARGE = 128
"""Bytes of rows and indexes."""


class InboxFull(StoreRefused):
    """The recipient's inbox on this node is full until the recipient collects."""

    def __init__(self) -> None:
        super().__init__("This inbox is full until its owner collects mail; the notification was not kept.")


@dataclass(frozen=True, slots=True)
class OfferedNotification:
    """A notification as it is offered; `hash` is its SHA-256."""

    key: bytes
    hash: bytes
    data: bytes
    expires: float
    origin: Origin | None = None


@dataclass(slots=True)
class _Lease:
    reader: bytes
    since: float
    until: float

    def is_valid(self, now: float) -> bool:
        """Not on a clock that was put back since: it would last for as long as that takes to catch up."""
        return self.since <= now < self.until


@dataclass(slots=True)
class Leases:
    """Who has been handed which notifications, until when. Touched by the database's thread only."""

    _held: dict[bytes, dict[int, _Lease]] = field(default_factory=dict)

    def hidden_from(self, key: bytes, reader: bytes, now: float) -> set[int]:
        """Ids in the inbox that somebody else holds."""
        held = self._held.get(key, {})
        return {number for number, lease in held.items() if lease.is_valid(now) and lease.reader != reader}

    def grant(self, key: bytes, numbers: Iterable[int], reader: bytes, now: float, until: float) -> None:
        """Hold these for `reader`."""
        held = self._held.setdefault(key, {})
        for number in numbers:
            held[number] = _Lease(reader, now, until)

    def expire(self, now: float) -> None:
        """Forget the leases that have ended."""
        for key, held in list(self._held.items()):
            left = {number: lease for number, lease in held.items() if lease.is_valid(now)}
            if left:
                self._held[key] = left
            else:
                del self._held[key]

    def __len__(self) -> int:
        return sum(len(held) for held in self._held.values())


def append(
    connection: sqlite3.Connection,
    new: OfferedNotification,
    *,
    now: float,
    quota: int,
    admit: Callable[[float], None] = lambda fullness: None,
) -> bool:
    """Put a notification into an inbox; False when it is there already or was acknowledged (paper 2.2).

    `admit` hears how full the inbox is, or the room for all of them where that is fuller (0 to 1), and may raise.
    Raises that, InboxFull, or NoSpace when the quota or the inboxes' share of it is used up.
    """
    charge = NOTIFICATION_OVERHEAD + len(new.data)
    place = {"key": new.key, "hash": new.hash, "now": now}
    known, count, size, used, inboxes = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM notifications WHERE key = :key AND hash = :hash AND expires > :now)"
        " OR EXISTS (SELECT 1 FROM acknowledged WHERE key = :key AND hash = :hash AND expires > :now),"
        " coalesce((SELECT count FROM inboxes WHERE key = :key), 0),"
        " coalesce((SELECT bytes FROM inboxes WHERE key = :key), 0), bytes, inbox_bytes FROM totals",
        place,
    ).fetchone()
    if known:
        return False
    admit(max(count / MAX_INBOX_NOTIFICATIONS, size / MAX_INBOX_BYTES, inboxes / max(1.0, quota * INBOX_SHARE)))
    if count >= MAX_INBOX_NOTIFICATIONS or size + len(new.data) > MAX_INBOX_BYTES:
        if connection.execute("DELETE FROM notifications WHERE key = :key AND expires <= :now", place).rowcount:
            return append(connection, new, now=now, quota=quota, admit=admit)
        raise InboxFull
    over_share = inboxes + charge - int(quota * INBOX_SHARE)
    if over_share > 0:
        raise NoSpace(over_share, objects=False)
    if used + charge > quota:
        raise NoSpace(used + charge - quota)
    # One that has expired, and wasn't swept yet, may stand in its place.
    connection.execute("DELETE FROM notifications WHERE key = :key AND hash = :hash AND expires <= :now", place)
    connection.execute(
        "INSERT INTO notifications (key, hash, expires, size, charge, data, peer, span)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (new.key, new.hash, new.expires, len(new.data), charge, new.data, *origin_columns(new.origin)),
    )
    return True


def read(
    connection: sqlite3.Connection, leases: Leases, key: bytes, reader: bytes, *, limit: int, now: float, until: float
) -> tuple[list[bytes], bool]:
    """The oldest notifications that nobody else holds, up to `limit` bytes but at least one; and whether more wait.

    They are leased to `reader` until `until`; they stay until they are acknowledged. (The paper deletes at once: a
    UA that died then would lose mail.)
    """
    hidden = leases.hidden_from(key, reader, now)
    waiting = [
        (number, size)
        for number, size in connection.execute(
            "SELECT id, size FROM notifications WHERE key = ? AND expires > ? ORDER BY id", (key, now)
        )
        if number not in hidden
    ]
    chosen: list[int] = []
    total = 0
    for number, size in waiting:
        if chosen and total + size > limit:
            break
        chosen.append(number)
        total += size
    handed = [
        connection.execute("SELECT data FROM notifications WHERE id = ?", (number,)).fetchone()[0] for number in chosen
    ]
    if chosen:
        leases.grant(key, chosen, reader, now, until)
    return handed, len(waiting) > len(chosen)


def acknowledge(connection: sqlite3.Connection, key: bytes, hashes: Iterable[bytes], *, until: float) -> int:
    """Delete these and remember their hashes until `until`; returns how many were here.

    Hashes that this node never had (the owner read them elsewhere) are remembered too, as far as there is room.
    """
    deleted = 0
    (remembered,) = connection.execute("SELECT count(*) FROM acknowledged WHERE key = ?", (key,)).fetchone()
    for digest in hashes:
        here = connection.execute("DELETE FROM notifications WHERE key = ? AND hash = ?", (key, digest)).rowcount
        deleted += here
        if here or remembered < MAX_REMEMBERED:
            remembered += connection.execute(
                "INSERT INTO acknowledged VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (key, digest, until, REMEMBERED_CHARGE),
            ).rowcount
            connection.execute(
                "UPDATE acknowledged SET expires = max(expires, ?) WHERE key = ? AND hash = ?", (until, key, digest)
            )
    return deleted
