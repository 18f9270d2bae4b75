"""Attempts at collecting: how many, when the next, what is told of them, and when they end. Each to its exact bound."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mail.receive.receiver import COSTLY_BACK_OFF
from mail.sealed.keys import KeyMaterialError
from mail.sealed.notification import BUCKETS, seal_notification
from overlay.client import Outcome
from overlay.errors import NotFound, Unreachable
from overlay.ids import Kind
from overlay.protocol_limits import RETENTION
from storage.database import DatabaseError
from tests.mail.fakes import FailAt, nothing
from tests.mail.receive.test_bad_notifications import falsely_signed
from tests.mail.receive.test_receiver import long_message
from tests.mail.user_agents import UserAgent, UserAgentNetwork, a_good_one

DAY = 86_400.0


def waiting(user_agent: UserAgent) -> int:
    """How many notifications are still worked on."""
    return len(user_agent.state.pending(float("inf")))


async def announced(world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, count: int = 1) -> None:
    """`count` messages from Alice are in Bob's inbox, and no node has their bodies."""
    for number in range(count):
        alice.write(bob, message_id=f"{number}@example.org")
    await alice.send()
    for node in world.nodes:
        node.objects = {place: kept for place, kept in node.objects.items() if place[0] != Kind.BODY}


def test_what_is_lost_or_damaged_is_tried_again_after_one_hour_four_and_each_day() -> None:
    assert COSTLY_BACK_OFF == (3_600.0, 14_400.0, 86_400.0)


async def test_only_what_is_due_is_tried(world: UserAgentNetwork, alice: UserAgent, bob: UserAgent) -> None:
    await announced(world, alice, bob)
    await bob.receiving.run()
    tried = world.overlay.calls.count("fetch")
    await bob.receiving.run()
    assert world.overlay.calls.count("fetch") == tried > 0


