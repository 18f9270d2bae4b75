"""The overlay as a user agent sees it: the paper's five primitives, replicated at the k closest nodes.

Each call is a lookup, then the operation at the nearest nodes, then at further ones if that wasn't enough (paper,
sections 2.2, 3 and 6). This file knows keys, bytes and owners, and nothing of mail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import TypeVar

from overlay.errors import NoAnswer, NotFound, Offline, Refused, Unreachable
from overlay.identity.certificates import CertificateError
from overlay.identity.network import Network
from overlay.identity.ownership import Owner
from overlay.ids import Kind, revocations_key
from overlay.kademlia.area_lookup import AreaLookups
from overlay.kademlia.inbox_node_cache import InboxNodeCache
from overlay.kademlia.inbox_read import InboxRead, withholding
from overlay.kademlia.lookup import Located
from overlay.kademlia.quorum import Results, one_after_another, replicate
from overlay.kademlia.reputation import WITHHELD, WRONG_BYTES
from overlay.node.node import Node
from overlay.primitives.requests import DeleteRequest, FetchRequest
from overlay.protocol_limits import MAX_WIDTH
from overlay.replication.node_client import NodeClient
from overlay.replication.share_placement import ShareSink, gather, spread
from storage.store_request import StoreRequest

R = TypeVar("R")

SPARE = 3
"""Nodes beyond k that are looked up too, to be tried when one of the k refuses."""
BEYOND = 3
"""Nodes beyond k that are read and deleted at too: newcomers may have pushed them out of the k closest."""
WIDER = 4
"""A fetch tries this many times k nodes before it gives up: after a partition copies may lie far out."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many nodes were wanted, and how many confirmed that it is on disk."""

    want: int
    have: int
    refusals: tuple[str, ...] = ()


