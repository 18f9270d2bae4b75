"""A community for some virtual minutes, as nasty as users and networks are: the workload of the simulation.

Everything is drawn from one seed: who writes to whom and how much, which nodes crash, stop, come and are full, when
the network is cut. tests/simulation/invariants.py is asked all the while. In the end all is mended and left to settle,
and then every letter must be where it belongs.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mail.keys import generate_pair
from overlay.card import make_card
from overlay.certificates import TrustStore
from overlay.errors import OverlayError
from overlay.moving import Moving
from overlay.network import Network
from overlay.ownership import Owner
from tests.mail.desks import letter
from tests.overlay.issuing import Issuer
from tests.simulation.inline import databases
from tests.simulation.invariants import Invariants
from tests.simulation.nodes import Hub, SimNode
from tests.simulation.users import Device, Person
from tests.simulation.world import Weather, World

ISSUER = Issuer(1)
SMALL_DISK = 150_000
"""Bytes: full after a letter or two with a large body."""
IMPATIENT = 0.2
"""How often somebody doesn't wait for the next attempt."""
KEY_PAIRS = [generate_pair(0.0) for _ in range(32)]


@dataclass(frozen=True)
class Scale:
    """How large a story is. Times in virtual seconds; `churn` is the share of nodes that go in an hour."""

    nodes: int = 10
    users: int = 3
    seconds: float = 600.0
    letters: int = 12
    churn: float = 3.0
    loss: float = 0.1
    k: int = 4
    partitions: int = 1
    joins: int = 2
    large: float = 0.1
    settling: float = 900.0
    rounds: int = 6


@dataclass
class Letter:
    """What was written, and to whom."""

    message_id: str
    digest: bytes
    sender: Device
    recipients: list[Person]


@dataclass
class Outcome:
    """What came of a story."""

    letters: int = 0
    copies: int = 0
    broken: list[str] = field(default_factory=list)
    trace: str = ""
    datagrams: int = 0


