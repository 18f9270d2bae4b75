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
    GIVERS,
    LATELY,
    MOVING,
    NEIGHBOURS,
    SELDOM,
    SHARED_BY,
    NotificationCopy,
    ObjectCopy,
    heirs,
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

LOOK_EVERY = 3600.0
"""Seconds between looks at the copies of one key (Kademlia, section 2.5)."""
WORK_EVERY = 10.0
"""Seconds between looks at who came and what was hinted: a newcomer has found its neighbours by then."""
LEAVING = 20.0
"""Seconds that a node takes for handing on what it keeps when it stops; the others repair the rest."""
NEWCOMERS = 64
HINTS = 64
"""Newcomers and hints that wait; more are passed over, the hour's round finds what they meant."""
LOOKED = 100_000
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
        self, protocol: OverlayProtocol, caller: NodeClient, service: Service, holdings: ReplicaStore, k: int
    ) -> None:
        self._protocol = protocol
        self._caller = caller
        self._service = service
        self._holdings = holdings
        self._k = k
        self._newcomers: dict[bytes, Contact] = {}
        self._hints: OrderedDict[tuple[bytes, int], None] = OrderedDict()
        self._looked: OrderedDict[tuple[bytes, int], bool] = OrderedDict()
        self._over: OrderedDict[tuple[bytes, int], bytes] = OrderedDict()
        """Of keys whose deletes all of the k closest were found to have, and no copy: deleters_digest of these."""
        self._rounds = 0

    @property
    def waiting(self) -> int:
        """Hints that wait to be followed."""
        return len(self._hints)

    # What others tell

    def met(self, contact: Contact) -> None:
        """A node has come, or come back: it may lack what it should have."""
        if len(self._newcomers) < NEWCOMERS:
            self._newcomers[contact.id] = contact

    def hinted(self, kind: int, key: bytes) -> None:
        """Somebody found that others lack what this node keeps."""
        if len(self._hints) < HINTS:
            self._hints[key, kind] = None

    def looked(self, kind: int, key: bytes) -> None:
        """Another holder is looking after this key: that spares this node's next look, one in a row."""
        self._looked.setdefault((key, kind), True)
        if len(self._looked) > LOOKED:
            self._looked.popitem(last=False)

    # Regular work

    async def work(self) -> None:
        """Give to the newcomers what is theirs, and follow the hints."""
        if self._newcomers:
            came, self._newcomers = self._newcomers, {}
            await self._all(lambda kind, key: self._welcome(kind, key, came))
        hints, self._hints = self._hints, OrderedDict()
        await self._each(self._look_after, [(kind, key) for key, kind in hints])

    async def look_round(self) -> None:
        """Look at the copies of every key that nobody else has looked at since the last round."""
        self._rounds += 1

        async def look(kind: int, key: bytes) -> None:
            seldom = (self._rounds + key[-1]) % SELDOM == 0
            if kind == Kind.SHARE:
                await self._look_after_share(key, place=seldom)
            elif self._looked.pop((key, kind), False):
                self._looked[key, kind] = False  # whatever is said until then, the next one takes place
            elif seldom or await self._keeps(kind, key) or await self._spreading(kind, key):
                await self._look_after(kind, key)

        await self._all(look)

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
                await self._give(kind, key, await self._caller.locate(heir))
            except NoAnswer:
                silent.add(heir.id)
            return None

        try:
            async with asyncio.timeout(patience):
                await self._all(hand_on)
        except TimeoutError:
            log.warning("not everything could be handed on within %d seconds; the other nodes have copies", patience)

    # Inside

    async def _all(self, act: Callable[[int, bytes], Awaitable[None]]) -> None:
        """Do `act` with every key that is kept here, some at the same time."""
        after = (b"", -1)
        while page := await self._holdings.keys(after, PAGE):
            moving = [(kind, key) for key, kind in page if kind in MOVING]
            for start in range(0, len(moving), AT_ONCE):
                await self._each(act, moving[start : start + AT_ONCE])
            after = page[-1]

    async def _each(self, act: Callable[[int, bytes], Awaitable[None]], some: Iterable[tuple[int, bytes]]) -> None:
        results = await asyncio.gather(*(act(kind, key) for kind, key in some), return_exceptions=True)
        for result in results:
            if isinstance(result, Refused | NoAnswer):
                log.info("a copy wasn't looked after: %s", result)
            elif isinstance(result, BaseException):
                raise result

    async def _hand_share_on(self, key: bytes, silent: set[bytes]) -> None:
        """Give our share of a key to the nearest of its nodes that has none, unless a nearer one got it before."""
        ours = {variant.digest for variant in await self._holdings.variants(Kind.SHARE, key)}
        if not ours:  # deletes alone, which all of them have heard
            return
        for contact in self._protocol.router.closest(key, SHARED_BY, healthy=True):
            if contact.id in silent:
                continue
            try:
                at = await self._caller.locate(contact)
                there = await self._caller.digests(at, Kind.SHARE, key)
                if not there:
                    await self._exchange(Kind.SHARE, key, at)
                    return
                if ours.issubset(there):
                    return
            except NoAnswer:
                silent.add(contact.id)

    async def _look_after_share(self, key: bytes, *, place: bool = True) -> None:
        """Learn what was deleted meanwhile; hand the share on when it has come to lie outside of its nodes.

        Where it lies is looked at when its `place` is asked for: that takes a lookup of all these nodes.
        """
        if not await self._keeps(Kind.SHARE, key):
            return
        router, own_id = self._protocol.router, self._protocol.own_id
        asked = tombstone_peer(router.closest(key, SHARED_BY, healthy=True), self._rounds)
        if asked is not None:
            with suppress(NoAnswer, Refused):  # there are other rounds
                await self._learn_deletes(Kind.SHARE, key, await self._caller.locate(asked))
        if not place or not await self._keeps(Kind.SHARE, key):
            return
        neighbours = [contact.id for contact in router.closest(own_id, NEIGHBOURS, healthy=True)]
        if nearer(key, own_id, neighbours) > SHARED_BY / 2:
            found = await self._protocol.lookup(key, SHARED_BY)
            mine = distance(own_id, key)
            if sum(distance(at.contact.id, key) < mine for at in found) >= SHARED_BY:
                await self._hand_share_on(key, set())

    async def _welcome(self, kind: int, key: bytes, newcomers: dict[bytes, Contact]) -> None:
        if kind == Kind.SHARE:
            return
        near = self._protocol.router.closest(key, self._k + GIVERS, healthy=True)
        for heir in heirs(key, self._k, self._protocol.own_id, near, newcomers):
            await self._give(kind, key, await self._caller.locate(heir))

    async def _look_after(self, kind: int, key: bytes) -> None:
        """Exchange with the others of the k closest; note when all have just the same deletes, and nothing else."""
        if kind == Kind.SHARE:
            await self._look_after_share(key)
            return
        deletes = deleters_digest(await self._holdings.deleters(kind, key))
        found = await self._protocol.lookup(key, self._k)
        mine = distance(self._protocol.own_id, key)
        closer = sum(distance(at.contact.id, key) < mine for at in found)
        others = found[: self._k - 1] if closer < self._k else found[: self._k]
        over = len(others) >= self._k - 1
        for at in others:
            try:
                over = await self._give(kind, key, at) and over
            except (NoAnswer, Refused) as error:
                log.info("a copy wasn't looked after: %s", error)
                over = False
        if over:
            self._over[key, kind] = deletes
            if len(self._over) > LOOKED:
                self._over.popitem(last=False)

    async def _spreading(self, kind: int, key: bytes) -> bool:
        """Whether there was a delete lately that not all of the k closest were found to have."""
        if await self._holdings.since_delete(kind, key) >= LATELY:
            return False
        return self._over.get((key, kind)) != deleters_digest(await self._holdings.deleters(kind, key))

    async def _keeps(self, kind: int, key: bytes) -> bool:
        """Whether there is more here under the key than deletes and what was acknowledged."""
        if kind == INBOX:
            return bool(await self._holdings.waiting(key, 0, 1))
        return bool(await self._holdings.variants(kind, key))

    async def _give(self, kind: int, key: bytes, at: Located) -> bool:
        """Whether neither has a copy, and both have just the same deletes."""
        if kind == INBOX:
            await self._give_notifications(key, at)
            return False
        return await self._exchange(kind, key, at)

    async def _exchange(self, kind: int, key: bytes, at: Located) -> bool:
        held, theirs = await self._learn_deletes(kind, key, at)
        left = await self._holdings.variants(kind, key)  # now that their deletes are known
        for variant in left:
            if variant.digest not in held:
                await self._copy(kind, key, variant, at)
        if theirs is None:
            return not held and not left
        after = b""
        while ours := await self._service.stones(kind, key, after):
            for stone in ours:
                if stone.deleter not in theirs:
                    await self._caller.hand_tombstone(at, kind, key, stone.proof, stone.ttl)
            after = ours[-1].deleter
        return False

    async def _learn_deletes(self, kind: int, key: bytes, at: Located) -> tuple[Sequence[bytes], set[bytes] | None]:
        """Take over the other's deletes, each of which proves itself.

        The digests of what it keeps, and the hashes of its deleters: None when they are ours.
        """
        ours = await self._holdings.deleters(kind, key)
        held = await self._caller.have(at, kind, key, known=deleters_digest(ours))
        digests = held.digests
        if held.same:
            return digests, None
        known, theirs = set(ours), set[bytes]()
        after = b""
        while True:
            for death in held.tombstones:
                with suppress(Malformed, Refused):  # a lie, a certificate that has run out, or no room
                    deleter = deleter_named(death.proof, key)
                    theirs.add(deleter)
                    if deleter not in known:
                        await self._service.hand_tombstone(kind, key, death.proof, death.ttl)
            last, after = after, max(theirs, default=b"")
            if not held.more or after <= last:
                return digests, theirs
            held = await self._caller.have(at, kind, key, after=after)

    async def _copy(self, kind: int, key: bytes, variant: ObjectCopy, at: Located) -> None:
        try:
            data = await self._service.contents(FetchRequest(kind, key, variant.digest))
            copy = StoreRequest(kind, key, data, variant.digest, variant.ttl, variant.deleters)
            await self._caller.store(at, copy)
        except Refused as refused:  # full, or it knows better (deleted, a newer one)
            log.info("a copy wasn't taken: %s", refused)

    async def _give_notifications(self, key: bytes, at: Located) -> None:
        """What an owner acknowledged at the other is known there, and isn't given again."""
        after = 0
        while page := await self._holdings.waiting(key, after, MAX_HASHES):
            known = await self._caller.have_notifications(at, key, [one.hash for one in page])
            await self._append([one for one, there in zip(page, known, strict=True) if not there], key, at)
            after = page[-1].id

    async def _append(self, lacking: Sequence[NotificationCopy], key: bytes, at: Located) -> None:
        for one in lacking:
            try:
                await self._caller.append_inbox(at, key, one.data, one.ttl)
            except Refused as refused:  # full
                log.info("a notification wasn't taken: %s", refused)
                return
