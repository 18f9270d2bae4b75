"""Measuring availability with probes, and choosing k by it (mail/availability/probes.py)."""

from __future__ import annotations

import pytest

from mail.availability.probes import EVERY, FACT, LATE, RETRY, WAITS, Probes
from overlay.identity.network import Network
from overlay.ids import Kind
from overlay.primitives.placement import REPAIRED
from tests.mail.user_agents import UserAgent, UserAgentNetwork

TARGET = 0.999
NETWORK = Network("test", k=10)
DAY = 48
"""Rounds of half an hour."""


def probes(user_agent: UserAgent, network: Network = NETWORK) -> Probes:
    return Probes(user_agent.state, network, TARGET, user_agent.world.clock)


async def rounds(probes: Probes, world: UserAgentNetwork, count: int) -> None:
    """Let `count` half hours pass."""
    for _ in range(count):
        assert 0 < await probes.run(world.overlay) <= EVERY
        world.clock.now += EVERY


async def test_k_is_the_default_until_enough_was_seen(world: UserAgentNetwork, alice: UserAgent) -> None:
    measured = probes(alice)
    await rounds(measured, world, 5)
    assert (measured.known.p, measured.k) == (None, 10)
    await rounds(measured, world, 2 * DAY)
    assert measured.k == 3
    assert measured.known.p is not None
    assert measured.known.p > 0.9


async def test_nodes_that_vanish_make_for_more_copies(world: UserAgentNetwork, alice: UserAgent) -> None:
    measured = probes(alice)
    for number in range(2 * DAY):
        for node in world.nodes:
            node.down = (number + node.number) % len(world.nodes) < 2
        await rounds(measured, world, 1)
    assert measured.known.p is not None
    assert 0.4 < measured.known.p < 0.8
    assert measured.k > 3


async def test_sessions_longer_than_half_an_hour_do_not_pass_for_availability(
    world: UserAgentNetwork, alice: UserAgent
) -> None:
    """Nodes are up for 9 hours, then down for 9: half an hour later nearly all nodes with a copy are still up."""
    measured = probes(alice)
    for number in range(6 * DAY):
        for node in world.nodes:
            node.down = (number + 7 * node.number) % 36 < 18
        await rounds(measured, world, 1)
    assert measured.known.p is not None
    assert measured.known.p < 0.8


async def test_only_who_took_a_copy_counts(world: UserAgentNetwork, alice: UserAgent) -> None:
    """A copy that moved to another node doesn't show that its first node is up."""
    measured = probes(alice)
    for _ in range(DAY):
        await rounds(measured, world, 1)
        *holders, spare = [*world.nodes[:3], world.nodes[-1]]
        spare.objects.update(holders[0].objects)
        for node in holders:
            node.objects.clear()
    assert measured.known.found == 0
    assert measured.known.missed > 0


def test_nobody_moves_probes() -> None:
    """If nodes handed on or repaired probes, they would be found although nodes are down, and p be overestimated."""
    assert Kind.PROBE not in REPAIRED


async def test_what_was_measured_survives_a_restart(world: UserAgentNetwork, alice: UserAgent) -> None:
    measured = probes(alice)
    await rounds(measured, world, 20)
    alice.restart()
    assert probes(alice).known == measured.known
    before = len(world.overlay.calls)
    world.clock.now -= EVERY - 10
    assert await probes(alice).run(world.overlay) == EVERY - 10
    assert len(world.overlay.calls) == before


async def test_each_community_is_measured_by_itself(world: UserAgentNetwork, alice: UserAgent) -> None:
    measured = probes(alice)
    await rounds(measured, world, DAY)
    assert measured.known.p is not None
    for other in (Network("other", k=10), Network("test", k=10, authorities=(b"another",))):
        assert probes(alice, other).known.observations == 0


async def test_a_probe_that_has_expired_says_nothing(world: UserAgentNetwork, alice: UserAgent) -> None:
    measured = probes(alice)
    await measured.run(world.overlay)
    for node in world.nodes:
        node.objects.clear()
    world.clock.now += WAITS[0] + LATE
    await measured.run(world.overlay)
    assert measured.known.observations == 0


async def test_a_network_that_is_away_says_nothing_about_its_nodes(world: UserAgentNetwork, alice: UserAgent) -> None:
    measured = probes(alice)
    await measured.run(world.overlay)
    world.clock.now += WAITS[0]
    world.set_down()
    assert await measured.run(world.overlay) == RETRY
    assert measured.known.observations == 0


async def test_a_clock_that_was_set_back_stops_no_probes(world: UserAgentNetwork, alice: UserAgent) -> None:
    measured = probes(alice)
    await measured.run(world.overlay)
    world.clock.now -= 1_000_000
    assert await measured.run(world.overlay) == EVERY
    assert measured.known.observations == 0


@pytest.mark.parametrize("kept", [b"nonsense", b"\x91\x01\xff", b"\x95\xa1x\x00\x00\x00\x00"])
def test_facts_that_cannot_be_read_are_measured_anew(alice: UserAgent, kept: bytes) -> None:
    alice.state.keep_fact(FACT, kept)
    assert probes(alice).known.p is None


async def test_no_two_probes_lie_under_one_key(world: UserAgentNetwork, alice: UserAgent) -> None:
    await rounds(probes(alice), world, 5)
    keys = {key for node in world.nodes for kind, key in node.objects if kind == Kind.PROBE}
    assert len(keys) == 5
