"""What one attempt of the sender keeps for the next, and what it starts anew."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mail.events import Progress
from mail.send import rules
from mail.send.rules import decode_member_ids, member_ids
from overlay.errors import NoAnswer
from overlay.identity.certificates import parse_certificate
from overlay.ids import Kind, certificate_key
from overlay.protocol_limits import RETENTION
from storage.user.outbox import State
from tests.mail.fakes import FailAt, nothing
from tests.mail.user_agents import UserAgent, UserAgentNetwork, noise
from tests.mail.user_agents import plain_message as message

MINUTE = 60.0
HOUR = 3600.0
DAY = 86400.0
NOBODY = "nobody@example.org"


def remove_card(world: UserAgentNetwork, agent: UserAgent) -> None:
    """No node has the agent's card any more, and nobody remembers it."""
    for node in world.nodes:
        node.objects.pop((Kind.CERTIFICATE, certificate_key(agent.address)), None)
    for each in world.user_agents:
        each.forget_cards()


async def test_hours_offline_are_no_time_for_which_an_address_was_unknown(
    world: UserAgentNetwork, alice: UserAgent
) -> None:
    alice.write(NOBODY)
    for _ in range(6):
        await alice.send()
    world.overlay.before = FailAt("fetch_variants")
    for _ in range(120):
        world.clock.now += MINUTE
        await alice.send()
    assert alice.copy(NOBODY).unknown_since is None
    world.overlay.before = nothing
    await alice.send()
    assert (alice.copy(NOBODY).state, alice.copy(NOBODY).unknown_since) == (State.QUEUED, world.clock())
    await alice.send_for(5 * HOUR)
    assert alice.copy(NOBODY).state is State.FAILED


async def test_an_address_is_given_up_after_ten_minutes_of_answers_and_not_after_nine(
    world: UserAgentNetwork, alice: UserAgent
) -> None:
    alice.write(NOBODY)
    for _ in range(6):
        await alice.send()
    world.clock.now += 599
    await alice.send()
    assert alice.copy(NOBODY).state is State.QUEUED
    world.clock.now += 1
    await alice.send()
    assert alice.copy(NOBODY).state is State.FAILED


async def test_an_address_that_was_unknown_is_known_from_the_first_answer_on(
    world: UserAgentNetwork, alice: UserAgent
) -> None:
    alice.write("bob@example.org")
    await alice.send()
    assert alice.copy("bob@example.org").unknown_since == world.clock()
    bob = await world.user_agent("bob")
    world.clock.now += MINUTE
    await alice.send()
    assert (alice.copy(bob).state, alice.copy(bob).unknown_since) == (State.STORED, None)


