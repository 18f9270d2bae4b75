"""What the user agent must not forget."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.database import DatabaseDamaged
from storage.user.state import AT_ONCE, DAMAGED, OWED, REMEMBERED, Fate, OwedDelete, UserState

NOW = 1_700_000_000.0
OWED_BEFORE = (
    "CREATE TABLE owed (key BLOB NOT NULL, salt BLOB NOT NULL, attempts INTEGER NOT NULL, next_attempt REAL NOT NULL,"
    " expires REAL NOT NULL, kind INTEGER NOT NULL DEFAULT 1, PRIMARY KEY (key, salt))"
)
TAKEN_BEFORE = """CREATE TABLE taken (
    hash BLOB PRIMARY KEY, content BLOB NOT NULL, taken REAL NOT NULL, attempts INTEGER NOT NULL,
    next_attempt REAL NOT NULL, reason TEXT NOT NULL, folder TEXT, file TEXT)"""
"""As versions 1 to 3 had it."""


@pytest.fixture
def state(tmp_path: Path) -> UserState:
    return UserState(tmp_path / "state.sqlite", now=lambda: NOW)


def reopened(state: UserState) -> UserState:
    return UserState(state._db.path, now=lambda: NOW)


def digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def contents(state: UserState, now: float = NOW) -> list[bytes]:
    return [taken.content for taken in state.pending(now)]


def test_notifications_taken_over_are_there_for_the_next_process(state: UserState) -> None:
    assert state.take_over([b"one", b"two", b"one"], NOW) == 2
    assert state.take_over([b"two"], NOW + 5) == 0
    assert state.take_over([], NOW) == 0
    first, second = reopened(state).pending(NOW)
    assert (first.content, first.hash, first.taken, first.attempts) == (b"one", digest(b"one"), NOW, 0)
    assert second.content == b"two"


def test_a_notification_that_was_filed_is_not_taken_again(state: UserState) -> None:
    state.take_over([b"one"], NOW)
    state.mark_filed(digest(b"one"), "1@x", "eve@x", [(1, b"key", b"salt")], NOW)
    assert state.take_over([b"one"], NOW) == 0
    assert contents(reopened(state)) == []
    assert state.owed_deletes(NOW) == [OwedDelete(1, b"key", b"salt", 0)]


def test_a_message_is_had_already_only_if_the_same_sender_sent_it(state: UserState) -> None:
    state.take_over([b"one"], NOW)
    assert not state.has_message("1@x", "eve@x")
    state.mark_filed(digest(b"one"), "1@x", "eve@x", [], NOW)
    assert state.has_message("1@x", "eve@x")
    assert not state.has_message("1@x", "mallory@x")


def test_a_rejected_notification_is_not_taken_again_and_is_no_message_had(state: UserState) -> None:
    state.take_over([b"junk"], NOW)
    state.reject(digest(b"junk"), Fate.REJECTED, "not for us")
    assert state.take_over([b"junk"], NOW) == 0
    assert contents(state) == []
    assert not state.has_message("", "")


def test_a_lost_notification_that_is_brought_again_is_taken_again(state: UserState) -> None:
    state.take_over([b"gone"], NOW)
    state.reject(digest(b"gone"), Fate.LOST, "a message of Eve is lost")
    assert contents(state) == []
    assert state.take_over([b"gone"], NOW + 1) == 1
    assert contents(state, NOW + 1) == [b"gone"]


def test_ten_thousand_notifications_that_brought_nothing_are_known_again(state: UserState) -> None:
    state.take_over([b"mail", b"junk"], NOW)
    state.mark_filed(digest(b"mail"), "1@x", "eve@x", [], NOW)
    state.reject(digest(b"junk"), Fate.REJECTED, "no notification")
    rows = [(digest(b"%d" % number), NOW) for number in range(10_000)]
    sql = "INSERT INTO seen VALUES(?, '', '', 'rejected', '', ?)"
    state._db.write(lambda connection: connection.executemany(sql, rows) and None)
    state.take_over([b"other"], NOW)
    assert state.take_over([b"junk"], NOW) == 1
    assert state.take_over([b"0", b"9999", b"mail"], NOW) == 0


def test_an_attempt_that_was_put_off_under_a_wrong_clock_is_due(state: UserState) -> None:
    state.take_over([b"one"], NOW)
    state.postpone(digest(b"one"), "nobody answers", NOW + 60 * 86400)
    assert contents(state) == [b"one"]
    state.mark_filed(digest(b"one"), "1@x", "eve@x", [(1, b"key", b"salt")], NOW)
    state.postpone_delete(b"key", b"salt", NOW + 60 * 86400)
    assert len(state.owed_deletes(NOW)) == 1


def test_a_delete_whose_time_is_over_is_tried_once_before_it_is_dropped(state: UserState) -> None:
    state.take_over([b"one"], NOW)
    state.mark_filed(digest(b"one"), "1@x", "eve@x", [(1, b"key", b"salt")], NOW)
    assert len(state.owed_deletes(NOW + 60 * 86400)) == 1
    state.postpone_delete(b"key", b"salt", NOW)
    assert state.owed_deletes(NOW + 60 * 86400) == []


def test_everything_is_worked_on_but_what_costs_a_whole_message_waits_for_its_time(state: UserState) -> None:
    state.take_over([b"away", b"damaged", b"lost"], NOW)
    later = NOW + 3600
    state.postpone(digest(b"away"), "nobody answers", later)
    state.postpone(digest(b"damaged"), "cut off", later, hold=DAMAGED, opener="1")
    state.postpone(digest(b"lost"), "nobody has it", later)
    state.mark_lost(digest(b"lost"), NOW)

    def worked_on(now: float, opener: str = "1", *, everything: bool = True) -> list[bytes]:
        return sorted(taken.content for taken in state.pending(now, everything=everything, opener=opener))

    assert worked_on(NOW) == [b"away"]
    assert worked_on(later) == [b"away", b"damaged", b"lost"]
    assert worked_on(NOW, "2") == [b"away", b"damaged"]
    assert worked_on(NOW, "2", everything=False) == [b"damaged"]


def test_what_is_due_longest_is_worked_on_first(state: UserState) -> None:
    state.take_over([b"old"], NOW)
    state.postpone(digest(b"old"), "nobody answers", NOW + 60)
    state.take_over([b"new"], NOW + 5)
    assert contents(state, NOW + 60) == [b"new", b"old"]


def test_a_place_holds_as_many_as_it_has_room_for(state: UserState) -> None:
    state.take_over([b"one", b"two", b"three"], NOW)

    def aside(content: bytes, hold: str) -> bool:
        return state.set_aside(digest(content), "not for us", NOW + 60, hold=hold, opener="1", room=1)

    assert aside(b"one", "stray")
    assert not aside(b"two", "stray")
    assert aside(b"one", "stray")
    assert aside(b"three", "eve@x")
    assert state.count_waiting(without=["stray"]) == 1
    assert [taken.content for taken in state.pending(NOW, opener="1")] == [b"two"]


def test_a_postponed_notification_waits_for_its_time(state: UserState) -> None:
    state.take_over([b"one"], NOW)
    state.postpone(digest(b"one"), "nobody answers", NOW + 60)
    assert contents(state, NOW + 59) == []
    (taken,) = state.pending(NOW + 60)
    assert (taken.attempts, taken.reason) == (1, "nobody answers")
    assert len(state.pending(float("inf"))) == 1


def test_where_a_message_was_about_to_be_filed_is_known_after_a_crash(state: UserState) -> None:
    state.take_over([b"one"], NOW)
    state.note_filing(digest(b"one"), "Inbox", "1.M2P3.host")
    (taken,) = reopened(state).pending(NOW)
    assert (taken.folder, taken.file) == ("Inbox", "1.M2P3.host")


def test_a_flood_is_worked_off_in_parts(state: UserState) -> None:
    assert state.take_over((number.to_bytes(4) for number in range(AT_ONCE + 1)), NOW) == AT_ONCE + 1
    assert len(state.pending(NOW)) == AT_ONCE


def test_what_was_seen_is_forgotten_when_no_node_can_have_it_any_more(state: UserState) -> None:
    state.take_over([b"one"], NOW)
    state.reject(digest(b"one"), Fate.REJECTED, "")
    assert state.take_over([b"one", b"two"], NOW + REMEMBERED - 1) == 1
    assert state.take_over([b"one", b"two"], NOW + REMEMBERED + 1) == 1


def test_a_delete_is_owed_until_it_is_made_or_expiry_has_overtaken_it(state: UserState) -> None:
    state.mark_filed(digest(b"x"), "1@x", "eve@x", [(1, b"a", b"1"), (8, b"b", b"2")], NOW)
    state.postpone_delete(b"a", b"1", NOW + 60)
    assert state.owed_deletes(NOW) == [OwedDelete(8, b"b", b"2", 0)]
    state.delete_done(b"b", b"2")
    assert reopened(state).owed_deletes(NOW + 60) == [OwedDelete(1, b"a", b"1", 1)]
    assert state.owed_deletes(NOW + OWED + 1) == []


def test_why_a_message_is_in_quarantine_is_kept(state: UserState) -> None:
    state.note_quarantine_reason("1.host", "infected: Eicar")
    assert reopened(state).quarantine_reason("1.host") == "infected: Eicar"
    assert state.quarantine_reason("2.host") is None


def test_a_small_fact_is_kept_replaced_and_dropped(state: UserState) -> None:
    assert state.fact("p") is None
    state.keep_fact("p", b"1")
    state.keep_fact("p", b"2")
    assert reopened(state).fact("p") == b"2"
    state.keep_fact("p", b"")
    assert state.fact("p") is None


def test_counts_of_words_add_up_and_never_fall_below_nothing(state: UserState) -> None:
    state.add_tokens({"offer": (1, 0), "lunch": (0, 1)})
    state.add_tokens({"offer": (2, 1), "lunch": (0, -5)})
    assert reopened(state).tokens(["offer", "lunch", "never"]) == {"offer": (3, 1)}


def test_thousands_of_words_are_looked_up_at_once(state: UserState) -> None:
    state.add_tokens({f"word {number}": (1, 0) for number in range(2000)})
    assert len(state.tokens(f"word {number}" for number in range(3000))) == 2000


@given(st.text())
def test_any_word_can_be_counted(tmp_path_factory: pytest.TempPathFactory, word: str) -> None:
    state = UserState(tmp_path_factory.getbasetemp() / "words.sqlite")
    state.add_tokens({word: (1, 0)})
    assert state.tokens([word])
    state.close()


def test_an_undecodable_word_can_be_counted(state: UserState) -> None:
    state.add_tokens({"a\udcff": (1, 0)})
    assert state.tokens(["a\udcff"]) == {"a?": (1, 0)}


def test_a_state_file_that_is_none_is_a_readable_error_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    path.write_bytes(b"nonsense" * 1000)
    with pytest.raises(DatabaseDamaged, match="left as it"):
        UserState(path)
    assert path.read_bytes() == b"nonsense" * 1000


@pytest.mark.parametrize("back", [0.5, 5.0, 3 * 3600.0, 60 * 86400.0])
def test_what_was_put_off_under_a_clock_that_was_ahead_is_due_when_it_is_put_right(tmp_path: Path, back: float) -> None:
    clock = [NOW]
    state = UserState(tmp_path / "state.sqlite", now=lambda: clock[0])
    state.take_over([b"one", b"done"], NOW)
    state.postpone(digest(b"one"), "away", NOW + 5)
    state.mark_filed(digest(b"done"), "1@x", "eve@x", [(1, b"key", b"salt")], NOW)
    state.postpone_delete(b"key", b"salt", NOW + 5)
    assert (state.pending(NOW), state.owed_deletes(NOW)) == ([], [])
    clock[0] -= back
    (waiting,), (owed,) = state.pending(clock[0]), state.owed_deletes(clock[0])
    assert (waiting.content, owed.key) == (b"one", b"key")
    state.postpone(digest(b"one"), "away", clock[0] + 5)
    state.postpone_delete(b"key", b"salt", clock[0] + 5)
    assert (state.pending(clock[0]), state.owed_deletes(clock[0])) == ([], [])


def test_a_file_of_the_first_version_is_opened_with_the_deletes_it_owes(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(path)) as old:
        old.execute(
            "CREATE TABLE owed (key BLOB NOT NULL, salt BLOB NOT NULL, attempts INTEGER NOT NULL,"
            " next_attempt REAL NOT NULL, expires REAL NOT NULL, PRIMARY KEY (key, salt))"
        )
        old.execute("INSERT INTO owed VALUES (?, ?, 0, ?, ?)", (b"key", b"salt", NOW, NOW + OWED))
        old.execute(TAKEN_BEFORE)
        old.execute("PRAGMA user_version=1")
        old.commit()
    state = UserState(path)
    assert state.owed_deletes(NOW) == [OwedDelete(1, b"key", b"salt", 0)]
    state.close()
    again = UserState(path)
    assert again.owed_deletes(NOW) == [OwedDelete(1, b"key", b"salt", 0)]
    again.close()


def test_a_file_of_the_third_version_is_opened_with_what_waits_and_what_it_gave_up_is_taken_again(
    tmp_path: Path,
) -> None:
    path = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(path)) as old:
        old.execute(TAKEN_BEFORE)
        old.execute(OWED_BEFORE)
        old.execute("INSERT INTO taken VALUES (?, ?, ?, 2, ?, 'away', NULL, NULL)", (digest(b"one"), b"one", NOW, NOW))
        old.execute(
            "CREATE TABLE seen (hash BLOB PRIMARY KEY, message_id TEXT NOT NULL, sender TEXT NOT NULL,"
            " fate TEXT NOT NULL, reason TEXT NOT NULL, at REAL NOT NULL)"
        )
        lost = "A message is lost: The body is not padded as it must be."
        old.execute("INSERT INTO seen VALUES (?, '', '', 'lost', ?, ?)", (digest(b"gone"), lost, NOW))
        old.execute("PRAGMA user_version=3")
        old.commit()
    state = UserState(path)
    (waiting,) = state.pending(NOW)
    assert (waiting.content, waiting.attempts, waiting.hold, waiting.lost) == (b"one", 2, "", None)
    assert state.take_over([b"gone"], NOW) == 1


def test_a_file_of_the_second_version_is_opened_and_keeps_notices(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(path)) as old:
        old.execute("CREATE TABLE fact (name TEXT PRIMARY KEY, value BLOB NOT NULL)")
        old.execute("INSERT INTO fact VALUES ('name', 'value')")
        old.execute(TAKEN_BEFORE)
        old.execute(OWED_BEFORE)
        old.execute("PRAGMA user_version=2")
        old.commit()
    state = UserState(path)
    assert state.notices.newest() == 0
    assert state.notices.add("A message is lost.", NOW)
    state.close()
    assert [notice.text for notice in UserState(path).notices.unseen()] == ["A message is lost."]


def test_a_file_of_the_fifth_version_is_opened_with_what_waits(tmp_path: Path) -> None:
    state = UserState(tmp_path / "state.sqlite", now=lambda: NOW)
    state.take_over([b"one"], NOW)
    state.close()
    with closing(sqlite3.connect(tmp_path / "state.sqlite")) as old:
        old.executescript("DROP INDEX taken_sender; ALTER TABLE taken DROP COLUMN sender; PRAGMA user_version=5;")
    state = UserState(tmp_path / "state.sqlite", now=lambda: NOW)
    assert contents(state) == [b"one"]
    state.postpone(digest(b"one"), "nobody has it", NOW, sender="eve@x")
    assert (state.count_unavailable("eve@x"), state.count_unavailable("mallory@x")) == (1, 0)


@pytest.mark.parametrize("back", [5.0, 3 * 3600.0])
def test_what_was_begun_under_a_clock_that_was_ahead_is_due_when_it_is_put_right(tmp_path: Path, back: float) -> None:
    """The process ended before the first attempt: at the message, and at the delete that is owed for another one."""
    clock = [NOW + back]
    state = UserState(tmp_path / "state.sqlite", now=lambda: clock[0])
    state.take_over([b"first", b"second"], clock[0])
    hash_ = hashlib.sha256(b"first").digest()
    state.mark_filed(hash_, "id@example.org", "alice@example.org", [(1, b"k" * 20, b"s" * 16)], clock[0])
    clock[0] = NOW
    assert [taken.content for taken in state.pending(NOW)] == [b"second"]
    assert [owed.key for owed in state.owed_deletes(NOW)] == [b"k" * 20]
    state.close()
