"""Sending: one body for all, a secret for each; nothing twice, nothing given up in silence."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from mail import asyncio_tools
from mail.events import OutboxChanged, Progress, Trouble
from mail.sealed import body
from mail.sealed.keys import generate_pair
from mail.sealed.notification import NotificationError, open_notification, seal_notification
from mail.sealed.segments import Segment
from mail.send import rules
from mail.send.replica_check import count_copies
from mail.send.rules import UNKNOWN_FOR, NotifiedHeaders, assign_groups, entry_groups, notification_for, segment_key
from mail.write.submission import read_submission
from overlay.client import Outcome
from overlay.errors import Offline, Unreachable
from overlay.identity.card import Card
from overlay.identity.certificates import CertificateExpired, Revoked, TrustStore, parse_certificate
from overlay.identity.ownership import Owner
from overlay.ids import CARD_SALT, Kind, deleter_hash
from storage.database import DatabaseError
from storage.user.outbox import Envelope, State
from tests.mail.fakes import Crowd, FailAt, nothing
from tests.mail.user_agents import UserAgent, UserAgentNetwork, body_at, noise, plain_message
from tests.overlay.issuing import NOW, Issuer

DAY = 86400.0
MEGABYTE = 1 << 20


async def test_several_recipients_share_one_stored_body(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, carol: UserAgent
) -> None:
    before = world.overlay.calls.count("store")
    alice.write(bob, carol)
    await alice.send()
    assert world.overlay.calls.count("store") == before + 1
    assert [len(deleters) for deleters in world.overlay.bodies(Kind.BODY, body_at())] == [2, 2, 2]
    assert [r.state for r in alice.entry().recipients] == [State.STORED, State.STORED]
    assert [r.bodies for r in alice.entry().recipients] == [(3, 3), (3, 3)]
    assert [r.notifications for r in alice.entry().recipients] == [(3, 3), (3, 3)]
    assert bob.told().session_key == carol.told().session_key
    assert OutboxChanged("letter@example.org") in alice.events


async def test_bcc_is_told_to_nobody(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, carol: UserAgent, tmp_path: Path
) -> None:
    source = tmp_path / "source.eml"
    source.write_bytes(plain_message(alice.address, [bob.address], "letter@example.org").replace(
        b"Subject:", b"Bcc: carol@example.org\nSubject:"
    ))  # fmt: skip
    with source.open("rb") as stream:
        taken = read_submission(stream, tmp_path / "spool.eml", [], alice.address, from_headers=True)
    assert taken.recipients == (bob.address, carol.address)
    alice.outbox.accept(
        taken.path,
        Envelope(
            taken.message_id,
            subject=taken.subject,
            sender=alice.address,
            recipients=taken.recipients,
            created=world.clock(),
        ),
    )
    await alice.send()
    assert carol.address not in repr(bob.told())
    assert bob.told().left_out == 0
    assert bob.address in bob.told().to
    await bob.collect()
    await carol.collect()
    assert all(b"carol" not in data for user_agent in (bob, carol) for data in user_agent.everywhere())


async def test_one_recipient_cannot_find_another_ones_tombstone(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, carol: UserAgent
) -> None:
    alice.write(bob, carol)
    await alice.send()
    known_to_bob = [bob.told().deleter_salt, CARD_SALT]
    await carol.collect()
    certificate = carol.owner.certificate
    for salt in known_to_bob:
        guess = deleter_hash(body_at(), salt, certificate)
        assert await world.overlay.tombstones(Kind.BODY, body_at(), {guess: bool}) == {}
        assert all(guess not in deleters for deleters in world.overlay.bodies(Kind.BODY, body_at()))
    hers = alice.copy(carol).salt
    assert hers is not None
    assert await world.overlay.tombstones(Kind.BODY, body_at(), {deleter_hash(body_at(), hers, certificate): bool})


async def test_an_unknown_address_fails_after_ten_minutes_of_attempts_and_the_sender_is_told(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write("nobody@example.org", bob)
    for _ in range(2):
        await alice.send()
        assert alice.copy("nobody@example.org").state is State.QUEUED
        assert "isn't known" in alice.copy("nobody@example.org").reason
        assert alice.copy(bob).state is State.STORED
    for pause in (15, 60, 300, 900):
        assert (alice.copy("nobody@example.org").state, alice.troubles) == (State.QUEUED, [])
        world.clock.now += pause
        await alice.send()
    assert alice.copy("nobody@example.org").state is State.FAILED
    assert len(alice.troubles) == 1
    assert "nobody@example.org failed" in alice.troubles[0]
    assert "Your copy is in Sent." in alice.troubles[0]
    assert await bob.collect() == 1


async def test_what_was_tried_offline_counts_neither_as_an_attempt_nor_as_time_when_an_address_is_unknown(
    world: UserAgentNetwork, alice: UserAgent
) -> None:
    alice.write("nobody@example.org")
    await alice.send()
    world.overlay.before = FailAt("fetch_variants", Offline("This computer is offline."))
    world.clock.now += 2 * UNKNOWN_FOR
    for _ in range(5):
        await alice.send()
    copy = alice.copy("nobody@example.org")
    assert copy.state is State.QUEUED
    assert copy.reason == "This computer is offline. It will be sent when the network is back."
    assert alice.entry().attempts == 1
    world.overlay.before = nothing
    for _ in range(4):
        await alice.send()
    assert alice.copy("nobody@example.org").state is State.QUEUED
    world.clock.now += UNKNOWN_FOR
    await alice.send()
    assert alice.copy("nobody@example.org").state is State.FAILED


async def test_what_waited_for_the_network_is_due_at_once_when_it_is_back(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    world.overlay.before = FailAt("fetch_variants", Offline("This computer is offline."))
    for _ in range(5):
        await alice.send()
    assert alice.entry().next_attempt == world.clock() + 60
    world.overlay.before = nothing
    await alice.sending.network_is_back()
    await alice.sending.run()
    assert alice.copy(bob).state is State.STORED
    await alice.sending.network_is_back()  # nothing waits for it any more
    assert alice.entry().next_attempt > world.clock()


async def test_a_network_that_goes_away_before_the_notification_is_no_fault_of_the_message(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    world.overlay.before = FailAt("append_inbox", Offline("This computer is offline."))
    await alice.send()
    assert alice.copy(bob).reason == "This computer is offline. It will be sent when the network is back."
    assert (alice.copy(bob).bodies, alice.entry().attempts) == ((3, 3), 0)


async def test_somebody_alone_in_her_network_writes_to_herself_and_to_who_has_yet_to_join(
    world: UserAgentNetwork, alice: UserAgent
) -> None:
    world.overlay.lone = True
    alice.write(alice, "bob@example.org")
    for _ in range(10):
        await alice.send()
        world.clock.now += UNKNOWN_FOR
    assert alice.copy(alice).state is State.STORED
    waiting = alice.copy("bob@example.org")
    assert waiting.state is State.QUEUED
    assert waiting.reason == "Nobody else is in this network yet. It will be sent when its recipient has joined."
    assert alice.troubles == []
    assert alice.entry().next_attempt <= world.clock() + 60
    bob = await world.user_agent("bob")
    await alice.send()
    assert alice.copy(bob).state is State.STORED
    assert await bob.collect() == 1


async def test_who_never_joins_is_given_up_after_thirty_days(world: UserAgentNetwork, alice: UserAgent) -> None:
    world.overlay.lone = True
    alice.write("bob@example.org")
    await alice.send()
    world.clock.now += 31 * DAY
    for _ in range(10):
        await alice.send()
    assert alice.copy("bob@example.org").state is State.FAILED
    assert "Nobody else is in this network yet" in alice.copy("bob@example.org").reason


async def test_an_unknown_address_that_joins_in_time_gets_the_message(
    world: UserAgentNetwork, alice: UserAgent
) -> None:
    alice.write("late@example.org")
    await alice.send()
    late = await world.user_agent("late")
    await alice.send()
    assert alice.copy(late).state is State.STORED
    assert alice.copy(late).reason == ""
    assert await late.collect() == 1


async def test_without_a_network_the_message_waits_with_its_reason_and_goes_soon_after(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    world.set_down()
    for _ in range(12):
        await alice.send()
    assert alice.copy(bob).state is State.QUEUED
    assert "No node" in alice.copy(bob).reason
    assert alice.entry().next_attempt - world.clock() <= 60
    world.set_down(down=False)
    world.clock.now += 60
    await alice.sending.run()
    assert alice.copy(bob).state is State.STORED
    assert alice.copy(bob).reason == ""


async def test_nodes_that_refuse_are_passed_over_and_their_words_kept_when_all_do(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    for node in world.nodes[:2]:
        node.refuses = "no space"
    alice.write(bob)
    await alice.send()
    assert alice.copy(bob).bodies == (3, 3)
    for node in world.nodes:
        node.refuses = "no space"
    alice.write(bob, message_id="second@example.org")
    await alice.send()
    assert alice.copy(bob, "second@example.org").state is State.QUEUED
    assert alice.copy(bob, "second@example.org").reason == "no space"


async def test_copies_that_are_missing_are_made_up_for(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    for node in world.nodes[1:]:
        node.refuses = "no space"
    alice.write(bob)
    await alice.send()
    assert (alice.copy(bob).state, alice.copy(bob).bodies) == (State.STORED, (1, 3))
    for node in world.nodes:
        node.refuses = ""
    await alice.send()
    assert alice.copy(bob).bodies == alice.copy(bob).notifications == (3, 3)


async def test_a_message_is_attempted_once_at_a_time(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, within = alice.sending._attempt, 0

    async def attempt(message_id: str, *, everything: bool) -> None:
        nonlocal within
        within += 1
        assert within == 1
        await real(message_id, everything=everything)
        within -= 1

    monkeypatch.setattr(alice.sending, "_attempt", attempt)
    alice.write(bob)
    await asyncio.gather(alice.send(), alice.send(), alice.sending.run())
    assert world.overlay.calls.count("append_inbox") == 1
    assert alice.entry().attempts == 2


async def test_two_regular_runs_attempt_a_message_once(alice: UserAgent, bob: UserAgent) -> None:
    alice.write(bob)
    await asyncio.gather(alice.sending.run(), alice.sending.run())
    assert alice.entry().attempts == 1


async def test_a_send_that_is_cancelled_leaves_no_upload_running(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob, message=plain_message(alice.address, [bob.address], "letter@example.org", noise(3 * MEGABYTE)))
    uploading = asyncio.Event()

    async def store(*_: object, **__: object) -> Outcome:
        uploading.set()
        await asyncio.Event().wait()
        raise AssertionError

    tasks = asyncio.all_tasks()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.overlay, "store", store)
        sending = asyncio.create_task(alice.send())
        await uploading.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
    assert asyncio.all_tasks() == tasks
    await alice.send()
    assert await bob.collect() == 1


async def test_many_messages_to_one_hold_up_nobody_elses(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, carol: UserAgent
) -> None:
    for number in range(20):
        alice.write(bob, message_id=f"bob{number}@example.org")
    alice.write(carol, message_id="carol@example.org")
    sent: list[str] = []
    real = alice.sending._attempt

    async def attempt(message_id: str, *, everything: bool) -> None:
        sent.append(message_id)
        await real(message_id, everything=everything)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alice.sending, "_attempt", attempt)
        await alice.send()
    assert sent.index("carol@example.org") == 1
    assert len(sent) == 21


async def test_a_send_that_was_interrupted_goes_on_where_it_was(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob, message=plain_message(alice.address, [bob.address], "letter@example.org", noise(6 * MEGABYTE)))
    world.overlay.uploaded = 0
    world.overlay.before = FailAt("store", after=3)
    await alice.send()
    assert alice.copy(bob).state is State.QUEUED
    assert world.overlay.uploaded >= 3 * 2 * MEGABYTE
    world.overlay.before = nothing
    alice.restart()
    await alice.send()
    kept = [of for node in world.nodes for (kind, _), of in node.objects.items() if kind == Kind.BODY]
    assert world.overlay.uploaded == sum(len(data) for of in kept for data, _ in of.values()), (
        "nothing that a node had was brought there again"
    )
    assert await bob.collect() == 1


async def test_a_body_that_was_begun_before_a_recipient_was_known_is_brought_for_her_too(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob, "late@example.org")
    await alice.send()
    assert [len(deleters) for deleters in world.overlay.bodies(Kind.BODY, body_at())] == [1, 1, 1]
    late = await world.user_agent("late")
    await alice.send()
    assert [len(deleters) for deleters in world.overlay.bodies(Kind.BODY, body_at())] == [2, 2, 2]
    await bob.collect()
    assert await late.collect() == 1


async def test_nodes_that_keep_a_body_without_knowing_a_late_recipient_do_not_count_for_her(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    """They would let it go when all they know of have deleted it."""
    alice.write(bob, "late@example.org")
    await alice.send()
    late = await world.user_agent("late")
    for node in world.nodes:
        node.refuses = "full"
    for _ in range(2):
        await alice.send()
        assert (alice.copy(late).state, alice.copy(late).bodies) == (State.QUEUED, (0, 3))
    for node in world.nodes:
        node.refuses = ""
    await alice.send()
    assert [len(deleters) for deleters in world.overlay.bodies(Kind.BODY, body_at())] == [2, 2, 2]
    assert await bob.collect() == 1
    assert await late.collect() == 1


async def test_what_is_sent_again_after_it_failed_is_kept_by_nodes_for_all_its_time(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    await alice.send()
    alice.outbox.record([("letter@example.org", replace(alice.copy(bob), notifications=(0, 3), failed=True))])
    world.overlay.uploaded = 0
    assert alice.outbox.retry("letter@example.org", world.clock())
    await alice.send()
    assert world.overlay.uploaded > 0, "the copies that nodes have would be gone earlier"
    assert alice.copy(bob).state is State.STORED


async def test_copies_for_somebody_whose_card_is_gone_are_mended(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    """Nodes keep a card for 30 days: somebody who is away for longer has none any more, and her mail is there."""
    alice.write(bob)
    await alice.send()
    for node in world.nodes:
        node.objects.clear()
    alice.forget_cards()
    for _ in range(8):
        world.clock.now += 3600
        await alice.send()
    assert (alice.copy(bob).state, alice.copy(bob).bodies) == (State.STORED, (3, 3))
    assert alice.troubles == []
    assert await bob.collect() == 1


async def test_a_message_file_that_was_changed_is_not_sent_under_the_same_name(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    entry = alice.write(bob)
    world.overlay.before = FailAt("append_inbox")
    await alice.send()
    assert alice.copy(bob).state is State.QUEUED
    world.overlay.before = nothing
    entry.file.write_bytes(entry.file.read_bytes() + b"P.S.\n")
    await alice.send()
    assert alice.copy(bob).state is State.FAILED
    assert "isn't what it was" in alice.copy(bob).reason
    assert len(alice.troubles) == 1
    assert world.overlay.inbox(bob.inbox_key) == set()


async def test_a_message_file_that_is_gone_fails_at_once(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob).file.unlink()
    await alice.send()
    assert alice.copy(bob).state is State.FAILED
    assert "gone" in alice.troubles[0]


async def test_a_message_that_is_too_large_fails_at_once(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "ORIGINAL_LIMIT", 10)
    alice.write(bob)
    await alice.send()
    assert alice.copy(bob).state is State.FAILED
    assert "too large" in alice.troubles[0]


async def test_a_message_that_cannot_be_announced_fails_at_once(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob, message_id="m" * 600 + "@example.org")
    await alice.send()
    assert alice.copy(bob, "m" * 600 + "@example.org").state is State.FAILED
    assert "can't be announced" in alice.copy(bob, "m" * 600 + "@example.org").reason
    assert len(alice.troubles) == 1


async def test_a_fault_of_one_message_holds_up_no_other(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, carol: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = alice.directory.card

    async def card(address: str) -> object:
        if address == bob.address:
            raise RuntimeError("a bug")
        return await real(address)

    monkeypatch.setattr(alice.directory, "card", card)
    alice.write(bob, message_id="one@example.org")
    alice.write(carol, message_id="two@example.org")
    await alice.send()
    assert alice.copy(carol, "two@example.org").state is State.STORED
    assert alice.copy(bob, "one@example.org").state is State.QUEUED
    assert "a bug" in alice.copy(bob, "one@example.org").reason
    assert alice.entry("one@example.org").next_attempt > world.clock()


async def test_an_outbox_that_cannot_be_written_is_said_when_the_other_messages_are_done(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, carol: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = alice.outbox.save_secrets

    def save_secrets(message_id: str, kept: object) -> None:
        if message_id == "one@example.org":
            raise DatabaseError("the disk is full")
        real(message_id, kept)  # type: ignore[arg-type]

    monkeypatch.setattr(alice.outbox, "save_secrets", save_secrets)
    alice.write(bob, message_id="one@example.org")
    alice.write(carol, message_id="two@example.org")
    with pytest.raises(DatabaseError):
        await alice.send()
    assert alice.copy(carol, "two@example.org").state is State.STORED
    monkeypatch.setattr(alice.outbox, "save_secrets", real)
    await alice.send()
    assert alice.copy(bob, "one@example.org").state is State.STORED


async def test_a_body_of_several_segments_is_stored_piece_by_piece_with_progress(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    text = noise(3 * MEGABYTE)
    alice.write(bob, message=plain_message(alice.address, [bob.address], "letter@example.org", text))
    await alice.send()
    assert len(bob.told().segments) == 4
    for index in range(4):
        assert len(world.overlay.bodies(Kind.BODY, body_at(index=index, many=True))) == 3
    steps = [event for event in alice.events if isinstance(event, Progress)]
    assert len(steps) == 5
    assert all(step.done < step.total for step in steps[:-1])
    assert steps[-1].done == steps[-1].total
    assert await bob.collect() == 1
    (received,) = bob.folder("Inbox")
    assert received.endswith(text)


async def test_an_upload_that_fails_leaves_no_other_one_running(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob, message=plain_message(alice.address, [bob.address], "letter@example.org", noise(3 * MEGABYTE)))
    world.overlay.before = FailAt("store", after=2)
    tasks = asyncio.all_tasks()
    await alice.send()
    assert asyncio.all_tasks() == tasks
    assert alice.copy(bob).state is State.QUEUED
    assert world.overlay.inbox(bob.inbox_key) == set()
    world.overlay.before = nothing
    await alice.send()
    assert await bob.collect() == 1


async def test_a_renewed_certificate_gets_a_salt_and_a_notification_of_its_own(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    world.overlay.before = FailAt("append_inbox")
    alice.write(bob)
    await alice.send()
    before = alice.copy(bob)
    person = world.issuer.person(bob.address, 77, serial=77)
    bob.owner = type(bob.owner)(person.certificate, person.sign)
    world.clock.now += 3600
    await bob.publish()
    world.overlay.before = nothing
    await alice.send()
    assert alice.copy(bob).salt != before.salt
    assert alice.copy(bob).certificate == person.certificate
    assert await bob.collect() == 1
    await alice.send()
    assert alice.copy(bob).state is State.COLLECTED


async def revoked(world: UserAgentNetwork, bob: UserAgent, *others: UserAgent) -> None:
    """Bob's certificate is revoked, and he joins anew: another key, another certificate, a card that says so."""
    crl = world.issuer.revoke([parse_certificate(bob.owner.certificate).serial], 1)
    for user_agent in (bob, *others):
        user_agent.trust.accept_revocations(crl, world.clock())
    person = world.issuer.person(bob.address, 77, serial=77)
    bob.owner = Owner(person.certificate, person.sign)
    world.clock.now += 3600
    await bob.publish()


