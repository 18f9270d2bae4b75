"""Overlay protocols in a simulated world, honest and hostile ones, with a store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from overlay.identity.certificates import TrustStore
from overlay.identity.contact import Contact, node_id
from overlay.identity.network import Network
from overlay.ids import distance
from overlay.primitives.requests import FetchRequest
from overlay.primitives.service import Service, StoredContent, TombstoneCopy, refusal
from overlay.protocol import OverlayProtocol
from overlay.wire import messages
from overlay.wire.messages import Code
from overlay.wire.rpc import Handled, RemotePeer, SealedRPC
from overlay.wire.sealed_datagram import Sealer
from overlay.wire.write_tokens import WriteTokens
from storage.store_request import StoreRequest
from tests.simulation.world import Transport, World

PRIVATE = Network("test", private_addresses=True)
PUBLIC = Network("test")


@dataclass
class SimulatedStore:
    """A StoreBackend in memory, without limits."""

    objects: dict[tuple[int, bytes], dict[bytes, tuple[bytes, set[bytes], int | None]]] = field(default_factory=dict)
    tombstone_proofs: dict[tuple[int, bytes, bytes], bytes] = field(default_factory=dict)
    inboxes: dict[bytes, dict[bytes, bytes]] = field(default_factory=dict)
    full: bool = False
    full_inboxes: float = 0.0
    ttls: list[float] = field(default_factory=list)
    """The time to live of every store request."""
    calls: int = 0

    async def store(self, request: StoreRequest, asker: Contact | None) -> None:
        self.calls += 1
        self.ttls.append(request.ttl)
        await asyncio.sleep(0.01)
        if self.full:
            raise refusal(Code.NO_SPACE)
        digest, content, sequence = request.digest, request.content, request.sequence
        assert isinstance(content, bytes)
        held = self.objects.setdefault((request.kind, request.key), {})
        if sequence is not None:
            for other, (_, _, known) in list(held.items()):
                if other != digest and known is not None and known >= sequence:
                    raise refusal(Code.STALE)
                del held[other]
        held[digest] = (content, set(request.deleters), sequence)

    async def fetch(self, request: FetchRequest) -> StoredContent | None:
        self.calls += 1
        for known, (content, _, _) in self.objects.get((request.kind, request.key), {}).items():
            if request.digest in (None, known):
                return StoredContent(known, len(content), content)
        return None

    async def delete(self, kind: int, key: bytes, deleter: bytes, proof: bytes, ttl: float) -> int:
        self.calls += 1
        self.tombstone_proofs[kind, key, deleter] = proof
        held = self.objects.get((kind, key), {})
        dropped = 0
        for digest, (_, deleters, _) in list(held.items()):
            if deleter in deleters:
                deleters.discard(deleter)
                if not deleters:
                    del held[digest]
                    dropped += 1
        return dropped

    async def proofs(self, kind: int, key: bytes, deleters: Sequence[bytes]) -> list[bytes]:
        return [self.tombstone_proofs.get((kind, key, deleter), b"") for deleter in deleters]

    async def digests(self, kind: int, key: bytes) -> list[bytes]:
        return list(self.objects.get((kind, key), {}))

    async def tombstones(self, kind: int, key: bytes, after: bytes, limit: int) -> list[TombstoneCopy]:
        found = sorted(
            (d, proof) for (k, at, d), proof in self.tombstone_proofs.items() if (k, at) == (kind, key) and d > after
        )
        return [TombstoneCopy(deleter, proof, 60.0) for deleter, proof in found[:limit]]

    async def deleters(self, kind: int, key: bytes) -> list[bytes]:
        return sorted(deleter for k, at, deleter in self.tombstone_proofs if (k, at) == (kind, key))

    async def known(self, key: bytes, hashes: Iterable[bytes]) -> list[bool]:
        return [digest in self.inboxes.get(key, {}) for digest in hashes]

    async def append(
        self, key: bytes, notification: bytes, ttl: float, asker: Contact | None, admit: Callable[[float], None]
    ) -> bool:
        self.calls += 1
        inbox = self.inboxes.setdefault(key, {})
        new = sha256(notification).digest() not in inbox
        if new:
            admit(self.full_inboxes)
        inbox[sha256(notification).digest()] = notification
        return new

    async def read(self, key: bytes, reader: bytes, limit: int, lease: float) -> tuple[list[bytes], bool]:
        self.calls += 1
        chosen: list[bytes] = []
        waiting = list(self.inboxes.get(key, {}).values())
        for notification in waiting:
            if chosen and sum(map(len, chosen)) + len(notification) > limit:
                break
            chosen.append(notification)
        return chosen, len(waiting) > len(chosen)

    async def acknowledge(self, key: bytes, hashes: Iterable[bytes]) -> int:
        self.calls += 1
        inbox = self.inboxes.get(key, {})
        return sum(inbox.pop(digest, None) is not None for digest in hashes)

    def spool(self) -> Path:
        raise NotImplementedError


@dataclass
class Peer:
    """One participant: its protocol, its socket, its store."""

    protocol: OverlayProtocol
    transport: Transport
    contact: Contact
    tokens: WriteTokens
    store: SimulatedStore
    service: Service | None

    def token_for(self, other: Peer | Liar) -> bytes:
        return self.tokens.issue(other.contact.key, other.contact.ip)


def new_key(world: World) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(world.chance.randbytes(32))


def host(number: int) -> str:
    """A private IP address, for which limits by address range don't count."""
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


