"""What a node keeps for others: one facade over its objects, tombstones and inboxes, durable when a call returns.

It orders files and rows so that a crash at any point loses nothing acknowledged, and turns every failure of the disk
into a refusal. The rules are in objects.py, inboxes.py and collector.py; who may delete or read is decided by the
node, before it calls here.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import sqlite3
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from storage import durable
from storage.database import Database, DatabaseDamaged, DatabaseError
from storage.limits import DIGEST_BYTES, KEY_BYTES, MAX_PROOF, RETENTION
from storage.node import collector, inboxes, integrity, objects, quota_shares, replica_queries
from storage.node.bodies import INLINE_LIMIT, Bodies, digest_of
from storage.node.objects import (
    NoSpace,
    Offer,
    Origin,
    PutOutcome,
    StoredObject,
    StoreFailed,
    StoreRefused,
    Tombstone,
    WrongDigest,
    require,
)
from storage.node.replica_queries import PendingNotification
from storage.node.schema import SCHEMA
from storage.read_only_db import open_to_read
from storage.store_request import StoreRequest

T = TypeVar("T")
log = logging.getLogger(__name__)


_TRIES = 8
"""Rounds of making room while others take it."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a node keeps. `bytes` is what counts against `quota`: contents, notifications, tombstones, rows."""

    objects: int
    bytes: int
    quota: int
    inboxes: int
    tombstones: int


