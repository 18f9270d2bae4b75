"""Real nodes in a simulated world: the node, its service and its store are the program's own.

TCP isn't simulated: what goes over HTTP goes to the other node's service here, after as long as it would take, and is
lost where datagrams would be.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from overlay.errors import NoAnswer
from overlay.http.client import HTTPClient
from overlay.http.tunnel import RelayAddress, Tunnel
from overlay.identity.network import Network
from overlay.identity.ownership import ACKNOWLEDGE_INBOX, READ_INBOX, Owner, statement
from overlay.kademlia.lookup import Located
from overlay.node.config import NodeConfig
from overlay.node.node import Node
from overlay.node.server_mode import HTTPEndpoint
from overlay.primitives.requests import FetchRequest, OwnerProof
from overlay.primitives.service import Service, refusal
from overlay.wire.messages import Code
from storage.node.store import open_node_store
from storage.store_request import StoreRequest
from tests.simulation.world import World

T = TypeVar("T")
BYTES_A_SECOND = 1_000_000.0
GIVEN_UP = 10.0


class Hub:
    """Which node is at which place now."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.nodes: dict[tuple[str, int], SimNode] = {}


class SimHTTPClient(HTTPClient):
    """Other nodes' HTTP doors, as far as a node asks for them."""

    def __init__(self, hub: Hub, node: SimNode) -> None:
        self._hub = hub
        self._node = node

    async def close(self) -> None:
        """There is nothing open."""

    async def store(self, located: Located, request: StoreRequest) -> None:
        data = request.content
        assert isinstance(data, bytes)

        async def work(service: Service) -> None:
            service.admit(request.kind, len(data))
            await service.store(request, self._node.located().contact)

        await self._carry(located, len(data), work)

    async def fetch(self, located: Located, request: FetchRequest, limit: int) -> bytes:
        async def work(service: Service) -> bytes:
            return await service.contents(request)

        return await self._carry(located, limit, work)

    async def append_inbox(
        self, located: Located, key: bytes, notification: bytes, *, ttl: float, stamp: bytes = b""
    ) -> bool:
        async def work(service: Service) -> bool:
            return await service.append_inbox(key, notification, ttl, self._node.located().contact, stamp)

        return await self._carry(located, len(notification), work)

    async def read_inbox(self, located: Located, key: bytes, owner: Owner) -> tuple[list[bytes], bool]:
        me = self._node.sealer.public

        async def work(service: Service) -> tuple[list[bytes], bool]:
            signature = owner.sign(statement(READ_INBOX, key, located.contact.id, located.token))
            return await service.read_inbox(key, me, OwnerProof(located.token, owner.certificate, signature), 4 << 20)

        return await self._carry(located, 0, work)

    async def acknowledge_inbox(self, located: Located, key: bytes, owner: Owner, hashes: Sequence[bytes]) -> int:
        async def work(service: Service) -> int:
            signature = owner.sign(statement(ACKNOWLEDGE_INBOX, key, located.contact.id, located.token, hashes))
            return await service.acknowledge_inbox(key, hashes, OwnerProof(located.token, owner.certificate, signature))

        return await self._carry(located, 0, work)

    async def _carry(self, at: Located, size: int, work: Callable[[Service], Awaitable[T]]) -> T:
        world, mine, place = self._hub.world, self._node.ip, at.contact.address
        await asyncio.sleep(2 * world.delay(mine, place[0]) + size / BYTES_A_SECOND)
        there = self._hub.nodes.get(place)
        if there is None or not (world.reaches(mine, place[0]) and world.reaches(place[0], mine)):
            await asyncio.sleep(GIVEN_UP)
            raise NoAnswer(f"{at.contact} doesn't answer over HTTPS")
        if not there.protocol.tokens.good(at.token, self._node.sealer.public, mine):
            raise refusal(Code.BAD_TOKEN)
        assert there.service is not None
        result = await work(there.service)
        await asyncio.sleep(world.delay(place[0], mine))
        if self._hub.nodes.get(place) is not there or not world.reaches(place[0], mine):
            await asyncio.sleep(GIVEN_UP)
            raise NoAnswer(f"{at.contact} was lost on the way")
        return result


class NoTunnel(Tunnel):
    """Nobody is a relay here: doors are stood in for by SimHTTPClient."""

    async def open(self, candidates: Iterable[RelayAddress]) -> bool:
        return False


class SimNode(Node):
    """A node at an address of its own. With a `folder` a system node; its clock is wrong by `skew` seconds."""

    def __init__(
        self,
        hub: Hub,
        network: Network,
        ip: str,
        key: X25519PrivateKey,
        folder: Path | None,
        *,
        quota: int = 1 << 28,
        skew: float = 0.0,
    ) -> None:
        world = hub.world
        self.skew = skew

        def now() -> float:
            return world.wall() + self.skew

        store = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            store = open_node_store(folder, quota=quota, now=now)
        chance = random.Random(f"{ip} {world.time()}").randbytes
        super().__init__(NodeConfig(network, key, store=store, now=now, random=chance))
        self.hub = hub
        self.place_ip = ip
        self.http_client = SimHTTPClient(hub, self)

    async def start(self, places: Sequence[str], state: Path | None = None, port: int = 4000) -> None:
        """Listen and join."""
        await self.listen(port, self.place_ip)
        await self.join(places, state)

    async def crash(self) -> None:
        """Be gone without a word, with what is on disk left there."""
        self.hub.nodes.pop((self.place_ip, 4000), None)
        await self.vanish()
        if self._maintenance is not None:
            await self._maintenance.stop()
        if self.store is not None:
            self.store.close()

    async def stop(self) -> None:
        """Stop in good order."""
        self.hub.nodes.pop((self.place_ip, 4000), None)
        await super().stop()

    def _new_tunnel(self) -> Tunnel:
        return NoTunnel(self.protocol, self.http_client)

    async def _open_http_server(self, interface: str) -> HTTPEndpoint | None:
        self.hub.nodes[interface, self.port] = self
        self.protocol.bulk_port, self.protocol.fingerprint = self.port, bytes(32)
        return None
