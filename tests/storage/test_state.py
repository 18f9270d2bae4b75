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
from storage.state import AT_ONCE, OWED, REMEMBERED, Fate, Owed, UserState

NOW = 1_700_000_000.0


@pytest.fixture
def state(tmp_path: Path) -> UserState:
    return UserState(tmp_path / "state.sqlite", now=lambda: NOW)


def reopened(state: UserState) -> UserState:
    return UserState(state._ledger.path, now=lambda: NOW)


def digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def contents(state: UserState, now: float = NOW) -> list[bytes]:
    return [taken.content for taken in state.pending(now)]


def test_notifications_taken_over_are_there_for_the_next_process(state: UserState) -> None:
    assert state.take([b"one", b"two", b"one"], NOW) == 2
    assert state.take([b"two"], NOW + 5) == 0
    assert state.take([], NOW) == 0
    first, second = reopened(state).pending(NOW)
    assert (first.content, first.hash, first.taken, first.attempts) == (b"one", digest(b"one"), NOW, 0)
    assert second.content == b"two"


def test_a_notification_that_was_filed_is_not_taken_again(state: UserState) -> None:
    state.take([b"one"], NOW)
    state.filed(digest(b"one"), "1@x", "eve@x", [(1, b"key", b"salt")], NOW)
    assert state.take([b"one"], NOW) == 0
    assert contents(reopened(state)) == []
    assert state.owed(NOW) == [Owed(1, b"key", b"salt", 0)]


def test_a_message_is_had_already_only_if_the_same_sender_sent_it(state: UserState) -> None:
    state.take([b"one"], NOW)
    assert not state.have("1@x", "eve@x")
    state.filed(digest(b"one"), "1@x", "eve@x", [], NOW)
    assert state.have("1@x", "eve@x")
    assert not state.have("1@x", "mallory@x")


def test_a_rejected_notification_is_not_taken_again_and_is_no_message_had(state: UserState) -> None:
    state.take([b"junk", b"gone"], NOW)
    state.reject(digest(b"junk"), Fate.REJECTED, "not for us")
    state.reject(digest(b"gone"), Fate.LOST, "a message of Eve is lost")
    assert state.take([b"junk", b"gone"], NOW) == 0
    assert contents(state) == []
    assert not state.have("", "")
    assert state.lost() == ["a message of Eve is lost"]


def test_a_postponed_notification_waits_for_its_time(state: UserState) -> None:
    state.take([b"one"], NOW)
    state.postpone(digest(b"one"), "nobody answers", NOW + 60)
    assert contents(state, NOW + 59) == []
    (taken,) = state.pending(NOW + 60)
    assert (taken.attempts, taken.reason) == (1, "nobody answers")
    assert len(state.pending(float("inf"))) == 1


def test_where_a_message_was_about_to_be_filed_is_known_after_a_crash(state: UserState) -> None:
    state.take([b"one"], NOW)
    state.filing(digest(b"one"), "Inbox", "1.M2P3.host")
    (taken,) = reopened(state).pending(NOW)
    assert (taken.folder, taken.file) == ("Inbox", "1.M2P3.host")


def test_a_flood_is_worked_off_in_parts(state: UserState) -> None:
    assert state.take((number.to_bytes(4) for number in range(AT_ONCE + 1)), NOW) == AT_ONCE + 1
    assert len(state.pending(NOW)) == AT_ONCE


def test_what_was_seen_is_forgotten_when_no_node_can_have_it_any_more(state: UserState) -> None:
    state.take([b"one"], NOW)
    state.reject(digest(b"one"), Fate.REJECTED, "")
    assert state.take([b"one", b"two"], NOW + REMEMBERED - 1) == 1
    assert state.take([b"one", b"two"], NOW + REMEMBERED + 1) == 1


def test_a_delete_is_owed_until_it_is_made_or_expiry_has_overtaken_it(state: UserState) -> None:
    state.filed(digest(b"x"), "1@x", "eve@x", [(1, b"a", b"1"), (8, b"b", b"2")], NOW)
    state.delete_later(b"a", b"1", NOW + 60)
    assert state.owed(NOW) == [Owed(8, b"b", b"2", 0)]
    state.deleted(b"b", b"2")
    assert reopened(state).owed(NOW + 60) == [Owed(1, b"a", b"1", 1)]
    assert state.owed(NOW + OWED + 1) == []


def test_why_a_message_is_in_quarantine_is_kept(state: UserState) -> None:
    state.quarantined("1.host", "infected: Eicar")
    assert reopened(state).why_quarantined("1.host") == "infected: Eicar"
    assert state.why_quarantined("2.host") is None


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


def test_a_file_of_the_first_version_is_opened_with_the_deletes_it_owes(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(path)) as old:
        old.execute(
            "CREATE TABLE owed (key BLOB NOT NULL, salt BLOB NOT NULL, attempts INTEGER NOT NULL,"
            " next_attempt REAL NOT NULL, expires REAL NOT NULL, PRIMARY KEY (key, salt))"
        )
        old.execute("INSERT INTO owed VALUES (?, ?, 0, ?, ?)", (b"key", b"salt", NOW, NOW + OWED))
        old.execute("PRAGMA user_version=1")
        old.commit()
    state = UserState(path)
    assert state.owed(NOW) == [Owed(1, b"key", b"salt", 0)]
    state.close()
    again = UserState(path)
    assert again.owed(NOW) == [Owed(1, b"key", b"salt", 0)]
    again.close()


def test_a_file_of_the_second_version_is_opened_and_keeps_notices(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(path)) as old:
        old.execute("CREATE TABLE fact (name TEXT PRIMARY KEY, value BLOB NOT NULL)")
        old.execute("INSERT INTO fact VALUES ('name', 'value')")
        old.execute("PRAGMA user_version=2")
        old.commit()
    state = UserState(path)
    assert state.notices.newest() == 0
    assert state.notices.add("A message is lost.", NOW)
    state.close()
    assert [notice.text for notice in UserState(path).notices.unseen()] == ["A message is lost."]
