"""A simulated community for some virtual minutes, with the faults of real users and networks.

Everything is drawn from one seed: who writes what to which recipients, what happens to profiles (tests/workload), which
nodes crash, stop, join or are full, and when the network is partitioned. tests/simulation/invariants.py checks the
story as it runs. At the end all faults stop, the network settles, and then every message must have arrived.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mail.sealed.keys import generate_pair
from overlay.errors import OverlayError
from overlay.identity.card import make_card
from overlay.identity.certificates import TrustStore
from overlay.identity.network import Network
from overlay.identity.ownership import Owner
from overlay.replication.repair import Repair
from tests.overlay.issuing import Issuer
from tests.simulation.inline import databases
from tests.simulation.invariants import Invariants
from tests.simulation.nodes import Hub, SimNode
from tests.simulation.users import Device, SimulatedPerson
from tests.simulation.world import Weather, World
from tests.workload import Event, Happening, WrittenMessage, draw_story

ISSUER = Issuer(1)
SMALL_DISK = 150_000
"""Bytes of quota: full after one or two messages with a large body."""
IMPATIENT = 0.2
"""How often a user doesn't wait for the next attempt."""
EVENTS = tuple(event for event in Event if event is not Event.FULL_DISK)
"""What happens to profiles here. (Users' disks fill up in tests/real; nodes' disks do here.)"""
KEY_PAIRS = [generate_pair(0.0) for _ in range(32)]


@dataclass(frozen=True)
class Scale:
    """The size of a story. Times in virtual seconds; `churn`: the share of nodes that leave in an hour.

    `messages` of at most `largest` bytes, each to one or more recipients; `happenings`: mean events a profile.
    """

    nodes: int = 10
    users: int = 3
    seconds: float = 600.0
    messages: int = 12
    churn: float = 3.0
    loss: float = 0.1
    k: int = 4
    partitions: int = 1
    joins: int = 2
    largest: int = 2_000_000
    happenings: float = 0.3
    settling: float = 900.0
    rounds: int = 6


@dataclass
class StoryMessage:
    """A message of the story, its sender and its recipients."""

    message_id: str
    size: int
    """Bytes of its body."""
    digest: bytes
    """SHA-256 of the message."""
    sender: Device
    recipients: list[SimulatedPerson]


@dataclass
class StoryOutcome:
    """The results of a story."""

    messages: int = 0
    deliveries: int = 0
    """One for each recipient of each message."""
    written: int = 0
    """Bytes of all messages' bodies."""
    broken: list[str] = field(default_factory=list)
    trace: str = ""
    datagrams: int = 0