async def test_a_message_that_waited_for_the_network_for_31_days_has_30_days_from_then_on(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    world.set_down()
    await alice.send()
    world.overlay.ttls.clear()
    world.clock.now += 31 * DAY
    world.set_down(down=False)
    await alice.send()
    assert (alice.copy(bob).state, alice.entry().created) == (State.STORED, world.clock())
    assert set(world.overlay.ttls) == {RETENTION}
    world.clock.now += 29 * DAY
    await alice.send()
    assert alice.copy(bob).state is State.STORED
    assert await bob.collect() == 1


@pytest.mark.parametrize(("early", "attempts"), [(1.0, 0), (0.0, 1)])
async def test_attempts_before_the_own_certificate_begins_do_not_count(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, early: float, attempts: int
) -> None:
    """The clock is behind: what nodes refuse for that says nothing about the message."""
    world.clock.now = parse_certificate(alice.owner.certificate).not_before - early
    alice.write(bob)
    await alice.send()
    assert alice.entry().attempts == attempts


async def test_a_recipient_for_whom_nothing_was_sealed_waits_while_the_card_is_gone(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    """The process died between drawing the salt and sealing."""
    alice.write(bob)
    await alice.send()
    begun = replace(alice.copy(bob), bodies=(0, 3), notifications=(0, 3), notification=None)
    alice.outbox.record([(alice.entry().message_id, begun)])
    remove_card(world, bob)
    await alice.send()
    assert alice.copy(bob).state is State.QUEUED
    assert "isn't known" in alice.copy(bob).reason
    assert alice.troubles == []


async def test_a_notification_that_no_node_has_is_made_for_the_renewed_certificate(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    await alice.send()
    before = replace(alice.copy(bob), notifications=(0, 3))
    alice.outbox.record([(alice.entry().message_id, before)])
    bob.renew()
    world.clock.now += MINUTE
    await bob.publish()
    alice.forget_cards()
    await alice.send()
    after = alice.copy(bob)
    assert (after.state, after.certificate) == (State.STORED, bob.owner.certificate)
    assert after.salt != before.salt


async def test_progress_never_says_done_before_the_last_byte_is_out(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    data = message(alice.address, [bob.address], "letter@example.org", noise(3 << 20))
    alice.write(bob, message=data)
    await alice.send()
    steps = [(event.done, event.total) for event in alice.events if isinstance(event, Progress)]
    assert [done for done, _ in steps[-2:]] == [len(data) - 1, len(data)]
    assert {total for _, total in steps[1:]} == {len(data)}


async def test_a_recipient_who_is_known_later_is_noted_once_all_nodes_know_it(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    """Only then may another attempt go on where this one was."""

    def noted() -> set[bytes]:
        secrets = alice.entry().secrets
        assert secrets is not None
        return set(decode_member_ids(secrets.begun))

    alice.write(bob, "late@example.org")
    await alice.send()
    assert noted() == member_ids([alice.copy(bob)])
    late = await world.user_agent("late")
    world.nodes[0].refuses = "full"
    world.nodes[3].down = world.nodes[4].down = True
    await alice.send()
    assert (alice.copy(late).bodies, noted()) == ((2, 3), member_ids([alice.copy(bob)]))
    world.nodes[0].refuses = ""
    await alice.send()
    assert (alice.copy(late).bodies, noted()) == ((3, 3), member_ids([alice.copy(bob), alice.copy(late)]))


@pytest.mark.parametrize(("most", "told"), [(1000, 0), (1, 3)])
async def test_progress_of_a_small_body_is_told_only_when_it_is_stored_for_several_groups(
    world: UserAgentNetwork,
    alice: UserAgent,
    bob: UserAgent,
    carol: UserAgent,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    told: int,
) -> None:
    monkeypatch.setattr(rules, "MAX_DELETERS", most)
    entry = alice.write(bob, carol)
    await alice.send()
    sending = [event for event in alice.events if isinstance(event, Progress) and event.what.startswith("sending ")]
    assert len(sending) == told
    assert not told or (sending[-1].done, sending[-1].total) == (entry.size, entry.size)


async def test_a_notification_that_nodes_refused_is_sealed_to_the_key_in_use(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    await alice.send()
    alice.outbox.record([(alice.entry().message_id, replace(alice.copy(bob), notifications=(0, 3)))])
    key = bob.new_key()
    world.clock.now += MINUTE
    await bob.publish()
    alice.forget_cards()
    await alice.send()
    sealed = alice.copy(bob).notification
    assert sealed is not None
    assert sealed.startswith(key.key_id)


async def test_why_a_notification_was_not_taken_is_said_and_it_is_sent_again(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    world.overlay.before = FailAt("append_inbox", NoAnswer("The inbox is closed today."))
    await alice.send()
    assert (alice.copy(bob).state, alice.copy(bob).reason) == (State.QUEUED, "The inbox is closed today.")
    world.overlay.before = nothing
    await alice.send()
    assert (alice.copy(bob).state, alice.copy(bob).reason) == (State.STORED, "")


async def test_why_all_nodes_refused_a_notification_is_said(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    def refuse(call: str) -> None:
        for node in world.nodes:
            node.refuses = "This inbox is full." if call == "append_inbox" else ""

    alice.write(bob)
    world.overlay.before = refuse
    await alice.send()
    copy = alice.copy(bob)
    assert (copy.state, copy.bodies[0], copy.notifications) == (State.QUEUED, 3, (0, 3))
    assert "This inbox is full." in copy.reason


@pytest.mark.parametrize(
    ("age", "ttl"), [(10 * DAY, 20 * DAY), (RETENTION - 1, 60.0), (RETENTION, RETENTION), (RETENTION + DAY, RETENTION)]
)
async def test_what_no_node_has_yet_is_kept_for_what_is_left_of_its_time_or_for_all_of_it_when_that_is_over(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, age: float, ttl: float
) -> None:
    """Nodes refused the notification at the first attempt."""
    alice.write(bob)
    world.overlay.before = FailAt("append_inbox", NoAnswer("Nobody takes it."))
    await alice.send()
    alice.outbox.record([(alice.entry().message_id, replace(alice.copy(bob), notifications=(0, 3)))])
    world.overlay.before = nothing
    world.overlay.ttls.clear()
    world.clock.now += age
    await alice.send()
    assert set(world.overlay.ttls) == {ttl}
    assert alice.copy(bob).state is State.STORED


async def test_notifications_that_some_nodes_lack_are_brought_again_at_the_first_attempts_alone(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    await alice.send()
    for attempts in (1, 2, 3):
        assert alice.entry().attempts == attempts
        alice.outbox.record([(alice.entry().message_id, replace(alice.copy(bob), notifications=(2, 3)))])
        await alice.send()
        assert alice.copy(bob).notifications == ((3, 3) if attempts < 3 else (2, 3))


async def test_a_fault_of_the_program_does_not_end_the_time_for_which_an_address_is_unknown(
    world: UserAgentNetwork, alice: UserAgent
) -> None:
    alice.write(NOBODY)
    await alice.send()
    since = alice.copy(NOBODY).unknown_since
    assert since == world.clock()
    world.clock.now += MINUTE
    world.overlay.before = FailAt("fetch_variants", ZeroDivisionError("division by zero"))
    await alice.send()
    assert "This is a fault of p2pmail" in alice.copy(NOBODY).reason
    assert alice.copy(NOBODY).unknown_since == since
