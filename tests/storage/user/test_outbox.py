"""The outbox keeps what it accepted, and says only what is true."""

from __future__ import annotations

import errno
import os
import random
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import durable
from storage.database import DatabaseDamaged, DatabaseError
from storage.user.outbox import (
    NEVER,
    AlreadySent,
    Envelope,
    NotSettled,
    Outbox,
    OutboxEntry,
    OutboxError,
    Recipient,
    Secrets,
    State,
    state_of,
)
from tests.simulation.disk import Disk, watched

NOW = 1_700_000_000.0
KEY = b"k" * 32
"""The session key of every message that the fixture's outbox accepts."""


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "outbox" / "outbox.sqlite", now=lambda: NOW, random=lambda size: b"k" * size)


def accept(outbox: Outbox, number: int = 1, *recipients: str, message: bytes | Path = b"raw \xff\r\n") -> OutboxEntry:
    outbox.accept(
        message,
        Envelope(
            f"{number}@x", subject="Plan", sender="eve@x", recipients=recipients or ("a@x", "b@x"), created=NOW + number
        ),
    )
    entry = outbox.entry(f"{number}@x")
    assert entry is not None
    return entry


def learn(outbox: Outbox, message_id: str, facts: Recipient) -> Recipient:
    (noted,) = outbox.record([(message_id, facts)])
    return noted


def reopened(outbox: Outbox) -> Outbox:
    return Outbox(outbox._db.path, now=lambda: NOW, random=lambda size: b"n" * size)


def files(outbox: Outbox) -> set[str]:
    return {path.name for path in outbox.folder.iterdir() if "sqlite" not in path.name}


def test_an_accepted_message_is_there_for_the_next_process_byte_for_byte(outbox: Outbox, tmp_path: Path) -> None:
    source = tmp_path / "letter"
    source.write_bytes(b"x" * 3_000_000)
    accept(outbox, 1)
    accept(outbox, 2, "c@x", message=source)
    later, first = reopened(outbox).entries()
    assert first.file.read_bytes() == b"raw \xff\r\n"
    assert (first.subject, first.sender, first.created, first.size) == ("Plan", "eve@x", NOW + 1, 7)
    assert [recipient.address for recipient in first.recipients] == ["a@x", "b@x"]
    assert {recipient.state for recipient in first.recipients} == {State.QUEUED}
    assert later.file.read_bytes() == source.read_bytes()


def test_the_file_and_the_database_are_for_the_user_alone(outbox: Outbox) -> None:
    entry = accept(outbox)
    for path in (entry.file, outbox._db.path):
        assert path.stat().st_mode & 0o777 == 0o600


def test_the_same_message_again_is_accepted_once(outbox: Outbox) -> None:
    first = accept(outbox, 1, "a@x", "b@x", "a@x")
    assert accept(outbox, 1, "b@x", "a@x") == first
    assert (
        outbox.accept(
            b"raw \xff\r\n", Envelope("1@x", subject="Plan", sender="eve@x", recipients=["a@x", "b@x"], created=NOW)
        )
        is False
    )
    assert files(outbox) == {first.file.name}


def test_another_message_with_the_same_message_id_is_refused(outbox: Outbox) -> None:
    first = accept(outbox, 1)
    with pytest.raises(AlreadySent, match="not accepted"):
        accept(outbox, 1, message=b"another")
    with pytest.raises(AlreadySent):
        accept(outbox, 1, "z@x")
    assert outbox.entries() == [first]
    assert files(outbox) == {first.file.name}


def test_a_message_for_nobody_is_refused(outbox: Outbox) -> None:
    with pytest.raises(OutboxError, match="without recipients"):
        outbox.accept(b"x", Envelope("1@x", subject="", sender="eve@x", recipients=[], created=NOW))


