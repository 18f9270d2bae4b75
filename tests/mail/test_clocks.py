"""Clocks that were put back, were ahead, or jump: mail goes on at once, and nothing ends because of a clock alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from overlay.identity.certificates import CertificateError
from overlay.ids import Kind
from overlay.protocol_limits import RETENTION
from storage.user.outbox import State
from tests.mail.fakes import FakeNode, nothing
from tests.mail.user_agents import UserAgent, UserAgentNetwork, body_at

HOUR = 3600.0
DAY = 86400.0
WRONG = [5.0, 3 * 3600.0, 60 * DAY, 400 * DAY]


@pytest.mark.parametrize("ahead", WRONG)
async def test_a_message_written_and_tried_under_a_clock_that_was_ahead_goes_when_it_is_put_right(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, ahead: float
) -> None:
    world.clock.now += ahead
    alice.write(bob)
    world.set_down()
    for _ in range(12):
        await alice.send()
    world.clock.now -= ahead
    world.set_down(down=False)
    await alice.sending.run()
    assert (alice.copy(bob).state, alice.copy(bob).reason) == (State.STORED, "")
    assert set(world.overlay.ttls) <= {1.0, RETENTION}
    assert alice.entry().created == world.clock()
    assert await bob.collect() == 1


@pytest.mark.parametrize("behind", WRONG)
async def test_a_message_written_under_a_clock_that_was_behind_has_all_its_time(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, behind: float
) -> None:
    """As after an empty battery, when a computer believes for a while that it is years ago."""
    world.clock.now -= behind
    alice.write(bob)
    world.set_down()
    for _ in range(12):
        await alice.send()
    world.clock.now += behind
    world.set_down(down=False)
    world.overlay.ttls.clear()
    await alice.send()
    assert alice.copy(bob).state is State.STORED
    assert min(world.overlay.ttls) > RETENTION - DAY or behind < RETENTION
    world.clock.now += RETENTION / 2
    await alice.send()
    assert (alice.copy(bob).state, alice.troubles) == (State.STORED, [])


async def test_attempts_under_a_clock_before_the_certificates_beginning_make_no_message_older(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    """As after an empty battery: it is 1970 until the network says what time it is."""
    alice.write(bob)
    await alice.send()
    alice.write(bob, message_id="queued@example.org")
    right, world.clock.now = world.clock.now, 600.0

    def refuse() -> None:
        raise CertificateError("The certificate of alice@example.org is not valid yet; is the clock right?")

    alice.may_send = refuse
    for _ in range(12):
        world.clock.now += 60
        await alice.send()
    world.clock.now, alice.may_send = right + 3600, lambda: None
    for node in world.nodes:
        node.refuses = "full"
    await alice.send()
    assert alice.copy(bob, "queued@example.org").state is State.QUEUED
    assert alice.entry().created == alice.entry("queued@example.org").created == right
    for node in world.nodes:
        node.refuses = ""
    await alice.send()
    assert await bob.collect() == 2
    assert alice.troubles == []


@pytest.mark.parametrize("ahead", [31 * DAY, 400 * DAY])
async def test_one_sync_under_a_clock_that_is_far_ahead_ends_nothing(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, carol: UserAgent, ahead: float
) -> None:
    alice.write(bob)
    await alice.send()
    world.nodes[0].refuses = world.nodes[1].refuses = world.nodes[2].refuses = "full"
    for node in world.nodes[3:]:
        node.refuses = "full"
    alice.write(carol, message_id="queued@example.org")
    await alice.send()
    world.clock.now += ahead
    await alice.send()
    world.clock.now -= ahead
    for node in world.nodes:
        node.refuses = ""
    await alice.send()
    assert alice.copy(bob).state is alice.copy(carol, "queued@example.org").state is State.STORED
    assert await bob.collect() == await carol.collect() == 1
    await alice.send()
    assert alice.copy(bob).state is alice.copy(carol, "queued@example.org").state is State.COLLECTED
    assert alice.troubles == []


async def test_what_is_collected_while_its_proof_is_asked_for_is_not_called_expired(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes have let it go because Bob has it."""
    alice.write(bob)
    await alice.send()
    world.clock.now += RETENTION
    ask, asked = world.overlay.tombstones, 0

    async def tombstones(kind: int, key: bytes, wanted: Mapping[bytes, Callable[[bytes], bool]]) -> dict[bytes, bytes]:
        nonlocal asked
        asked += 1
        proofs = await ask(kind, key, wanted)
        if asked == 1:
            await bob.collect()
        return proofs

    monkeypatch.setattr(world.overlay, "tombstones", tombstones)
    await alice.send()
    assert (alice.copy(bob).state, alice.troubles) == (State.COLLECTED, [])