async def test_who_was_revoked_and_joined_anew_is_written_to_again_and_proves_that_she_has_it(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, carol: UserAgent
) -> None:
    alice.write(bob, carol)
    await alice.send()
    before = alice.copy(bob)
    assert await carol.collect() == 1
    await revoked(world, bob, alice)
    assert await bob.collect() == 1  # parked mail opens, but what names the old certificate can't be deleted
    await alice.send()
    after = alice.copy(bob)
    assert (after.certificate, after.state) == (bob.owner.certificate, State.STORED)
    assert after.salt != before.salt
    assert alice.copy(carol).state is State.COLLECTED
    assert await bob.collect() == 0  # the same message: not delivered twice
    await alice.send()
    assert alice.copy(bob).state is State.COLLECTED


async def test_who_lost_her_keys_gets_what_is_on_its_way_sealed_to_the_new_ones(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    await alice.send()
    bob.pairs.clear()
    bob.new_key()
    await revoked(world, bob, alice)
    assert await bob.collect() == 0
    await alice.send()
    assert await bob.collect() == 1
    await alice.send()
    assert alice.copy(bob).state is State.COLLECTED


@pytest.mark.parametrize("call", ["store", "append_inbox"])
async def test_what_is_sealed_anew_for_who_joined_anew_counts_only_when_nodes_have_that(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, call: str
) -> None:
    """The attempt to send it is cut off: what nodes have was made for the revoked certificate."""
    alice.write(bob)
    await alice.send()
    bob.pairs.clear()
    bob.new_key()
    await revoked(world, bob, alice)
    world.overlay.before = FailAt(call)
    await alice.send()
    world.overlay.before = nothing
    assert alice.copy(bob).state is State.QUEUED
    alice.restart()
    await alice.send()
    assert await bob.collect() == 1
    await alice.send()
    assert alice.copy(bob).state is State.COLLECTED


async def test_a_renewed_certificate_changes_nothing_of_what_is_out(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    world.nodes[0].refuses = world.nodes[1].refuses = world.nodes[2].refuses = "full"
    await alice.send()
    before = alice.copy(bob)
    assert (before.state, before.notifications) == (State.STORED, (2, 3))
    bob.renew()
    world.clock.now += 3600
    world.nodes[0].refuses = ""
    await bob.publish()
    await alice.send()
    assert alice.copy(bob) == replace(before, bodies=(3, 3), notifications=(3, 3))
    assert await bob.collect() == 1
    await alice.send()
    assert alice.copy(bob).state is State.COLLECTED


async def test_mail_to_somebody_who_is_revoked_and_not_back_stays_what_it_is(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    await alice.send()
    alice.trust.accept_revocations(
        world.issuer.revoke([parse_certificate(bob.owner.certificate).serial], 1), world.clock()
    )
    for _ in range(5):
        world.clock.now += 3600
        await alice.send()
    assert alice.copy(bob).state is State.STORED
    assert alice.troubles == []


async def test_nothing_of_a_sender_who_was_revoked_is_called_stored(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, carol: UserAgent
) -> None:
    alice.write(bob, carol)
    await alice.send()
    assert await carol.collect() == 1
    alice.write(bob, message_id="second@example.org")

    def refuse() -> None:
        raise Revoked("The certificate of alice@example.org was revoked.")

    alice.may_send = refuse
    await alice.send()
    assert alice.copy(carol).state is State.COLLECTED
    for copy in (alice.copy(bob), alice.copy(bob, "second@example.org")):
        assert (copy.state, copy.reason) == (State.FAILED, "The certificate of alice@example.org was revoked.")
    lasting = [event for event in alice.events if isinstance(event, Trouble) and event.lasting]
    assert len(lasting) == 2 and "was revoked" in lasting[0].text
    assert world.overlay.bodies(Kind.BODY, body_at("second@example.org")) == []

    # With a new certificate it is sent again, signed with that.
    alice.may_send = lambda: None
    alice.renew()
    alice.outbox.retry("letter@example.org", world.clock())
    await alice.send()
    signed_by = {
        open_notification(data, bob.pairs, bob.address, bob.trust, world.clock())[1].der
        for data in world.overlay.inbox(bob.inbox_key)
    }
    assert len(signed_by) == 2 and alice.owner.certificate in signed_by
    assert await bob.collect() == 1
    await alice.send()
    assert alice.copy(bob).state is State.COLLECTED


async def test_under_a_certificate_that_has_ended_mail_waits_and_says_why(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)

    def refuse() -> None:
        raise CertificateExpired("The certificate of alice@example.org ended on 2027-01-01.")

    alice.may_send = refuse
    await alice.send()
    assert (alice.copy(bob).state, alice.copy(bob).reason) == (
        State.QUEUED,
        "The certificate of alice@example.org ended on 2027-01-01.",
    )
    alice.may_send = lambda: None
    await alice.send()
    assert alice.copy(bob).state is State.STORED


async def test_what_nobody_has_yet_is_sealed_to_the_key_in_use(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    world.overlay.before = FailAt("append_inbox")
    alice.write(bob)
    await alice.send()
    bob.pairs.clear()
    bob.new_key()
    world.clock.now += 3600
    await bob.publish()
    world.overlay.before = nothing
    await alice.send()
    assert await bob.collect() == 1


async def test_an_address_whose_card_is_away_for_some_minutes_isnt_given_up(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    for node in world.nodes[:3]:
        node.down = True  # and with them all copies of Bob's card
    alice.forget_cards()
    alice.write(bob)
    for _ in range(5):
        await alice.send()
        world.clock.now += 60
    assert alice.copy(bob).state is State.QUEUED
    assert "isn't known" in alice.copy(bob).reason
    for node in world.nodes:
        node.down = False
    await alice.send()
    assert alice.copy(bob).state is State.STORED


async def test_a_body_is_stored_for_each_group_of_recipients_and_collected_by_all(
    world: UserAgentNetwork, alice: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "MAX_DELETERS", 2)
    readers = [await world.user_agent(f"reader{number}") for number in range(5)]
    entry = alice.write(*readers)
    original, groups = entry.file.read_bytes(), entry_groups(entry)
    await alice.send()
    assert [r.state for r in alice.entry().recipients] == 5 * [State.STORED]
    assert Counter(Counter(groups.values()).values()) == {2: 2, 1: 1}
    assert world.overlay.bodies(Kind.BODY, body_at()) == []
    for group in set(groups.values()):
        members = [reader for reader in readers if groups[reader.address] == group]
        key = segment_key(entry.message_id, 0, False, group)
        assert [len(deleters) for deleters in world.overlay.bodies(Kind.BODY, key)] == 3 * [len(members)]
        assert {reader.told().group for reader in members} == {group}
    for reader in readers:
        assert await reader.collect() == 1
        assert reader.folder("Inbox") == [original]
    await alice.send()
    assert [r.state for r in alice.entry().recipients] == 5 * [State.COLLECTED]
    assert not any(objects for node in world.nodes for (kind, _), objects in node.objects.items() if kind == Kind.BODY)


async def test_a_send_to_groups_that_is_cut_off_goes_on_with_the_same_bytes_for_the_same_groups(
    world: UserAgentNetwork, alice: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "MAX_DELETERS", 2)
    readers = [await world.user_agent(f"reader{number}") for number in range(5)]
    alice.write(*readers)
    world.overlay.before = FailAt("append_inbox", after=2)
    await alice.send()
    assert Counter(r.state for r in alice.entry().recipients) == {State.STORED: 2, State.QUEUED: 3}
    world.overlay.before = nothing
    alice.restart()
    await alice.send()
    assert [r.state for r in alice.entry().recipients] == 5 * [State.STORED]
    assert [await reader.collect() for reader in readers] == 5 * [1]
    stored = [objects for node in world.nodes for (kind, _), objects in node.objects.items() if kind == Kind.BODY]
    assert stored == 3 * 3 * [{}], "each of three groups has one object at each of three nodes, and all are deleted"


async def test_copies_are_counted_for_each_group(
    world: UserAgentNetwork, alice: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "MAX_DELETERS", 1)
    readers = [await world.user_agent(f"reader{number}") for number in range(2)]
    entry = alice.write(*readers)
    await alice.send()
    lost = segment_key(entry.message_id, 0, False, entry_groups(entry)[readers[1].address])
    for node in world.nodes:
        node.objects.pop((Kind.BODY, lost), None)
    copies = await count_copies(world.overlay, alice.entry())
    assert [copies.bodies[reader.address].have for reader in readers] == [3, 0]
    assert [copies.lacking(reader.address) for reader in readers] == [False, True]


async def test_many_for_whom_a_message_failed_for_the_same_reason_are_one_lasting_trouble(
    world: UserAgentNetwork, alice: UserAgent
) -> None:
    alice.write(*[f"ghost{number}@example.org" for number in range(7)])
    for pause in (0, 5, 15, 60, 300, 900):
        world.clock.now += pause
        await alice.send()
    (trouble,) = [event for event in alice.events if isinstance(event, Trouble)]
    assert trouble == Trouble(
        '"Hello" to ghost0@example.org, ghost1@example.org, ghost2@example.org, ghost3@example.org, ghost4@example.org'
        " and 2 more failed: the address isn't known in this network. Your copy is in Sent.",
        lasting=True,
    )


async def test_an_end_of_which_the_user_was_not_told_when_the_process_died_is_told_by_the_next_one(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    alice.outbox.record([("letter@example.org", replace(alice.copy(bob), failed=True, reason="It is too large."))])
    for _ in range(2):
        alice.restart()
        await alice.send()
        assert alice.lasting == ['"Hello" to bob@example.org failed: It is too large. Your copy is in Sent.']


def test_up_to_1000_recipients_are_one_group_without_a_name() -> None:
    people = [f"reader{number}@example.org" for number in range(1001)]
    assert set(assign_groups(b"secret", people[:1000]).values()) == {b""}
    assert sorted(Counter(assign_groups(b"secret", people).values()).values()) == [500, 501]


def test_who_is_in_which_group_depends_on_the_secret_and_not_on_the_order() -> None:
    people = [f"reader{number}@example.org" for number in range(5000)]
    groups = assign_groups(b"secret", people)
    assert groups == assign_groups(b"secret", people[::-1])
    assert list(Counter(groups.values()).values()) == 5 * [1000]
    assert all(len(group) == 16 for group in groups.values())
    assert not set(groups.values()) & set(assign_groups(b"other", people).values())
    assert len({groups[person] for person in people[:100]}) == 5, "those who stand together aren't in one group"


def test_a_notification_with_a_group_is_read_back_and_one_without_is_what_it_was() -> None:
    recipient, sender = generate_pair(0.0), Issuer()
    person = sender.person("alice@example.org", 1, serial=1)
    owner = Owner(person.certificate, person.sign)
    headers = NotifiedHeaders("1@example.org", "alice@example.org", "", (), (), "Hello", 0.0, (), 10)
    segments = [Segment(0, 1100, bytes(32))]
    for group in (b"", b"g" * 16):
        told = notification_for(
            "bob@example.org",
            headers,
            session_key=b"k" * 32,
            segments=segments,
            salt=b"s" * 16,
            coding=None,
            group=group,
        )
        sealed = seal_notification(told, owner, recipient.public)
        opened, _ = open_notification(
            sealed, {recipient.key_id: recipient}, "bob@example.org", TrustStore([sender.der]), NOW
        )
        assert opened.group == group
    with pytest.raises(NotificationError):
        seal_notification(replace(told, group=b"g" * 15), owner, recipient.public)


async def test_a_recipient_whose_card_is_out_of_reach_holds_up_nobody_else(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, carol: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = alice.directory.card

    async def card(address: str) -> Card:
        if address == bob.address:
            raise Unreachable("No node answers now.")
        return await real(address)

    with monkeypatch.context() as patch:
        patch.setattr(alice.directory, "card", card)
        alice.write(bob, carol)
        await alice.send()
    assert alice.copy(carol).state is State.STORED
    assert (alice.copy(bob).state, alice.copy(bob).reason) == (State.QUEUED, "No node answers now.")
    await alice.send()
    assert alice.copy(bob).state is State.STORED


# -- how much at once, how soon again, what is told


async def test_four_messages_are_sent_at_the_same_time(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        alice.write(bob, message_id=f"{number}@example.org")
    crowd, append = Crowd(4), world.overlay.append_inbox

    async def appending(*args: bytes, ttl: float) -> Outcome:
        await crowd.pass_through()
        return await append(*args, ttl=ttl)

    monkeypatch.setattr(world.overlay, "append_inbox", appending)
    await alice.send()
    assert crowd.most == 4
    assert {entry.recipients[0].state for entry in alice.outbox.entries()} == {State.STORED}


async def test_thirty_two_recipients_are_looked_up_at_the_same_time(
    world: UserAgentNetwork, alice: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.write(*(f"reader{number}@example.org" for number in range(40)))
    crowd, fetch = Crowd(32), world.overlay.fetch_variants

    async def fetching(*args: int | bytes, **rest: int | None) -> list[bytes]:
        await crowd.pass_through()
        return await fetch(*args, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(world.overlay, "fetch_variants", fetching)
    await alice.send()
    assert crowd.most == 32


async def test_a_message_that_nobody_takes_is_tried_again_after_longer_and_longer_pauses(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    for node in world.nodes:
        node.refuses = "no space"
    for pause in (5.0, 15.0, 60.0, 300.0):
        await alice.send()
        assert alice.entry().next_attempt == world.clock() + pause


async def test_whether_it_was_collected_is_asked_after_longer_and_longer_pauses(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    for pause in (2.0, 5.0, 15.0, 60.0):
        await alice.send()
        assert alice.entry().next_attempt == world.clock() + pause


async def test_the_pauses_without_a_network_begin_anew_when_somebody_has_answered(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)

    async def tried(pause: float) -> None:
        await alice.send()
        assert alice.entry().next_attempt == world.clock() + pause

    away = FailAt("fetch_variants", Offline("This computer is offline."))
    world.overlay.before = away
    for pause in (5.0, 15.0, 60.0, 60.0):
        await tried(pause)
    await alice.sending.network_is_back()
    await tried(5.0)
    for node in world.nodes:
        node.refuses = "no space"
    world.overlay.before = nothing
    await tried(5.0)  # the first attempt that was answered
    world.overlay.before = away
    alice.forget_cards()
    await tried(5.0)
    assert alice.entry().attempts == 1


async def test_of_several_messages_it_is_told_how_many_are_done_and_of_one_how_many_recipients(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, carol: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asyncio_tools, "STEPS_TOLD_EVERY", 0.0)

    def told(what: str) -> list[tuple[int, int]]:
        return [(e.done, e.total) for e in alice.events if isinstance(e, Progress) and e.what.startswith(what)]

    alice.write(bob, carol)
    await alice.send()
    assert told("looking up") == told("notifying") == [(1, 2), (2, 2)]
    assert told("going through") == []
    alice.write(bob, message_id="second@example.org")
    await alice.send()
    assert told("going through") == [(1, 2), (2, 2)]
