"""Receiving: everything on disk before a node lets go of it, every message once, nothing believed, nothing lost."""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

from mail.checks.spam import Gtube
from mail.checks.virus import YaraCheck
from mail.events import Progress
from mail.receive import body_download as fetching
from mail.receive.segment_cache import SegmentCache
from mail.sealed.body import Opener
from mail.sealed.notification import Notification, seal_notification
from overlay.errors import NotFound, Offline, Unreachable
from overlay.ids import Kind
from overlay.kademlia.inbox_read import InboxRead
from overlay.protocol_limits import RETENTION
from storage.database import DatabaseError
from storage.user.outbox import State
from tests.mail.fakes import Crowd, FailAt, nothing
from tests.mail.user_agents import UserAgent, UserAgentNetwork, a_good_one, body_at, plain_message

DAY = 86400.0


async def test_a_message_is_filed_acknowledged_and_deleted_at_the_nodes(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    original = alice.write(bob).file.read_bytes()
    await alice.send()
    assert await bob.collect() == 1
    assert bob.folder("Inbox") == [original]
    assert world.overlay.inbox(bob.inbox_key) == set()
    assert world.overlay.bodies(Kind.BODY, body_at()) == []
    (event,) = bob.new_mail
    assert (event.message_id, event.sender, event.folder) == ("letter@example.org", alice.address, "Inbox")
    assert bob.troubles == []
    assert bob.receiving.late == 0
    assert list(bob.profile.spool.iterdir()) == []


async def test_notifications_are_on_disk_before_a_node_is_told_to_delete_them(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    await alice.send()
    kept: list[int] = []

    def before(call: str) -> None:
        if call == "acknowledge_inbox":
            kept.append(len(bob.state.pending(world.clock())))

    world.overlay.before = before
    await bob.collect()
    assert kept[0] == 1


async def test_a_disk_that_is_full_when_notifications_come_has_none_of_them_acknowledged(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.write(bob)
    await alice.send()
    monkeypatch.setattr(bob.state, "take_over", refuse(DatabaseError("the disk is full")))
    with pytest.raises(DatabaseError):
        await bob.collect()
    assert "acknowledge_inbox" not in world.overlay.calls
    assert len(world.overlay.inbox(bob.inbox_key)) == 1
    bob.restart()
    assert await bob.collect() == 1


async def test_a_disk_that_is_full_at_filing_keeps_the_notification_and_says_so(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.write(bob)
    await alice.send()
    monkeypatch.setattr(bob.filing, "file", refuse(OSError(28, "No space left on device")))
    assert await bob.collect() == 0
    assert bob.receiving.late == 1
    assert len(bob.troubles) == 1
    assert "No space left" in bob.troubles[0]
    await bob.collect()
    assert len(bob.troubles) == 1  # said once, not at every try
    assert len(world.overlay.bodies(Kind.BODY, body_at())) == 3
    bob.restart()
    assert await bob.collect() == 1
    await alice.send()
    assert alice.copy(bob).state is State.COLLECTED


async def test_a_body_whose_digest_is_wrong_at_one_node_is_had_from_another(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    original = alice.write(bob).file.read_bytes()
    await alice.send()
    world.nodes[0].lies = True
    assert await bob.collect() == 1
    assert bob.folder("Inbox") == [original]


async def test_a_body_whose_digest_is_wrong_everywhere_is_not_filed(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    await alice.send()
    for node in world.nodes:
        node.lies = True
    assert await bob.collect() == 0
    assert bob.everywhere() == []
    assert bob.receiving.late == 1
    for node in world.nodes:
        node.lies = False
    assert await bob.collect() == 1


async def test_a_body_that_nobody_has_is_tried_again_and_at_last_lost_and_told(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    await alice.send()
    for node in world.nodes:
        node.objects.pop((Kind.BODY, body_at()), None)
    assert await bob.collect() == 0
    assert len(bob.troubles) == 1
    assert "can't be collected yet" in bob.troubles[0]
    (waiting,) = bob.state.pending(float("inf"))
    assert waiting.attempts == 1
    world.clock.now += RETENTION
    await bob.collect()
    assert bob.lasting == []
    world.clock.now += 1
    await bob.collect()
    (told,) = bob.lasting
    assert '"Hello" from' in told
    assert "is lost" in told
    assert bob.receiving.late == 0
    world.clock.now += RETENTION + 1
    await bob.collect()
    assert bob.state.pending(float("inf")) == []
    assert bob.lasting == [told]


async def test_a_message_that_was_called_lost_under_a_wrong_clock_is_collected(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    await alice.send()
    world.overlay.before = FailAt("fetch", NotFound("None has it."))
    await bob.collect()
    await bob.collect()
    world.clock.now += 400 * DAY
    await bob.collect()
    assert len(bob.lasting) == 1
    world.clock.now -= 400 * DAY
    world.overlay.before = nothing
    assert await bob.collect() == 1


async def test_a_lost_message_that_its_sender_stores_again_is_collected(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    await alice.send()
    (notification,) = world.overlay.inbox(bob.inbox_key)
    bodies = {node.number: node.objects.pop((Kind.BODY, body_at()), {}) for node in world.nodes}
    for _ in range(4):
        await bob.collect()
        world.clock.now += RETENTION + 1
    assert bob.state.pending(float("inf")) == []
    for node in world.nodes:
        node.objects[Kind.BODY, body_at()] = bodies[node.number]
    await bob.get(notification)
    assert await bob.collect() == 1


async def test_a_message_is_not_called_lost_because_nobody_answers(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    await alice.send()
    world.overlay.before = FailAt("fetch", Unreachable("No node answers."))
    await bob.collect()
    world.clock.now += 40 * DAY
    await bob.collect()
    assert bob.lasting == []
    (waiting,) = bob.state.pending(float("inf"))
    world.overlay.before = nothing
    world.clock.now += 60  # soon after the network is back
    assert await bob.receiving.run() == 1
    assert waiting.attempts == 0  # nobody answered


async def test_being_offline_is_no_trouble_and_counts_as_no_attempt(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    await alice.send()
    world.overlay.before = FailAt("fetch", Offline("This computer is offline."))
    for _ in range(10):
        await bob.collect()
    (waiting,) = bob.state.pending(float("inf"))
    assert (waiting.attempts, bob.troubles) == (0, [])
    world.overlay.before = FailAt("delete", Offline("This computer is offline."))
    assert await bob.collect() == 1
    (owed,) = bob.state.owed_deletes(float("inf"))
    assert owed.attempts == 0


async def test_no_inbox_that_answers_is_an_error_but_what_was_taken_is_worked_on(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    await alice.send()
    world.overlay.before = FailAt("fetch", NotFound("None has it."))
    await bob.collect()
    world.overlay.before = FailAt("read_inbox", Unreachable("No node answers."))
    with pytest.raises(Unreachable):
        await bob.collect()
    assert len(bob.folder("Inbox")) == 1


async def test_a_notification_that_is_replayed_brings_nothing_again(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    await alice.send()
    (notification,) = world.overlay.inbox(bob.inbox_key)
    await bob.collect()
    for _ in range(2):
        await bob.get(notification)
        fetches = world.overlay.calls.count("fetch")
        assert await bob.collect() == 0
        assert world.overlay.calls.count("fetch") == fetches
        assert world.overlay.inbox(bob.inbox_key) == set()
        bob.restart()
    assert len(bob.everywhere()) == 1


async def test_two_notifications_of_one_message_file_it_once(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    good = await a_good_one(alice, bob)
    both = [seal_notification(good, alice.owner, bob.pair.public) for _ in range(6)]
    await bob.get(*both)
    assert await bob.collect() == 1
    assert len(bob.everywhere()) == 1
    assert bob.state.pending(float("inf")) == []


async def test_another_message_with_the_same_message_id_is_not_taken_for_a_duplicate(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    first = alice.write(bob).file.read_bytes()
    await alice.send()
    await bob.collect()
    await alice.send()
    alice.outbox.forget("letter@example.org")
    second = plain_message(alice.address, [bob.address], "letter@example.org", b"Something else.\n")
    alice.write(bob, message=second)
    await alice.send()
    assert await bob.collect() == 1
    assert sorted(bob.folder("Inbox")) == sorted([first, second])


async def test_mail_sealed_to_the_previous_key_is_opened(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    await alice.send()
    bob.new_key()
    await bob.publish()
    assert await bob.collect() == 1


async def test_what_a_deaf_node_offers_again_is_not_filed_again(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    world.nodes[0].deaf = True
    alice.write(bob)
    await alice.send()
    assert await bob.collect() == 1
    assert await bob.collect() == 0
    assert len(bob.everywhere()) == 1


async def test_deletes_that_too_few_nodes_heard_are_owed_until_they_did(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    await alice.send()
    world.overlay.before = FailAt("delete", Unreachable("No node answers."))
    assert await bob.collect() == 1
    assert len(bob.state.owed_deletes(world.clock() + 3600)) == 1
    world.overlay.before = nothing
    bob.restart()
    world.clock.now += 3600
    await bob.collect()
    assert bob.state.owed_deletes(world.clock() + 3600) == []
    assert world.overlay.bodies(Kind.BODY, body_at()) == []


async def test_one_messages_fault_holds_up_no_other(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.write(bob, message_id="one@example.org")
    alice.write(bob, message_id="two@example.org")
    await alice.send()
    real = bob.filing.file

    def file(hash_: bytes, spooled: Path, notification: Notification) -> str:
        if notification.message_id == "one@example.org":
            raise RuntimeError("a bug")
        return real(hash_, spooled, notification)

    monkeypatch.setattr(bob.filing, "file", file)
    assert await bob.collect() == 1
    assert len(bob.folder("Inbox")) == 1
    assert bob.receiving.late == 1
    assert "a bug" in bob.troubles[0]
    monkeypatch.setattr(bob.filing, "file", real)
    assert await bob.collect() == 1


async def test_a_long_message_comes_with_progress_and_in_little_memory(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    text = random.Random(2).randbytes(6 << 20)
    original = alice.write(bob, message=plain_message(alice.address, [bob.address], "letter@example.org", text))
    await alice.send()
    assert await bob.collect() == 1
    assert bob.folder("Inbox") == [original.file.read_bytes()]
    steps = [event for event in bob.events if isinstance(event, Progress)]
    assert len(steps) == 8
    assert all(step.done < step.total for step in steps[:-1])
    assert steps[-1].done == steps[-1].total


async def test_collecting_and_checking_60_mb_takes_the_memory_of_a_few_segments(
    alice: UserAgent, bob: UserAgent
) -> None:
    bob.checks[:] = [YaraCheck(), Gtube()]
    bob.restart()
    text = random.Random(3).randbytes(60_000_000)
    original = alice.write(bob, message=plain_message(alice.address, [bob.address], "letter@example.org", text))
    await alice.send()
    tracemalloc.start()
    try:
        assert await bob.collect() == 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 << 20  # of which the shown text takes most: a mebibyte of it at the most
    (entry,) = bob.profile.folders().scan("Inbox")
    with original.file.open("rb") as sent, (bob.profile.folders().folder("Inbox") / entry.place).open("rb") as filed:
        assert hashlib.file_digest(filed, "sha256").digest() == hashlib.file_digest(sent, "sha256").digest()


async def test_collecting_that_is_cancelled_while_it_files_ends_when_that_is_done(
    alice: UserAgent, bob: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.write(bob)
    await alice.send()
    loop = asyncio.get_running_loop()
    real = bob.filing.file
    begun, may_go_on = asyncio.Event(), threading.Event()

    def file(hash_: bytes, spooled: Path, notification: Notification) -> str:
        loop.call_soon_threadsafe(begun.set)
        may_go_on.wait(30)
        return real(hash_, spooled, notification)

    monkeypatch.setattr(bob.filing, "file", file)
    collecting = asyncio.create_task(bob.collect())
    await begun.wait()
    collecting.cancel()
    for _ in range(3):
        await asyncio.to_thread(lambda: None)
    assert not collecting.done()
    may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await collecting
    assert len(bob.everywhere()) == 1
    bob.restart()
    await bob.collect()
    assert len(bob.everywhere()) == 1
    assert bob.state.pending(float("inf")) == []


async def test_collecting_goes_on_where_it_was_when_the_process_died(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    original = long_message(alice, bob)
    await alice.send()
    world.overlay.before = FailAt("fetch", Unreachable("No node answers."), after=5)
    assert await bob.collect() == 0
    bob.restart()
    before = world.overlay.calls.count("fetch")
    world.overlay.before = nothing
    assert await bob.collect() == 1
    assert bob.folder("Inbox") == [original]
    assert world.overlay.calls.count("fetch") - before == 7 - 5
    assert list(bob.profile.spool.iterdir()) == []
    steps = [event for event in bob.events if isinstance(event, Progress)]
    assert steps[-1].what == "collecting Hello, going on where it was"


async def test_what_is_torn_or_changed_of_what_was_kept_is_fetched_again(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    original = long_message(alice, bob)
    await alice.send()
    world.overlay.before = FailAt("fetch", Unreachable("No node answers."), after=5)
    await bob.collect()
    kept = sorted(next(bob.profile.spool.glob("*.parts")).iterdir())
    kept[0].write_bytes(kept[0].read_bytes()[:1000])
    kept[1].write_bytes(bytes(1 << 20))
    before = world.overlay.calls.count("fetch")
    world.overlay.before = nothing
    assert await bob.collect() == 1
    assert bob.folder("Inbox") == [original]
    assert world.overlay.calls.count("fetch") - before == 2 + 2


async def test_what_a_dead_process_left_of_settled_messages_is_swept_and_nothing_else(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    long_message(alice, bob)
    await alice.send()
    world.overlay.before = FailAt("fetch", Unreachable("No node answers."), after=5)
    await bob.collect()
    (waiting,) = bob.state.pending(float("inf"))
    spool = bob.profile.spool
    for name in (f"{'a' * 64}.parts", "somebody-else.parts"):
        (spool / name).mkdir()
        (spool / name / "0000").write_bytes(b"sealed")
    (spool / f"{waiting.hash.hex()}.eml").write_bytes(b"half of it")
    (spool / "forward-1.eml").write_bytes(b"a draft's")
    bob.restart()
    await bob.collect()
    assert {path.name for path in spool.iterdir()} == {
        f"{waiting.hash.hex()}.parts",
        "somebody-else.parts",
        "forward-1.eml",
    }


async def test_a_message_for_which_the_disk_has_no_room_is_told_and_stays_at_the_nodes(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    long_message(alice, bob)
    await alice.send()
    world.room = 64 << 20
    for _ in range(2):
        assert await bob.collect() == 0
    (told,) = bob.lasting
    assert "it needs 12.7 MB on the disk, which aren't free" in told
    assert bob.receiving.late == 1
    assert "fetch" not in world.overlay.calls
    world.room = 80 << 20
    assert await bob.collect() == 1


def long_message(alice: UserAgent, bob: UserAgent) -> bytes:
    """A message of 6 MiB that can't be compressed, in 7 segments; its bytes."""
    text = random.Random(2).randbytes(6 << 20)
    return alice.write(
        bob, message=plain_message(alice.address, [bob.address], "letter@example.org", text)
    ).file.read_bytes()


def refuse(error: Exception) -> Callable[..., object]:
    def refusing(*_: object) -> object:
        raise error

    return refusing


async def test_a_message_to_a_certificate_that_was_renewed_meanwhile_is_deleted_and_known_to_be_collected(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    await alice.send()
    bob.renew()
    assert await bob.collect() == 1
    assert world.overlay.bodies(Kind.BODY, body_at()) == []
    assert bob.state.owed_deletes(world.clock() + 1e6) == []
    await alice.send()
    assert alice.copy(bob).state is State.COLLECTED


# -- how much at once, how often, how soon again


async def test_four_messages_are_collected_at_the_same_time(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        alice.write(bob, message_id=f"{number}@example.org")
    await alice.send()
    crowd, fetch = Crowd(4), world.overlay.fetch

    async def fetching(*args: int | bytes, **rest: bytes | None) -> bytes:
        await crowd.pass_through()
        return await fetch(*args, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(world.overlay, "fetch", fetching)
    assert await bob.collect() == 6
    assert crowd.most == 4


async def test_eight_deletes_are_made_at_the_same_time(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        alice.write(bob, message_id=f"{number}@example.org")
    await alice.send()
    crowd, delete = Crowd(8), world.overlay.delete

    async def deleting(*args: bytes, **rest: int | None) -> object:
        await crowd.pass_through()
        return await delete(*args, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(world.overlay, "delete", deleting)
    assert await bob.collect() == 10
    assert crowd.most == 8
    assert bob.state.owed_deletes(float("inf")) == []


@pytest.mark.parametrize(("more", "readings"), [(False, 1), (True, 20)])
async def test_an_inbox_is_read_again_while_nodes_have_more_and_at_most_twenty_times_in_a_row(
    world: UserAgentNetwork,
    alice: UserAgent,
    bob: UserAgent,
    monkeypatch: pytest.MonkeyPatch,
    more: bool,
    readings: int,
) -> None:
    world.nodes[0].deaf = True  # it offers the same again and again
    alice.write(bob)
    await alice.send()
    read = world.overlay.read_inbox

    async def with_more(*args: bytes) -> list[InboxRead]:
        return [replace(reading, more=more) for reading in await read(*args)]  # type: ignore[arg-type]

    monkeypatch.setattr(world.overlay, "read_inbox", with_more)
    assert await bob.collect() == 1
    assert world.overlay.calls.count("read_inbox") == readings


async def test_an_inbox_whose_nodes_hear_no_acknowledgement_is_not_read_again(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    for node in world.nodes:
        node.deaf = True
    alice.write(bob)
    await alice.send()
    read = world.overlay.read_inbox

    async def with_more(*args: bytes) -> list[InboxRead]:
        return [replace(reading, more=True) for reading in await read(*args)]  # type: ignore[arg-type]

    monkeypatch.setattr(world.overlay, "read_inbox", with_more)
    assert await bob.collect() == 1
    assert world.overlay.calls.count("read_inbox") == 1


async def test_the_spool_is_swept_once_by_each_process(
    alice: UserAgent, bob: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeps: list[int] = []
    monkeypatch.setattr(SegmentCache, "sweep", lambda *_: sweeps.append(1))
    bob.restart()
    await bob.collect()
    await bob.collect()
    assert len(sweeps) == 1


def due(bob: UserAgent, pause: float) -> bool:
    """Whether what waits is due in `pause` seconds, and not before."""
    now = bob.world.clock()
    return bob.state.pending(now + pause - 0.5) == [] != bob.state.pending(now + pause)


async def test_a_message_that_can_not_be_had_is_tried_again_after_longer_and_longer_pauses(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    await alice.send()
    world.overlay.before = FailAt("fetch", NotFound("None has it."))
    for pause in (5.0, 15.0, 60.0, 300.0):
        await bob.collect()
        assert due(bob, pause)
    world.overlay.before = FailAt("fetch", Unreachable("No node answers."))
    await bob.collect()
    assert due(bob, 60.0)  # whether the network is back is asked often


async def test_what_is_lost_is_fetched_again_after_an_hour_four_hours_and_each_day(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    await alice.send()
    world.overlay.before = FailAt("fetch", NotFound("None has it."))
    await bob.collect()
    world.clock.now += 31 * DAY
    await bob.collect()
    assert bob.lasting == [], "one attempt proves nothing"
    await bob.collect()
    assert len(bob.lasting) == 1
    world.clock.now += 900
    await bob.receiving.run()
    assert due(bob, 86_400.0)
    for _ in range(2):
        world.clock.now += 86_400
        await bob.receiving.run()
        assert due(bob, 86_400.0)


async def test_a_delete_is_tried_again_after_longer_and_longer_pauses(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    await alice.send()
    for node in world.nodes:
        node.refuses = "The disk is full."
    await bob.collect()
    for pause in (5.0, 15.0, 60.0):
        now = world.clock()
        assert bob.state.owed_deletes(now + pause - 0.5) == [] != bob.state.owed_deletes(now + pause)
        world.clock.now += pause
        await bob.collect()
    assert len(bob.state.owed_deletes(world.clock() + 4 * 3600)) == 1, "no node has heard it"
    world.nodes[0].refuses = ""
    world.clock.now += 300
    await bob.collect()
    assert bob.state.owed_deletes(world.clock() + 4 * 3600) == []


async def test_a_delete_that_too_few_nodes_hear_is_left_to_expiry_after_three_more_attempts(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    alice.write(bob)
    await alice.send()
    for node in world.nodes[2:]:
        node.refuses = "The disk is full."
    await bob.collect()
    for left in (1, 1, 0):
        world.clock.now += DAY
        await bob.collect()
        assert len(bob.state.owed_deletes(world.clock() + 4 * 3600)) == left


async def test_a_message_of_which_the_disk_kept_nothing_is_not_filed_and_stays_at_the_nodes(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = alice.write(bob).file.read_bytes()
    await alice.send()

    class WritesNowhere(Opener):
        def __init__(self, session_key: bytes, original_size: int, target: BinaryIO) -> None:
            super().__init__(session_key, original_size, target)
            self._file = target

        def finish(self) -> int:
            written = super().finish()
            self._file.seek(0)
            self._file.truncate()
            return written

    with monkeypatch.context() as patch:
        patch.setattr(fetching, "Opener", WritesNowhere)
        assert await bob.collect() == 0
    assert bob.everywhere() == []
    assert len(world.overlay.bodies(Kind.BODY, body_at())) > 0
    assert "the disk has 0 bytes of it" in bob.troubles[0]
    assert await bob.collect() == 1
    assert bob.folder("Inbox") == [original]
