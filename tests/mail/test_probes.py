"""Probes: what share of nodes is up is measured, and k follows from it."""

from __future__ import annotations

import pytest

from mail.probes import FACT, KEPT, RETRY, WAIT, Probes
from overlay.ids import Kind
from tests.mail.desks import Desk, World

TARGET = 0.999


def probes(desk: Desk, network: str = "test") -> Probes:
    return Probes(desk.state, network, 10, TARGET)


async def rounds(probes: Probes, world: World, count: int) -> None:
    """Store and look for so many probes."""
    for _ in range(count):
        assert await probes.run(world.overlay, world.clock()) == WAIT
        world.clock.time += WAIT


async def test_k_is_the_default_until_enough_was_seen(world: World, alice: Desk) -> None:
    measured = probes(alice)
    await rounds(measured, world, 5)
    assert (measured.known.p, measured.k) == (None, 10)
    await rounds(measured, world, 20)
    assert measured.k == 3
    assert measured.known.p is not None
    assert measured.known.p > 0.9


async def test_nodes_that_vanish_make_for_more_copies(world: World, alice: Desk) -> None:
    measured = probes(alice)
    for number in range(40):
        await measured.run(world.overlay, world.clock())
        for node in world.nodes[:3]:
            node.down = number % 2 == 0
        world.clock.time += WAIT
        await measured.run(world.overlay, world.clock())
        for node in world.nodes:
            node.down = False
        world.clock.time += WAIT
    assert measured.known.p is not None
    assert measured.known.p < 0.92
    assert measured.k > 3


async def test_what_was_measured_survives_a_restart(world: World, alice: Desk) -> None:
    measured = probes(alice)
    await rounds(measured, world, 20)
    alice.restart()
    assert probes(alice).known == measured.known
    assert await probes(alice).run(world.overlay, world.clock() - 10) == 10


async def test_another_communitys_computers_tell_nothing_of_this_ones(world: World, alice: Desk) -> None:
    await rounds(probes(alice), world, 20)
    assert probes(alice).known.p is not None
    assert probes(alice, "elsewhere").known.p is None
    assert probes(alice, "elsewhere").k == 10


async def test_a_probe_that_has_expired_says_nothing(world: World, alice: Desk) -> None:
    measured = probes(alice)
    await measured.run(world.overlay, world.clock())
    for node in world.nodes:
        node.objects.clear()
    world.clock.time += KEPT
    await measured.run(world.overlay, world.clock())
    assert measured.known.missed == 0


async def test_a_network_that_is_away_says_nothing_about_its_nodes(world: World, alice: Desk) -> None:
    measured = probes(alice)
    await measured.run(world.overlay, world.clock())
    world.clock.time += WAIT
    world.set_down()
    assert await measured.run(world.overlay, world.clock()) == RETRY
    assert measured.known.missed == 0


async def test_a_clock_that_was_set_back_stops_no_probes(world: World, alice: Desk) -> None:
    measured = probes(alice)
    await measured.run(world.overlay, world.clock())
    world.clock.time -= 1_000_000
    assert await measured.run(world.overlay, world.clock()) == WAIT
    assert measured.known.missed == 0


@pytest.mark.parametrize("kept", [b"nonsense", b"\x91\x01\xff", b"\x95\xa1x\x00\x00\x00\x00"])
def test_facts_that_cannot_be_read_are_measured_anew(alice: Desk, kept: bytes) -> None:
    alice.state.keep_fact(FACT, kept)
    assert probes(alice).known.p is None


async def test_no_two_probes_lie_under_one_key(world: World, alice: Desk) -> None:
    await rounds(probes(alice), world, 5)
    keys = {key for node in world.nodes for kind, key in node.objects if kind == Kind.PROBE}
    assert len(keys) == 5
