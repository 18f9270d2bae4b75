"""A power cut at any write loses nothing that was acknowledged; and a sync that is left out would be noticed."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest

from storage import database, durable
from tests.simulation.disk import PAGE, Disk, watched
from tests.simulation.power_cuts import broken_promises, play


def cuts(root: Path, seeds: range) -> tuple[int, list[str]]:
    """How many power cuts there were, and which promises they broke."""
    made = [cut for seed in seeds for cut in play(root / str(seed), seed)]
    return len(made), [broken for cut in made for broken in broken_promises(cut)]


@pytest.mark.parametrize("first", range(0, 8, 2))
def test_nothing_that_was_acknowledged_is_lost_by_a_power_cut_at_a_random_write(tmp_path: Path, first: int) -> None:
    count, broken = cuts(tmp_path, range(first, first + 2))
    assert count >= 5
    assert broken == []


def test_planted_fault_commits_that_arent_synced_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = database.connect

    def connect(path: Path, schema: str) -> sqlite3.Connection:
        connection = real(path, schema)
        connection.execute("PRAGMA synchronous=OFF")
        return connection

    monkeypatch.setattr(database, "connect", connect)
    _, broken = cuts(tmp_path, range(4))
    assert any("lost" in words or "damaged" in words or "came back" in words for words in broken)


def test_planted_fault_a_body_whose_name_isnt_synced_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "sync_folder", lambda folder: None)
    _, broken = cuts(tmp_path, range(4))
    assert any("an object of 70000 bytes is lost" in words for words in broken)


def test_planted_fault_a_body_whose_bytes_arent_synced_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(path: Path, data: bytes, mode: int = 0o600) -> None:
        path.write_bytes(data)
        durable.sync_folder(path.parent)

    monkeypatch.setattr(durable, "write", write)
    _, broken = cuts(tmp_path, range(4))
    assert any("70000 bytes" in words or "damaged" in words for words in broken)


def test_the_disk_keeps_what_was_synced_and_forgets_or_keeps_the_rest(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    disk = Disk(root)
    with watched(disk):
        durable.write(root / "kept", b"kept")
        durable.write(root / "changed", bytes(PAGE * 20))
        (root / "changed").write_bytes(b"\1" * PAGE * 20)
        durable.write(root / "gone", b"gone")
        (root / "gone").unlink()
        (root / "new").write_bytes(b"new")
    seen: dict[str, set[bytes | None]] = {"kept": set(), "changed": set(), "new": set(), "gone": set()}
    for seed in range(30):
        target = tmp_path / str(seed)
        disk.cut(target, random.Random(seed))
        for name, contents in seen.items():
            contents.add((target / name).read_bytes() if (target / name).exists() else None)
    disk.close()
    assert seen["kept"] == {b"kept"}
    assert any(data and set(data) == {0, 1} for data in seen["changed"])
    assert seen["new"] >= {None} and len(seen["new"]) > 1
    assert seen["gone"] == {None, b"gone"}
