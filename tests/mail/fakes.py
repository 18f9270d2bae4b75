"""An overlay in memory for tests of the user agent: nodes that can refuse, vanish, lie, and fail at a chosen moment.

Only what `overlay.client.Overlay` promises is kept to; tests with a PrivateOverlay use the real one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from overlay.client import Outcome, Overlay
from overlay.errors import NotFound, Unreachable
from overlay.identity.contact import Contact
from overlay.identity.network import Network
from overlay.identity.ownership import DELETE, DeleteProof, Owner, encode_delete_proof, statement
from overlay.ids import deleter_hash
from overlay.kademlia.area_lookup import AreaLookups
from overlay.kademlia.inbox_read import InboxRead
from overlay.kademlia.lookup import Located
from overlay.replication.share_placement import ShareSink

K = 3


@dataclass
class FakeNode:
    """One node, all of whose state a test may look at and change."""

    number: int
    objects: dict[tuple[int, bytes], dict[bytes, tuple[bytes, set[bytes]]]] = field(default_factory=dict)
    tombstones: dict[tuple[int, bytes, bytes], bytes] = field(default_factory=dict)
    inboxes: dict[bytes, dict[bytes, bytes]] = field(default_factory=dict)
    down: bool = False
    refuses: str = ""
    """What it says instead of taking anything."""
    lies: bool = False
    """Whether it hands out other bytes than it was given."""
    deaf: bool = False
    """Whether it hears no acknowledgement."""

    @property
    def located(self) -> Located:
        return Located(Contact(bytes([self.number]) * 32, "127.0.0.1", 4000 + self.number), b"token", 0, b"")


async def _no_lookup(key: bytes, count: int) -> list[Located]:
    return []


class FakeOverlay(Overlay):
    """Every node is responsible for every key; the first k that can take an object do."""

    def __init__(self, nodes: Sequence[FakeNode]) -> None:  # not the real one's: there is no node behind it
        self.nodes = list(nodes)
        self.calls: list[str] = []
        self.before: Callable[[str], None] = nothing
        """Hears each call's name first, and may raise."""
        self.lone = False
        """Whether the network is nobody but the node that asks."""
        self.ttls: list[float] = []
        """Of every store and append."""
        self.uploaded = 0
        """Bytes of objects and shares that were brought to nodes."""
        self.areas = AreaLookups(_no_lookup, lambda key, count: [])

    @property
    def network(self) -> Network:
        return Network("test", k=K)

    @property
    def k(self) -> int:
        return K

    @property
    def alone(self) -> bool:
        return self.lone

    def _up(self, call: str) -> list[FakeNode]:
        self.calls.append(call)
        self.before(call)
        up = [node for node in self.nodes if not node.down]
        if not up:
            raise Unreachable("No node of the network answers.")
        return up

    def _taken(
        self,
        nodes: Sequence[FakeNode],
        do: Callable[[FakeNode], None],
        most: int = K,
        has: Callable[[FakeNode], bool] = lambda node: False,
    ) -> Outcome:
        """`has`: whether a node has it and need take nothing."""
        refusals = []
        have = 0
        for node in nodes:
            if node.refuses and not has(node):
                refusals.append(node.refuses)
            elif have < most:
                do(node)
                have += 1
        return Outcome(most, have, tuple(dict.fromkeys(refusals)))

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
        def has(node: FakeNode) -> bool:
            return again and sha256(data).digest() in node.objects.get((kind, key), {})

        def do(node: FakeNode) -> None:
            variants = node.objects.setdefault((kind, key), {})
            if has(node):
                return
            self.uploaded += len(data)
            _, before = variants.get(sha256(data).digest(), (b"", set()))
            gone = {d for d in deleters if (kind, key, d) in node.tombstones}
            variants[sha256(data).digest()] = (data, before | (set(deleters) - gone))

        self.ttls.append(ttl)
        return self._taken(self._up("store"), do, has=has)

    async def fetch(
        self,
        kind: int,
        key: bytes,
        *,
        digest: bytes | None = None,
        max_connections: int | None = None,
        repair: bool = True,
    ) -> bytes:
        for node in self._up("fetch"):
            for data in self._held(node, kind, key):
                if digest in (None, sha256(data).digest()):
                    return data
        raise NotFound("None of the closest nodes has it.")

    async def fetch_variants(
        self, kind: int, key: bytes, *, max_ops: int = 3, max_connections: int | None = None
    ) -> list[bytes]:
        found = [data for node in self._up("fetch_variants") for data in self._held(node, kind, key)]
        if not found:
            raise NotFound("None of the closest nodes has it.")
        return list(dict.fromkeys(found))

    async def held(self, kind: int, key: bytes, digest: bytes) -> Outcome:
        up = self._up("held")[:K]
        return Outcome(len(up), sum(digest in node.objects.get((kind, key), {}) for node in up))

    async def closest(self, key: bytes, count: int, *, disjoint: bool = False) -> list[Located]:
        return [node.located for node in self._up("closest")][:count]

    async def spread(
        self,
        kind: int,
        key: bytes,
        pieces: Sequence[bytes],
        *,
        deleters: Sequence[bytes] = (),
        ttl: float,
        again: bool = False,
    ) -> Outcome:
        self.ttls.append(ttl)
        up = self._up("spread")
        there = {digest for node in up if again for digest in node.objects.get((kind, key), {})}
        lacking = [piece for piece in pieces if sha256(piece).digest() not in there]
        free = [node for node in up if not (again and node.objects.get((kind, key))) and not node.refuses]
        for node, piece in zip(free, lacking, strict=False):
            self.uploaded += len(piece)
            variants = node.objects.setdefault((kind, key), {})
            _, before = variants.get(sha256(piece).digest(), (b"", set()))
            variants[sha256(piece).digest()] = (piece, before | set(deleters))
        have = len(pieces) - max(0, len(lacking) - len(free))
        return Outcome(len(pieces), have, tuple({node.refuses for node in up if node.refuses}))

    async def gather(self, kind: int, key: bytes, wanted: ShareSink, count: int) -> None:
        for node in self._up("gather"):
            for piece in self._held(node, kind, key):
                wanted.take(piece)
        if wanted.missing:
            raise NotFound("Too few of the closest nodes have a part of it.")

    async def spread_held(self, kind: int, key: bytes, count: int) -> Outcome:
        up = self._up("spread_held")
        have = sum(any(node.objects.get((kind, key), {})) for node in up)
        return Outcome(min(count, len(up)), min(have, count))

    async def held_notification(self, key: bytes, notification: bytes) -> Outcome:
        up = self._up("held_notification")[:K]
        return Outcome(len(up), sum(sha256(notification).digest() in node.inboxes.get(key, {}) for node in up))

    async def holders(self, kind: int, key: bytes, digest: bytes) -> set[bytes]:
        up = self._up("holders")
        return {node.located.contact.id for node in up if digest in node.objects.get((kind, key), {})}

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
        deleter = deleter_hash(key, salt, owner.certificate)

        def do(node: FakeNode) -> None:
            identifier = node.located.contact.id
            signature = owner.sign(statement(DELETE, key, identifier, b"token", [salt]))
            proof = DeleteProof(key, identifier, b"token", salt, owner.certificate, signature)
            node.tombstones[kind, key, deleter] = encode_delete_proof(proof)
            for digest, (_, deleters) in list(node.objects.get((kind, key), {}).items()):
                deleters.discard(deleter)
                if not deleters:
                    del node.objects[kind, key][digest]

        return self._taken(self._up("delete"), do, max_ops or K)

    async def append_inbox(
        self,
        key: bytes,
        notification: bytes,
        *,
        ttl: float,
        max_ops: int | None = None,
        max_connections: int | None = None,
    ) -> Outcome:
        def do(node: FakeNode) -> None:
            node.inboxes.setdefault(key, {})[sha256(notification).digest()] = notification

        self.ttls.append(ttl)
        return self._taken(self._up("append_inbox"), do)

    async def read_inbox(
        self, key: bytes, owner: Owner, *, max_ops: int | None = None, max_connections: int | None = None
    ) -> list[InboxRead]:
        up = self._up("read_inbox")
        return [InboxRead(node.located, tuple(node.inboxes.get(key, {}).values()), False) for node in up]

    async def acknowledge_inbox(
        self, key: bytes, reading: InboxRead, owner: Owner, hashes: Sequence[bytes] | None = None
    ) -> bool:
        self._up("acknowledge_inbox")
        node = next(node for node in self.nodes if node.located == reading.node)
        if node.down or node.deaf:
            return False
        for digest in hashes or [sha256(notification).digest() for notification in reading.notifications]:
            node.inboxes.get(key, {}).pop(digest, None)
        return True

    async def tombstones(
        self,
        kind: int,
        key: bytes,
        wanted: Mapping[bytes, Callable[[bytes], bool]],
        *,
        max_connections: int | None = None,
    ) -> dict[bytes, bytes]:
        proofs: dict[bytes, bytes] = {}
        for node in self._up("tombstones"):
            for deleter, convinces in wanted.items():
                proof = node.tombstones.get((kind, key, deleter))
                if proof is not None and convinces(proof):
                    proofs.setdefault(deleter, proof)
        return proofs

    async def refresh_revocations(self) -> bool:
        self._up("refresh_revocations")
        return True

    def inbox(self, key: bytes) -> set[bytes]:
        """The notifications that any node has."""
        return {notification for node in self.nodes for notification in node.inboxes.get(key, {}).values()}

    def bodies(self, kind: int, key: bytes) -> list[set[bytes]]:
        """The certificate sets of the copies that nodes have."""
        return [deleters for node in self.nodes for _, deleters in node.objects.get((kind, key), {}).values()]

    @staticmethod
    def _held(node: FakeNode, kind: int, key: bytes) -> Iterator[bytes]:
        for data, _ in node.objects.get((kind, key), {}).values():
            yield data[:-1] + bytes([data[-1] ^ 1]) if node.lies else data


class FailAt:
    """For `FakeOverlay.before`: calls of one name fail, once so many of them have passed."""

    def __init__(self, call: str, error: Exception | None = None, after: int = 0) -> None:
        self._call, self._left = call, after
        self._error = error or Unreachable("No node answers now.")

    def __call__(self, call: str) -> None:
        if call == self._call:
            self._left -= 1
            if self._left < 0:
                raise self._error


def nothing(_: str) -> None:
    """For `FakeOverlay.before`: all is well again."""


class Crowd:
    """Counts how many are inside at once; the first `wait_for` of them wait for each other, and then for more."""

    def __init__(self, wait_for: int) -> None:
        self.inside = self.most = 0
        self._wait_for = wait_for
        self._full = asyncio.Event()

    async def pass_through(self) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        if self.inside >= self._wait_for:
            for _ in range(20):
                await asyncio.to_thread(lambda: None)
            self._full.set()
        await self._full.wait()
        self.inside -= 1
