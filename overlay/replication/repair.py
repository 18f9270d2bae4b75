"""Copies that move: given to newcomers, looked after by the hour, handed on at the end (paper, section 2.3).

Two holders of a key exchange what each knows: deletes first, so that nothing that was deleted comes back, then the
copies that the other lacks, which keep their original expiry, then its deletes. What goes to whom is decided in
overlay/primitives/placement.py. Everything here may fail: a copy stays where it is until its time is over.
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
"""Seconds between looks at the copies of one key (Kademlia, section 2.5)."""
WORK_EVERY = 10.0
"""Seconds between looks at who came and what was hinted: a newcomer has found its neighbours by then."""
LEAVING = 20.0
"""Seconds that a node takes for handing on what it keeps when it stops; the others repair the rest."""
MAX_NEWCOMERS = 64
MAX_HINTS = 64
"""Newcomers and hints that wait; more are passed over, the hour's round finds what they meant."""
REMEMBERED_KEYS = 100_000
PAGE = 200
AT_ONCE = 4
"""Keys looked after at the same time."""


class ReplicaStore(Protocol):
    """What this node keeps, page by page (overlay/node/store_adapter.py). Raises Refused when the disk fails."""

    async def keys(self, after: tuple[bytes, int], limit: int) -> list[tuple[bytes, int]]: ...

    async def variants(self, kind: int, key: bytes) -> list[ObjectCopy]: ...

    async def deleters(self, kind: int, key: bytes) -> list[bytes]: ...

    async def since_delete(self, kind: int, key: bytes) -> float:
        """Seconds since the last delete under the key, infinite when there was none."""
        ...

    async def waiting(self, key: bytes, after: int, limit: int) -> list[NotificationCopy]: ...


