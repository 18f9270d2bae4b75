"""A large message in shares: from the outbox to the recipient, past nodes that vanish, lie, refuse and come back."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mail.availability.erasure_code import ErasureCode
from mail.send.replica_check import CODED_EVERY, FIRST_CHECK_AFTER
from mail.send.sender import Sender
from overlay.errors import Unreachable
from overlay.ids import Kind
from overlay.protocol_limits import RETENTION
from storage.user.outbox import State
from tests.mail.fakes import FailAt, FakeNode, nothing
from tests.mail.user_agents import UserAgent, UserAgentNetwork, body_at, noise, plain_message

CODE = ErasureCode(3, 9)
TEXT = noise(200_000)
LARGE = noise(1_500_000)


@pytest.fixture
async def wide(tmp_path: Path) -> AsyncIterator[UserAgentNetwork]:
    """Twelve nodes."""
    world = UserAgentNetwork(tmp_path, nodes=12)
    yield world
    world.close()


async def user_agent(world: UserAgentNetwork, name: str) -> UserAgent:
    """Somebody whose large messages are coded."""
    made = await world.user_agent(name)
    coding(made)
    return made


def coding(user_agent: UserAgent, code: ErasureCode = CODE) -> None:
    world, tell = user_agent.world, user_agent.events.append
    user_agent.sending = Sender(
        user_agent.outbox,
        world.overlay,
        user_agent.directory,
        owner=lambda: user_agent.owner,
        tell=tell,
        now=world.clock,
        code=lambda nodes: code,
    )


def write(alice: UserAgent, *to: UserAgent, text: bytes = TEXT) -> None:
    alice.write(*to, message=plain_message(alice.address, [each.address for each in to], "letter@example.org", text))


def shares(world: UserAgentNetwork, index: int = 0, *, many: bool = False) -> list[tuple[FakeNode, bytes]]:
    key = (Kind.SHARE, body_at(index=index, many=many))
    return [(node, data) for node in world.nodes for data, _ in node.objects.get(key, {}).values()]


async def test_a_large_message_is_stored_in_shares_one_a_node_and_arrives(wide: UserAgentNetwork) -> None:
    alice, bob = await user_agent(wide, "alice"), await user_agent(wide, "bob")
    write(alice, bob)
    await alice.send()
    assert len(shares(wide)) == len({node.number for node, _ in shares(wide)}) == CODE.n
    assert not wide.overlay.bodies(Kind.BODY, body_at())
    assert sum(len(data) for _, data in shares(wide)) < 3.1 * 200_500
    assert alice.copy(bob).bodies == (9, 9)
    assert await bob.collect() == 1
    assert bob.everywhere()[0].endswith(TEXT)


@pytest.mark.parametrize(("m", "stored"), [(1, (Kind.BODY, 3)), (2, (Kind.SHARE, 6))])
async def test_from_two_of_n_shares_on_a_body_is_coded(
    wide: UserAgentNetwork, m: int, stored: tuple[Kind, int]
) -> None:
    alice, bob = await user_agent(wide, "alice"), await user_agent(wide, "bob")
    coding(alice, ErasureCode(m, 6))
    write(alice, bob)
    await alice.send()
    kinds = [kind for node in wide.nodes for kind, key in node.objects if key == body_at()]
    assert (set(kinds), len(kinds)) == ({stored[0]}, stored[1])


async def test_a_message_of_several_segments_is_coded_segment_by_segment(wide: UserAgentNetwork) -> None:
    alice, bob = await user_agent(wide, "alice"), await user_agent(wide, "bob")
    write(alice, bob, text=LARGE)
    await alice.send()
    assert [len(shares(wide, index, many=True)) for index in range(2)] == [9, 9]
    assert await bob.collect() == 1
    assert bob.everywhere()[0].endswith(LARGE)


async def test_collecting_of_a_coded_message_goes_on_where_it_was_when_the_process_died(wide: UserAgentNetwork) -> None:
    alice, bob = await user_agent(wide, "alice"), await user_agent(wide, "bob")
    write(alice, bob, text=noise(3_500_000))
    await alice.send()
    wide.overlay.before = FailAt("gather", Unreachable("No node answers."), after=2)
    assert await bob.collect() == 0
    bob.restart()
    wide.overlay.before = nothing
    before = wide.overlay.calls.count("gather")
    assert await bob.collect() == 1
    assert wide.overlay.calls.count("gather") - before == 4 - 2
    assert bob.everywhere()[0].endswith(noise(3_500_000))


async def test_a_small_message_is_stored_in_whole_copies(wide: UserAgentNetwork) -> None:
    alice, bob = await user_agent(wide, "alice"), await user_agent(wide, "bob")
    write(alice, bob, text=b"small\n")
    await alice.send()
    assert not shares(wide)
    assert await bob.collect() == 1


async def test_m_shares_that_are_left_are_enough(wide: UserAgentNetwork) -> None:
    alice, bob = await user_agent(wide, "alice"), await user_agent(wide, "bob")
    write(alice, bob)
    await alice.send()
    for node, _ in shares(wide)[CODE.m :]:
        node.objects.pop((Kind.SHARE, body_at()))
    assert await bob.collect() == 1


async def test_with_fewer_than_m_the_message_waits_until_shares_are_back(wide: UserAgentNetwork) -> None:
    alice, bob = await user_agent(wide, "alice"), await user_agent(wide, "bob")
    write(alice, bob)
    await alice.send()
    kept = {node.number: node.objects.pop((Kind.SHARE, body_at())) for node, _ in shares(wide)[CODE.m - 1 :]}
    assert await bob.collect() == 0
    assert bob.receiving.late == 1
    for node in wide.nodes:
        if node.number in kept:
            node.objects[Kind.SHARE, body_at()] = kept[node.number]
    assert await bob.collect() == 1


async def test_while_one_share_is_found_nothing_is_called_expired_by_a_clock_that_is_ahead(
    wide: UserAgentNetwork,
) -> None:
    """The holders of the others are away, and Bob has taken the notification over: neither is the nodes' word."""
    alice, bob = await user_agent(wide, "alice"), await user_agent(wide, "bob")
    write(alice, bob)
    await alice.send()
    away = [node for node, _ in shares(wide)[1:]]
    for node in away:
        node.objects.pop((Kind.SHARE, body_at()))
    assert await bob.collect() == 0
    wide.clock.now += RETENTION
    await alice.sending.run(everything=True)
    assert alice.copy(bob).state is not State.EXPIRED
    assert alice.troubles == []


