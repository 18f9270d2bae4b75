"""A node's objects and the tombstones of those that were deleted: the values, the rules, and their rows.

Functions here run inside a transaction of database.py and decide what is kept (paper 2.2 store, fetch, delete;
design 4). No file is touched here, nothing is evicted for room (collector.py), and no certificate is checked: a
deleter is an opaque hash.

Theory of operation
-------------------
Under one (kind, key) a node keeps variants, which differ in their digest, and tombstones, one for each deleter.

An object is absent, live, or expired. One that has expired is neither found nor counted as a variant; its row goes when
new bytes come under its key, or when the collector passes. What moves it:

    put, new bytes       absent -> live, with the offered deleters but those that have a tombstone
    put, the same bytes  live: the deleters are united, the expiry may grow
    tombstone            live: its deleter is taken off; with the last deleter the object is dropped
    newer sequence       live -> absent: one slot a key holds the object with the highest sequence number
    time, collector      live -> expired, or dropped because other nodes are responsible

A tombstone is absent or live, whether or not its object is here: a delete may arrive before the copy. It expires at
the latest of its own expiry and that of the objects it met.

`put` decides in this order: every offered deleter has a tombstone (Deleted); the same bytes are here (refresh); an
equal or newer sequence number is here (Stale), or too many variants (TooManyVariants); the quota (NoSpace). A refusal
raises, and the transaction undoes what was dropped before it.

Invariants:

- An object that all its deleters have deleted doesn't come back while their tombstones last.
- An object that was once offered without deleters can't be deleted by anybody.
- No object outlives created + retention, however often it is stored again.
- Objects without a sequence number don't displace each other: a forger can't remove a variant, and beyond
  MAX_VARIANTS the oldest stay.
- A tombstone that meets its object is kept on a full node too. One that meets none needs room, and at most
  MAX_TOMBSTONES of them are kept under a key.
- The first proof of a deleter stays as long as its tombstone is live.
- The sums in `totals` change with the rows (triggers in schema.py), so rows are deleted, never replaced: INSERT OR
  REPLACE would skip the delete trigger.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from storage.errors import TEMPORARY, P2PMailError
from storage.limits import DIGEST_BYTES, KEY_BYTES

MAX_VARIANTS = 8
"""Different bytes under one key: a forger displaces nothing, and can't fill the disk under one name."""

MAX_UNITED_DELETERS = 2_000
"""Recipients of one object (64 KiB of hashes); Postfix and RFC 5321 4.5.3.1.8 promise at least 100."""


MAX_TOMBSTONES = 4_000
"""Tombstones under one key that met no object here: deletes before the copy came, or somebody's flood."""

OBJECT_OVERHEAD = 512
"""Bytes that an object costs besides its content: rows, indexes, the inode of a file."""

TOMBSTONE_OVERHEAD = 256


class StoreRefused(P2PMailError):
    """The node did not take it: nothing of it was kept and nothing may be acknowledged. Ask the next node."""

    exit_code = TEMPORARY


class NoSpace(StoreRefused):
    """The quota is used up. `missing`: bytes that would have to become free; `objects`: dropping objects would help."""

    def __init__(self, missing: int, *, objects: bool = True) -> None:
        super().__init__(f"No space on this node: {missing} bytes more would be needed. Ask the next node.")
        self.missing = missing
        self.objects = objects


class Deleted(StoreRefused):
    """Everyone who may delete it has: it doesn't come back."""

    def __init__(self) -> None:
        super().__init__("Everyone it was meant for has deleted it; it is not taken again.")


class Stale(StoreRefused):
    """A newer version is here."""

    def __init__(self, held: int) -> None:
        super().__init__(f"This node has a version at least as new (sequence {held}); the older one was not taken.")


class TooManyVariants(StoreRefused):
    """The key already has as many different contents as a node keeps; the oldest stay."""

    def __init__(self) -> None:
        super().__init__(f"{MAX_VARIANTS} different objects have this key already; no more are taken.")


class WrongDigest(StoreRefused):
    """The bytes are not those that the digest names."""

    def __init__(self) -> None:
        super().__init__("The content doesn't have the digest it was offered under; it was not kept.")


class StoreFailed(StoreRefused):
    """The disk or the database failed (full, I/O error, damage); the message says which."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What a node knows of an object it keeps. Times in seconds since the epoch, by this node's clock."""

    kind: int
    key: bytes
    digest: bytes
    size: int
    sequence: int | None
    created: float
    expires: float
    deleters: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Tombstone:
    """`deleter` has deleted what is under (kind, key); `proof` is the signed delete, opaque here."""

    kind: int
    key: bytes
    deleter: bytes
    proof: bytes
    expires: float