def test_a_full_disk_is_a_refusal_and_leaves_nothing(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(durable, "sync_folder", full)
        with pytest.raises(OSError, match="No space"):
            accept(outbox)
    assert outbox.entries() == []
    assert files(outbox) == set()


def test_a_database_that_cannot_be_written_is_a_refusal_and_leaves_nothing(outbox: Outbox) -> None:
    other = sqlite3.connect(outbox._db.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # another process that hangs in a transaction
    outbox._db._connection.execute("PRAGMA busy_timeout=0")
    with pytest.raises(DatabaseError, match="nothing of this was kept"):
        accept(outbox)
    other.close()
    assert outbox.entries() == []
    assert files(outbox) == set()


def test_a_damaged_outbox_is_a_readable_error_and_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(DatabaseDamaged, match="left as it is"):
        Outbox(path)
    assert path.read_bytes() == b"not a database" * 1000


def test_an_outbox_of_a_newer_version_is_left_alone(outbox: Outbox) -> None:
    accept(outbox)
    outbox._db._connection.execute("PRAGMA user_version=99")
    with pytest.raises(DatabaseError, match="newer"):
        reopened(outbox)


def test_an_outbox_of_the_first_version_is_opened_with_its_messages(outbox: Outbox) -> None:
    accept(outbox)
    outbox.save_secrets("1@x", Secrets(KEY, [(5, b"d" * 32)]))
    outbox._db._connection.executescript(
        "ALTER TABLE letter DROP COLUMN coding; ALTER TABLE letter DROP COLUMN group_secret;"
        " ALTER TABLE letter DROP COLUMN scheduled; ALTER TABLE letter DROP COLUMN copy;"
        " ALTER TABLE recipient DROP COLUMN unknown_since;"
        " ALTER TABLE letter DROP COLUMN begun;"
        " ALTER TABLE recipient DROP COLUMN reported;"
        " ALTER TABLE recipient DROP COLUMN gone_since; PRAGMA user_version=1;"
    )
    again = reopened(outbox)
    entry = again.entry("1@x")
    assert entry is not None and entry.secrets == Secrets(KEY, [(5, b"d" * 32)], b"", b"n" * 32)
    again.save_secrets("1@x", Secrets(KEY, [(5, b"d" * 32)]))
    assert len(reopened(again).entries()) == 1


def test_a_session_key_is_drawn_when_a_message_is_accepted_and_never_again(outbox: Outbox) -> None:
    assert accept(outbox).secrets == Secrets(KEY, [], b"", KEY)
    for box in (outbox, reopened(outbox)):
        entry = box.entry("1@x")
        assert entry is not None and entry.secrets == Secrets(KEY, [], b"", KEY)


def test_a_message_that_an_earlier_version_accepted_without_a_session_key_gets_one_once(outbox: Outbox) -> None:
    accept(outbox, 1)
    accept(outbox, 2, "a@x")
    learn(outbox, "2@x", Recipient("a@x", (1, 1), (1, 1), proof=b"signed"))
    outbox._db.write(
        lambda connection: connection.execute("UPDATE letter SET session_key = NULL, group_secret = NULL") and None
    )
    again = reopened(outbox)
    drawn, collected = again.entry("1@x"), again.entry("2@x")
    assert drawn is not None and drawn.secrets == Secrets(b"n" * 32, [], b"", b"n" * 32)
    assert collected is not None and collected.secrets is None, "nobody will need it"
    for box in (outbox, Outbox(outbox._db.path, random=lambda size: b"z" * size)):
        assert box.entry("1@x") == drawn


def test_how_a_body_is_coded_never_changes(outbox: Outbox) -> None:
    accept(outbox)
    outbox.save_secrets("1@x", Secrets(KEY, [], b"\x02\x03" + bytes(32)))
    with pytest.raises(OutboxError, match="coded in another way"):
        outbox.save_secrets("1@x", Secrets(KEY, [], b"\x03\x05" + bytes(32)))
    entry = reopened(outbox).entry("1@x")
    assert entry is not None and entry.secrets is not None and entry.secrets.coding == b"\x02\x03" + bytes(32)


def test_only_old_files_without_a_message_are_swept(outbox: Outbox) -> None:
    entry = accept(outbox)
    for name, age in ((entry.file.name, 90_000), ("dead.eml", 90_000), (".1234.tmp", 90_000), ("young.eml", 60)):
        (outbox.folder / name).touch()
        os.utime(outbox.folder / name, (NOW - age, NOW - age))
    reopened(outbox)
    assert files(outbox) == {entry.file.name, "young.eml"}


@pytest.mark.parametrize(("age", "left"), [(86_400, True), (86_401, False)])
def test_a_file_without_a_message_is_swept_after_a_day(outbox: Outbox, age: int, left: bool) -> None:
    (outbox.folder / "dead.eml").touch()
    os.utime(outbox.folder / "dead.eml", (NOW - age, NOW - age))
    reopened(outbox)
    assert (files(outbox) == {"dead.eml"}) == left


def test_what_is_only_read_shows_every_message_with_its_file(outbox: Outbox) -> None:
    entry = accept(outbox)
    reading, whole = Outbox.to_read(outbox._db.path)
    assert (reading.entries(), whole) == ([entry], True)


def test_an_outbox_that_is_closed_is_not_used_any_more(outbox: Outbox) -> None:
    outbox.close()
    with pytest.raises(DatabaseError):
        outbox.entries()


def test_a_commit_that_fails_after_it_was_made_is_an_acceptance(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = outbox._db.write

    def write(action: Callable[[sqlite3.Connection], object]) -> object:
        real(action)
        raise DatabaseError("the disk failed at the last moment")

    with monkeypatch.context() as patch:
        patch.setattr(outbox._db, "write", write)
        assert (
            outbox.accept(b"raw", Envelope("1@x", subject="Plan", sender="eve@x", recipients=["a@x"], created=NOW))
            is True
        )
    (entry,) = outbox.entries()
    assert entry.file.read_bytes() == b"raw"


@pytest.mark.parametrize("seed", range(4))
def test_a_message_that_is_taken_over_is_synced_before_it_is_promised(tmp_path: Path, seed: int) -> None:
    message = os.urandom(40_000)
    root = tmp_path / "profile"
    root.mkdir()
    disk = Disk(root)
    with watched(disk):
        outbox = Outbox(root / "outbox" / "outbox.sqlite", now=lambda: NOW)
        spooled = root / "message.eml"
        spooled.write_bytes(message)  # whoever wrote it didn't sync it
        envelope = Envelope("1@x", subject="Plan", sender="eve@x", recipients=["a@x"], created=NOW)
        assert outbox.accept(spooled, envelope, consume=True)
        assert not spooled.exists(), "it was moved, not copied"
        disk.cut(tmp_path / "after", random.Random(seed))
        outbox.close()
    disk.close()
    (entry,) = Outbox(tmp_path / "after" / "outbox" / "outbox.sqlite", now=lambda: NOW).entries()
    assert entry.file.read_bytes() == message


def test_for_whom_a_body_was_begun_is_kept(outbox: Outbox) -> None:
    accept(outbox)
    outbox.save_secrets("1@x", Secrets(KEY, [(5, b"d")], b"coding", KEY, b"members"))
    entry = reopened(outbox).entry("1@x")
    assert entry is not None and entry.secrets == Secrets(KEY, [(5, b"d")], b"coding", KEY, b"members")


def test_the_time_of_a_message_can_begin_anew(outbox: Outbox) -> None:
    assert accept(outbox, 500).created == NOW + 500
    outbox.restart_lifetime("500@x")
    entry = outbox.entry("500@x")
    assert entry is not None and entry.created == NOW


def test_what_is_learnt_is_there_for_the_next_attempt(outbox: Outbox) -> None:
    entry = accept(outbox)
    facts = Recipient("b@x", (9, 10), (8, 10), b"s" * 16, b"cert", b"sealed", None, reason="two nodes refused")
    assert learn(outbox, entry.message_id, facts) == facts
    secrets = Secrets(KEY, [(5, b"d" * 32), (6, b"e" * 32)], b"", KEY)
    outbox.save_secrets(entry.message_id, secrets)
    kept = reopened(outbox).entry(entry.message_id)
    assert kept is not None
    assert kept.recipients == (Recipient("a@x"), facts)
    assert kept.secrets == secrets


def test_a_session_key_and_segments_that_were_used_do_not_change(outbox: Outbox) -> None:
    outbox.save_secrets(accept(outbox).message_id, Secrets(KEY, []))
    outbox.save_secrets("1@x", Secrets(KEY, [(5, b"d")]))
    outbox.save_secrets("1@x", Secrets(KEY, [(5, b"d")]))
    for other in (Secrets(b"other", [(5, b"d")]), Secrets(KEY, [(5, b"e")]), Secrets(KEY, [])):
        with pytest.raises(OutboxError):
            outbox.save_secrets("1@x", other)
    entry = outbox.entry("1@x")
    assert entry is not None
    assert entry.secrets == Secrets(KEY, [(5, b"d")], b"", KEY)


def test_the_stamp_is_another_one_when_this_or_another_process_changed_something(outbox: Outbox) -> None:
    other, before = reopened(outbox), outbox.change_marker()
    assert outbox.entries() == []
    assert outbox.change_marker() == before
    accept(outbox, 1)
    own = outbox.change_marker()
    assert own != before
    other.record_attempt("1@x", NOW)
    assert outbox.change_marker() != own


def test_a_proof_is_never_unlearnt(outbox: Outbox) -> None:
    message_id = accept(outbox, 1, "a@x").message_id
    stale = Recipient("a@x", (3, 3), (3, 3))
    learn(outbox, message_id, replace(stale, proof=b"signed"))
    assert learn(outbox, message_id, stale).state is State.COLLECTED


def test_what_is_learnt_of_a_message_that_is_gone_is_no_error(outbox: Outbox) -> None:
    assert learn(outbox, "gone@x", Recipient("a@x", (1, 1))) == Recipient("a@x", (1, 1))
    outbox.save_secrets("gone@x", Secrets(KEY))
    outbox.record_attempt("gone@x", NOW)
    assert outbox.entry("gone@x") is None


def test_messages_are_due_when_their_time_has_come_until_they_are_settled(outbox: Outbox) -> None:
    accept(outbox, 1, "a@x")
    accept(outbox, 2, "a@x")
    outbox.record_attempt("1@x", NOW + 100)
    assert [entry.message_id for entry in outbox.due(NOW + 50)] == ["2@x"]
    assert [entry.message_id for entry in outbox.due(NOW + 50, everything=True)] == ["1@x", "2@x"]
    learn(outbox, "1@x", Recipient("a@x", proof=b"signed"))
    assert [entry.message_id for entry in outbox.due(NOW + 500)] == ["2@x"]
    entry = outbox.entry("1@x")
    assert entry is not None
    assert (entry.attempts, entry.next_attempt) == (1, NEVER)
    outbox.record_attempt("1@x", NOW + 600)  # the attempt that found it settled
    assert outbox.due(NOW + 700, everything=True) == outbox.due(NOW + 700)


def test_a_settled_message_whose_facts_get_worse_is_due_again(outbox: Outbox) -> None:
    accept(outbox, 1, "a@x")
    learn(outbox, "1@x", Recipient("a@x", failed=True, reason="unknown"))
    assert outbox.next_due() is None
    learn(outbox, "1@x", Recipient("a@x", (1, 3), (1, 3)))
    assert outbox.next_due() == NOW


def test_of_a_message_that_everybody_has_collected_only_the_proofs_are_kept(outbox: Outbox) -> None:
    entry = accept(outbox)
    outbox.save_secrets("1@x", Secrets(KEY, [(5, b"d")], b"coding"))
    for address in ("a@x", "b@x"):
        assert entry.file.exists()
        facts = Recipient(address, (3, 3), (3, 3), b"salt", b"certificate", b"sealed", b"signed by " + address.encode())
        learn(outbox, "1@x", facts)
    kept = reopened(outbox).entry("1@x")
    assert kept is not None
    assert kept.secrets is None
    assert kept.recipients == tuple(
        Recipient(address, (3, 3), (3, 3), proof=b"signed by " + address.encode()) for address in ("a@x", "b@x")
    )
    assert files(outbox) == set()
    assert outbox._db.read(lambda connection: connection.execute("SELECT count(*) FROM segment").fetchone()) == (0,)
    assert accept(outbox) == kept, "the same message again isn't sent again"
    assert files(outbox) == set()


def test_what_can_be_tried_again_keeps_its_file(outbox: Outbox) -> None:
    entry = accept(outbox)
    learn(outbox, "1@x", Recipient("a@x", proof=b"signed"))
    learn(outbox, "1@x", Recipient("b@x", failed=True, reason="unknown"))
    os.utime(entry.file, (NOW - 90_000, NOW - 90_000))
    assert reopened(outbox).retry("1@x", NOW)
    assert outbox.next_due() == NOW
    assert entry.file.exists()


def test_messages_that_an_earlier_version_saw_collected_rest(outbox: Outbox) -> None:
    entry = accept(outbox)
    outbox.save_secrets("1@x", Secrets(KEY, [(5, b"d")]))
    outbox._db._connection.executescript(
        "UPDATE recipient SET proof = x'00', salt = x'00'; DROP INDEX letter_due;"
        " ALTER TABLE letter DROP COLUMN group_secret; ALTER TABLE letter DROP COLUMN scheduled;"
        " ALTER TABLE letter DROP COLUMN copy; ALTER TABLE recipient DROP COLUMN unknown_since;"
        " ALTER TABLE letter DROP COLUMN begun;"
        " ALTER TABLE recipient DROP COLUMN reported;"
        " ALTER TABLE recipient DROP COLUMN gone_since; PRAGMA user_version=2;"
    )
    os.utime(entry.file, (NOW - 90_000, NOW - 90_000))
    again = reopened(outbox)
    assert again.next_due() is None
    kept = again.entry("1@x")
    assert kept is not None
    assert kept.secrets is None
    assert files(outbox) == set()


def test_what_an_earlier_version_called_expired_is_asked_about_again(outbox: Outbox) -> None:
    accept(outbox, 1, "a@x")
    learn(outbox, "1@x", Recipient("a@x", (3, 3), (3, 3), expired=1))
    outbox._db._connection.executescript(
        "UPDATE letter SET next_attempt = 9e999; ALTER TABLE letter DROP COLUMN scheduled;"
        " ALTER TABLE letter DROP COLUMN copy; ALTER TABLE recipient DROP COLUMN unknown_since;"
        " ALTER TABLE letter DROP COLUMN begun;"
        " ALTER TABLE recipient DROP COLUMN reported;"
        " ALTER TABLE recipient DROP COLUMN gone_since; PRAGMA user_version=4;"
    )
    assert [entry.message_id for entry in reopened(outbox).due(NOW)] == ["1@x"]


def test_who_has_not_collected_a_large_message_of_an_earlier_version_is_told_of_it_anew_once(outbox: Outbox) -> None:
    for number, size in ((1, 65_537), (2, 65_536)):
        accept(outbox, number, "a@x", "b@x", message=bytes(size))
        outbox.save_secrets(f"{number}@x", Secrets(KEY, [(5, b"d")]))
        learn(outbox, f"{number}@x", Recipient("a@x", (3, 3), (3, 3), notification=b"first"))
        learn(outbox, f"{number}@x", Recipient("b@x", (3, 3), (3, 3), notification=b"first", proof=b"signed"))
        outbox.record_attempt(f"{number}@x", NOW + 900)
    outbox._db._connection.executescript(
        "ALTER TABLE recipient DROP COLUMN unknown_since; ALTER TABLE letter DROP COLUMN begun;"
        " ALTER TABLE recipient DROP COLUMN reported;"
        " ALTER TABLE recipient DROP COLUMN gone_since; PRAGMA user_version=7;"
    )
    again = reopened(outbox)
    told = {(entry.message_id, r.address): r for entry in again.entries() for r in entry.recipients}
    assert (told["1@x", "a@x"].notification, told["1@x", "a@x"].notifications) == (None, (0, 3))
    assert told["1@x", "b@x"].state is State.COLLECTED
    assert told["2@x", "a@x"].notification == b"first"
    assert [entry.message_id for entry in again.due(NOW)] == ["1@x"]
    learn(again, "1@x", Recipient("a@x", (3, 3), (3, 3), notification=b"second"))
    entry = reopened(outbox).entry("1@x")
    assert entry is not None
    assert entry.recipients[0].notification == b"second"


@pytest.mark.parametrize("back", [0.5, 5.0, 3 * 3600.0, 60 * 86400.0, 400 * 86400.0])
def test_an_attempt_that_was_put_off_under_a_clock_that_was_ahead_is_due(outbox: Outbox, back: float) -> None:
    accept(outbox, 0, "a@x")
    outbox.record_attempt("0@x", NOW + 5)
    assert (outbox.due(NOW), outbox.next_due()) == ([], NOW + 5)
    later = Outbox(outbox._db.path, now=lambda: NOW - back)
    (entry,) = later.due(NOW - back)
    assert entry.due(NOW - back) and not entry.due(NOW)
    assert later.next_due() == NOW - back
    later.record_attempt("0@x", NOW - back + 5)
    assert (later.due(NOW - back), later.next_due()) == ([], NOW - back + 5)
    (entry,) = later.entries()
    assert entry.created == NOW - back, "nothing was written after it was tried"


def test_a_message_that_rests_isnt_due_under_any_clock(outbox: Outbox) -> None:
    accept(outbox, 0, "a@x")
    learn(outbox, "0@x", Recipient("a@x", proof=b"signed"))
    assert outbox.due(NOW - 86400.0) == outbox.due(NOW + 86400.0) == []
    (entry,) = outbox.entries()
    assert not entry.due(NOW - 86400.0)


def test_an_expired_message_rests_when_it_was_asked_about_thirty_times(outbox: Outbox) -> None:
    accept(outbox, 0, "a@x")
    for said in range(1, 30):
        learn(outbox, "0@x", Recipient("a@x", (3, 3), (3, 3), expired=said))
        assert len(outbox.due(NOW)) == 1
    learn(outbox, "0@x", Recipient("a@x", (3, 3), (3, 3), expired=30))
    assert outbox.due(NOW) == []


def test_only_a_settled_message_is_forgotten(outbox: Outbox) -> None:
    entry = accept(outbox)
    learn(outbox, "1@x", Recipient("a@x", proof=b"signed"))
    with pytest.raises(NotSettled):
        outbox.forget("1@x")
    learn(outbox, "1@x", Recipient("b@x", failed=True, reason="nobody knows this address"))
    outbox.forget("1@x")
    outbox.forget("1@x")
    assert outbox.entries() == []
    assert not entry.file.exists()


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        (Recipient("a@x"), State.QUEUED),
        (Recipient("a@x", bodies=(10, 10)), State.QUEUED),
        (Recipient("a@x", notifications=(10, 10)), State.QUEUED),
        (Recipient("a@x", bodies=(1, 10), notifications=(1, 10)), State.STORED),
        (Recipient("a@x", bodies=(1, 10), notifications=(1, 10), failed=True), State.STORED),
        (Recipient("a@x", bodies=(1, 10), notifications=(1, 10), expired=1), State.EXPIRED),
        (Recipient("a@x", failed=True), State.FAILED),
        (Recipient("a@x", bodies=(10, 10), expired=1), State.FAILED),
        (Recipient("a@x", failed=True, expired=1, proof=b"signed"), State.COLLECTED),
    ],
)
def test_a_state_is_what_the_facts_prove(facts: Recipient, state: State) -> None:
    assert state_of(facts) is state


_counts = st.tuples(st.integers(0, 20), st.integers(0, 20))


@given(st.builds(Recipient, st.just("a@x"), _counts, _counts, proof=st.none() | st.just(b""), failed=st.booleans()))
def test_no_state_is_better_than_the_facts(facts: Recipient) -> None:
    state = facts.state
    assert (state is State.COLLECTED) == (facts.proof is not None)
    if state is State.STORED:
        assert facts.bodies[0]
        assert facts.notifications[0]
    if facts.settled:
        assert facts.proof is not None or facts.failed


def test_secrets_do_not_show_in_a_traceback(outbox: Outbox) -> None:
    entry = accept(outbox)
    outbox.save_secrets("1@x", Secrets(KEY))
    kept = learn(outbox, "1@x", replace(entry.recipients[0], salt=b"the salt"))
    assert "session key" not in repr(outbox.entry("1@x"))
    assert "the salt" not in repr(kept)


def test_the_next_attempt_is_that_of_the_earliest_message_that_is_not_settled(outbox: Outbox) -> None:
    assert outbox.next_due() is None
    accept(outbox, 1, "a@x")
    accept(outbox, 2, "a@x")
    outbox.record_attempt("1@x", NOW + 50)
    outbox.record_attempt("2@x", NOW + 100)
    assert outbox.next_due() == NOW + 50
    learn(outbox, "1@x", Recipient("a@x", proof=b"signed"))
    assert outbox.next_due() == NOW + 100


def test_a_message_that_failed_or_expired_is_tried_again_from_nothing(outbox: Outbox) -> None:
    accept(outbox, 1, "failed@x", "expired@x", "collected@x")
    collected = learn(outbox, "1@x", Recipient("collected@x", (3, 3), (3, 3), proof=b"signed"))
    learn(outbox, "1@x", Recipient("failed@x", failed=True, reason="unknown"))
    learn(outbox, "1@x", Recipient("expired@x", (3, 3), (3, 3), salt=b"s", notification=b"sealed", expired=1))
    outbox.record_attempt("1@x", NOW + 9999)
    assert outbox.retry("1@x", NOW + 500)
    entry = outbox.entry("1@x")
    assert entry is not None
    assert (entry.created, entry.attempts, entry.next_attempt) == (NOW + 500, 0, NOW + 500)
    failed, expired, unchanged = entry.recipients
    assert (failed.state, failed.reason) == (State.QUEUED, "")
    assert (expired.state, expired.notification) == (State.QUEUED, b"sealed")
    assert unchanged == collected
    assert not outbox.retry("1@x", NOW)
    assert not outbox.retry("gone@x", NOW)


def test_an_outbox_of_the_eighth_version_is_opened_with_its_messages(outbox: Outbox) -> None:
    accept(outbox)
    outbox._db._connection.executescript(
        "ALTER TABLE recipient DROP COLUMN unknown_since; ALTER TABLE letter DROP COLUMN begun;"
        " ALTER TABLE recipient DROP COLUMN reported;"
        " ALTER TABLE recipient DROP COLUMN gone_since; PRAGMA user_version=8;"
    )
    (entry,) = reopened(outbox).entries()
    assert [recipient.unknown_since for recipient in entry.recipients] == [None, None]


def test_an_attempt_at_which_nobody_answered_is_not_counted(outbox: Outbox) -> None:
    accept(outbox)
    outbox.record_attempt("1@x", NOW + 60, answered=False)
    entry = outbox.entry("1@x")
    assert entry is not None
    assert (entry.attempts, entry.next_attempt) == (0, NOW + 60)


def test_messages_can_be_made_due_and_a_settled_one_rests(outbox: Outbox) -> None:
    accept(outbox, 1, "a@x")
    accept(outbox, 2, "a@x")
    outbox.record_attempt("1@x", NOW + 60)
    outbox.record([("2@x", Recipient("a@x", proof=b"signed"))])
    outbox.make_due(["1@x", "2@x", "gone@x"], NOW + 5)
    assert [entry.message_id for entry in outbox.due(NOW + 5)] == ["1@x"]


def test_a_message_that_is_being_accepted_is_not_swept_when_the_clock_jumps(tmp_path: Path) -> None:
    path = tmp_path / "outbox" / "outbox.sqlite"

    def another_process_begins_a_month_later(size: int) -> bytes:  # the file is there then, and its row isn't
        Outbox(path, now=lambda: time.time() + 31 * 86400).close()
        return b"k" * size

    entry = accept(Outbox(path, random=another_process_begins_a_month_later))
    assert entry.file.read_bytes() == b"raw \xff\r\n"


def test_what_an_outbox_of_the_tenth_version_says_has_ended_was_reported(outbox: Outbox) -> None:
    accept(outbox)
    learn(outbox, "1@x", Recipient("b@x", failed=True))
    outbox._db._connection.executescript(
        "ALTER TABLE recipient DROP COLUMN reported; ALTER TABLE recipient DROP COLUMN gone_since;"
        " PRAGMA user_version=10;"
    )
    again = reopened(outbox)
    (entry,) = again.entries()
    assert {recipient.address: recipient.reported for recipient in entry.recipients}["b@x"]
    assert again.unreported() == []


def test_an_end_is_reported_until_it_is_none_any_more(outbox: Outbox) -> None:
    accept(outbox)
    ended = learn(outbox, "1@x", Recipient("b@x", failed=True))
    assert [entry.message_id for entry in outbox.unreported()] == ["1@x"]
    outbox.mark_reported("1@x", ["b@x"])
    assert reopened(outbox).unreported() == []
    learn(outbox, "1@x", replace(ended, reason="as before"))
    assert outbox.unreported() == []
    learn(outbox, "1@x", replace(ended, failed=False))
    learn(outbox, "1@x", ended)
    assert [entry.message_id for entry in outbox.unreported()] == ["1@x"]