async def test_attack_false_shares_are_passed_over(wide: UserAgentNetwork) -> None:
    alice, bob = await user_agent(wide, "alice"), await user_agent(wide, "bob")
    write(alice, bob)
    await alice.send()
    for node, _ in shares(wide)[: CODE.n - CODE.m]:
        node.lies = True
    assert await bob.collect() == 1
    assert bob.everywhere()[0].endswith(TEXT)


async def test_it_isnt_called_stored_while_too_few_shares_are_out(wide: UserAgentNetwork) -> None:
    alice, bob = await user_agent(wide, "alice"), await user_agent(wide, "bob")
    for node in wide.nodes[CODE.m - 1 :]:
        node.refuses = "no space"
    write(alice, bob)
    await alice.send()
    assert alice.copy(bob).state is State.QUEUED
    assert alice.copy(bob).bodies == (0, 9)
    assert not wide.overlay.inbox(bob.inbox_key)
    for node in wide.nodes:
        node.refuses = ""
    await alice.send()
    assert (alice.copy(bob).state, alice.copy(bob).bodies) == (State.STORED, (9, 9))
    assert await bob.collect() == 1


async def test_another_attempt_goes_on_with_the_shares_that_are_out(wide: UserAgentNetwork) -> None:
    alice, bob = await user_agent(wide, "alice"), await user_agent(wide, "bob")
    for node in wide.nodes[5:]:
        node.refuses = "no space"
    write(alice, bob)
    await alice.send()
    first = {node.number: data for node, data in shares(wide)}
    assert alice.copy(bob).bodies == (5, 9)
    for node in wide.nodes:
        node.refuses = ""
    alice.restart()
    coding(alice)
    await alice.send()
    later = {node.number: data for node, data in shares(wide)}
    assert len(later) == 9 and first.items() <= later.items()
    assert len(set(later.values())) == 9


