"""How a letter ends: collected only when its recipient has signed so, expired or failed only when that is true."""

from __future__ import annotations

from overlay.messages import RETENTION
from storage.outbox import State
from tests.mail.desks import Desk, World

DAY = 86400.0


async def test_a_letter_is_collected_when_its_recipient_has_deleted_it(world: World, alice: Desk, bob: Desk) -> None:
    alice.write(bob)
    await alice.send()
    await alice.send()
    assert alice.copy(bob).state is State.STORED
    await bob.collect()
    await alice.send()
    assert alice.copy(bob).state is State.COLLECTED
    calls = len(world.overlay.calls)
    await alice.send()
    assert len(world.overlay.calls) == calls


async def test_what_is_not_collected_in_time_is_expired_and_the_sender_is_told(
    world: World, alice: Desk, bob: Desk
) -> None:
    alice.write(bob)
    await alice.send()
    world.clock.time += RETENTION - 1
    await alice.send()
    assert alice.copy(bob).state is State.STORED
    world.clock.time += 1
    await alice.send()
    assert alice.copy(bob).state is State.EXPIRED
    assert "bob@example.org expired" in alice.troubles[0]


async def test_a_sender_who_was_away_learns_that_it_was_collected_before_it_would_have_expired(
    world: World, alice: Desk, bob: Desk
) -> None:
    alice.write(bob)
    await alice.send()
    await bob.collect()
    world.clock.time += 31 * DAY
    world.set_down()
    await alice.send()
    assert alice.copy(bob).state is State.STORED  # nobody could be asked
    world.set_down(down=False)
    await alice.send()
    assert alice.copy(bob).state is State.COLLECTED
    assert alice.troubles == []


async def test_what_could_not_be_sent_for_thirty_days_has_failed_and_the_sender_is_told(
    world: World, alice: Desk, bob: Desk
) -> None:
    alice.write(bob)
    world.set_down()
    await alice.send()
    world.clock.time += RETENTION
    await alice.send()
    assert alice.copy(bob).state is State.FAILED
    assert "couldn't be sent for 30 days" in alice.troubles[0]
    world.set_down(down=False)
    assert alice.outbox.retry("letter@example.org", world.clock())
    await alice.send()
    assert alice.copy(bob).state is State.STORED
