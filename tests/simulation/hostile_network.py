"""A partly hostile network: how many lookups end at an honest replica, and how many inbox reads are complete.

Used by tests/simulation/test_hostile.py on a few nodes and by bench/bench_hostile.py on many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from overlay.client import Overlay
from overlay.errors import OverlayError
from overlay.identity.contact import Contact
from overlay.identity.network import Network
from overlay.identity.ownership import Owner
from overlay.ids import Kind, inbox_key
from tests.overlay.issuing import Issuer
from tests.simulation.hostile_node import HostileNode
from tests.simulation.inline import databases
from tests.simulation.nodes import Hub, SimNode
from tests.simulation.world import Weather, World

ISSUER = Issuer(1)
ADDRESS = "alice@hostile.example"
PERSON = ISSUER.person(ADDRESS, 100)
ALICE = Owner(PERSON.certificate, PERSON.sign)


@dataclass(frozen=True)
class Fared:
    """The trials, and how many of each kind succeeded; `lies`: lookups that hostile nodes answered with a lie."""

    lookups: int
    honest: int
    reads: int
    complete: int
    fetches: int
    right: int
    lies: int


class HostileNetwork:
    """`nodes` nodes, a `share` of them hostile, and one honest client that no node knows at first."""

    def __init__(self, seed: int, folder: Path, nodes: int, share: float, k: int = 10) -> None:
        self.world = World(seed, Weather(delay=(0.005, 0.05)))
        self.world.trace_bytes = False
        self.hub = Hub(self.world)
        self.network = Network("hostile", k=k, private_addresses=True, authorities=(ISSUER.der,))
        self.gang: list[Contact] = []
        self.hostile: set[bytes] = set()
        self._folder = folder
        self._share = share
        self.nodes: list[SimNode] = []
        self._count = nodes
        self.client = SimNode(self.hub, self.network, "10.7.7.7", self._key(), None)

    def play(self, story: Callable[[Overlay], Awaitable[None]]) -> None:
        """Let the network form, then run the client's story."""

        async def begin() -> None:
            for number in range(self._count):
                await self._start(number)
            await self.client.start([node.place for node in self.nodes[:3]])
            await story(Overlay(self.client))
            for node in [self.client, *self.nodes]:
                await node.crash()

        with databases():
            self.world.play(begin())

    async def _start(self, number: int) -> None:
        arguments = (
            self.hub, self.network, f"10.0.{number >> 8}.{number & 255}", self._key(), self._folder / str(number),
        )  # fmt: skip
        # All nodes join at the first three, so those are honest.
        bad = number >= 3 and 7919 * number % 100 < 100 * self._share
        node = HostileNode(*arguments, gang=self.gang) if bad else SimNode(*arguments)
        if bad:
            self.hostile.add(node.id)
        await node.start([other.place for other in self.nodes[:3]])
        self.nodes.append(node)

    def _key(self) -> X25519PrivateKey:
        return X25519PrivateKey.from_private_bytes(self.world.chance.randbytes(32))


def attack_network(seed: int, folder: Path, *, nodes: int, share: float, trials: int, k: int = 10) -> Fared:
    """Run `trials` lookups, inbox reads and fetches in a network of which `share` is hostile."""
    hostile_network = HostileNetwork(seed, folder, nodes, share, k)
    counts = dict.fromkeys(("honest", "complete", "right"), 0)

    async def story(overlay: Overlay) -> None:
        await asyncio.sleep(60)
        inbox = inbox_key(ADDRESS)
        for number in range(trials):
            key = hostile_network.world.chance.randbytes(20)
            found = await overlay.closest(key, k, disjoint=True)
            counts["honest"] += any(at.contact.id not in hostile_network.hostile for at in found)
            data = hostile_network.world.chance.randbytes(300)
            await overlay.store(Kind.BODY, key, data, ttl=3600.0)
            try:
                counts["right"] += await overlay.fetch(Kind.BODY, key, digest=sha256(data).digest()) == data
            except OverlayError:
                pass
            sent = {f"{number} {one}".encode() for one in range(3)}
            for notification in sent:
                await overlay.append_inbox(inbox, notification, ttl=3600.0)
            reader = Overlay(hostile_network.client)  # has no cached nodes, so looks them up
            readings = await reader.read_inbox(inbox, ALICE)
            superset = {notification for reading in readings for notification in reading.notifications}
            counts["complete"] += sent <= superset
            hashes = [sha256(notification).digest() for notification in superset]
            for reading in readings:
                await overlay.acknowledge_inbox(inbox, reading, ALICE, hashes)

    hostile_network.play(story)
    lies = sum(node.lies for node in hostile_network.nodes if isinstance(node, HostileNode))
    return Fared(trials, counts["honest"], trials, counts["complete"], trials, counts["right"], lies)