class Overlay:
    """Replicated primitives for the user agent on `node`. `k`: copies to make, which may change over time.

    What this node alone says doesn't count (overlay/reachability/presence.py): if only it lacks an object, that doesn't
    mean "not found", and a copy that only it has isn't counted. Each call raises Offline if no other node answers.
    """

    def __init__(self, node: Node, k: Callable[[], int] | None = None) -> None:
        self.node = node
        self._k = k or (lambda: node.network.k)
        self._node_client = NodeClient(node.protocol, node.service, node.http_client, node.now)
        self._inbox = InboxNodeCache()
        self.areas = AreaLookups(
            partial(node.closest, disjoint=True), partial(node.protocol.router.closest, healthy=True)
        )

    @property
    def network(self) -> Network:
        """The network that this overlay belongs to."""
        return self.node.network

    @property
    def k(self) -> int:
        """Copies that are made of each object."""
        return self._k()

    @property
    def alone(self) -> bool:
        """Whether this node is the whole network, as far as it can know; then its own word counts."""
        return self.node.lone

    async def closest(self, key: bytes, count: int, *, disjoint: bool = False) -> list[Located]:
        """The `count` closest live nodes, including this one in server mode. Raises Offline.

        Nodes with a bad reputation come last, and as many others are added. `disjoint`: on disjoint paths, where a
        hostile node could withhold something from its owner.
        """
        found = await self._closest(key, count, disjoint=disjoint)
        if not self._others({at.contact.id for at in found}):
            raise self._offline()
        return found

    async def _closest(self, key: bytes, count: int, *, disjoint: bool = False) -> list[Located]:
        """The same, or this node alone if no other answers, for calls that can use what it has."""
        look = self.areas.closest if self.areas.sharing else partial(self.node.closest, disjoint=disjoint)
        found = await look(key, min(count, MAX_WIDTH))
        distrusted = sum(not self._trusts(at) for at in found)
        if distrusted:
            found = await look(key, min(count + distrusted, MAX_WIDTH))
            found.sort(key=lambda at: not self._trusts(at))
        if not self._others({at.contact.id for at in found}):
            self.node.protocol.presence.nobody()
        return found

    def _others(self, said: Collection[bytes]) -> bool:
        """Whether the word of any of these nodes (ids) counts."""
        return self.node.protocol.presence.others(said, lone=self.alone)

    def _count(self, yes: Collection[bytes]) -> int:
        """How many copies count when these nodes (ids) say that they have one."""
        return self.node.protocol.presence.count(yes, lone=self.alone)

    def _offline(self) -> Offline:
        if self.node.protocol.presence.met:
            return Offline("This computer is offline: no other node of the network answers.")
        return Offline("No node of the network answers. Is this computer online, and is the address to join right?")

    def _trusts(self, at: Located) -> bool:
        return self.node.protocol.reputation.trusted(at.contact.key)

    def _penalise(self, at: Located, weight: float) -> None:
        self.node.protocol.reputation.penalise(at.contact.key, weight)
        self._inbox.forget()
        if not self._trusts(at):
            self.node.protocol.router.drop(at.contact.id)

    async def store(
        self,
        kind: int,
        key: bytes,
        data: bytes,
        *,
        deleters: Sequence[bytes] = (),
        ttl: float,
        max_ops: int | None = None,
        max_connections: int | None = None,
        again: bool = False,
    ) -> Outcome:
        """Store an object at the k closest nodes (paper: store). Raises Unreachable.

        `again`: each node is asked first whether it has the object, and is left alone if so.
        """
        request = StoreRequest.of(kind, key, data, ttl, deleters)

        async def put(at: Located) -> None:
            if not again or request.digest not in await self._node_client.digests(at, kind, key):
                await self._node_client.store(at, request)

        return await self._at_closest(key, put, max_ops, max_connections)

    async def append_inbox(
        self,
        key: bytes,
        notification: bytes,
        *,
        ttl: float,
        max_ops: int | None = None,
        max_connections: int | None = None,
    ) -> Outcome:
        """Append a notification to the k replicas of an inbox (paper: append-inbox). Raises Unreachable."""
        return await self._at_closest(
            key, lambda at: self._node_client.append_inbox(at, key, notification, ttl), max_ops, max_connections
        )

    async def delete(
        self,
        kind: int,
        key: bytes,
        salt: bytes,
        owner: Owner,
        *,
        max_ops: int | None = None,
        max_connections: int | None = None,
    ) -> Outcome:
        """Take the owner's hash off the object at all k nodes and a few more (paper: delete). Raises Unreachable."""
        wanted = max_ops or self.k
        return await self._at_closest(
            key,
            lambda at: self._node_client.delete(at, DeleteRequest(kind, key, salt), owner),
            min(wanted + BEYOND, MAX_WIDTH),
            max_connections,
            want=wanted,
            disjoint=True,
        )

    async def fetch(
        self,
        kind: int,
        key: bytes,
        *,
        digest: bytes | None = None,
        max_connections: int | None = None,
        repair: bool = True,
    ) -> bytes:
        """The object, from the nearest node that has it with the right digest (paper, section 3.3).

        If a nearer node didn't have it, the node that does is told so and repairs the copies (unless `repair` is
        False). Raises NotFound if nodes answered but none has it, Unreachable if none answered. This node's own copy
        counts, because the digest proves it.
        """
        last: Located | None = None

        async def right(at: Located) -> bytes | None:
            nonlocal last
            last = at
            data = await self._node_client.fetch(at, FetchRequest(kind, key, digest))
            if digest is None or sha256(data).digest() == digest:
                return data
            self._penalise(at, WRONG_BYTES)
            return None

        most = min(max_connections or WIDER * self.k, MAX_WIDTH)
        tried: set[bytes] = set()
        answered: set[bytes] = set()
        for width in dict.fromkeys(min(times * self.k, most) for times in (1, 2, WIDER)):
            nodes = [at for at in await self._closest(key, width) if at.contact.id not in tried]
            data, some = await one_after_another(nodes, right)
            answered |= some
            if data is not None:
                if repair and len(answered) > 1 and last is not None:
                    self._node_client.hint(last, kind, key)
                return data
            tried |= {at.contact.id for at in nodes}
        if not self._others(tried):
            raise self._offline()
        if not self._others(answered):
            raise Unreachable("None of the nodes that should have it answers.")
        raise NotFound("None of the closest nodes has it.")

    async def fetch_variants(
        self, kind: int, key: bytes, *, max_ops: int = 3, max_connections: int | None = None
    ) -> list[bytes]:
        """The distinct objects that `max_ops` of the closest nodes have; the caller chooses. Raises as `fetch`."""
        most = min(max_connections or self.k + SPARE, MAX_WIDTH)
        nodes = await self.closest(key, most, disjoint=True)
        results = await replicate(nodes, lambda at: self._node_client.fetch(at, FetchRequest(kind, key)), max_ops, most)
        self.areas.silent(results.asked - results.answered)
        if not self._others(results.answered):
            raise Unreachable("None of the nodes that should have it answers.")
        if not results.done:
            raise NotFound("None of the closest nodes has it.")
        return list(dict.fromkeys(data for _, data in results.done))

    async def held(self, kind: int, key: bytes, digest: bytes) -> Outcome:
        """How many of the k closest nodes have this object. Raises Unreachable."""
        nodes = await self.closest(key, self.k)
        results = await self._ask_all(nodes, lambda at: self._node_client.digests(at, kind, key))
        return Outcome(len(nodes), self._count({at.contact.id for at, digests in results.done if digest in digests}))

    async def spread(
        self,
        kind: int,
        key: bytes,
        shares: Sequence[bytes],
        *,
        deleters: Sequence[bytes] = (),
        ttl: float,
        again: bool = False,
    ) -> Outcome:
        """Store each share at a different one of the closest nodes; `again`: only those that no node has.

        Raises Unreachable.
        """
        nodes = await self.closest(key, min(len(shares) + SPARE, MAX_WIDTH))
        requests = [StoreRequest.of(kind, key, share, ttl, deleters) for share in shares]
        return Outcome(*await spread(self._node_client, nodes, requests, again=again))

    async def gather(self, kind: int, key: bytes, wanted: ShareSink, count: int) -> None:
        """Fetch shares from the closest nodes, nearest first, until `wanted` is complete; `count`: shares stored.

        Raises NotFound if nodes answered but too few shares were found, Unreachable if none answered.
        """
        tried: set[bytes] = set()
        answered: set[bytes] = set()
        for width in dict.fromkeys((min(count + SPARE, MAX_WIDTH), MAX_WIDTH)):
            nodes = [at for at in await self.closest(key, width) if at.contact.id not in tried]
            answered |= await gather(self._node_client, nodes, kind, key, wanted)
            if not wanted.missing:
                return
            tried |= {at.contact.id for at in nodes}
        if not self._others(answered):
            raise Unreachable("None of the nodes that should have it answers.")
        raise NotFound("Too few of the closest nodes have a part of it.")

    async def spread_held(self, kind: int, key: bytes, count: int) -> Outcome:
        """How many of `count` shares the closest nodes say they have, one each. Raises Unreachable."""
        nodes = await self.closest(key, min(count + SPARE, MAX_WIDTH))
        results = await self._ask_all(nodes, lambda at: self._node_client.digests(at, kind, key))
        found = {digests[0] for _, digests in results.done if digests}
        return Outcome(min(count, len(nodes)), min(len(found), count))

    async def held_notification(self, key: bytes, notification: bytes) -> Outcome:
        """How many of the k replicas of an inbox have the notification, or know it as acknowledged.

        Raises Unreachable.
        """
        nodes = await self.closest(key, self.k)
        digest = sha256(notification).digest()

        async def ask(at: Located) -> bool:
            (known,) = await self._node_client.have_notifications(at, key, [digest])
            return known

        results = await self._ask_all(nodes, ask)
        return Outcome(len(nodes), self._count({at.contact.id for at, known in results.done if known}))

    async def holders(self, kind: int, key: bytes, digest: bytes) -> set[bytes]:
        """Ids of the nodes that return this object, among those that a fetch would ask, without this node itself.

        Starts no repair. Raises Unreachable.
        """
        nodes = [at for at in await self.closest(key, WIDER * self.k) if at.contact.id != self.node.id]
        if not nodes:
            return set()
        results = await self._ask_all(nodes, lambda at: self._node_client.fetch(at, FetchRequest(kind, key, digest)))
        return {at.contact.id for at, data in results.done if sha256(data).digest() == digest}

    async def read_inbox(
        self, key: bytes, owner: Owner, *, max_ops: int | None = None, max_connections: int | None = None
    ) -> list[InboxRead]:
        """The contents of the k replicas and a few more; the user agent unites them (paper, section 3.2).

        Raises Unreachable if no other node answers and this one has nothing.
        """
        most = min(max_connections or self.k + BEYOND, MAX_WIDTH)
        time, table = asyncio.get_running_loop().time, self.node.protocol.router.closest(key, most, healthy=True)
        known = self._inbox.nodes(key, most, table, time())
        nodes = known or await self._closest(key, most, disjoint=True)
        if not nodes:
            raise self._offline()
        if not known:
            self._inbox.keep(key, nodes, time())
        results = await replicate(
            nodes, lambda at: self._node_client.read_inbox(at, key, owner), min(max_ops or most, most), most
        )
        if results.refused:
            self._inbox.forget()
        if known and not self._others(results.answered):
            return await self.read_inbox(key, owner, max_ops=max_ops, max_connections=max_connections)
        readings = [InboxRead(at, tuple(waiting), more) for at, (waiting, more) in results.done]
        if not self._others({at.contact.id for at, _ in results.done}) and not any(r.notifications for r in readings):
            if not self._others({at.contact.id for at in nodes}):
                raise self._offline()
            raise Unreachable("No node that keeps this inbox gave its mail out: " + "; ".join(results.reasons))
        for reading in withholding(readings, {at.contact.id for at in nodes[: self.k]}):
            self._penalise(reading.node, WITHHELD)
        return readings

    async def acknowledge_inbox(
        self, key: bytes, reading: InboxRead, owner: Owner, hashes: Sequence[bytes] | None = None
    ) -> bool:
        """Tell the node that its notifications are on disk; False if it didn't answer (it will send them again)."""
        if hashes is None:
            hashes = [sha256(notification).digest() for notification in reading.notifications]
        try:
            await self._node_client.acknowledge_inbox(reading.node, key, owner, hashes)
        except (NoAnswer, Refused):
            return False
        return True

    async def tombstones(
        self,
        kind: int,
        key: bytes,
        wanted: Mapping[bytes, Callable[[bytes], bool]],
        *,
        max_connections: int | None = None,
    ) -> dict[bytes, bytes]:
        """For each deleter in `wanted` a signed delete that passes its check, as far as the nodes have one.

        The nearest node is asked first, then the others for what it lacks. Raises Unreachable if no node answers; also
        if only this node does and some are missing.
        """

        def convincing(deleters: Sequence[bytes], told: Sequence[Sequence[bytes]]) -> dict[bytes, bytes]:
            """By deleter, the first proof from any node that passes the check."""
            offered = ((deleter, proof) for proofs in told for deleter, proof in zip(deleters, proofs, strict=False))
            found: dict[bytes, bytes] = {}
            for deleter, proof in offered:
                if proof and deleter not in found and wanted[deleter](proof):
                    found[deleter] = proof
            return found

        nodes = await self.closest(key, min(max_connections or self.k, MAX_WIDTH))
        proofs: dict[bytes, bytes] = {}
        answered: set[bytes] = set()
        for some in (nodes[:1], nodes[1:]):
            missing = [deleter for deleter in wanted if deleter not in proofs]
            if missing:
                ask = partial(self._node_client.proofs, kind=kind, key=key, deleters=missing)
                results = await replicate(some, ask, len(some), len(some))
                answered |= results.answered
                proofs |= await asyncio.to_thread(convincing, missing, [told for _, told in results.done])
        if len(proofs) < len(wanted) and not self._others(answered):
            raise Unreachable("None of the nodes that should know whether it was collected answers.")
        return proofs

    async def refresh_revocations(self) -> bool:
        """Fetch the authority's revocation list and apply it if newer; whether any node answered. Never raises."""
        trust = self.node.trust
        if trust is None:
            return True
        try:
            lists = await self.fetch_variants(Kind.REVOCATIONS, revocations_key(trust.fingerprint))
        except NotFound:
            return True
        except Unreachable:
            return False
        for data in lists:
            try:
                trust.accept_revocations(data, self.node.now())
            except CertificateError:
                continue
        return True

    async def _ask_all(self, nodes: Sequence[Located], operation: Callable[[Located], Awaitable[R]]) -> Results[R]:
        """The answers of all these nodes. Raises Unreachable if none answers whose word counts."""
        results = await replicate(nodes, operation, len(nodes), len(nodes))
        if not self._others(results.answered):
            raise Unreachable("None of the nodes that should have it answers.")
        return results

    async def _at_closest(
        self,
        key: bytes,
        operation: Callable[[Located], Awaitable[R]],
        max_ops: int | None,
        max_connections: int | None,
        want: int | None = None,
        *,
        disjoint: bool = False,
    ) -> Outcome:
        """Run `operation` at the closest nodes, then at further ones, until `max_ops` have confirmed."""
        ops = max_ops or self.k
        most = min(max_connections or 2 * ops, MAX_WIDTH)
        nodes = await self.closest(key, min(ops + SPARE, most), disjoint=disjoint)
        results = await replicate(nodes, operation, ops, most)
        if len(results.done) < (want or ops) and len(nodes) < most:
            wider = [at for at in await self.closest(key, most) if at.contact.id not in results.asked]
            more = await replicate(wider, operation, ops - len(results.done), most - len(results.asked))
            results.done += more.done
            results.refused += more.refused
            results.answered |= more.answered
        self.areas.silent(results.asked - results.answered)
        have = self._count({at.contact.id for at, _ in results.done})
        return Outcome(want or ops, min(have, want or ops), results.reasons)
