"""A node that no other node answers: its own store is no answer, and nothing fails while it is offline."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mail.directory import NobodyElse
from overlay.client import Overlay
from overlay.errors import NotFound, Offline, Unreachable
from overlay.identity.card import make_card
from overlay.identity.certificates import TrustStore
from overlay.identity.network import Network
from overlay.identity.ownership import Owner
from overlay.ids import Kind, body_key, deleter_hash, inbox_key
from storage.user.outbox import Envelope, Recipient, State
from tests.mail.user_agents import plain_message
from tests.simulation.inline import databases
from tests.simulation.nodes import Hub, SimNode
from tests.simulation.story import ISSUER, KEY_PAIRS
from tests.simulation.users import Device, SimulatedPerson
from tests.simulation.world import World

NETWORK = Network("home", k=4, private_addresses=True, authorities=(ISSUER.der,))
KEY, DATA, SALT = body_key("<1@sim.example>"), b"sealed", bytes(16)
DIGEST = hashlib.sha256(DATA).digest()
TTL = 3600.0


def person(number: int) -> SimulatedPerson:
    address = f"user{number}@sim.example"
    signer = ISSUER.person(address, 100 + number, serial=number + 1)
    return SimulatedPerson(address, Owner(signer.certificate, signer.sign), KEY_PAIRS[number])


ALICE, BOB = person(0), person(1)
INBOX = inbox_key(ALICE.address)


def lone(node: SimNode) -> bool:
    return node.lone


class Home:
    """Some nodes at home, each of which keeps what it knows in a folder."""

    def __init__(self, folder: Path, seed: int = 15) -> None:
        self.world = World(seed)
        self.hub = Hub(self.world)
        self.folder = folder
        self.nodes: list[SimNode] = []

    def new(self) -> SimNode:
        self.nodes.append(self._node(len(self.nodes) + 1))
        return self.nodes[-1]

    def again(self, node: SimNode) -> SimNode:
        """The same node, not started yet, in the place of one that is over."""
        at = self.nodes.index(node)
        self.nodes[at] = self._node(at + 1)
        return self.nodes[at]

    def _node(self, number: int) -> SimNode:
        key = X25519PrivateKey.from_private_bytes(number.to_bytes(32, "big"))
        return SimNode(self.hub, NETWORK, f"10.0.0.{number}", key, self.folder / str(number))

    async def start(self, count: int) -> list[SimNode]:
        for _ in range(count):
            await self.join(self.new())
        return self.nodes[-count:]

    async def join(self, node: SimNode) -> SimNode:
        places = [other.place for other in self.nodes[:1] if other is not node]
        await node.start(places, self.folder / f"{node.place_ip}.json")
        return node

    def unplug(self, node: SimNode) -> None:
        self.world.part([node.place_ip])

    def play(self, story: Callable[[], Awaitable[None]]) -> None:
        async def whole() -> None:
            await story()
            for node in self.nodes:
                if node.port:
                    await node.crash()

        with databases():
            self.world.play(whole())


def test_what_only_this_node_says_is_no_answer_in_any_call(tmp_path: Path) -> None:
    home = Home(tmp_path)

    async def story() -> None:
        alice, *_ = await home.start(3)
        overlay = Overlay(alice)
        owner = ALICE.owner
        await overlay.store(Kind.PROBE, KEY, DATA, ttl=TTL)
        home.unplug(alice)
        deleter = deleter_hash(KEY, SALT, owner.certificate)
        for call in (
            lambda: overlay.closest(KEY, 4),
            lambda: overlay.store(Kind.BODY, KEY, DATA, ttl=TTL),
            lambda: overlay.append_inbox(INBOX, b"told", ttl=TTL),
            lambda: overlay.delete(Kind.BODY, KEY, SALT, owner),
            lambda: overlay.fetch(Kind.BODY, body_key("<2@sim.example>")),
            lambda: overlay.fetch_variants(Kind.PROBE, KEY),
            lambda: overlay.held(Kind.PROBE, KEY, DIGEST),
            lambda: overlay.held_notification(INBOX, b"told"),
            lambda: overlay.holders(Kind.PROBE, KEY, DIGEST),
            lambda: overlay.spread(Kind.SHARE, KEY, [DATA], ttl=TTL),
            lambda: overlay.spread_held(Kind.SHARE, KEY, 3),
            lambda: overlay.tombstones(Kind.BODY, KEY, {deleter: bool}),
            lambda: overlay.read_inbox(INBOX, owner),
        ):
            with pytest.raises(Offline):
                await call()
        assert not await overlay.refresh_revocations()
        assert await overlay.fetch(Kind.PROBE, KEY, digest=DIGEST) == DATA  # its bytes prove themselves
        status = await alice.status()
        assert not status.online
        assert status.contacts == 0
        assert status.offline_since is not None
        assert home.world.wall() - status.offline_since < 120

    home.play(story)


def test_a_copy_that_only_this_node_took_is_not_counted(tmp_path: Path) -> None:
    home = Home(tmp_path)

    async def story() -> None:
        alice, _ = await home.start(2)
        overlay = Overlay(alice)
        found = await overlay.closest(KEY, 4)
        assert len(found) == 2
        home.unplug(alice)

        async def closest(key: bytes, count: int, *, disjoint: bool = False) -> list[object]:
            return list(found)  # as when the network goes away right after the lookup

        alice.closest = closest  # type: ignore[method-assign,assignment]
        outcome = await overlay.store(Kind.BODY, KEY, DATA, ttl=TTL)
        assert (outcome.have, len(outcome.refusals)) == (0, 1)
        with pytest.raises(Unreachable):
            await overlay.held(Kind.BODY, KEY, DIGEST)
        with pytest.raises(Unreachable):
            await overlay.fetch(Kind.BODY, body_key("<2@sim.example>"))
        with pytest.raises(Unreachable):
            await overlay.read_inbox(INBOX, ALICE.owner)
        del alice.closest
        home.world.part()
        await asyncio.sleep(60)
        outcome = await overlay.held(Kind.BODY, KEY, DIGEST)
        assert (outcome.have, outcome.want) == (2, 2)  # what it kept by itself has spread

    home.play(story)


def test_a_lone_founder_is_an_answer_until_another_node_has_answered(tmp_path: Path) -> None:
    home = Home(tmp_path)

    async def story() -> None:
        (founder,) = await home.start(1)
        overlay, place = Overlay(founder), founder.place
        assert lone(founder)
        assert (await overlay.store(Kind.BODY, KEY, DATA, ttl=TTL)).have == 1
        assert (await overlay.held(Kind.BODY, KEY, DIGEST)).have == 1
        with pytest.raises(NotFound):
            await overlay.fetch_variants(Kind.CERTIFICATE, KEY)
        await asyncio.sleep(120)
        assert (await founder.status()).online
        await founder.crash()
        again = home.again(founder)
        await again.start([place], home.folder / "10.0.0.1.json")  # its own place stands in the network's file
        assert lone(again)

        woken: list[float] = []
        again.protocol.presence.back = lambda: woken.append(home.world.time())
        (member,) = await home.start(1)
        await asyncio.sleep(30)
        assert not lone(again)
        assert len(woken) == 1
        assert member.store is not None
        assert await member.store.fetch(Kind.BODY, KEY) is not None  # what it kept by itself has spread
        await member.crash()
        await asyncio.sleep(120)
        with pytest.raises(Offline):
            await Overlay(again).closest(KEY, 4)
        await again.stop()
        last = home.again(again)
        await last.start([], home.folder / "10.0.0.1.json")
        assert not lone(last)  # it has known another: that one is away

    home.play(story)


@pytest.mark.parametrize("with_key", [True, False])
def test_a_member_that_never_reached_the_founder_is_offline_and_not_a_network_of_its_own(
    tmp_path: Path, with_key: bool
) -> None:
    home = Home(tmp_path)

    async def story() -> None:
        (founder,) = await home.start(1)
        place = founder.place if with_key else founder.place.partition("/")[0]
        member = home.new()
        home.unplug(founder)
        await member.start([place], home.folder / "member.json")
        assert not (await member.status()).online
        with pytest.raises(Offline, match="address to join"):
            await Overlay(member).fetch_variants(Kind.CERTIFICATE, KEY)

    home.play(story)


def test_messages_written_offline_for_an_hour_go_within_seconds_of_the_network_s_return(tmp_path: Path) -> None:
    """Alice's node has her card and Bob's on its own disk; neither counts as an answer of the network."""
    home = Home(tmp_path)

    async def story() -> None:
        await home.start(3)
        trust = TrustStore([ISSUER.der])
        alice, bob = Device(ALICE, tmp_path / "alice", trust), Device(BOB, tmp_path / "bob", trust)
        await alice.start(home.new(), [home.nodes[0].place])
        await bob.start(home.new(), [home.nodes[0].place])
        for device in (alice, bob):
            card = make_card(device.person.owner, device.person.pair.public, int(home.world.wall() * 1000))
            assert (await device.directory.publish(card)).have > 1
        assert alice.node is not None and alice.node.store is not None

        back = asyncio.Event()
        alice.node.protocol.presence.back = back.set

        async def agent() -> None:
            while True:
                if back.is_set():
                    back.clear()
                    await alice.sending.network_is_back()
                await alice.send()
                due = alice.outbox.next_due() or float("inf")
                waiting = asyncio.wait_for(back.wait(), min(max(due - home.world.wall(), 0.2), 60.0))
                await asyncio.gather(waiting, return_exceptions=True)

        def write(message_id: str, *to: str) -> None:
            data = plain_message(ALICE.address, list(to), message_id)
            alice.outbox.accept(
                data,
                Envelope(
                    message_id, subject="Hello", sender=ALICE.address, recipients=list(to), created=home.world.wall()
                ),
            )

        def copies() -> list[Recipient]:
            return [recipient for entry in alice.outbox.entries() for recipient in entry.recipients]

        home.unplug(alice.node)
        working = asyncio.create_task(agent())
        write("1@sim.example", BOB.address)
        write("2@sim.example", "nobody@sim.example")
        for _ in range(60):
            await asyncio.sleep(60)
            assert {copy.state for copy in copies()} == {State.QUEUED}
        assert {copy.reason for copy in copies()} == {
            "This computer is offline: no other node of the network answers. It will be sent when the network is back."
        }
        assert {entry.attempts for entry in alice.outbox.entries()} == {0}
        assert not (await alice.node.status()).online

        home.world.part()
        await asyncio.sleep(20)
        assert (await alice.node.status()).online
        first = next(copy for copy in copies() if copy.address == BOB.address)
        assert first.state is State.STORED
        assert first.bodies[0] > 1
        await bob.sync()
        bob.look()
        assert len(bob.seen) == 1
        unknown = next(copy for copy in copies() if copy.address == "nobody@sim.example")
        assert (unknown.state, unknown.reason) == (State.QUEUED, "nobody@sim.example isn't known in this network.")
        assert alice.troubles == []
        await asyncio.sleep(1500)
        assert {copy.state for copy in copies() if copy.address == "nobody@sim.example"} == {State.FAILED}

        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        for device in (alice, bob):
            await device.crash()

    home.play(story)


def test_a_lone_founder_s_directory_says_that_nobody_else_is_there(tmp_path: Path) -> None:
    home = Home(tmp_path)

    async def story() -> None:
        alice = Device(ALICE, tmp_path / "alice", TrustStore([ISSUER.der]))
        await alice.start(home.new(), [])
        with pytest.raises(NobodyElse):
            await alice.directory.card(BOB.address)
        await alice.crash()

    home.play(story)