class Repair:
    """Looks after the copies that one system node keeps."""

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
        """Of keys whose deletes all of the k closest were found to have, and no copy: deleters_digest of these."""
        self._rounds = 0

    @property
    def waiting(self) -> int:
        """Hints that wait to be followed."""
        return len(self._hints)

    # What others tell

    def met(self, contact: Contact) -> None:
        """A node has come, or come back: it may lack what it should have."""
        if len(self._newcomers) < MAX_NEWCOMERS:
            self._newcomers[contact.id] = contact

    def hinted(self, kind: int, key: bytes) -> None:
        """Somebody found that others lack what this node keeps."""
        if len(self._hints) < MAX_HINTS:
            self._hints[key, kind] = None

    def looked(self, kind: int, key: bytes) -> None:
        """Another holder is looking after this key: that spares this node's next look, one in a row."""
        self._looked.setdefault((key, kind), True)
        if len(self._looked) > REMEMBERED_KEYS:
            self._looked.popitem(last=False)

    # Regular work

    async def work(self) -> None:
        """Give to the newcomers what is theirs, and follow the hints."""
        if self._newcomers:
            came, self._newcomers = self._newcomers, {}
            await self._for_all_keys(lambda kind, key: self._give_to_newcomers(kind, key, came))
        hints, self._hints = self._hints, OrderedDict()
        await self._for_keys(self._repair_key, [(kind, key) for key, kind in hints])

    async def run_round(self) -> None:
        """Look at the copies of every key that nobody else has looked at since the last round."""
        self._rounds += 1

        async def look(kind: int, key: bytes) -> None:
            seldom = (self._rounds + key[-1]) % FULL_ROUND_EVERY == 0
            if kind == Kind.SHARE:
                await self._repair_share(key, place=seldom)
            elif self._looked.pop((key, kind), False):
                self._looked[key, kind] = False  # whatever is said until then, the next one takes place
            elif seldom or await self._has_copies(kind, key) or await self._delete_spreads(kind, key):
                await self._repair_key(kind, key)

        await self._for_all_keys(look)

    async def leave(self, patience: float = LEAVING) -> None:
        """Hand on what is kept here to those who come among the k closest, for `patience` seconds at most."""
        silent: set[bytes] = set()

        async def hand_on(kind: int, key: bytes) -> None:
            if kind == Kind.SHARE:
                return await self._hand_share_on(key, silent)
            near = self._protocol.router.closest(key, self._k, healthy=True)
            heir = successor(key, self._k, self._protocol.own_id, near)
            if heir is None or heir.id in silent:
                return None
            try:
                await self._give(kind, key, await self._node_client.locate(heir))
            except NoAnswer:
                silent.add(heir.id)
            return None

        try:
            async with asyncio.timeout(patience):
                await self._for_all_keys(hand_on)
        except TimeoutError:
            log.warning("not everything could be handed on within %d seconds; the other nodes have copies", patience)

    # Inside

    async def _for_all_keys(self, act: Callable[[int, bytes], Awaitable[None]]) -> None:
        """Do `act` with every key that is kept here, some at the same time."""
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
                log.info("a copy wasn't looked after: %s", result)
            elif isinstance(result, BaseException):
                raise result

    async def _hand_share_on(self, key: bytes, silent: set[bytes]) -> None:
        """Give our share of a key to the nearest of its nodes that has none, unless a nearer one got it before."""
        ours = {variant.digest for variant in await self._store.variants(Kind.SHARE, key)}
        if not ours:  # deletes alone, which all of them have heard
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
        """Learn what was deleted meanwhile; hand the share on when it has come to lie outside of its nodes.

        Where it lies is looked at when its `place` is asked for: that takes a lookup of all these nodes.
        """
        if not await self._has_copies(Kind.SHARE, key):
            return
        router, own_id = self._protocol.router, self._protocol.own_id
        asked = tombstone_peer(router.closest(key, SHARED_BY, healthy=True), self._rounds)
        if asked is not None:
            with suppress(NoAnswer, Refused):  # there are other rounds
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
        for heir in missing_replicas(key, self._k, self._protocol.own_id, near, newcomers):
            await self._give(kind, key, await self._node_client.locate(heir))

    async def _repair_key(self, kind: int, key: bytes) -> None:
        """Exchange with the others of the k closest; note when all have just the same deletes, and nothing else."""
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
                settled = await self._give(kind, key, at) and settled
            except (NoAnswer, Refused) as error:
                log.info("a copy wasn't looked after: %s", error)
                settled = False
        if settled:
            self._settled[key, kind] = deletes
            if len(self._settled) > REMEMBERED_KEYS:
                self._settled.popitem(last=False)

    async def _delete_spreads(self, kind: int, key: bytes) -> bool:
        """Whether there was a delete lately that not all of the k closest were found to have."""
        if await self._store.since_delete(kind, key) >= RECENT:
            return False
        return self._settled.get((key, kind)) != deleters_digest(await self._store.deleters(kind, key))

    async def _has_copies(self, kind: int, key: bytes) -> bool:
        """Whether there is more here under the key than deletes and what was acknowledged."""
        if kind == INBOX:
            return bool(await self._store.waiting(key, 0, 1))
        return bool(await self._store.variants(kind, key))

    async def _give(self, kind: int, key: bytes, at: Located) -> bool:
        """Whether neither has a copy, and both have just the same deletes."""
        if kind == INBOX:
            await self._give_notifications(key, at)
            return False
        return await self._exchange(kind, key, at)

    async def _exchange(self, kind: int, key: bytes, at: Located) -> bool:
        held, theirs = await self._learn_deletes(kind, key, at)
        left = await self._store.variants(kind, key)  # now that their deletes are known
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

        The digests of what it keeps, and the hashes of its deleters: None when they are ours.
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
                with suppress(Malformed, Refused):  # a lie, a certificate that has run out, or no room
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
        except Refused as refused:  # full, or it knows better (deleted, a newer one)
            log.info("a copy wasn't taken: %s", refused)

    async def _give_notifications(self, key: bytes, at: Located) -> None:
        """What an owner acknowledged at the other is known there, and isn't given again."""
        after = 0
        while page := await self._store.waiting(key, after, MAX_HASHES):
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
