"""What lies in an inbox and is not wholly right: it brings nothing, holds up nothing, and takes little room."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mail.receive.receiver import LACKING_KEPT
from mail.sealed.body import seal_body
from mail.sealed.notification import BUCKETS, Notification, OutOfTime, open_notification, seal_notification
from mail.send.rules import NotifiedHeaders, notification_for
from overlay.identity.certificates import parse_certificate
from overlay.ids import Kind
from overlay.protocol_limits import RETENTION
from storage.user.outbox import State
from storage.user.state import Fate
from tests.mail.user_agents import UserAgent, UserAgentNetwork, a_good_one, body_at, noise, plain_message
from tests.overlay.issuing import Issuer

DAY = 86400.0


Spoil = Callable[[Notification, UserAgent, UserAgent], bytes]


def random_bytes(good: Notification, alice: UserAgent, bob: UserAgent) -> bytes:
    return b"\x17" * BUCKETS[0]


def damaged(good: Notification, alice: UserAgent, bob: UserAgent) -> bytes:
    sealed = seal_notification(good, alice.owner, bob.pair.public)
    return sealed[:-1] + bytes([sealed[-1] ^ 1])


def falsely_signed(good: Notification, alice: UserAgent, bob: UserAgent) -> bytes:
    return seal_notification(good, replace(alice.owner, sign=bob.owner.sign), bob.pair.public)


def from_somebody_else(good: Notification, alice: UserAgent, bob: UserAgent) -> bytes:
    return seal_notification(replace(good, sender="carol@example.org"), alice.owner, bob.pair.public)


def of_another_authority(good: Notification, alice: UserAgent, bob: UserAgent) -> bytes:
    person = Issuer(2).person(alice.address)
    return seal_notification(good, person, bob.pair.public)


def for_somebody_else(good: Notification, alice: UserAgent, bob: UserAgent) -> bytes:
    return seal_notification(replace(good, recipient="carol@example.org"), alice.owner, bob.pair.public)


def to_another_key(good: Notification, alice: UserAgent, bob: UserAgent) -> bytes:
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
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, spoil: Spoil
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
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, spoil: Spoil
) -> None:
    good = await a_good_one(alice, bob)
    await bob.get(spoil(good, alice, bob))
    assert await bob.collect() == 0
    assert not {"fetch", "delete"} & set(world.overlay.calls)


async def test_what_has_no_notifications_size_takes_no_room_on_the_disk(
    world: UserAgentNetwork, bob: UserAgent
) -> None:
    await bob.get(b"x", b"y" * 70_000)
    assert await bob.collect() == 0
    assert world.overlay.inbox(bob.inbox_key) == set()
    assert bob.state.pending(float("inf")) == []


def flood(count: int) -> list[bytes]:
    return [number.to_bytes(8, "big") + bytes(BUCKETS[0] - 8) for number in range(count)]


async def test_of_a_flood_that_cannot_be_opened_64_are_kept_and_the_user_is_told_once_what_was_dropped(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    good = await a_good_one(alice, bob)
    await bob.get(*flood(100), seal_notification(good, alice.owner, bob.pair.public))
    assert await bob.collect() == 1
    assert len(bob.state.pending(float("inf"))) == 64
    assert len(set(bob.lasting)) == 1
    assert "which may be mail, can't be opened: The notification is sealed to a key that is not here" in bob.lasting[0]
    assert bob.receiving.late == 0
    await bob.get(*flood(100))
    bob.restart()
    await bob.collect()
    assert len(bob.state.pending(float("inf"))) == 64


async def test_a_flood_crowds_out_no_mail_that_waits_for_the_right_clock(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    good = await a_good_one(alice, bob)
    stranger = Issuer(2).person(alice.address)
    sealed = [seal_notification(good, stranger, bob.pair.public) for _ in range(70)]
    await bob.get(*flood(70), *sealed)
    await bob.collect()
    world.clock.now -= 400 * DAY  # before the certificate
    alice.write(bob, message_id="late@example.org")
    await bob.get(seal_notification(good, alice.owner, bob.pair.public))
    assert await bob.collect() == 0
    assert bob.receiving.late == 1
    assert f"Mail from {alice.address} can't be opened: The certificate" in bob.lasting[-1]
    bob.restart()
    world.clock.now += 400 * DAY
    assert await bob.collect() == 1


async def test_of_one_sender_whose_certificate_is_not_good_100_are_kept_and_of_others_too(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    good = await a_good_one(alice, bob)
    carol = await world.user_agent("carol")
    world.clock.now -= 400 * DAY
    await bob.get(*(seal_notification(good, alice.owner, bob.pair.public) for _ in range(101)))
    await bob.collect()
    assert len(bob.state.pending(float("inf"))) == 100
    assert "As 100 of them wait already, it was dropped" in "".join(bob.lasting)
    hers = replace(good, sender=carol.address, message_id="hers@example.org")
    await bob.get(seal_notification(hers, carol.owner, bob.pair.public))
    await bob.collect()
    assert len(bob.state.pending(float("inf"))) == 101


async def test_mail_that_lay_at_the_nodes_when_its_senders_certificate_ended_is_opened(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    ends = parse_certificate(alice.owner.certificate).not_after
    world.clock.now = ends - 1
    alice.write(bob)
    await alice.send()
    (notification,) = world.overlay.inbox(bob.inbox_key)
    world.clock.now = ends + RETENTION
    assert await bob.collect() == 1
    world.clock.now = ends + RETENTION + 1
    with pytest.raises(OutOfTime, match="has expired"):
        open_notification(notification, bob.pairs, bob.address, bob.trust, world.clock())


async def test_what_cannot_be_opened_now_is_opened_once_the_clock_is_right(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    await alice.send()
    world.clock.now -= 400 * DAY  # before the certificate
    assert await bob.collect() == 0
    world.clock.now += 400 * DAY
    assert await bob.collect() == 1


async def test_what_could_not_be_opened_for_thirty_days_is_given_up_and_told(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    good = await a_good_one(alice, bob)
    await bob.get(of_another_authority(good, alice, bob))
    await bob.collect()
    world.clock.now += RETENTION + 1
    await bob.collect()
    assert bob.state.pending(float("inf")) == []
    assert "can't be opened" in bob.lasting[0]


async def test_a_notification_of_a_newer_program_waits_for_the_update_and_the_user_is_told(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = await a_good_one(alice, bob)
    with monkeypatch.context() as newer:
        newer.setattr("mail.sealed.notification._VERSION", 2)
        await bob.get(seal_notification(good, alice.owner, bob.pair.public))
    assert await bob.collect() == 0
    assert "was written by a newer version of p2pmail" in bob.lasting[0]
    assert bob.receiving.late == 1
    monkeypatch.setattr("mail.sealed.notification._VERSION", 2)
    world.version = "2.0"
    bob.restart()
    assert await bob.receiving.run() == 1


async def test_a_body_that_cannot_be_opened_is_told_once_kept_and_not_called_collected(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    good = await a_good_one(alice, bob)
    lying = replace(good, session_key=bytes(32))
    await bob.get(seal_notification(lying, alice.owner, bob.pair.public))
    for _ in range(3):
        assert await bob.collect() == 0
        bob.restart()
    assert world.overlay.calls.count("fetch") == 1  # each attempt costs the whole message: it waits for its time
    assert bob.everywhere() == []
    (told,) = bob.lasting
    assert "can't be opened: The body is cut off, was changed, or has another key." in told
    assert bob.receiving.late == 1
    assert len(world.overlay.bodies(Kind.BODY, body_at())) == 3
    await alice.send()
    assert alice.copy(bob).state is State.STORED
    world.clock.now += 3600
    await bob.receiving.run()
    assert world.overlay.calls.count("fetch") == 2
    assert len(bob.lasting) == 1


async def test_a_body_that_an_older_program_could_not_open_is_collected_at_once_by_a_newer_one(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = alice.write(bob).file.read_bytes()
    await alice.send()
    with monkeypatch.context() as older:
        older.setattr("mail.sealed.body.padded_length", lambda length: length)
        assert await bob.collect() == 0
    assert "The body is not padded as it must be." in bob.lasting[0]
    assert await bob.collect() == 0
    world.version = "1.1"
    bob.restart()
    assert await bob.receiving.run() == 1
    assert bob.folder("Inbox") == [original]


async def test_what_a_program_before_gave_up_and_acknowledged_arrives_when_sender_and_recipient_are_updated(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    message = plain_message(alice.address, [bob.address], "letter@example.org", noise(100_000))
    alice.write(bob, message=message)
    await alice.send()
    (first,) = world.overlay.inbox(bob.inbox_key)
    bob.state.take_over([first], world.clock())
    bob.state.reject(hashlib.sha256(first).digest(), Fate.LOST, "The body is not padded as it must be.")
    for node in world.nodes:  # it was acknowledged, so that they take it no more
        node.inboxes.clear()
    alice.outbox._db._connection.executescript(
        "ALTER TABLE letter DROP COLUMN begun; ALTER TABLE recipient DROP COLUMN reported;"
        " ALTER TABLE recipient DROP COLUMN gone_since;"
        " ALTER TABLE recipient DROP COLUMN unknown_since; PRAGMA user_version=7;"
    )
    alice.restart()
    await alice.send()
    (second,) = world.overlay.inbox(bob.inbox_key)
    assert second != first
    assert await bob.collect() == 1
    assert bob.folder("Inbox") == [message]
    await alice.send()
    assert alice.copy(bob).state is State.COLLECTED


async def test_a_body_that_unpacks_to_more_than_was_said_is_stopped(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, tmp_path: Path
) -> None:
    bomb = tmp_path / "bomb.eml"
    bomb.write_bytes(plain_message(alice.address, [bob.address], "bomb@example.org", bytes(2_000_000)))
    with bomb.open("rb") as file:
        parts = list(seal_body(file, b"k" * 32))
    headers = NotifiedHeaders("bomb@example.org", alice.address, "", (), (), "Bomb", 0.0, (), 1000)
    notification = notification_for(
        bob.address,
        headers,
        session_key=b"k" * 32,
        segments=[part for part, _ in parts],
        salt=b"s" * 16,
        coding=None,
        group=b"",
    )
    await world.overlay.store(Kind.BODY, body_at("bomb@example.org"), parts[0][1], deleters=[b"d" * 32], ttl=1)
    await bob.get(seal_notification(notification, alice.owner, bob.pair.public))
    assert await bob.collect() == 0
    assert bob.everywhere() == []
    assert "longer than the 1,000 bytes" in bob.troubles[0]


async def test_of_one_senders_announcements_without_messages_1000_are_kept_for_longer_than_a_day(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, carol: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LACKING_KEPT == 1000
    monkeypatch.setattr("mail.receive.receiver.LACKING_KEPT", 3)
    good = await a_good_one(alice, bob)
    carol.write(bob, message_id="carol@example.org")
    await carol.send()
    for node in world.nodes:
        node.objects.clear()
    for number in range(5):
        told = replace(good, message_id=f"{number}@example.org")
        await bob.get(seal_notification(told, alice.owner, bob.pair.public))
    for _ in range(3):
        await bob.collect()
    assert len(bob.state.hashes()) == 6
    assert bob.lasting == []
    world.clock.now += DAY + 1
    for _ in range(3):
        await bob.collect()
    assert (bob.state.count_unavailable(alice.address), bob.state.count_unavailable(carol.address)) == (3, 1)
    (told_once,) = bob.lasting
    assert told_once.startswith("alice@example.org has announced more than 3 messages that can't be collected.")