async def test_all_that_waits_is_worked_on_in_one_run_however_many_are_taken_at_once(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("mail.receive.receiver", "storage.user.state"):
        monkeypatch.setattr(f"{place}.AT_ONCE", 2)
    for number in range(4):
        alice.write(bob, message_id=f"{number}@example.org")
    await alice.send()
    assert await bob.receiving.run() == 4


async def test_each_message_is_tried_once_in_a_run_that_tries_everything(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("mail.receive.receiver", "storage.user.state"):
        monkeypatch.setattr(f"{place}.AT_ONCE", 2)
    await announced(world, alice, bob, 2)
    await bob.receiving.run()
    tried = world.overlay.calls.count("fetch")
    await bob.receiving.work(everything=True)
    assert world.overlay.calls.count("fetch") == 2 * tried


async def test_a_forged_notification_is_dropped_and_not_tried_again(alice: UserAgent, bob: UserAgent) -> None:
    good = await a_good_one(alice, bob)
    await bob.get(falsely_signed(good, alice, bob))
    assert await bob.collect() == 0
    assert waiting(bob) == 0


async def test_a_disk_that_refuses_to_note_what_was_filed_ends_the_run(
    alice: UserAgent, bob: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.write(bob)
    await alice.send()

    def full(*_: object) -> str:
        raise DatabaseError("The disk is full.")

    monkeypatch.setattr(bob.filing, "file", full)
    with pytest.raises(DatabaseError, match="full"):
        await bob.collect()
    assert waiting(bob) == 1


async def test_another_reason_is_told_and_the_same_one_once(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    await alice.send()
    for reason in ("Input/output error", "Input/output error", "No space left"):
        world.overlay.before = FailAt("fetch", OSError(5, reason))
        await bob.collect()
    assert ["Input/output error" in bob.troubles[0], "No space left" in bob.troubles[1]] == [True, True]
    assert len(bob.troubles) == 2
    world.overlay.before = FailAt("fetch", NotFound("None has it."))
    await bob.collect()
    assert len(bob.troubles) == 2, "that the nodes don't have it yet is told once"


async def test_too_little_room_is_told_at_the_first_attempt_and_once(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    long_message(alice, bob)
    await alice.send()
    world.room = 64 << 20
    await bob.collect()
    assert len(bob.lasting) == 1
    await bob.collect()
    assert len(bob.lasting) == 1


async def test_a_lost_message_is_let_go_one_second_after_thirty_days_and_leaves_nothing_on_disk(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    long_message(alice, bob)
    await alice.send()
    world.overlay.before = FailAt("fetch", NotFound("None has it."), after=3)
    await bob.collect()
    world.overlay.before = FailAt("fetch", NotFound("None has it."))
    await bob.collect()
    world.clock.now += RETENTION
    await bob.collect()
    assert bob.lasting == []
    world.clock.now += 1
    await bob.collect()
    assert len(bob.lasting) == 1
    tried = world.overlay.calls.count("fetch")
    await bob.receiving.run()
    assert world.overlay.calls.count("fetch") == tried, "the next attempt is an hour away or more"
    assert list(bob.profile.spool.iterdir()) != []
    world.clock.now += RETENTION
    await bob.collect()
    assert waiting(bob) == 1
    world.clock.now += DAY
    await bob.collect()
    assert waiting(bob) == 0
    assert list(bob.profile.spool.iterdir()) == []


async def test_one_senders_announcements_crowd_each_other_out_after_a_day_and_two_attempts(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mail.receive.receiver.LACKING_KEPT", 1)
    await announced(world, alice, bob, 2)
    for _ in range(2):
        await bob.collect()
    world.clock.now += DAY
    await bob.collect()
    assert waiting(bob) == 2
    world.clock.now += 1
    await bob.collect()
    assert waiting(bob) == 1


async def test_two_attempts_are_enough_to_be_crowded_out(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mail.receive.receiver.LACKING_KEPT", 1)
    await announced(world, alice, bob, 2)
    for _ in range(2):
        await bob.collect()
    world.clock.now += DAY + 1
    await bob.collect()
    assert waiting(bob) == 1


async def test_what_was_fetched_of_a_message_that_is_crowded_out_is_removed(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mail.receive.receiver.LACKING_KEPT", 0)
    long_message(alice, bob)
    await alice.send()
    world.overlay.before = FailAt("fetch", NotFound("None has it."), after=3)
    await bob.collect()
    world.overlay.before = FailAt("fetch", NotFound("None has it."))
    await bob.collect()
    assert list(bob.profile.spool.iterdir()) != []
    world.clock.now += DAY + 1
    await bob.collect()
    assert waiting(bob) == 0
    assert list(bob.profile.spool.iterdir()) == []


async def test_the_segments_of_a_body_that_can_not_be_opened_are_removed(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    long_message(alice, bob)
    await alice.send()
    told = bob.told()
    for node in world.nodes:
        node.inboxes.clear()
    shorter = replace(told, original_size=told.original_size - 1)
    await bob.get(seal_notification(shorter, alice.owner, bob.pair.public))
    assert await bob.collect() == 0
    assert "can't be opened" in bob.lasting[0]
    assert list(bob.profile.spool.iterdir()) == []


async def test_what_is_set_aside_is_tried_again_after_the_first_pause(alice: UserAgent, bob: UserAgent) -> None:
    await bob.get(b"\x17" * BUCKETS[0])
    await bob.collect()
    now, opener = bob.world.clock(), bob.receiving._opener
    assert bob.state.pending(now + 4.9, opener=opener) == []
    (aside,) = bob.state.pending(now + 5.0, opener=opener)
    assert aside.hold == "stray", "what is sealed to no key of ours has a place of its own"


async def test_what_is_set_aside_is_given_up_one_second_after_thirty_days(alice: UserAgent, bob: UserAgent) -> None:
    await bob.get(b"\x17" * BUCKETS[0])
    await bob.collect()
    bob.world.clock.now += RETENTION
    await bob.collect()
    assert waiting(bob) == 1
    bob.world.clock.now += 1
    await bob.collect()
    assert waiting(bob) == 0


async def test_mail_whose_key_is_damaged_here_is_kept_and_told(
    alice: UserAgent, bob: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.write(bob)
    await alice.send()

    def damaged(*_: object) -> Any:
        raise KeyMaterialError("The key is damaged.")

    monkeypatch.setattr("mail.receive.receiver.open_notification", damaged)
    assert await bob.collect() == 0
    assert bob.lasting == ["Mail can't be opened: The key is damaged. It is kept and tried again for 60 days."]
    assert waiting(bob) == 1


class HeardOfOne:
    """Nodes that hear deletes under one certificate alone."""

    def __init__(self, bob: UserAgent) -> None:
        self._delete, self._bob = bob.world.overlay.delete, bob

    async def __call__(self, kind: Kind, key: bytes, salt: bytes, owner: Any, **options: Any) -> Outcome:
        outcome = await self._delete(kind, key, salt, owner, **options)
        return outcome if owner is self._bob.owner else replace(outcome, have=0)


async def test_a_delete_under_an_earlier_certificate_is_owed_for_three_more_attempts(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.write(bob)
    await alice.send()
    bob.renew()
    monkeypatch.setattr(world.overlay, "delete", HeardOfOne(bob))
    await bob.collect()
    for left in (1, 1, 0):
        world.clock.now += DAY
        await bob.collect()
        assert len(bob.state.owed_deletes(world.clock() + DAY)) == left


async def test_a_delete_that_nobody_answers_is_tried_again_within_a_minute_however_long_it_is_owed(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    await alice.send()
    for node in world.nodes:
        node.refuses = "The disk is full."
    await bob.collect()
    for _ in range(4):
        world.clock.now += DAY
        await bob.collect()
    world.overlay.before = FailAt("delete", Unreachable("No node answers."))
    world.clock.now += DAY
    await bob.collect()
    now = world.clock()
    assert bob.state.owed_deletes(now + 59.0) == [] != bob.state.owed_deletes(now + 60.0)
    world.overlay.before = nothing