@dataclass(frozen=True, slots=True)
class Origin:
    """Who brought something, for quota_shares.py: its peer, and its address range unless that doesn't count."""

    peer: bytes
    address_range: bytes | None


@dataclass(frozen=True, slots=True)
class Offer:
    """An object as it is offered: its content as bytes, or the name of a body file that is durable already."""

    kind: int
    key: bytes
    digest: bytes
    size: int
    content: bytes | str
    deleters: frozenset[bytes]
    ttl: float
    sequence: int | None
    origin: Origin | None = None

    def __post_init__(self) -> None:
        require(len(self.key) == KEY_BYTES, "a key has 20 bytes")
        require(len(self.digest) == DIGEST_BYTES, "a digest has 32 bytes")
        require(all(len(deleter) == DIGEST_BYTES for deleter in self.deleters), "a deleter hash has 32 bytes")
        require(0 <= self.kind < 256, "a kind is one byte")
        if self.sequence is not None and not 0 <= self.sequence < 2**63:
            raise StoreRefused("Its sequence number is out of range; it was not kept.")
        if len(self.deleters) > MAX_UNITED_DELETERS:
            raise StoreRefused(f"More than {MAX_UNITED_DELETERS} deleters; it was not kept.")
        if not self.ttl > 0:  # also not-a-number
            raise StoreRefused("It has expired already; it was not kept.")


@dataclass(frozen=True, slots=True)
class PutOutcome:
    """The outcome of `put`: the object as it stands, whether this content was taken, body files nobody needs now."""

    object: StoredObject
    taken: bool
    dropped: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Row:
    id: int
    object: StoredObject
    file: str | None
    charge: int


def require(condition: bool, message: str) -> None:
    """Raise ValueError: the caller, not the network, made a mistake."""
    if not condition:
        raise ValueError(message)


def origin_columns(origin: Origin | None) -> tuple[bytes | None, bytes | None]:
    """The two columns that name an origin."""
    return (None, None) if origin is None else (origin.peer, origin.address_range)


def charge_of(size: int, deleters: int) -> int:
    """Bytes that an object takes from the quota."""
    return OBJECT_OVERHEAD + size + DIGEST_BYTES * deleters


def put(connection: sqlite3.Connection, offer: Offer, *, now: float, retention: float, quota: int) -> PutOutcome:
    """Take an object, or refuse (NoSpace, Deleted, Stale, TooManyVariants). Idempotent (paper 2.2, store).

    Of the same bytes again the deleters are united and the expiry may grow, never past created + retention. An
    object that was once offered without deleters is one that nobody may delete, and stays so: otherwise anybody who
    stores a revocation list once more, with himself as its deleter, could delete it.
    """
    used, others, tombstones = connection.execute(
        "SELECT bytes, EXISTS (SELECT 1 FROM objects WHERE key = :key AND kind = :kind),"
        " EXISTS (SELECT 1 FROM tombstones WHERE key = :key AND kind = :kind) FROM totals",
        {"key": offer.key, "kind": offer.kind},
    ).fetchone()
    deleted = _deleters(connection, offer.kind, offer.key, now) if tombstones else frozenset[bytes]()
    deleters = offer.deleters - deleted
    if offer.deleters and not deleters:
        raise Deleted
    dropped: list[str] = []
    freed = 0
    if others:
        rows = _rows(connection, offer.kind, offer.key)
        live = [row for row in rows if row.object.expires > now]
        for row in live:
            if row.object.digest == offer.digest:
                room = quota - used
                return PutOutcome(
                    _refresh(connection, row, deleters, offer, now=now, retention=retention, room=room), taken=False
                )
        obsolete = [row for row in rows if row.object.expires <= now] + _replaced(live, offer)
        for row in obsolete:
            freed += row.charge
            dropped += drop(connection, row.id)
    charge = charge_of(offer.size, len(deleters))
    if used - freed + charge > quota:
        raise NoSpace(used - freed + charge - quota)
    expires = now + min(offer.ttl, retention)
    file = offer.content if isinstance(offer.content, str) else None
    joined = b"".join(sorted(deleters))
    number = connection.execute(
        "INSERT INTO objects"
        " (key, kind, digest, size, sequence, created, expires, used, deleters, file, charge, peer, span)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            offer.key,
            offer.kind,
            offer.digest,
            offer.size,
            offer.sequence,
            now,
            expires,
            now,
            joined,
            file,
            charge,
            *origin_columns(offer.origin),
        ),
    ).lastrowid
    if isinstance(offer.content, bytes):
        connection.execute("INSERT INTO contents VALUES (?, ?)", (number, offer.content))
    kept = StoredObject(
        offer.kind, offer.key, offer.digest, offer.size, offer.sequence, now, expires, frozenset(deleters)
    )
    return PutOutcome(kept, taken=True, dropped=dropped)