class Story:
    """One seed's community, in `folder`."""

    def __init__(self, seed: int, folder: Path, scale: Scale) -> None:
        self.scale = scale
        self.folder = folder
        self.chance = random.Random(f"story {seed}")
        self.world = World(seed, Weather(delay=(0.005, 0.12), loss=scale.loss, duplication=0.02))
        self.world.trace_bytes = False
        self.hub = Hub(self.world)
        self.network = Network("sim", k=scale.k, private_addresses=True, authorities=(ISSUER.der,))
        self.nodes: dict[int, SimNode | None] = {}
        self.people: list[Person] = []
        self.devices: list[Device] = []
        self.letters: list[Letter] = []
        self.places: list[str] = []
        self.outcome = Outcome()
        self.invariants = Invariants(self)
        self._clients = 0

    def play(self) -> Outcome:
        """Play it to its end."""
        with databases():
            self.world.play(self._play())
        self.outcome.trace = self.world.trace
        self.outcome.letters = len(self.letters)
        self.outcome.copies = sum(len(one.recipients) for one in self.letters)
        self.outcome.datagrams = self.world.sent
        self.outcome.broken = self.invariants.broken
        return self.outcome

    async def _play(self) -> None:
        await self._begin()
        scale, chance = self.scale, self.chance
        events = [(chance.uniform(0, scale.seconds), self._write) for _ in range(scale.letters)]
        leaving = round(scale.churn * scale.nodes * scale.seconds / 3600)
        ways = (self._crash, self._crash, self._stop)
        events += [(chance.uniform(0, scale.seconds), chance.choice(ways)) for _ in range(leaving)]
        events += [(chance.uniform(0, scale.seconds), self._part) for _ in range(scale.partitions)]
        events += [(chance.uniform(0, scale.seconds), self._join) for _ in range(scale.joins)]
        events += [(chance.uniform(0, scale.seconds), self._restart_device) for _ in range(scale.users)]
        events += [(chance.uniform(0, scale.seconds), self._deafen) for _ in range(scale.partitions)]
        working = [asyncio.create_task(self._work(device)) for device in self.devices]
        begun, running = self.world.time(), []
        for moment, act in sorted(events, key=lambda event: event[0]):
            await asyncio.sleep(max(0.0, begun + moment - self.world.time()))
            running.append(asyncio.create_task(act()))
            self.invariants.check(always=False)
        await asyncio.gather(*running)
        await self._settle()
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        for _ in range(2):  # what was deleted last is known to all then: no look is spared twice
            await self._look_round(self.scale.settling / self.scale.rounds)
        self.invariants.check_end()
        for device in self.devices:
            if device.node is not None:
                await device.crash()
        for node in self.nodes.values():
            if node is not None:
                await node.crash()

    async def _begin(self) -> None:
        for number in range(self.scale.nodes):
            await self._start_node(number)
        trust = TrustStore([ISSUER.der])
        for number in range(self.scale.users):
            signer = ISSUER.person(f"user{number}@sim.example", 100 + number, serial=number + 1)
            person = Person(f"user{number}@sim.example", Owner(signer.certificate, signer.sign), KEY_PAIRS[number])
            self.people.append(person)
            for which in range(2 if number % 8 == 0 else 1):  # some read on two
                self.devices.append(Device(person, self.folder / f"user{number}-{which}", trust))
        for device in self.devices:
            await device.start(self._client(), self.places)
        for device in self.devices:
            await self._publish(device)

    def _client(self) -> SimNode:
        self._clients += 1
        key = X25519PrivateKey.from_private_bytes(self.chance.randbytes(32))
        return SimNode(self.hub, self.network, f"10.1.{self._clients >> 8}.{self._clients & 255}", key, None)

    async def _start_node(self, number: int) -> None:
        key = X25519PrivateKey.from_private_bytes(random.Random(f"node {number}").randbytes(32))
        chance = random.Random(f"{number} {self.folder.name}")
        skew = chance.choice((0.0, 0.0, -1800.0, 1800.0))
        node = SimNode(
            self.hub, self.network, f"10.0.{number >> 8}.{number & 255}", key, self.folder / f"node{number}",
            quota=SMALL_DISK if number == 5 or number % 10 == 9 else 1 << 28, skew=skew,
        )  # fmt: skip
        if number % 10 == 8:
            self.world.slow[node.place_ip] = 0.3
        await node.listen(4000, node.place_ip)
        self.invariants.watch(node)
        self.nodes[number] = node
        if len(self.places) < 3:
            self.places.append(node.place)
        await node.join(self.places, self.folder / f"node{number}" / "routing.json")

    async def _publish(self, device: Device) -> None:
        person, sequence = device.person, int(self.world.wall() * 1000)
        for _ in range(20):
            try:
                card = make_card(person.owner, person.pair.public, sequence)
                if (await device.directory.publish(card)).have:
                    return
            except OverlayError:
                pass
            await asyncio.sleep(5)

    # What happens

    async def _work(self, device: Device) -> None:
        """What an agent does by itself."""
        while True:
            await asyncio.sleep(self.chance.uniform(20, 60))
            if device.node is not None:
                await device.send(everything=self.chance.random() < IMPATIENT)
            if device.node is not None:
                await device.sync()

    async def _write(self) -> None:
        sender = self.chance.choice(self.devices)
        for _ in range(self.chance.choice((1, 1, 4))):  # at times a burst
            others = [person for person in self.people if person is not sender.person]
            recipients = self.chance.sample(others, self.chance.randint(1, len(others)))
            message_id = f"{len(self.letters)}@sim.example"
            text = self.chance.randbytes(100_000) if self.chance.random() < self.scale.large else b"Hello.\n"
            addresses = [person.address for person in recipients]
            data = letter(sender.person.address, addresses, message_id, text)
            if sender.node is None:
                return
            sender.outbox.accept(data, message_id, "Hello", sender.person.address, addresses, self.world.wall())
            self.letters.append(Letter(message_id, hashlib.sha256(data).digest(), sender, recipients))
            self.invariants.accepted(self.letters[-1])
        await sender.send()

    async def _crash(self) -> None:
        number = self._somebody()
        node = self.nodes[number]
        if node is None:
            return
        self.nodes[number] = None
        await node.crash()
        await asyncio.sleep(self.chance.uniform(20, 300))
        await self._start_node(number)

    async def _stop(self) -> None:
        number = self._somebody()
        node = self.nodes[number]
        if node is None:
            return
        self.nodes[number] = None
        await node.leave()
        await node.stop()
        await asyncio.sleep(self.chance.uniform(20, 300))
        await self._start_node(number)

    async def _join(self) -> None:
        await self._start_node(len(self.nodes))

    async def _part(self) -> None:
        hosts = [f"10.0.0.{number}" for number in self.nodes]
        self.world.part(self.chance.sample(hosts, len(hosts) // 2))
        await asyncio.sleep(self.chance.uniform(30, 120))
        self.world.part()

    async def _deafen(self) -> None:
        one, other = self.chance.sample(sorted(self.nodes), 2)
        way = f"10.0.0.{one}", f"10.0.0.{other}"
        self.world.deaf.add(way)
        await asyncio.sleep(self.chance.uniform(30, 200))
        self.world.deaf.discard(way)

    async def _restart_device(self) -> None:
        device = self.chance.choice(self.devices)
        if device.node is None:
            return
        await device.crash()
        await asyncio.sleep(self.chance.uniform(1, 60))
        await device.start(self._client(), self.places)

    async def _settle(self) -> None:
        """Nothing happens any more: mail must arrive, and copies come to rest."""
        self.world.part()
        self.world.deaf.clear()
        self.world.weather.loss = 0.02
        step = self.scale.settling / self.scale.rounds
        for _ in range(self.scale.rounds):
            online = [device for device in self.devices if device.node is not None]
            await asyncio.gather(self._look_round(step), *(device.send(everything=True) for device in online))
            self.invariants.check()

    async def _look_round(self, seconds: float) -> None:
        """The hour's round of every node, at a moment of its own within so many seconds."""

        async def look(moving: Moving) -> None:
            await asyncio.sleep(self.chance.uniform(0, seconds))
            await moving.look_round()

        up = [node.moving for node in self.nodes.values() if node is not None and node.moving is not None]
        await asyncio.gather(asyncio.sleep(seconds), *map(look, up))

    def _somebody(self) -> int:
        return self.chance.choice(sorted(self.nodes))
