"""Repairs copies: gives them to new nodes, checks them every hour, and hands them on at the end (paper, section 2.3).

Theory of operation
-------------------
An object lies at the k closest nodes to its key, its holders. Holders come and go, so each holder keeps watch over the
keys of which it has a copy or a tombstone. Four events start a repair of one key:

newcomer    A node enters the routing table, or answers again after silence (`met`). Within WORK_EVERY seconds the
            nearest GIVERS holders exchange with it each key that it is now among the k closest to.
hint        A fetch found that a nearer node had nothing, and told the node that had it (`hinted`). Within WORK_EVERY
            seconds that node exchanges the key with the other holders.
round       Every ROUND_EVERY seconds (`run_round`), the node looks up each key that it has and exchanges it with the
            other k - 1 closest nodes. A key rests for one round when another holder has just repaired it (`looked`):
            that holder's request said so. It rests for one round only, because the request may be a lie.
leave       The node stops (`leave`). It gives each key to the node that becomes one of the k closest without it.

An exchange (`_exchange`) has three steps, in this order:

1. Learn the other's deletes. Each is signed by the recipient, so it is checked like any delete (`hand_tombstone`).
2. Give the copies that the other lacks, with the time to live that is left of them and never more.
3. Give the deletes that the other lacks.

Deletes come first: a copy that a recipient has deleted must not be given to a node that had forgotten it. Step 1 sends
a digest of our deletes; the other answers `same` when it has just those, and then neither lists them.

When all k closest have just the same deletes and none has a copy, there is nothing left to do: the key is settled with
the digest of these deletes, until there is another one. A key that has only tombstones here and isn't settled is
exchanged in every round for RECENT seconds after its last delete. After that, and while it is settled, it is exchanged
in one round of FULL_ROUND_EVERY.

Inboxes work likewise, without steps 1 and 3: a notification that was acknowledged at the other node counts as known
there. Shares (erasure coding) lie at one node each, so they aren't copied: their holder learns deletes from one other
node a round, and hands a share on only when it stops or is no longer among the SHARED_BY closest.

Invariants: a copy is never dropped here, it stays until its time to live ends. Nothing that a node refuses or fails to
answer stops the repair of other keys. Work is bounded: AT_ONCE keys at a time, MAX_HINTS, MAX_NEWCOMERS and
REMEMBERED_KEYS remembered. Which node gives what to which is decided in overlay/primitives/placement.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Protocol

from overlay.errors import Malformed, NoAnswer, Refused
from overlay.identity.contact import Contact
from overlay.identity.ownership import deleter_named
from overlay.ids import Kind, deleters_digest, distance
from overlay.kademlia.lookup import Located
from overlay.primitives.placement import (
    FULL_ROUND_EVERY,
    GIVERS,
    NEIGHBOURS,
    RECENT,
    REPAIRED,
    SHARED_BY,
    NotificationCopy,
    ObjectCopy,
    missing_replicas,
    nearer,
    successor,
    tombstone_peer,
)
from overlay.primitives.requests import FetchRequest
from overlay.primitives.service import Service
from overlay.protocol import OverlayProtocol
from overlay.protocol_limits import INBOX, MAX_HASHES
from overlay.replication.node_client import NodeClient
from storage.store_request import StoreRequest

log = logging.getLogger(__name__)

ROUND_EVERY = 3600.0
"""Seconds between two rounds (Kademlia, section 2.5)."""
WORK_EVERY = 10.0
"""Seconds between two looks at newcomers and hints: a newcomer has found its neighbours by then."""
LEAVING = 20.0
"""Seconds in which a node hands on its copies when it stops; the other holders repair the rest."""
MAX_NEWCOMERS = 64
MAX_HINTS = 64
"""Newcomers and hints that may wait; the next round repairs what further ones would have."""
REMEMBERED_KEYS = 100_000
"""Keys of which it is remembered that they rest or are settled."""
PAGE = 200
"""Keys read from the store at a time."""
AT_ONCE = 4
"""Keys repaired at the same time."""


class ReplicaStore(Protocol):
    """What this node keeps, by pages (overlay/node/store_adapter.py). Raises Refused when the disk fails."""

    async def keys(self, after: tuple[bytes, int], limit: int) -> list[tuple[bytes, int]]: ...

    async def variants(self, kind: int, key: bytes) -> list[ObjectCopy]: ...

    async def deleters(self, kind: int, key: bytes) -> list[bytes]: ...

    async def since_delete(self, kind: int, key: bytes) -> float:
        """Seconds since the last delete under the key; infinite if there was none."""
        ...

    async def pending_notifications(self, key: bytes, after: int, limit: int) -> list[NotificationCopy]: ...


class Repair:
    """Repairs the copies of the keys that one system node keeps; `k` copies of each."""

    def __init__(
        self, protocol: OverlayProtocol, node_client: NodeClient, service: Service, store: ReplicaStore, k: int
    ) -> None:
        self._protocol = protocol
        self._node_client = node_client
        self._service = service
        self._store = store
        self._k = k
        self._newcomers: dict[bytes, Contact] = {}
        self._hints: OrderedDict[tuple[bytes, int], None] = OrderedDict()
        self._looked: OrderedDict[tuple[bytes, int], bool] = OrderedDict()
        self._settled: OrderedDict[tuple[bytes, int], bytes] = OrderedDict()
        """By key and kind, the deleters_digest of the deletes that all k closest have, where none has a copy."""
        self._rounds = 0

    @property
    def waiting(self) -> int:
        """Hints that wait for the next `work`."""
        return len(self._hints)

    # Events

    def met(self, contact: Contact) -> None:
        """A node has joined or come back: it may lack copies."""
        if len(self._newcomers) < MAX_NEWCOMERS:
            self._newcomers[contact.id] = contact

    def hinted(self, kind: int, key: bytes) -> None:
        """Another node says that holders of the key lack what this node keeps."""
        if len(self._hints) < MAX_HINTS:
            self._hints[key, kind] = None

    def looked(self, kind: int, key: bytes) -> None:
        """Another holder is repairing this key: it rests in the next round, but not in two rounds in a row."""
        self._looked.setdefault((key, kind), True)
        if len(self._looked) > REMEMBERED_KEYS:
            self._looked.popitem(last=False)

    # Regular work

    async def work(self) -> None:
        """Give newcomers the copies that they lack, and follow the hints."""
        if self._newcomers:
            came, self._newcomers = self._newcomers, {}
            await self._for_all_keys(lambda kind, key: self._give_to_newcomers(kind, key, came))
        hints, self._hints = self._hints, OrderedDict()
        await self._for_keys(self._repair_key, [(kind, key) for key, kind in hints])

    async def run_round(self) -> None:
        """Repair every key that no other holder has repaired since the last round."""
        self._rounds += 1

        async def repair(kind: int, key: bytes) -> None:
            full_round = (self._rounds + key[-1]) % FULL_ROUND_EVERY == 0
            if kind == Kind.SHARE:
                await self._repair_share(key, place=full_round)
            elif self._looked.pop((key, kind), False):
                self._looked[key, kind] = False  # what others say until then doesn't spare the next round
            elif full_round or await self._has_copies(kind, key) or await self._delete_spreads(kind, key):
                await self._repair_key(kind, key)

        await self._for_all_keys(repair)

    async def leave(self, patience: float = LEAVING) -> None:
        """Give each copy to the node that becomes one of the k closest, for `patience` seconds at most."""
        silent: set[bytes] = set()

        async def hand_on(kind: int, key: bytes) -> None:
            if kind == Kind.SHARE:
                return await self._hand_share_on(key, silent)
            near = self._protocol.router.closest(key, self._k, healthy=True)
            next_holder = successor(key, self._k, self._protocol.own_id, near)
            if next_holder is None or next_holder.id in silent:
                return None
            try:
                await self._bring_up_to_date(kind, key, await self._node_client.locate(next_holder))
            except NoAnswer:
                silent.add(next_holder.id)
            return None

        try:
            async with asyncio.timeout(patience):
                await self._for_all_keys(hand_on)
        except TimeoutError:
            log.warning("not everything could be handed on within %d seconds; the other nodes have copies", patience)

    # Inside

    async def _for_all_keys(self, act: Callable[[int, bytes], Awaitable[None]]) -> None:
        """Call `act` for every key that is kept here, AT_ONCE at the same time."""
        after = (b"", -1)
        while page := await self._store.keys(after, PAGE):
            keys = [(kind, key) for key, kind in page if kind in REPAIRED]
            for start in range(0, len(keys), AT_ONCE):
                await self._for_keys(act, keys[start : start + AT_ONCE])
            after = page[-1]

    async def _for_keys(self, act: Callable[[int, bytes], Awaitable[None]], some: Iterable[tuple[int, bytes]]) -> None:
        results = await asyncio.gather(*(act(kind, key) for kind, key in some), return_exceptions=True)
        for result in results:
            if isinstance(result, Refused | NoAnswer):
                log.info("a copy wasn't repaired: %s", result)
            elif isinstance(result, BaseException):
                raise result

    async def _hand_share_on(self, key: bytes, silent: set[bytes]) -> None:
        """Give our share of a key to the nearest node that has none, unless a nearer one has this share already."""
        ours = {variant.digest for variant in await self._store.variants(Kind.SHARE, key)}
        if not ours:  # only tombstones, which all of these nodes have
            return
        for contact in self._protocol.router.closest(key, SHARED_BY, healthy=True):
            if contact.id in silent:
                continue
            try:
                at = await self._node_client.locate(contact)
                there = await self._node_client.digests(at, Kind.SHARE, key)
                if not there:
                    await self._exchange(Kind.SHARE, key, at)
                    return
                if ours.issubset(there):
                    return
            except NoAnswer:
                silent.add(contact.id)

    async def _repair_share(self, key: bytes, *, place: bool = True) -> None:
        """Learn deletes from one other node; hand the share on if this node is no longer among the SHARED_BY closest.

        The latter is checked only with `place`, because it takes a lookup of all these nodes.
        """
        if not await self._has_copies(Kind.SHARE, key):
            return
        router, own_id = self._protocol.router, self._protocol.own_id
        asked = tombstone_peer(router.closest(key, SHARED_BY, healthy=True), self._rounds)
        if asked is not None:
            with suppress(NoAnswer, Refused):  # the next round asks another node
                await self._learn_deletes(Kind.SHARE, key, await self._node_client.locate(asked))
        if not place or not await self._has_copies(Kind.SHARE, key):
            return
        neighbours = [contact.id for contact in router.closest(own_id, NEIGHBOURS, healthy=True)]
        if nearer(key, own_id, neighbours) > SHARED_BY / 2:
            found = await self._protocol.lookup(key, SHARED_BY)
            mine = distance(own_id, key)
            if sum(distance(at.contact.id, key) < mine for at in found) >= SHARED_BY:
                await self._hand_share_on(key, set())

    async def _give_to_newcomers(self, kind: int, key: bytes, newcomers: dict[bytes, Contact]) -> None:
        if kind == Kind.SHARE:
            return
        near = self._protocol.router.closest(key, self._k + GIVERS, healthy=True)
        for newcomer in missing_replicas(key, self._k, self._protocol.own_id, near, newcomers):
            await self._bring_up_to_date(kind, key, await self._node_client.locate(newcomer))

    async def _repair_key(self, kind: int, key: bytes) -> None:
        """Exchange with the other k closest; settle the key if all have the same deletes and no copy."""
        if kind == Kind.SHARE:
            await self._repair_share(key)
            return
        deletes = deleters_digest(await self._store.deleters(kind, key))
        found = await self._protocol.lookup(key, self._k)
        mine = distance(self._protocol.own_id, key)
        closer = sum(distance(at.contact.id, key) < mine for at in found)
        others = found[: self._k - 1] if closer < self._k else found[: self._k]
        settled = len(others) >= self._k - 1
        for at in others:
            try:
                settled = await self._bring_up_to_date(kind, key, at) and settled
            except (NoAnswer, Refused) as error:
                log.info("a copy wasn't repaired: %s", error)
                settled = False
        if settled:
            self._settled[key, kind] = deletes
            if len(self._settled) > REMEMBERED_KEYS:
                self._settled.popitem(last=False)

    async def _delete_spreads(self, kind: int, key: bytes) -> bool:
        """Whether there was a recent delete, and the key isn't settled with it."""
        if await self._store.since_delete(kind, key) >= RECENT:
            return False
        return self._settled.get((key, kind)) != deleters_digest(await self._store.deleters(kind, key))

    async def _has_copies(self, kind: int, key: bytes) -> bool:
        """Whether an object or a notification is kept here under the key, and not only tombstones."""
        if kind == INBOX:
            return bool(await self._store.pending_notifications(key, 0, 1))
        return bool(await self._store.variants(kind, key))

    async def _bring_up_to_date(self, kind: int, key: bytes, at: Located) -> bool:
        """Bring the other node up to date. True if neither has a copy and both have the same deletes."""
        if kind == INBOX:
            await self._give_notifications(key, at)
            return False
        return await self._exchange(kind, key, at)

    async def _exchange(self, kind: int, key: bytes, at: Located) -> bool:
        held, theirs = await self._learn_deletes(kind, key, at)
        left = await self._store.variants(kind, key)  # after their deletes were applied here
        for variant in left:
            if variant.digest not in held:
                await self._copy(kind, key, variant, at)
        if theirs is None:
            return not held and not left
        after = b""
        while ours := await self._service.tombstones(kind, key, after):
            for tombstone in ours:
                if tombstone.deleter not in theirs:
                    await self._node_client.hand_tombstone(at, kind, key, tombstone.proof, tombstone.ttl)
            after = ours[-1].deleter
        return False

    async def _learn_deletes(self, kind: int, key: bytes, at: Located) -> tuple[Sequence[bytes], set[bytes] | None]:
        """Take over the other's deletes, each of which proves itself.

        Returns the digests of the objects that it keeps, and its deleters (hashes), or None if they are ours.
        """
        ours = await self._store.deleters(kind, key)
        held = await self._node_client.have(at, kind, key, known=deleters_digest(ours))
        digests = held.digests
        if held.same:
            return digests, None
        known, theirs = set(ours), set[bytes]()
        after = b""
        while True:
            for tombstone in held.tombstones:
                with suppress(Malformed, Refused):  # forged, by an expired certificate, or the store is full
                    deleter = deleter_named(tombstone.proof, key)
                    theirs.add(deleter)
                    if deleter not in known:
                        await self._service.hand_tombstone(kind, key, tombstone.proof, tombstone.ttl)
            last, after = after, max(theirs, default=b"")
            if not held.more or after <= last:
                return digests, theirs
            held = await self._node_client.have(at, kind, key, after=after)

    async def _copy(self, kind: int, key: bytes, variant: ObjectCopy, at: Located) -> None:
        try:
            data = await self._service.contents(FetchRequest(kind, key, variant.digest))
            copy = StoreRequest(kind, key, data, variant.digest, variant.ttl, variant.deleters)
            await self._node_client.store(at, copy)
        except Refused as refused:  # full, or it has a delete or a newer one
            log.info("a copy wasn't taken: %s", refused)

    async def _give_notifications(self, key: bytes, at: Located) -> None:
        """Give what the other lacks; what the owner acknowledged there counts as known there."""
        after = 0
        while page := await self._store.pending_notifications(key, after, MAX_HASHES):
            known = await self._node_client.have_notifications(at, key, [one.hash for one in page])
            await self._append([one for one, there in zip(page, known, strict=True) if not there], key, at)
            after = page[-1].id

    async def _append(self, missing: Sequence[NotificationCopy], key: bytes, at: Located) -> None:
        for one in missing:
            try:
                await self._node_client.append_inbox(at, key, one.data, one.ttl)
            except Refused as refused:  # full
                log.info("a notification wasn't taken: %s", refused)
                return
