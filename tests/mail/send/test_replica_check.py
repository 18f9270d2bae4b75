"""The sender looks after what she sent: copies that are gone are made again, with the time they had, and shown once."""

from __future__ import annotations

from mail.send.replica_check import FIRST_CHECK_AFTER
from overlay.ids import Kind
from overlay.protocol_limits import RETENTION
from storage.user.outbox import State
from tests.mail.fakes import FailAt, nothing
from tests.mail.user_agents import UserAgent, UserAgentNetwork, body_at

DAY = 86400.0


async def sent(alice: UserAgent, *recipients: UserAgent) -> None:
    """A message that has been out for a while."""
    alice.write(*recipients)
    for _ in range(FIRST_CHECK_AFTER):
        await alice.send()
    assert all(alice.copy(recipient).state is State.STORED for recipient in recipients)


async def test_a_message_whose_every_copy_is_gone_is_stored_again_and_arrives(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    await sent(alice, bob)
    for node in world.nodes:
        node.objects.pop((Kind.BODY, body_at()), None)
        node.inboxes.clear()
    await alice.send()
    assert alice.copy(bob).bodies == alice.copy(bob).notifications == (3, 3)
    assert await bob.collect() == 1


async def test_what_is_stored_again_has_the_time_that_was_left(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    await sent(alice, bob)
    for node in world.nodes:
        node.objects.pop((Kind.BODY, body_at()), None)
    world.clock.now += 10 * DAY
    world.overlay.ttls.clear()
    await alice.send()
    assert set(world.overlay.ttls) == {RETENTION - 10 * DAY}


async def test_nothing_is_stored_again_while_all_is_there(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    await sent(alice, bob)
    world.overlay.calls.clear()
    await alice.send()
    assert {"held", "held_notification"} <= set(world.overlay.calls)
    assert not {"store", "append_inbox"} & set(world.overlay.calls)


async def test_the_outbox_says_how_many_copies_are_left_when_none_can_be_made(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    await sent(alice, bob)
    for node in world.nodes[:2]:
        node.objects.clear()
    world.overlay.before = FailAt("fetch_variants")
    alice.forget_cards()
    await alice.send()
    assert alice.copy(bob).bodies == (1, 3)
    assert alice.copy(bob).state is State.STORED
    for node in world.nodes:
        node.objects.clear()
    await alice.send()
    assert alice.copy(bob).state is State.QUEUED
    world.overlay.before = nothing
    await bob.publish()
    await alice.send()
    assert alice.copy(bob).state is State.STORED


async def test_a_message_that_was_taken_over_and_is_announced_again_is_shown_once(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    await sent(alice, bob)
    bob_saw = world.overlay.inbox(bob.inbox_key)
    lost = [node.objects.pop((Kind.BODY, body_at()), None) for node in world.nodes]
    assert await bob.collect() == 0  # announced, and nowhere to be had
    assert any(lost) and bob_saw and not world.overlay.inbox(bob.inbox_key)
    await alice.send()
    assert world.overlay.inbox(bob.inbox_key) == bob_saw
    assert await bob.collect() == 1
    assert await bob.collect() == 0
    assert len(bob.everywhere()) == 1


async def test_a_message_that_one_has_collected_is_kept_up_for_the_other_alone(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, carol: UserAgent
) -> None:
    await sent(alice, bob, carol)
    await bob.collect()
    for node in world.nodes:
        node.objects.pop((Kind.BODY, body_at()), None)
        node.inboxes.clear()
    await alice.send()
    assert alice.copy(bob).state is State.COLLECTED
    assert all(len(deleters) == 1 for deleters in world.overlay.bodies(Kind.BODY, body_at()))
    assert not world.overlay.inbox(bob.inbox_key)
    assert await carol.collect() == 1
    assert not world.overlay.bodies(Kind.BODY, body_at())


async def test_who_collects_while_copies_are_counted_is_believed_later(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    await sent(alice, bob)
    await bob.collect()
    proofs = [dict(node.tombstones) for node in world.nodes]
    for node in world.nodes:
        node.tombstones.clear()
        node.refuses = "its recipients have deleted it already"
    await alice.send()
    assert alice.copy(bob).state is State.QUEUED
    for node, kept in zip(world.nodes, proofs, strict=True):
        node.tombstones, node.refuses = kept, ""
    await alice.send()
    assert alice.copy(bob).state is State.COLLECTED
