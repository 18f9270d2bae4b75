"""A computer that slept, perhaps with a new address, rejoins the overlay and learns its address."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from overlay.identity.contact import pack_ip
from overlay.identity.network import Network
from overlay.node.sleep_detector import SLEPT, SleepDetector
from overlay.wire.messages import Pong
from tests.overlay.peers import start, start_liar
from tests.simulation.inline import databases
from tests.simulation.nodes import Hub, SimNode
from tests.simulation.story import ISSUER
from tests.simulation.world import World


@pytest.mark.parametrize(
    ("wall", "monotonic", "slept"),
    [(5, 5, False), (30, 30, False), (3600, 5, True), (3600, 3600, True), (-3600, 5, False), (SLEPT + 6, 5, True)],
)
def test_a_gap_in_time_is_a_sleep(wall: float, monotonic: float, slept: bool) -> None:
    clock = [1_000_000.0, 50.0]
    waking = SleepDetector(lambda: clock[0], lambda: clock[1], 5.0)
    clock[0] += wall
    clock[1] += monotonic
    assert waking.slept() is slept
    assert not waking.slept()


def test_a_laptop_that_slept_is_known_again_at_once_though_all_had_forgotten_it(tmp_path: Path) -> None:
    world = World(1)
    hub = Hub(world)
    network = Network("sleep", private_addresses=True, authorities=(ISSUER.der,))
    slept = 0.0

    async def story() -> None:
        nonlocal slept
        nodes: list[SimNode] = []
        for number in range(5):
            key = X25519PrivateKey.from_private_bytes(world.chance.randbytes(32))
            node = SimNode(hub, network, f"10.0.0.{number + 1}", key, tmp_path / str(number))
            await node.start([other.place for other in nodes[:1]])
            nodes.append(node)
        laptop = nodes[-1]
        awake = laptop.now
        laptop.now = lambda: awake() + slept
        assert laptop._maintenance is not None
        laptop._maintenance.sleep_detector = SleepDetector(laptop.now, world.time, 5.0)
        for node in nodes[:-1]:
            node.protocol.router.drop(laptop.id)
            laptop.protocol.silent(node.located().contact)
        slept = 8 * 3600.0
        await asyncio.sleep(12)
        assert all(node.protocol.router.get(laptop.id) for node in nodes[:-1])
        assert not any(laptop.protocol.suspected(node.located().contact) for node in nodes[:-1])
        for node in nodes:
            await node.crash()

    with databases():
        world.play(story())


def test_a_changed_address_is_learned_from_those_that_were_asked_last() -> None:
    world = World(2)

    async def story() -> None:
        told = ["192.0.2.1"]
        peer = await start(world, "10.0.0.1")
        others = [
            await start_liar(world, f"10.0.1.{n}", lambda sender, request: Pong(pack_ip(told[0]), 4000))
            for n in range(1, 6)
        ]
        for other in others:
            await peer.protocol.ping(other.contact)
        assert peer.protocol.observed_address == "192.0.2.1"
        told[0] = "198.51.100.7"
        for other in others[:3]:
            await peer.protocol.ping(other.contact)
        assert peer.protocol.observed_address == "198.51.100.7"

    world.play(story())


def test_attack_one_liar_has_one_vote_on_our_address_however_often_it_is_asked() -> None:
    world = World(3)

    async def story() -> None:
        peer = await start(world, "10.0.0.1")
        liar = await start_liar(world, "10.0.0.2", lambda sender, request: Pong(pack_ip("203.0.113.9"), 1))
        for _ in range(10):
            await peer.protocol.ping(liar.contact)
        assert peer.protocol.observed_address is None

    world.play(story())
