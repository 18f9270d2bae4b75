"""Maildirs, with another mail reader at work in them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import durable
from storage.user import folders as folders_module
from storage.user.folders import STANDARD, Counts, FolderEntry, FolderError, Folders, entry_of, place_of

NOW = 1_700_000_000.25


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    made = Folders(tmp_path / "mail", {"Quarantine": tmp_path / "quarantine"}, now=lambda: NOW)
    made.create()
    return made


def content(folders: Folders, name: str, unique: str) -> bytes:
    file = folders.open(name, unique)
    assert file is not None
    with file:
        return file.read()


def elsewhere(folders: Folders, name: str, unique: str, place: str) -> None:
    """What another mail reader does: rename the file under us."""
    path = folders.path(name, unique)
    assert path is not None
    path.rename(folders.folder(name) / place)


@given(st.text("abcXYZ019.=,_-", min_size=1), st.text("DFPRSTab", max_size=6))
def test_a_place_taken_apart_and_put_together_is_the_same(unique: str, flags: str) -> None:
    entry = entry_of(place_of(unique, flags))
    assert (entry.unique, entry.flags) == (unique, "".join(sorted(set(flags))))
    assert place_of(entry.unique, entry.flags, entry.subdir) == entry.place


@given(st.text().map(lambda name: "cur/" + name.replace("/", "")))
def test_any_name_of_a_file_is_an_entry(place: str) -> None:
    assert entry_of(place).place == place


def test_new_mail_is_filed_in_new_byte_for_byte(folders: Folders) -> None:
    raw = b"Subject: x\r\n\r\nFrom no one\n\xff\x00"
    unique = folders.add("Inbox", raw, received=1e9)
    path = folders.folder("Inbox") / "new" / unique
    assert path.read_bytes() == raw
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_mtime == 1e9
    assert list((folders.folder("Inbox") / "tmp").iterdir()) == []


def test_mail_with_flags_is_filed_in_cur(folders: Folders) -> None:
    unique = folders.add("Sent", b"x", "SR")
    assert list(folders.scan("Sent")) == [FolderEntry(unique, "RS", "cur", f"cur/{unique}:2,RS")]


def test_a_file_is_copied_and_stays_or_is_consumed_and_goes(folders: Folders, tmp_path: Path) -> None:
    source = tmp_path / "spooled"
    source.write_bytes(b"y" * 3_000_000)
    kept = folders.add("Inbox", source)
    assert source.exists()
    taken = folders.add("Inbox", source, received=5.0, consume=True)
    assert not source.exists()
    assert content(folders, "Inbox", kept) == content(folders, "Inbox", taken) == b"y" * 3_000_000
    taken_at = folders.path("Inbox", taken)
    assert taken_at is not None
    assert taken_at.stat().st_mtime == 5.0


def test_a_file_that_cannot_be_linked_is_copied_and_consumed(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "another filesystem")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    source = tmp_path / "spooled"
    source.write_bytes(b"y")
    unique = folders.add("Inbox", source, consume=True)
    assert not source.exists()
    assert content(folders, "Inbox", unique) == b"y"


@pytest.mark.parametrize("consume", [False, True])
def test_when_the_disk_fails_nothing_is_filed_and_the_source_stays(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, consume: bool
) -> None:
    source = tmp_path / "spooled"
    source.write_bytes(b"y")

    def fail(folder: Path) -> None:
        if folder.name == "new":
            raise OSError(errno.EIO, "disk")

    monkeypatch.setattr(durable, "sync_folder", fail)
    with pytest.raises(OSError, match="disk"):
        folders.add("Inbox", source, consume=consume)
    assert list(folders.scan("Inbox")) == []
    assert source.read_bytes() == b"y"


def test_the_folder_is_synced_before_add_returns(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(durable, "sync_folder", lambda folder: synced.append(folder.name))
    folders.add("Inbox", b"x")
    assert "new" in synced


def test_a_noted_name_tells_after_a_crash_whether_the_message_was_filed(folders: Folders) -> None:
    unique = folders.new_unique()
    assert folders.find_anywhere(unique) is None
    assert folders.add("Junk", b"x", unique=unique) == unique
    found = folders.find_anywhere(unique)
    assert found is not None
    assert found[0] == "Junk"


def test_a_message_is_found_though_its_flags_changed(folders: Folders) -> None:
    unique = folders.add("Inbox", b"x")
    elsewhere(folders, "Inbox", unique, f"cur/{unique}:2,FS")
    entry = folders.find("Inbox", unique, "")
    assert entry is not None
    assert entry.flags == "FS"
    assert content(folders, "Inbox", unique) == b"x"


def test_a_message_renamed_between_finding_and_opening_is_still_opened(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    unique = folders.add("Inbox", b"x")
    find = folders.find
    renames = iter([f"cur/{unique}:2,F", f"cur/{unique}:2,FS"])

    def find_then_rename(name: str, unique: str, flags: str = "") -> FolderEntry | None:
        entry = find(name, unique, flags)
        place = next(renames, None)
        if entry is not None and place is not None:
            (folders.folder(name) / entry.place).rename(folders.folder(name) / place)
        return entry

    monkeypatch.setattr(folders, "find", find_then_rename)
    assert content(folders, "Inbox", unique) == b"x"
    renames = iter([f"cur/{unique}:2,S"])
    changed = folders.change_flags("Inbox", unique, add="R")
    assert changed is not None
    assert changed.flags == "RS"  # the other program's S is kept, its F too had it kept it
    renames = iter([f"cur/{unique}:2,FRS"])
    moved = folders.move("Inbox", unique, "Archive")
    assert moved is not None
    assert moved.flags == "FRS"
    renames = iter([f"cur/{unique}:2,S"])
    assert folders.remove("Archive", unique)
    assert list(folders.scan("Archive")) == []


def test_what_is_gone_is_none_and_no_exception(folders: Folders) -> None:
    unique = folders.add("Inbox", b"x")
    (folders.folder("Inbox") / "new" / unique).unlink()
    assert folders.path("Inbox", unique) is None
    assert folders.open("Inbox", unique) is None
    assert folders.change_flags("Inbox", unique, "S") is None
    assert folders.move("Inbox", unique, "Trash") is None
    assert folders.remove("Inbox", unique) is False
    assert list(folders.scan("No such folder")) == []
    assert folders.path("No such folder", unique) is None


def test_flags_are_set_added_and_removed(folders: Folders) -> None:
    unique = folders.add("Inbox", b"x")
    for step in (
        folders.change_flags("Inbox", unique, "SF"),
        folders.change_flags("Inbox", unique, add="S"),
    ):
        assert step is not None
        assert step.flags == "FS"
    cleared = folders.change_flags("Inbox", unique, remove="FS")
    assert cleared == FolderEntry(unique, "", "cur", f"cur/{unique}:2,")
    with pytest.raises(FolderError):
        folders.change_flags("Inbox", unique, "../x")
    with pytest.raises(FolderError):
        folders.change_flags("Inbox", unique, add="2")


def test_an_unread_new_message_stays_in_new_when_it_moves(folders: Folders) -> None:
    unique = folders.add("Inbox", b"x")
    assert folders.move("Inbox", unique, "Archive") == FolderEntry(unique, "", "new", f"new/{unique}")
    assert folders.counts("Archive") == Counts(1, 1)
    assert folders.counts("Inbox") == Counts(0, 0)


def test_moving_never_replaces_another_message_of_the_same_name(folders: Folders) -> None:
    for name, text in (("Inbox", b"one"), ("Archive", b"two")):
        (folders.folder(name) / "cur" / "1:2,S").write_bytes(text)
    moved = folders.move("Inbox", "1", "Archive")
    assert moved is not None
    assert content(folders, "Archive", moved.unique) == b"one"
    assert content(folders, "Archive", "1") == b"two"


def test_flagging_never_replaces_another_message_of_the_same_name(folders: Folders) -> None:
    cur = folders.folder("Inbox") / "cur"
    (cur / "1:2,").write_bytes(b"one")
    (cur / "1:2,S").write_bytes(b"two")
    folders.change_flags("Inbox", "1", "S", known="cur/1:2,")
    assert sorted(path.read_bytes() for path in cur.iterdir()) == [b"one", b"two"]


ADDED = ["cur/1700000000.a.h,U=7:2,FS", "new/1700000000.a.h,U=7", "cur/1700000000.a.h,S=12,W=14,U=7:2,S"]


@pytest.mark.parametrize("place", ADDED)
def test_a_message_is_found_by_its_unique_name_whatever_a_program_appended(folders: Folders, place: str) -> None:
    (folders.folder("Inbox") / place).write_bytes(b"x")
    entry = folders.find("Inbox", "1700000000.a.h", "cur/1700000000.a.h:2,S")
    assert entry == FolderEntry("1700000000.a.h", entry_of(place).flags, place.partition("/")[0], place)
    assert folders.find_anywhere("1700000000.a.h") == ("Inbox", entry)
    assert content(folders, "Inbox", "1700000000.a.h") == b"x"


@pytest.mark.parametrize("name", ["plain", "a,b", "x,y=", ",U=7", "1.a.host,U=7x"])
def test_a_name_never_becomes_empty(name: str) -> None:
    assert entry_of(f"cur/{name}:2,S").unique
    assert entry_of("cur/a,b:2,").unique == "a,b"


def test_flags_change_around_what_a_program_appended_and_a_move_leaves_it_behind(folders: Folders) -> None:
    (folders.folder("Inbox") / "cur/1700000000.a.h,U=7:2,").write_bytes(b"x")
    changed = folders.change_flags("Inbox", "1700000000.a.h", add="S")
    assert changed is not None and changed.place == "cur/1700000000.a.h,U=7:2,S"
    moved = folders.move("Inbox", "1700000000.a.h", "Archive")
    assert moved is not None and moved.place == "cur/1700000000.a.h:2,S"


def test_of_two_with_one_unique_name_the_one_that_was_meant_is_changed(folders: Folders) -> None:
    cur = folders.folder("Inbox") / "cur"
    (cur / "1.a.h:2,S").write_bytes(b"one")
    (cur / "1.a.h,U=2:2,S").write_bytes(b"two")
    assert folders.remove("Inbox", "1.a.h", "cur/1.a.h,U=2:2,S")
    assert [path.read_bytes() for path in cur.iterdir()] == [b"one"]


def test_nothing_is_removed_when_several_could_be_the_message(folders: Folders) -> None:
    cur = folders.folder("Inbox") / "cur"
    (cur / "1.a.h,U=1:2,S").write_bytes(b"one")
    (cur / "1.a.h,U=2:2,S").write_bytes(b"two")
    assert not folders.remove("Inbox", "1.a.h", "cur/1.a.h:2,S")
    assert folders.find("Inbox", "1.a.h", "cur/1.a.h,U=2:2,") == entry_of("cur/1.a.h,U=2:2,S")
    assert len(list(cur.iterdir())) == 2


def test_a_move_gives_a_mere_number_a_unique_name(folders: Folders) -> None:
    (folders.folder("Inbox") / "cur/1:2,S").write_bytes(b"one")
    (folders.folder("Archive") / "cur/1:2,RS").write_bytes(b"two")
    moved = folders.move("Inbox", "1", "Archive")
    assert moved is not None and moved.unique != "1"
    assert content(folders, "Archive", "1") == b"two"


def test_a_message_can_be_moved_to_a_folder_that_is_new(folders: Folders) -> None:
    unique = folders.add("Inbox", b"x")
    assert folders.move("Inbox", unique, "Plans 2024") is not None
    assert "Plans 2024" in folders.names()


def test_folders_are_named_standard_first_and_only_maildirs_count(folders: Folders) -> None:
    folders.create("zebra", "Ape")
    (folders.root / "not a maildir").mkdir()
    (folders.root / ".neomutt").mkdir()
    assert folders.names() == [*STANDARD, "Ape", "zebra", "Quarantine"]


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\0", ".hidden", "x" * 300])
def test_a_folder_name_cannot_lead_out_of_the_mail(folders: Folders, name: str) -> None:
    with pytest.raises(FolderError):
        folders.folder(name)


def test_hidden_and_undecodable_names_do_no_harm(folders: Folders) -> None:
    cur = os.fsencode(folders.folder("Inbox") / "cur")
    for name in (b".lock", b"\xff\xfe:2,S", b"odd:1,x", b"plain"):
        with open(cur + b"/" + name, "wb") as file:  # noqa: PTH123 - a name of bytes
            file.write(name)
    entries = {entry.unique: entry for entry in folders.scan("Inbox")}
    assert set(entries) == {os.fsdecode(b"\xff\xfe"), "odd", "plain"}
    assert content(folders, "Inbox", os.fsdecode(b"\xff\xfe")) == b"\xff\xfe:2,S"
    assert content(folders, "Inbox", "odd") == b"odd:1,x"


def test_two_unique_names_of_one_moment_differ(folders: Folders) -> None:
    assert len({folders.new_unique() for _ in range(100)}) == 100
    assert folders.new_unique().startswith("1700000000.M250000P")


def test_only_old_leftovers_of_deliveries_are_swept(folders: Folders) -> None:
    tmp = folders.folder("Inbox") / "tmp"
    for name, age in (("old", 40 * 3600), ("young", 3600)):
        (tmp / name).write_bytes(b"")
        os.utime(tmp / name, (NOW - age, NOW - age))
    assert folders.sweep() == 1
    assert [path.name for path in tmp.iterdir()] == ["young"]


def test_a_message_that_is_renamed_during_a_look_is_not_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = Folders(tmp_path)
    folders.create("Inbox")
    unique = folders.add("Inbox", b"Subject: x\n\n", flags="S")
    cur = tmp_path / "Inbox" / "cur"
    looks = 0

    def look(folder: Path) -> set[str]:
        nonlocal looks
        looks += 1
        if looks == 1:  # the other program renames it between our reading "new" and our reading "cur"
            (cur / f"{unique}:2,S").rename(cur / f"{unique}:2,FS")
            os.utime(cur, ns=(looks, looks))
            return set()
        return names(folder)

    names = folders_module._names
    monkeypatch.setattr(folders_module, "_names", look)
    assert [entry.flags for entry in folders.scan("Inbox")] == ["FS"]


# Names that other programs gave


@pytest.mark.parametrize(
    ("name", "base", "flags", "separator"),
    [
        ("1.M.h:2,F:2,F", "1.M.h", "F", ":"),
        ("1.M.h:2,S:2,FR", "1.M.h", "FRS", ":"),
        ("1.M.h;2,FS", "1.M.h", "FS", ";"),
        ("1.M.h!2,S", "1.M.h", "S", "!"),
        ("1.M.h:2,Sabx", "1.M.h", "Sabx", ":"),
        ("1.M.h:2,S1-", "1.M.h", "S", ":"),
        ("1.M.h:1,old", "1.M.h", "", ":"),
        ("1;2.h", "1;2.h", "", ":"),
    ],
)
def test_flags_are_read_however_another_program_appended_them(name: str, base: str, flags: str, separator: str) -> None:
    entry = entry_of(f"cur/{name}")
    assert (entry.base, entry.flags, entry.separator) == (base, flags, separator)


@pytest.mark.parametrize(
    ("name", "renamed"),
    [
        ("1.M.h:2,F:2,F", "1.M.h:2,FS"),
        ("1.M.h;2,F", "1.M.h;2,FS"),
        ("1.M.h!2,a", "1.M.h!2,Sa"),
        ("1.M.h,U=7;2,", "1.M.h,U=7;2,S"),
    ],
)
def test_a_name_of_another_program_is_flagged_moved_and_deleted(folders: Folders, name: str, renamed: str) -> None:
    (folders.folder("Inbox") / "cur" / name).write_bytes(b"x")
    (entry,) = folders.scan("Inbox")
    assert folders.change_flags("Inbox", entry.unique, "S") is not None
    assert folders.places("Inbox") == {f"cur/{renamed}"}
    assert folders.move("Inbox", entry.unique, "Archive") is not None
    assert folders.remove("Archive", entry.unique)
    assert not folders.places("Archive")


def test_folders_within_folders_and_maildir_plus_plus_are_found_and_keep_their_form(folders: Folders) -> None:
    paths = [b"Work/Projects", b".Club.Boats", b"caf\xe9", b"Work/Projects/Old", b".x.y.cur", b"Work/cur/no"]
    for path in paths:
        for subdir in (b"cur", b"new", b"tmp"):
            (folders.root / os.fsdecode(path) / os.fsdecode(subdir)).mkdir(parents=True)
    again = Folders(folders.root)
    shown = ["Club/Boats", "Work/Projects", "Work/Projects/Old", "caf\ufffd", "x/y/cur"]
    assert again.names() == [*STANDARD, *sorted(shown, key=str.casefold)]
    for name in shown:
        unique = Folders(folders.root).add(name, b"x", "S")
        assert again.find(name, unique) is not None
    assert again.folder("Club/Boats") == folders.root / ".Club.Boats"
    assert os.fsencode(again.folder("caf\ufffd").name) == b"caf\xe9"
    with pytest.raises(FolderError):
        again.folder("Work/None")


def test_a_folder_that_lies_in_itself_ends_the_look(folders: Folders) -> None:
    (folders.folder("Inbox") / "loop").symlink_to(folders.folder("Inbox"), target_is_directory=True)
    before = set(folders.names())
    assert before >= {"Inbox", "Inbox/loop"}
    assert not any(name.startswith("Inbox/loop/") for name in before)