async def start(
    world: World,
    ip: str,
    *,
    network: Network = PRIVATE,
    server_mode: bool = True,
    trust: TrustStore | None = None,
    port: int = 4000,
    key: X25519PrivateKey | None = None,
) -> Peer:
    """A peer at this address. Its service uses the world's wall clock."""
    sealer = Sealer(key or new_key(world), network.name, world.chance.randbytes)
    tokens = WriteTokens(world.time, world.chance.randbytes)
    store = SimulatedStore()
    own = node_id(sealer.public)
    service = Service(own, store, trust, tokens, world.wall) if server_mode else None

    def create() -> OverlayProtocol:
        return OverlayProtocol(
            sealer, network, own, tokens, service, server_mode=server_mode, random=world.chance.randbytes
        )

    transport, protocol = await world.create_datagram_endpoint(create, local_addr=(ip, port))
    return Peer(protocol, transport, Contact(sealer.public, ip, port), tokens, store, service)


async def grow(world: World, count: int, *, network: Network = PRIVATE) -> list[Peer]:
    """`count` nodes at hosts 1, 2, ..., each of which has met the others in a random order."""
    peers = [await start(world, host(number), network=network) for number in range(1, count + 1)]
    for peer in peers:
        for other in world.chance.sample(peers, len(peers)):
            peer.protocol.router.answered(other.contact)
    return peers


def closest(peers: Iterable[Peer], key: bytes, k: int) -> list[Contact]:
    """The k closest peers, which a lookup should find."""
    return sorted((peer.contact for peer in peers), key=lambda contact: distance(contact.id, key))[:k]


class Liar:
    """A hostile peer that answers what `answer` returns; None: no answer."""

    def __init__(self, protocol: _Lying, transport: Transport, contact: Contact) -> None:
        self.protocol = protocol
        self.transport = transport
        self.contact = contact


class _Lying(SealedRPC):
    answer: Callable[[RemotePeer, messages.Request], Handled | None]

    def handle(self, sender: RemotePeer, request: messages.Request) -> Handled:
        made_up = self.answer(sender, request)
        return asyncio.get_running_loop().create_future() if made_up is None else made_up


async def start_liar(
    world: World,
    ip: str,
    answer: Callable[[RemotePeer, messages.Request], Handled | None],
    *,
    key: X25519PrivateKey | None = None,
) -> Liar:
    """A hostile peer at this address that claims to be in server mode."""
    sealer = Sealer(key or new_key(world), "test", world.chance.randbytes)

    def create() -> _Lying:
        protocol = _Lying(sealer, server_mode=True, random=world.chance.randbytes)
        protocol.answer = answer
        return protocol

    transport, protocol = await world.create_datagram_endpoint(create, local_addr=(ip, 4000))
    return Liar(protocol, transport, Contact(sealer.public, ip, 4000))


def found(contacts: Iterable[Contact] = ()) -> messages.Found:
    """An answer to a Find."""
    return messages.Found([contact.wire for contact in contacts], bytes(16), 0, b"")