def _replaced(live: list[_Row], offer: Offer) -> list[_Row]:
    """The rows that give way to `offer`; raises Stale or TooManyVariants when it may not come in."""
    if offer.sequence is None:
        if sum(row.object.sequence is None for row in live) >= MAX_VARIANTS:
            raise TooManyVariants
        return []
    slot = [row for row in live if row.object.sequence is not None]
    for row in slot:
        if row.object.sequence is not None and row.object.sequence >= offer.sequence:
            raise Stale(row.object.sequence)
    return slot


def _refresh(
    connection: sqlite3.Connection,
    row: _Row,
    deleters: frozenset[bytes],
    offer: Offer,
    *,
    now: float,
    retention: float,
    room: int,
) -> StoredObject:
    held = row.object
    # Nobody may delete it, if that was ever said of it (see `put`).
    united = held.deleters | deleters if held.deleters and offer.deleters else frozenset[bytes]()
    if len(united) > MAX_UNITED_DELETERS:
        raise StoreRefused(f"More than {MAX_UNITED_DELETERS} deleters; the object stays as it was.")
    expires = max(held.expires, min(now + offer.ttl, held.created + retention))
    if united == held.deleters and expires == held.expires:
        return held
    charge = charge_of(held.size, len(united))
    if charge - row.charge > max(room, 0):
        raise NoSpace(charge - row.charge - room)
    connection.execute(
        "UPDATE objects SET deleters = ?, expires = ?, used = ?, charge = ? WHERE id = ?",
        (b"".join(sorted(united)), expires, now, charge, row.id),
    )
    return StoredObject(
        held.kind, held.key, held.digest, held.size, held.sequence, held.created, expires, frozenset(united)
    )


def get(
    connection: sqlite3.Connection, kind: int, key: bytes, digest: bytes | None, now: float
) -> tuple[int, float, StoredObject, bytes | str] | None:
    """The object (the oldest variant without `digest`): its row id, its last use, itself, its content or file name."""
    found = connection.execute(
        f"SELECT {_COLUMNS}, used, data FROM objects LEFT JOIN contents USING (id)"  # noqa: S608 - a constant
        " WHERE key = ? AND kind = ? AND (?3 IS NULL OR digest = ?3) AND expires > ? ORDER BY id LIMIT 1",
        (key, kind, digest, now),
    ).fetchone()
    if found is None:
        return None
    row = _row(found)
    used, data = found[-2:]
    return row.id, used, row.object, row.file if row.file is not None else data


def add_tombstone(
    connection: sqlite3.Connection, tombstone: Tombstone, *, now: float, quota: int
) -> tuple[int, list[str]]:
    """Take a deleter off every variant, keep the tombstone (paper 2.2, delete; design 4).

    Returns how many objects were dropped because nobody is left, and the body files to remove. A tombstone lasts
    at least as long as the objects that it met, and the first proof stays. One that meets an object here is always
    kept, on a full node too; one that comes before its object needs room (NoSpace).
    """
    dropped = 0
    files: list[str] = []
    expires = tombstone.expires
    met = False
    for row in _rows(connection, tombstone.kind, tombstone.key):
        if tombstone.deleter not in row.object.deleters:
            continue
        met = True
        expires = max(expires, row.object.expires)
        left = row.object.deleters - {tombstone.deleter}
        if left:
            connection.execute(
                "UPDATE objects SET deleters = ?, charge = ? WHERE id = ?",
                (b"".join(sorted(left)), charge_of(row.object.size, len(left)), row.id),
            )
        else:
            dropped += 1
            files += drop(connection, row.id)
    known = connection.execute(
        "UPDATE tombstones SET expires = max(expires, ?) WHERE key = ? AND kind = ? AND deleter = ? AND expires > ?",
        (expires, tombstone.key, tombstone.kind, tombstone.deleter, now),
    ).rowcount
    if not known:
        charge = TOMBSTONE_OVERHEAD + len(tombstone.proof)
        if not met:
            _make_sure_of_room(connection, tombstone, charge, quota)
        place = (tombstone.key, tombstone.kind, tombstone.deleter)
        # Not INSERT OR REPLACE: it would take an expired row away without its trigger.
        connection.execute("DELETE FROM tombstones WHERE key = ? AND kind = ? AND deleter = ?", place)
        connection.execute(
            "INSERT INTO tombstones VALUES (?, ?, ?, ?, ?, ?)", (*place, tombstone.proof, expires, charge)
        )
    return dropped, files


