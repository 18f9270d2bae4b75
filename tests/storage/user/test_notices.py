"""What the user must know is kept until she has seen it."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.user.state import UserState

NOW = 1_700_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite"


def texts(state: UserState) -> list[str]:
    return [notice.text for notice in state.notices.unseen()]


def test_a_notice_is_there_for_the_next_process_until_it_is_seen(path: Path) -> None:
    state = UserState(path)
    assert state.notices.newest() == 0
    assert state.notices.add("one", NOW)
    assert state.notices.add("two", NOW + 1)
    again = UserState(path)
    newest, oldest = again.notices.unseen()
    assert (newest.text, newest.at, newest.seen) == ("two", NOW + 1, None)
    assert again.notices.mark_seen(oldest.id, NOW + 9) == 1
    assert texts(state) == ["two"]
    assert [(notice.text, notice.seen) for notice in state.notices.all()] == [("two", None), ("one", NOW + 9)]
    assert state.notices.newest() == newest.id
    assert state.notices.unseen(after=newest.id) == []


def test_the_same_notice_is_kept_once_while_it_is_unseen_and_again_afterwards(path: Path) -> None:
    state = UserState(path)
    assert state.notices.add("one", NOW)
    assert not state.notices.add("one", NOW + 1)
    state.notices.mark_seen(state.notices.newest(), NOW + 2)
    assert state.notices.add("one", NOW + 3)
    assert len(state.notices.all()) == 2


def test_a_thousand_notices_are_kept_those_that_were_not_seen_first(path: Path) -> None:
    state = UserState(path)
    state.notices.add("unseen", NOW)
    state.notices.add("seen", NOW)
    connection = state._db._connection
    connection.execute("UPDATE notice SET seen = 1 WHERE text = 'seen'")
    connection.executemany("INSERT INTO notice(at, text, seen) VALUES(0, ?, 1)", [(f"{n}",) for n in range(998)])
    state.notices.add("newest", NOW)
    kept = [notice.text for notice in state.notices.all()]
    assert len(kept) == 1000
    assert "seen" not in kept
    assert texts(state) == ["newest", "unseen"]