class Story:
    """One seed's community, in `folder`."""

    def __init__(self, seed: int, folder: Path, scale: Scale) -> None:
        self.scale = scale
        self.folder = folder
        self.chance = random.Random(f"story {seed}")
        self._steps = random.Random(f"steps {seed}")
        self.world = World(seed, Weather(delay=(0.005, 0.12), loss=scale.loss, duplication=0.02))
        self.world.trace_bytes = False
        self.hub = Hub(self.world)
        self.network = Network("sim", k=scale.k, private_addresses=True, authorities=(ISSUER.der,))
        self.nodes: dict[int, SimNode | None] = {}
        self.people: list[SimulatedPerson] = []
        self.devices: list[Device] = []
        self.messages: list[StoryMessage] = []
        self.places: list[str] = []
        self.outcome = StoryOutcome()
        self.invariants = Invariants(self)
        self._clients = 0
        self._beside: set[int] = set()
        """People whose next message is accepted by another program than the one that sends it."""

    def play(self) -> StoryOutcome:
        """Play the story to its end."""
        with databases():
            self.world.play(self._play())
        self.outcome.trace = self.world.trace
        self.outcome.messages = len(self.messages)
        self.outcome.deliveries = sum(len(one.recipients) for one in self.messages)
        self.outcome.written = sum(one.size for one in self.messages)
        self.outcome.datagrams = self.world.sent
        self.outcome.broken = self.invariants.broken
        return self.outcome

    async def _play(self) -> None:
        await self._begin()
        scale, chance = self.scale, self.chance
        events: list[tuple[float, Callable[[], Awaitable[None]]]] = self._drawn()
        leaving = round(scale.churn * scale.nodes * scale.seconds / 3600)
        ways = (self._crash, self._crash, self._stop)
        events += [(chance.uniform(0, scale.seconds), chance.choice(ways)) for _ in range(leaving)]
        events += [(chance.uniform(0, scale.seconds), self._part) for _ in range(scale.partitions)]
        events += [(chance.uniform(0, scale.seconds), self._join) for _ in range(scale.joins)]
        events += [(chance.uniform(0, scale.seconds), self._deafen) for _ in range(scale.partitions)]
        working = [asyncio.create_task(self._work(device)) for device in self.devices]
        begun, running = self.world.time(), []
        for moment, act in sorted(events, key=lambda event: event[0]):
            await asyncio.sleep(max(0.0, begun + moment - self.world.time()))
            running.append(asyncio.ensure_future(act()))
            self.invariants.check(always=False)
        await asyncio.gather(*running)
        await self._settle()
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        for _ in range(2):  # after two, all nodes know the last deletes: no check is skipped twice
            await self._run_repair_round(self.scale.settling / self.scale.rounds)
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
            person = SimulatedPerson(
                f"user{number}@sim.example", Owner(signer.certificate, signer.sign), KEY_PAIRS[number]
            )
            self.people.append(person)
            for which in range(2 if number % 8 == 0 else 1):  # some people have two devices
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
        """Send and collect from time to time, as an agent does."""
        while True:
            await asyncio.sleep(self.chance.uniform(20, 60))
            if device.node is not None:
                await device.send(everything=self.chance.random() < IMPATIENT)
            if device.node is not None:
                await device.sync()

    def _drawn(self) -> list[tuple[float, Callable[[], Awaitable[None]]]]:
        """The workload's steps with their times; those of one burst have the same."""
        scale, moment = self.scale, 0.0
        steps = draw_story(
            self._steps,
            messages=scale.messages,
            users=scale.users,
            largest=scale.largest,
            events=EVENTS,
            happenings=scale.happenings,
        )
        moments = iter(sorted(self._steps.uniform(0, scale.seconds) for _ in steps))
        drawn: list[tuple[float, Callable[[], Awaitable[None]]]] = []
        for step in steps:
            if isinstance(step, WrittenMessage):
                moment = moment if step.burst else next(moments)
                drawn.append((moment, partial(self._write, step)))
            else:
                moment = next(moments)
                drawn.append((moment, partial(self._happen, step)))
        return drawn

    async def _write(self, step: WrittenMessage) -> None:
        while (sender := self._device(step.sender)) is None:  # the device is off: write when it is on again
            await asyncio.sleep(20)
        recipients = [self.people[number] for number in step.recipients]
        beside = step.sender in self._beside
        self._beside.discard(step.sender)
        digest = sender.accept(step.shape, recipients, beside=beside)
        if digest is None:
            return
        message_id = step.shape.message_id("sim.example")
        self.messages.append(StoryMessage(message_id, step.shape.size, digest, sender, recipients))
        self.invariants.accepted(self.messages[-1])
        await sender.send()

    async def _happen(self, step: Happening) -> None:  # noqa: C901 - a case for each event
        """Let an event happen to a user's profile."""
        device = self._device(step.user)
        if device is None:
            return
        match step.event:
            case Event.RESTART:
                await device.stop()
                await self._start_again(device, step.seconds)
            case Event.KILL:
                await device.crash()
                await self._start_again(device, step.seconds)
            case Event.BACKUP:
                device.backup()
            case Event.RESTORE:
                await self._restore(device, step.seconds)
            case Event.SECOND_PROGRAM:
                self._beside.add(step.user)
            case Event.CLOCK:
                device.put_clock(step.seconds)
                await asyncio.sleep(self.chance.uniform(30, 200))
                device.put_clock(0.0)
            case Event.OFFLINE:
                assert device.node is not None
                host = device.node.place_ip
                self.world.offline.add(host)
                await asyncio.sleep(step.seconds)
                self.world.offline.discard(host)
            case Event.FLAGS:
                device.change_flags(self.chance)
            case Event.MOVE:
                device.move(self.chance)
            case Event.DELETE:
                device.delete(self.chance)

    def _device(self, user: int) -> Device | None:
        """One of a user's devices, if it is on."""
        device = self.chance.choice([device for device in self.devices if device.person is self.people[user]])
        return None if device.node is None else device

    async def _start_again(self, device: Device, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await device.start(self._client(), self.places)

    async def _restore(self, device: Device, seconds: float) -> None:
        """Replace a device's disk by its backup: an old one, or one taken `seconds` ago."""
        if not device.has_backup:
            device.backup()
            await asyncio.sleep(seconds)
            if device.node is None:
                return
        self.invariants.check()
        taken = device.taken()
        await device.crash()
        device.restore()
        await self._start_again(device, seconds)
        self.invariants.restored(device, taken - device.taken())

    async def _crash(self) -> None:
        number = self._some_node()
        node = self.nodes[number]
        if node is None:
            return
        self.nodes[number] = None
        await node.crash()
        await asyncio.sleep(self.chance.uniform(20, 300))
        await self._start_node(number)

    async def _stop(self) -> None:
        number = self._some_node()
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

    async def _settle(self) -> None:
        """End all faults, and give the network time to deliver mail and repair copies."""
        self.world.part()
        self.world.deaf.clear()
        self.world.offline.clear()
        self.world.weather.loss = 0.02
        step = self.scale.settling / self.scale.rounds
        for _ in range(self.scale.rounds):
            online = [device for device in self.devices if device.node is not None]
            await asyncio.gather(self._run_repair_round(step), *(device.send(everything=True) for device in online))
            self.invariants.check()

    async def _run_repair_round(self, seconds: float) -> None:
        """The hourly repair round of every node, each at its own moment within `seconds`."""

        async def look(moving: Repair) -> None:
            await asyncio.sleep(self.chance.uniform(0, seconds))
            await moving.run_round()

        up = [node.server.repair for node in self.nodes.values() if node is not None and node.server is not None]
        await asyncio.gather(asyncio.sleep(seconds), *map(look, up))

    def _some_node(self) -> int:
        return self.chance.choice(sorted(self.nodes))
