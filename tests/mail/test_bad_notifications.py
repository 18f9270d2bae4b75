"""What lies in an inbox and is not wholly right: it brings nothing, holds up nothing, and takes little room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mail import receiving as receiving_module
from mail.delivery import Headers, notification_for
from mail.notification import BUCKETS, Notification, seal_notification
from mail.sealing import seal_body
from overlay.ids import Kind
from overlay.messages import RETENTION
from storage.outbox import State
from tests.mail.desks import Desk, World, a_good_one, body_at, letter
from tests.overlay.issuing import Issuer

DAY = 86400.0


Spoil = Callable[[Notification, Desk, Desk], bytes]


def random_bytes(good: Notification, alice: Desk, bob: Desk) -> bytes:
    return b"\x17" * BUCKETS[0]


def damaged(good: Notification, alice: Desk, bob: Desk) -> bytes:
    sealed = seal_notification(good, alice.owner, bob.pair.public)
    return sealed[:-1] + bytes([sealed[-1] ^ 1])


def falsely_signed(good: Notification, alice: Desk, bob: Desk) -> bytes:
    return seal_notification(good, replace(alice.owner, sign=bob.owner.sign), bob.pair.public)


def from_somebody_else(good: Notification, alice: Desk, bob: Desk) -> bytes:
    return seal_notification(replace(good, sender="carol@example.org"), alice.owner, bob.pair.public)


def of_another_authority(good: Notification, alice: Desk, bob: Desk) -> bytes:
    person = Issuer(2).person(alice.address)
    return seal_notification(good, person, bob.pair.public)


def for_somebody_else(good: Notification, alice: Desk, bob: Desk) -> bytes:
    return seal_notification(replace(good, recipient="carol@example.org"), alice.owner, bob.pair.public)


def to_another_key(good: Notification, alice: Desk, bob: Desk) -> bytes:
    return seal_notification(good, alice.owner, alice.pair.public)


ALL_SPOILT = [
    random_bytes,
    damaged,
    falsely_signed,
    from_somebody_else,
    of_another_authority,
    for_somebody_else,
    to_another_key,
]


@pytest.mark.parametrize("spoil", ALL_SPOILT)
async def test_a_notification_that_is_not_wholly_right_brings_nothing_and_holds_up_nothing(
    world: World, alice: Desk, bob: Desk, spoil: Spoil
) -> None:
    good = await a_good_one(alice, bob)
    await bob.get(spoil(good, alice, bob), seal_notification(good, alice.owner, bob.pair.public))
    assert await bob.collect() == 1
    assert len(bob.everywhere()) == 1
    assert world.overlay.inbox(bob.inbox_key) == set()
    assert bob.troubles == []
    assert bob.receiving.late == 0


@pytest.mark.parametrize("spoil", ALL_SPOILT)
async def test_nothing_is_fetched_or_deleted_for_a_notification_that_is_not_wholly_right(
    world: World, alice: Desk, bob: Desk, spoil: Spoil
) -> None:
    good = await a_good_one(alice, bob)
    await bob.get(spoil(good, alice, bob))
    assert await bob.collect() == 0
    assert not {"fetch", "delete"} & set(world.overlay.calls)


async def test_what_has_no_notifications_size_takes_no_room_on_the_disk(world: World, bob: Desk) -> None:
    await bob.get(b"x", b"y" * 70_000)
    assert await bob.collect() == 0
    assert world.overlay.inbox(bob.inbox_key) == set()
    assert bob.state.pending(float("inf")) == []


async def test_of_a_flood_that_cannot_be_opened_little_is_kept(world: World, alice: Desk, bob: Desk) -> None:
    good = await a_good_one(alice, bob)
    flood = [bytes([1, number]) + bytes(BUCKETS[0] - 2) for number in range(100)]
    await bob.get(*flood, seal_notification(good, alice.owner, bob.pair.public))
    assert await bob.collect() == 1
    assert len(bob.state.pending(float("inf"))) == receiving_module.SET_ASIDE
    await bob.get(*flood)
    await bob.collect()
    assert len(bob.state.pending(float("inf"))) == receiving_module.SET_ASIDE


async def test_what_cannot_be_opened_now_is_opened_once_the_clock_is_right(
    world: World, alice: Desk, bob: Desk
) -> None:
    alice.write(bob)
    await alice.send()
    world.clock.time -= 400 * DAY  # before the certificate
    assert await bob.collect() == 0
    world.clock.time += 400 * DAY
    assert await bob.collect() == 1


async def test_what_could_not_be_opened_for_thirty_days_is_given_up_and_told(
    world: World, alice: Desk, bob: Desk
) -> None:
    good = await a_good_one(alice, bob)
    await bob.get(of_another_authority(good, alice, bob))
    await bob.collect()
    world.clock.time += RETENTION + 1
    await bob.collect()
    assert bob.state.pending(float("inf")) == []
    assert "couldn't be opened" in bob.troubles[0]


async def test_a_body_that_its_sender_sealed_wrongly_is_told_at_once_and_not_called_collected(
    world: World, alice: Desk, bob: Desk
) -> None:
    good = await a_good_one(alice, bob)
    lying = replace(good, session_key=bytes(32))
    await bob.get(seal_notification(lying, alice.owner, bob.pair.public))
    assert await bob.collect() == 0
    assert bob.everywhere() == []
    assert len(bob.troubles) == 1
    assert "is lost" in bob.troubles[0]
    assert bob.state.pending(float("inf")) == []
    await alice.send()
    assert alice.copy(bob).state is State.STORED


async def test_a_body_that_unpacks_to_more_than_was_said_is_stopped(
    world: World, alice: Desk, bob: Desk, tmp_path: Path
) -> None:
    bomb = tmp_path / "bomb.eml"
    bomb.write_bytes(letter(alice.address, [bob.address], "bomb@example.org", bytes(2_000_000)))
    with bomb.open("rb") as file:
        parts = list(seal_body(file, b"k" * 32))
    headers = Headers("bomb@example.org", alice.address, "", (), (), "Bomb", 0.0, (), 1000)
    notification = notification_for(bob.address, headers, b"k" * 32, [part for part, _ in parts], b"s" * 16, None, b"")
    await world.overlay.store(Kind.BODY, body_at("bomb@example.org"), parts[0][1], deleters=[b"d" * 32], ttl=1)
    await bob.get(seal_notification(notification, alice.owner, bob.pair.public))
    assert await bob.collect() == 0
    assert bob.everywhere() == []
    assert "longer than the 1,000 bytes" in bob.troubles[0]