async def expired(world: UserAgentNetwork, alice: UserAgent, bob: UserAgent) -> list[FakeNode]:
    """A message that is expired as far as those nodes say that can be asked; the others."""
    alice.write(bob)
    await alice.send()
    had = [node for node in world.nodes if (Kind.BODY, body_at()) in node.objects]
    for node in had:
        node.down = True
    world.clock.now += RETENTION
    await alice.send_for(3 * HOUR)
    assert alice.copy(bob).state is State.EXPIRED
    return had


async def test_while_the_nodes_that_have_it_are_away_a_clock_that_is_ahead_ends_nothing(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    await alice.send_for(HOUR)
    had = [node for node in world.nodes if (Kind.BODY, body_at()) in node.objects]
    for node in had:
        node.down = True
    world.clock.now += 31 * DAY
    for _ in range(2):  # and jumps on
        await alice.send()
        world.clock.now += DAY
    assert (alice.copy(bob).state, alice.copy(bob).expired) == (State.STORED, 0)
    for node in had:
        node.down = False
    await alice.send()
    assert alice.copy(bob).gone_since is None
    assert await bob.collect() == 1
    await alice.send()
    assert alice.copy(bob).state is State.COLLECTED
    assert alice.troubles == []


async def test_expired_is_taken_back_by_a_later_proof(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    had = await expired(world, alice, bob)
    for node in had:
        node.down = False
    await bob.collect()
    await alice.sending.run()
    assert alice.copy(bob).state is State.EXPIRED  # asked once a day
    world.clock.now += DAY
    await alice.sending.run()
    assert (alice.copy(bob).state, alice.copy(bob).reason) == (State.COLLECTED, "")


async def test_expired_is_taken_back_when_nodes_have_it_after_all(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    had = await expired(world, alice, bob)
    for node in had:
        node.down = False
    world.clock.now += DAY
    await alice.sending.run()
    assert (alice.copy(bob).state, alice.copy(bob).reason) == (State.STORED, "")


async def test_expired_is_taken_back_when_the_clock_is_put_right(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    had = await expired(world, alice, bob)
    for node in had:
        node.down = False
    world.clock.now -= RETENTION
    await alice.sending.run()
    assert (alice.copy(bob).state, alice.copy(bob).reason) == (State.STORED, "")
    assert await bob.collect() == 1


async def test_what_has_expired_is_asked_about_for_thirty_days_and_not_for_ever(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    await expired(world, alice, bob)
    world.overlay.calls.clear()
    for _ in range(40):
        world.clock.now += DAY
        await alice.sending.run()
    assert world.overlay.calls.count("tombstones") == 29
    assert len(alice.troubles) == 1


@pytest.mark.parametrize("forward", WRONG)
async def test_no_address_is_unknown_for_good_because_a_clock_was_put_forward(
    world: UserAgentNetwork, alice: UserAgent, forward: float
) -> None:
    """The recipient's card wasn't at the nodes yet; three attempts in seconds, by the clock over an hour."""
    alice.write("bob@example.org")
    for _ in range(4):
        await alice.send()
        world.clock.now += forward
    assert alice.copy("bob@example.org").state is State.QUEUED
    world.clock.now -= 4 * forward
    bob = await world.user_agent("bob")
    await alice.send()
    assert alice.copy(bob).state is State.STORED


async def test_a_clock_that_jumps_during_an_attempt_makes_no_address_unknown_for_good(
    world: UserAgentNetwork, alice: UserAgent, carol: UserAgent
) -> None:
    def jump(call: str) -> None:  # after it was looked who is known
        world.clock.now += 3 * 3600.0 * (call == "append_inbox")

    alice.write("bob@example.org", carol)
    world.overlay.before = jump
    await alice.send()
    world.overlay.before = nothing
    for _ in range(3):
        await alice.send()
    assert alice.copy("bob@example.org").state is State.QUEUED