def _make_sure_of_room(connection: sqlite3.Connection, tombstone: Tombstone, charge: int, quota: int) -> None:
    used, count = connection.execute(
        "SELECT bytes, (SELECT count(*) FROM tombstones WHERE key = ? AND kind = ?) FROM totals",
        (tombstone.key, tombstone.kind),
    ).fetchone()
    if used + charge > quota:
        raise NoSpace(used + charge - quota)
    if count >= MAX_TOMBSTONES:
        raise StoreRefused(f"{MAX_TOMBSTONES} deletes of this key are kept already; no more are taken.")


def find_tombstone(
    connection: sqlite3.Connection, kind: int, key: bytes, deleter: bytes, now: float
) -> Tombstone | None:
    """The signed delete of this deleter, if there is one."""
    found = connection.execute(
        "SELECT proof, expires FROM tombstones WHERE key = ? AND kind = ? AND deleter = ? AND expires > ?",
        (key, kind, deleter, now),
    ).fetchone()
    return None if found is None else Tombstone(kind, key, deleter, found[0], found[1])


def page(connection: sqlite3.Connection, after: bytes, limit: int, now: float) -> list[StoredObject]:
    """Objects in the order of their keys, those with key > `after`; a page never ends within a key.

    So the key of the last one is where the next page begins, and a page may be a few longer than `limit`.
    """
    select = f"SELECT {_COLUMNS} FROM objects WHERE expires > ? AND"  # noqa: S608 - a constant
    order = "ORDER BY key, kind, digest"
    rows = [_row(row) for row in connection.execute(f"{select} key > ? {order} LIMIT ?", (now, after, limit))]
    if len(rows) == limit:
        last = rows[-1].object
        rows += [
            _row(row)
            for row in connection.execute(
                f"{select} key = ? AND (kind, digest) > (?, ?) {order}", (now, last.key, last.kind, last.digest)
            )
        ]
    return [row.object for row in rows]


def variants(connection: sqlite3.Connection, kind: int, key: bytes, now: float) -> list[StoredObject]:
    """The objects under one key, oldest first."""
    return [row.object for row in _rows(connection, kind, key) if row.object.expires > now]


def drop(connection: sqlite3.Connection, number: int) -> list[str]:
    """Take an object out; returns the name of its body file, if it has one, to be removed after the commit."""
    return files_of(connection.execute("DELETE FROM objects WHERE id = ? RETURNING file", (number,)))


def files_of(rows: Iterable[tuple[str | None]]) -> list[str]:
    """The file names in rows of one column."""
    return [row[0] for row in rows if row[0] is not None]


_COLUMNS = "id, kind, key, digest, size, sequence, created, expires, deleters, file, charge"


def _rows(connection: sqlite3.Connection, kind: int, key: bytes) -> list[_Row]:
    query = f"SELECT {_COLUMNS} FROM objects WHERE key = ? AND kind = ? ORDER BY id"  # noqa: S608 - a constant
    return [_row(row) for row in connection.execute(query, (key, kind))]


def _row(found: tuple[Any, ...]) -> _Row:
    number, kind, key, digest, size, sequence, created, expires, deleters, file, charge = found[:11]
    hashes = frozenset(deleters[at : at + DIGEST_BYTES] for at in range(0, len(deleters), DIGEST_BYTES))
    held = StoredObject(kind, key, digest, size, sequence, created, expires, hashes)
    return _Row(number, held, file, charge)


def _deleters(connection: sqlite3.Connection, kind: int, key: bytes, now: float) -> frozenset[bytes]:
    found = connection.execute(
        "SELECT deleter FROM tombstones WHERE key = ? AND kind = ? AND expires > ?", (key, kind, now)
    )
    return frozenset(row[0] for row in found)
