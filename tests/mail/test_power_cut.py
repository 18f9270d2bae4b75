"""A power cut while mail is sent or collected loses no message and doubles none; a sync that is left out is noticed.

`make bench ARGS=crash` does at every write what is done here at some.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import database, durable
from tests.simulation.agent_power_cuts import Who, moments, play
from tests.simulation.soak import small_folder

EVERY = 8


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is such a thing: what these disks keep is known without a real one."""
    with small_folder(tmp_path) as folder:
        folder.mkdir()
        yield folder


def broken(folder: Path, who: Who, first: int, every: int = EVERY) -> Iterator[str]:
    """What is wrong after power cuts at some moments."""
    for moment in moments(folder, who)[first::every]:
        yield from play(folder, who, moment).broken


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_there_are_many_moments_and_without_a_power_cut_all_is_well(place: Path, who: Who) -> None:
    fate = play(place, who)
    assert fate.moments > 10 * EVERY
    assert fate.broken == []


@pytest.mark.parametrize("who", ["alice", "bob"])
@pytest.mark.parametrize("first", [0, 3])
def test_no_message_is_lost_or_doubled_by_a_power_cut(place: Path, who: Who, first: int) -> None:
    assert list(broken(place, who, first)) == []


def test_planted_fault_an_outbox_or_state_that_isnt_synced_is_noticed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = database.connect

    def connect(path: Path, schema: str) -> sqlite3.Connection:
        connection = real(path, schema)
        connection.execute("PRAGMA synchronous=OFF")
        return connection

    monkeypatch.setattr("storage.durable_db.connect", connect)
    try:
        noticed = any(broken(place, "alice", 0))
    except database.DatabaseError:  # what is left of it can't even be opened
        noticed = True
    assert noticed


def test_planted_fault_a_message_whose_name_isnt_synced_is_noticed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "sync_folder", lambda folder: None)
    assert any("lost" in words for words in broken(place, "bob", 0))