class NodeStore:
    """One node's store below `folder`: store.sqlite, bodies/, spool/, lock.

    `quota` in bytes; `now` gives seconds since the epoch; `retention` in seconds caps every ttl. Raises
    DatabaseDamaged (`open_node_store` sets it aside), StoreBusy, DatabaseError. All methods but `close`, `spool` belong
    to one event loop. Every refusal is a StoreRefused; StoreFailed is the one for a failing disk.
    """

    def __init__(
        self, folder: Path, *, quota: int, now: Callable[[], float] = time.time, retention: float = RETENTION
    ) -> None:
        self.set_aside: Path | None = None  # where a damaged predecessor is now
        self._quota = quota
        self._now = now
        self._retention = retention
        self._touches = collector.AccessTimes()
        self._leases = inboxes.Leases()
        self._running: set[asyncio.Task[Any]] = set()
        try:
            durable.make_folder(folder)
            self._lock = integrity.StoreLock(folder)
            try:
                self._bodies = Bodies(folder)
                integrity.inspect(folder, self._bodies)
                self._database = Database(folder / integrity.DATABASE_NAME, SCHEMA)
            except BaseException:
                self._lock.release()
                raise
        except OSError as error:
            raise DatabaseError(f"The store in {folder} can't be opened ({error}); it was left as it is.") from error
        self._collector = collector.Collector(self._database, self._touches, self._leases, quota=quota, now=now)

    @property
    def spool_folder(self) -> Path:
        """Where streamed uploads are written before `store` takes them; emptied at the start."""
        return self._bodies.spool_folder

    def spool(self) -> Path:
        """A fresh path for a streamed upload. The writer removes it unless `store` got it."""
        return self._bodies.spool()

    async def store(
        self, request: StoreRequest, responsible: Callable[[bytes], bool], *, origin: Origin | None = None
    ) -> StoredObject:
        """Keep an object durably, for its `ttl` at most; idempotent (paper 2.2, store; design 4).

        A Path is a closed file in `spool_folder`: it is moved in, or removed when refused. Without `sequence` up to
        8 variants of a key are kept, with it one slot where the newer replaces. When the quota is used up, what has
        expired goes, then what `responsible(key)` (asked on the event loop) says other nodes keep. Raises
        WrongDigest, Deleted, Stale, TooManyVariants, ShareUsed (`origin` has its share), NoSpace, StoreFailed: then
        nothing of it was kept.
        """
        content, digest, deleters = request.content, request.digest, frozenset(request.deleters)

        def offer_of(size: int, body: bytes | str) -> Offer:
            return Offer(request.kind, request.key, digest, size, body, deleters, request.ttl, request.sequence, origin)

        if isinstance(content, bytes) and len(content) <= INLINE_LIMIT:
            if digest_of(content) != digest:
                raise WrongDigest
            offer = offer_of(len(content), content)
            kept = await self._put(offer, responsible)
            await self._discard(kept.dropped)
            return kept.object
        if isinstance(content, Path):
            require(content.parent == self.spool_folder, "a spool file lies in the spool folder")

        return await self._to_the_end(self._store_large(offer_of, digest, content, responsible))

    async def fetch(
        self, kind: int, key: bytes, digest: bytes | None = None
    ) -> tuple[StoredObject, bytes | Path] | None:
        """The object and its bytes or the file that holds them; the oldest variant without `digest`; None: not here.

        The file may be gone before it is opened, when the object is deleted meanwhile: then it is not here either.
        """
        now = self._now()

        def action(connection: sqlite3.Connection) -> tuple[StoredObject, bytes | str] | None:
            found = objects.get(connection, kind, key, digest, now)
            if found is None:
                return None
            number, used, held, content = found
            self._touches.record(number, used, now)
            return held, content

        found = await self._guard(self._database.read(action))
        if found is None:
            return None
        held, content = found
        return held, self._bodies.path(content) if isinstance(content, str) else content

    async def delete(self, kind: int, key: bytes, deleter: bytes, proof: bytes, ttl: float) -> int:
        """Take `deleter` off every variant and keep the signed delete `proof` as a tombstone, durably.

        An object that nobody is left for is dropped; returns how many were. The tombstone is kept too when nothing
        is here yet, so that a later copy doesn't rise again: for `ttl` seconds, and as long as what it met.
        """
        require(len(key) == KEY_BYTES and len(deleter) == DIGEST_BYTES, "a key has 20 bytes, a deleter hash 32")
        if len(proof) > MAX_PROOF:
            raise StoreRefused(f"The signed delete is longer than {MAX_PROOF} bytes; nothing was deleted.")
        now = self._now()
        tombstone = Tombstone(kind, key, deleter, proof, now + max(0.0, min(ttl, self._retention)))
        action = partial(objects.add_tombstone, tombstone=tombstone, now=now, quota=self._quota)
        dropped, files = await self._with_room(action, None)
        await self._discard(files)
        return dropped

    async def proofs(self, kind: int, key: bytes, deleters: Sequence[bytes]) -> list[bytes]:
        """Each deleter's signed delete, or b"": the sender's proof that the recipient has collected it."""
        now = self._now()

        def look(connection: sqlite3.Connection) -> list[bytes]:
            tombstones = (objects.find_tombstone(connection, kind, key, deleter, now) for deleter in deleters)
            return [b"" if tombstone is None else tombstone.proof for tombstone in tombstones]

        return await self._guard(self._database.read(look))

    async def append(
        self,
        key: bytes,
        notification: bytes,
        ttl: float,
        *,
        origin: Origin | None = None,
        responsible: Callable[[bytes], bool] | None = None,
        admit: Callable[[float], None] = lambda fullness: None,
    ) -> bool:
        """Put a notification into an inbox, durably, for `ttl` seconds (paper 2.2, append-inbox).

        False: it is there already, or was acknowledged within the retention. `admit` hears, in the database's thread,
        how full the inbox is (0 to 1), and may raise. Raises that, InboxFull, NoSpace (with `responsible`, after
        objects were collected as in `store`), StoreFailed.
        """
        require(len(key) == KEY_BYTES, "a key has 20 bytes")
        if not ttl > 0:
            raise StoreRefused("The notification has expired already; it was not kept.")
        now = self._now()
        digest = hashlib.sha256(notification).digest()
        new = inboxes.OfferedNotification(key, digest, notification, now + min(ttl, self._retention), origin)

        def action(connection: sqlite3.Connection) -> bool:
            fresh = inboxes.append(connection, new, now=now, quota=self._quota, admit=admit)
            if fresh:
                quota_shares.check(connection, origin, self._quota)
            return fresh

        return await self._with_room(action, responsible)

    async def read(self, key: bytes, reader: bytes, *, limit: int, lease: float = 60.0) -> tuple[list[bytes], bool]:
        """The oldest notifications, up to `limit` bytes but at least one, and whether more wait.

        For `lease` seconds nobody but `reader` (32 bytes) sees them again. They stay until `acknowledge`.
        (Paper 2.2, read-inbox.)
        """
        require(len(key) == KEY_BYTES and len(reader) == DIGEST_BYTES, "a key has 20 bytes, a reader 32")
        now = self._now()
        action = partial(inboxes.read, leases=self._leases, key=key, reader=reader, limit=limit, now=now)
        return await self._guard(self._database.read(partial(action, until=now + lease)))

    async def acknowledge(self, key: bytes, hashes: Iterable[bytes]) -> int:
        """Delete the notifications with these SHA-256 hashes, durably; returns how many were here.

        They are remembered for the retention, so that a copy that comes late isn't taken again.
        """
        wanted = list(hashes)
        require(len(key) == KEY_BYTES, "a key has 20 bytes")
        require(all(len(digest) == DIGEST_BYTES for digest in wanted), "a hash has 32 bytes")
        until = self._now() + self._retention
        return await self._guard(
            self._database.write(partial(inboxes.acknowledge, key=key, hashes=wanted, until=until))
        )

    async def objects(self, after: bytes = b"", limit: int = 500) -> list[StoredObject]:
        """What is kept, by key, beginning behind the key `after`; empty at the end.

        A page never ends within a key (it may be a few longer than `limit`): go on with the last one's key.
        """
        action = partial(objects.page, after=after, limit=limit, now=self._now())
        return await self._guard(self._database.read(action))

    async def keys(self, after: tuple[bytes, int] = (b"", -1), limit: int = 500) -> list[tuple[bytes, int]]:
        """(key, kind) of all that is kept, deletes and inboxes (kind holdings.INBOX) too, past `after`, in order."""
        return await self._read(partial(replica_queries.keys, after=after, limit=limit, now=self._now()))

    async def variants(self, kind: int, key: bytes) -> list[StoredObject]:
        """The objects under one key."""
        return await self._read(partial(objects.variants, kind=kind, key=key, now=self._now()))

    async def tombstones(self, kind: int, key: bytes, after: bytes = b"", limit: int = 100) -> list[Tombstone]:
        """The signed deletes of a key, by deleter, past `after`."""
        action = partial(replica_queries.tombstones, kind=kind, key=key, after=after, limit=limit, now=self._now())
        return await self._read(action)

    async def last_delete(self, kind: int, key: bytes) -> float | None:
        """When the newest delete of the key expires, or None when there is none."""
        return await self._read(partial(replica_queries.last_delete, kind=kind, key=key, now=self._now()))

    async def deleters(self, kind: int, key: bytes) -> list[bytes]:
        """Who has deleted under the key, in ascending order."""
        return await self._read(partial(replica_queries.deleters, kind=kind, key=key, now=self._now()))

    async def pending_notifications(self, key: bytes, after: int = 0, limit: int = 100) -> list[PendingNotification]:
        """The notifications of an inbox in the order of arrival, past id `after`; no lease is taken."""
        return await self._read(
            partial(replica_queries.pending_notifications, key=key, after=after, limit=limit, now=self._now())
        )

    async def known(self, key: bytes, hashes: Iterable[bytes]) -> list[bool]:
        """Of each hash, whether that notification waits in the inbox or was acknowledged here."""
        return await self._read(partial(replica_queries.known, key=key, hashes=list(hashes), now=self._now()))

    async def usage(self) -> Usage:
        """What is kept, and of which quota."""
        number, used, inbox_count, tombstones = await self._guard(self._database.read(_totals))
        return Usage(number, used, self._quota, inbox_count, tombstones)

    async def expire(self) -> int:
        """Drop what has expired; returns how many rows (objects, notifications, tombstones, remembered hashes)."""
        count, files = await self._guard(self._collector.expire())
        await self._discard(files)
        return count

    def close(self) -> None:
        """Finish what was handed in and close. What is called later is refused. May be called again."""
        self._database.close()
        self._lock.release()

    async def _put(self, offer: Offer, responsible: Callable[[bytes], bool]) -> PutOutcome:
        now = self._now()

        def action(connection: sqlite3.Connection) -> PutOutcome:
            kept = objects.put(connection, offer, now=now, retention=self._retention, quota=self._quota)
            if kept.taken:
                quota_shares.check(connection, offer.origin, self._quota)
            return kept

        if objects.charge_of(offer.size, 0) > self._quota:
            raise NoSpace(objects.charge_of(offer.size, 0) - self._quota)
        return await self._with_room(action, responsible)

    async def _store_large(
        self,
        offer_of: Callable[[int, bytes | str], Offer],
        digest: bytes,
        content: bytes | Path,
        responsible: Callable[[bytes], bool],
    ) -> StoredObject:
        unused: list[str] = []  # body files that no row names, for certain
        try:
            size = len(content) if isinstance(content, bytes) else content.stat().st_size
            offer_of(size, b"")  # refuse what is malformed before it costs anything
            if await asyncio.to_thread(digest_of, content) != digest:
                raise WrongDigest
            body = await asyncio.to_thread(self._bodies.take, content)
            try:
                kept = await self._put(offer_of(size, body), responsible)
            except StoreRefused:
                unused += [body] if isinstance(body, str) else []
                raise
            # Any other exception (the loop ends while the commit runs): perhaps there is a row. The file stays, and
            # the next start knows.
            unused += kept.dropped + ([body] if isinstance(body, str) and not kept.taken else [])
            return kept.object
        except OSError as error:
            raise StoreFailed(f"This node's disk refused it ({error}); it was not kept.") from error
        finally:
            if isinstance(content, Path):
                await asyncio.to_thread(content.unlink, missing_ok=True)
            await self._discard(unused)

    async def _with_room(
        self, action: Callable[[sqlite3.Connection], T], responsible: Callable[[bytes], bool] | None
    ) -> T:
        """Write; when the quota is used up make room and try again."""
        for _ in range(_TRIES):
            try:
                return await self._guard(self._database.write(action))
            except NoSpace as full:
                search = responsible if full.objects else None
                files = await self._guard(self._collector.make_room(full.missing, search))
                await self._discard(files)
        return await self._guard(self._database.write(action))

    async def _to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` to its end though the caller is cancelled: between file and row it may not stop."""
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # a caller that waited has it

    async def _discard(self, files: list[str]) -> None:
        if files:
            await asyncio.to_thread(self._bodies.remove, files)

    async def _read(self, action: Callable[[sqlite3.Connection], T]) -> T:
        return await self._guard(self._database.read(action))

    async def _guard(self, work: Coroutine[Any, Any, T]) -> T:
        """A failing disk or database is a refusal."""
        try:
            return await work
        except DatabaseError as error:
            log.error("A request was refused: %s", error)
            raise StoreFailed(f"This node's store failed and nothing was kept: {error}") from error


def open_node_store(
    folder: Path, *, quota: int, now: Callable[[], float] = time.time, retention: float = RETENTION
) -> NodeStore:
    """The store in `folder`; a damaged one is set aside first, whole, and an empty one begun.

    That is logged, and `set_aside` of the store says where the damaged files are. Raises StoreBusy, DatabaseError.
    """
    try:
        return NodeStore(folder, quota=quota, now=now, retention=retention)
    except DatabaseDamaged as error:
        aside = integrity.set_aside(folder, now())
        log.error(
            "%s It was set aside in %s with its bodies, and an empty store begun: what this node kept for others is not"
            " served any more (the other nodes have copies). Delete that folder when you don't need it.",
            error,
            aside,
        )
    fresh = NodeStore(folder, quota=quota, now=now, retention=retention)
    fresh.set_aside = aside
    return fresh


def stored_usage(folder: Path) -> Usage | None:
    """What the store in `folder`, which nobody need have opened, keeps (quota 0: not known here). None: no store."""
    path = folder / "store.sqlite"
    if not path.exists():
        return None
    try:
        connection, _ = open_to_read(path)
        with closing(connection):
            objects, size, inboxes, tombstones = _totals(connection)
    except (sqlite3.Error, DatabaseError):
        return None
    return Usage(objects, size, 0, inboxes, tombstones)


def _totals(connection: sqlite3.Connection) -> tuple[int, int, int, int]:
    found = connection.execute(
        "SELECT objects, bytes, (SELECT count(*) FROM inboxes), tombstones FROM totals"
    ).fetchone()
    return int(found[0]), int(found[1]), int(found[2]), int(found[3])
