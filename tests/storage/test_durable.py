"""storage/durable.py: what is there after an error, and which syncs come before which rename."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from storage import durable


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is synced and renamed, in order: "sync file", "sync folder", "rename"."""
    seen: list[str] = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(handle: int) -> None:
        seen.append("sync folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "sync file")
        real_sync(handle)

    def replace(self: Path, target: Path) -> Path:
        seen.append("rename")
        real_replace(self, target)
        return target

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    return seen


def failing_sync(number: int, of: Callable[[int], bool]) -> Callable[[int], None]:
    def sync(handle: int) -> None:
        if of(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))

    return sync


def test_a_file_is_synced_before_its_name_and_the_name_before_the_return(tmp_path: Path, calls: list[str]) -> None:
    durable.write(tmp_path / "letter", b"text")
    assert calls == ["sync file", "rename", "sync folder"]
    assert (tmp_path / "letter").read_bytes() == b"text"


def test_nothing_but_the_file_remains(tmp_path: Path) -> None:
    durable.write(tmp_path / "letter", b"one")
    durable.write(tmp_path / "letter", b"two")
    assert [file.name for file in tmp_path.iterdir()] == ["letter"]
    assert (tmp_path / "letter").read_bytes() == b"two"


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    durable.write(tmp_path / "letter", b"text")
    assert stat.S_IMODE((tmp_path / "letter").stat().st_mode) == 0o600


def test_a_name_of_255_bytes_can_be_written(tmp_path: Path) -> None:
    durable.write(tmp_path / ("n" * 255), b"text")
    assert (tmp_path / ("n" * 255)).read_bytes() == b"text"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failing_sync_of_the_file_is_an_error_and_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    durable.write(tmp_path / "letter", b"old")
    monkeypatch.setattr(os, "fsync", failing_sync(number, stat.S_ISREG))
    with pytest.raises(OSError) as caught:
        durable.write(tmp_path / "letter", b"new")
    assert caught.value.errno == number
    assert [file.name for file in tmp_path.iterdir()] == ["letter"]
    assert (tmp_path / "letter").read_bytes() == b"old"


def test_a_failing_sync_of_the_folder_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing_sync(errno.EIO, stat.S_ISDIR))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        durable.write(tmp_path / "letter", b"new")


def test_an_error_in_the_block_leaves_what_was_there(tmp_path: Path) -> None:
    durable.write(tmp_path / "letter", b"old")
    with pytest.raises(KeyboardInterrupt), durable.writing(tmp_path / "letter") as file:
        file.write(b"half of the n")
        raise KeyboardInterrupt
    assert [file.name for file in tmp_path.iterdir()] == ["letter"]
    assert (tmp_path / "letter").read_bytes() == b"old"


def test_the_first_error_is_the_one_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError("unlink")

    monkeypatch.setattr(os, "fsync", failing_sync(errno.ENOSPC, stat.S_ISREG))
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OSError) as caught:
        durable.write(tmp_path / "letter", b"new")
    assert caught.value.errno == errno.ENOSPC


def test_a_file_is_moved_durably_on_both_sides(tmp_path: Path, calls: list[str]) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    (tmp_path / "from/a").write_bytes(b"text")
    durable.move(tmp_path / "from/a", tmp_path / "to/b")
    assert calls == ["rename", "sync folder", "sync folder"]
    assert (tmp_path / "to/b").read_bytes() == b"text"
    assert not (tmp_path / "from/a").exists()


def test_folders_are_made_with_their_parents_and_synced(tmp_path: Path, calls: list[str]) -> None:
    durable.make_folder(tmp_path / "a/b")
    durable.make_folder(tmp_path / "a/b")
    assert calls == ["sync folder", "sync folder"]
    assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == 0o700


def test_removing_is_durable_and_may_be_repeated(tmp_path: Path, calls: list[str]) -> None:
    (tmp_path / "letter").write_bytes(b"text")
    durable.remove(tmp_path / "letter")
    assert calls == ["sync folder"]
    durable.remove(tmp_path / "letter")
    durable.remove(tmp_path / "no such folder/letter")
    assert list(tmp_path.iterdir()) == []