async def test_shares_that_are_lost_are_made_again_and_the_others_stay(wide: UserAgentNetwork) -> None:
    alice, bob = await user_agent(wide, "alice"), await user_agent(wide, "bob")
    write(alice, bob)
    for _ in range(FIRST_CHECK_AFTER):
        await alice.send()
    before = {data for _, data in shares(wide)}
    for node, _ in shares(wide)[2:]:
        node.objects.pop((Kind.SHARE, body_at()))
    await alice.send()
    assert {data for _, data in shares(wide)} == before
    assert alice.copy(bob).bodies == (9, 9)
    assert await bob.collect() == 1


async def test_its_many_holders_are_asked_less_often_than_those_of_copies(wide: UserAgentNetwork) -> None:
    alice, bob = await user_agent(wide, "alice"), await user_agent(wide, "bob")
    write(alice, bob)
    for _ in range(FIRST_CHECK_AFTER):
        await alice.send()
    wide.overlay.calls.clear()
    for _ in range(2 * CODED_EVERY):
        await alice.send()
    assert wide.overlay.calls.count("spread_held") == 2


async def test_every_share_is_deleted_and_the_sender_has_the_proof(wide: UserAgentNetwork) -> None:
    alice, bob = await user_agent(wide, "alice"), await user_agent(wide, "bob")
    write(alice, bob, text=LARGE)
    await alice.send()
    await bob.collect()
    assert not shares(wide, 0, many=True) and not shares(wide, 1, many=True)
    await alice.send()
    assert alice.copy(bob).state is State.COLLECTED


async def test_one_of_two_recipients_leaves_the_shares_to_the_other(wide: UserAgentNetwork) -> None:
    alice, bob, carol = await user_agent(wide, "alice"), await user_agent(wide, "bob"), await user_agent(wide, "carol")
    write(alice, bob, carol)
    await alice.send()
    await bob.collect()
    assert len(shares(wide)) == 9
    assert await carol.collect() == 1
    assert not shares(wide)


async def test_a_body_that_its_sender_coded_wrong_is_said_to_be_lost(wide: UserAgentNetwork) -> None:
    alice, bob = await user_agent(wide, "alice"), await user_agent(wide, "bob")
    write(alice, bob)
    await alice.send()
    told = bob.told()
    false = dataclasses.replace(told.segments[0], digest=bytes(32))
    with pytest.raises(Exception, match="isn't what its sender announced"):
        assert told.coding is not None
        await bob.receiving._download._gather(told.coding, body_at(), false)


async def test_shares_that_were_brought_are_not_brought_again(wide: UserAgentNetwork) -> None:
    alice, bob = await user_agent(wide, "alice"), await user_agent(wide, "bob")
    write(alice, bob, text=noise(6_000_000))
    wide.overlay.before = FailAt("spread", after=4)
    await alice.send()
    assert alice.copy(bob).state is State.QUEUED
    before = wide.overlay.uploaded
    assert before > 0
    wide.overlay.before = nothing
    alice.restart()
    coding(alice)
    await alice.send()
    assert wide.overlay.uploaded < 3.1 * 6_000_000
    assert await bob.collect() == 1


async def test_a_recipient_who_is_known_later_may_collect_a_coded_message_that_the_first_has_deleted(
    wide: UserAgentNetwork,
) -> None:
    alice, bob = await user_agent(wide, "alice"), await user_agent(wide, "bob")
    message = plain_message(alice.address, [bob.address, "late@example.org"], "letter@example.org", TEXT)
    alice.write(bob, "late@example.org", message=message)
    await alice.send()
    late = await user_agent(wide, "late")
    await alice.send()
    assert await bob.collect() == 1
    assert await late.collect() == 1
