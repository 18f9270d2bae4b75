"""The index follows the folders, whatever other programs do in them, and is made again when it's damaged."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.database import connect
from storage.user import index_schema, index_update
from storage.user.folder_diff import difference
from storage.user.folders import Counts, Folders
from storage.user.index import Index, IndexUnavailable
from storage.user.index_summary import MAX_HEADER, MAX_REFERENCES, Summary, bounded

LATER = 4_000_000_000.0
"""A clock at which every folder has rested long enough for its stamp to be trusted."""


def summarise(path: Path) -> Summary:
    """A message is "Name: value" lines here; reading real ones is mail's work."""
    lines = path.read_text("utf-8").splitlines()
    fields = dict(line.split(": ", 1) for line in lines if ": " in line)
    if "Crash" in fields:
        raise ValueError(fields["Crash"])
    return Summary(
        message_id=fields.get("Id", ""),
        sender=fields.get("From", ""),
        recipients=tuple(fields.get("To", "").split(", ")) if "To" in fields else (),
        subject=fields.get("Subject", ""),
        date=float(fields.get("Date", "0")),
        in_reply_to=fields.get("Parent", ""),
        references=tuple(fields.get("References", "").split()),
        attachments="Attached" in fields,
        text=fields.get("Text", ""),
    )


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    made = Folders(tmp_path / "mail", {"Quarantine": tmp_path / "quarantine"})
    made.create()
    return made


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index.open(tmp_path / "index.sqlite", now=lambda: LATER)


def put(folders: Folders, name: str, number: int, flags: str = "", **fields: str) -> str:
    fields = {"Id": f"<{number}@x>", "Date": str(1e9 + number), "Subject": f"letter {number}", **fields}
    text = "\n".join(f"{field}: {value}" for field, value in fields.items())
    return folders.add(name, text.encode(), flags)


def subjects(index: Index, folder: str) -> list[str]:
    return [row.subject for row in index.rows(index.ids(folder))]


def found(index: Index, query: str, folder: str | None = None) -> set[str]:
    return {row.subject for row in index.rows(index.search(query, folder))}


def test_a_folder_lists_newest_first_with_everything_a_list_shows(index: Index, folders: Folders) -> None:
    unique = put(
        folders,
        "Inbox",
        1,
        "S",
        From="Eve <e@x>",
        To="a@x, b@x",
        Parent="<0@x>",
        References="<a@x> <0@x>",
        Attached="1",
    )
    put(folders, "Inbox", 3)
    put(folders, "Inbox", 2)
    index.update(folders, summarise)
    assert subjects(index, "Inbox") == ["letter 3", "letter 2", "letter 1"]
    row = index.rows(index.ids("Inbox"))[-1]
    assert (row.unique, row.flags, row.unread) == (unique, "S", False)
    assert (row.sender, row.recipients, row.attachments) == ("Eve <e@x>", ("a@x", "b@x"), True)
    assert (row.message_id, row.in_reply_to, row.references) == ("<1@x>", "<0@x>", ("<a@x>", "<0@x>"))
    path = folders.path(row.folder, row.unique, row.place)
    assert path is not None
    assert row.size == path.stat().st_size


def test_counts_tell_unread_of_every_folder(index: Index, folders: Folders) -> None:
    put(folders, "Inbox", 1)
    put(folders, "Inbox", 2, "S")
    put(folders, "Sent", 3, "S")
    index.update(folders, summarise)
    counts = index.counts()
    assert counts["Inbox"] == Counts(2, 1)
    assert counts["Sent"] == Counts(1, 0)
    assert counts["Trash"] == Counts(0, 0)


def test_an_update_without_changes_reads_nothing(index: Index, folders: Folders) -> None:
    put(folders, "Inbox", 1)
    changes = index.update(folders, summarise)
    assert (changes.added, changes.folders) == (1, frozenset({"Inbox"}))

    def refuse(path: Path) -> Summary:
        raise AssertionError(f"{path} was read again")

    assert not index.update(folders, refuse)
    assert not index.update(folders, refuse, everything=True)


def test_a_folder_that_changed_a_moment_ago_is_looked_into_again(tmp_path: Path, folders: Folders) -> None:
    put(folders, "Inbox", 1)
    stamp = folders.times("Inbox")
    index = Index.open(tmp_path / "other.sqlite", now=lambda: max(stamp) / 1e9 + 1)
    index.update(folders, summarise)
    put(folders, "Inbox", 2)
    for subdir, changed in zip(("new", "cur"), stamp, strict=True):  # as on a filesystem whose clock ticks coarsely
        os.utime(folders.folder("Inbox") / subdir, ns=(changed, changed))
    index.update(folders, summarise)
    assert subjects(index, "Inbox") == ["letter 2", "letter 1"]


def test_what_another_reader_flags_moves_and_deletes_is_followed(index: Index, folders: Folders) -> None:
    flagged, moved, deleted = (put(folders, "Inbox", number) for number in (1, 2, 3))
    index.update(folders, summarise)
    before = {row.subject: row.id for row in index.rows(index.ids("Inbox"))}
    folders.change_flags("Inbox", flagged, "FS")
    folders.move("Inbox", moved, "Archive")
    folders.remove("Inbox", deleted)
    changes = index.update(folders, lambda path: pytest.fail(f"{path} was read again"))
    assert (changes.added, changes.changed, changes.removed) == (0, 2, 1)
    assert changes.folders == {"Inbox", "Archive"}
    rows = index.rows([before["letter 1"], before["letter 2"], before["letter 3"]])
    assert [(row.folder, row.flags) for row in rows] == [("Inbox", "FS"), ("Archive", "")]
    assert index.counts()["Inbox"] == Counts(1, 0)
    assert found(index, "letter") == {"letter 1", "letter 2"}


def test_a_different_message_with_a_counted_name_is_not_taken_for_the_one_that_left(
    index: Index, folders: Folders
) -> None:
    (folders.folder("Inbox") / "cur" / "1:2,S").write_text("Subject: old")
    index.update(folders, summarise)
    (folders.folder("Inbox") / "cur" / "1:2,S").unlink()
    (folders.folder("Archive") / "cur" / "1:2,S").write_text("Subject: quite another")
    index.update(folders, summarise)
    assert subjects(index, "Archive") == ["quite another"]


def test_a_listing_that_misses_a_renamed_message_does_not_drop_it(
    index: Index, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    unique = put(folders, "Inbox", 1)
    index.update(folders, summarise)
    row = index.ids("Inbox")[0]
    places = folders.places
    misses = iter([True])

    def listing(name: str) -> set[str]:
        if name == "Inbox" and next(misses, False):
            folders.change_flags(name, unique, "S")
            return set()  # the directory was read while the name moved from its end to its begin
        return places(name)

    folders.change_flags("Inbox", unique, "F")
    monkeypatch.setattr(folders, "places", listing)
    index.update(folders, summarise)
    assert list(index.ids("Inbox")) == [row]
    assert index.rows([row])[0].flags == "FS"


def test_a_message_listed_under_both_of_its_names_is_shown_once(
    index: Index, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    unique = put(folders, "Inbox", 1)
    index.update(folders, summarise)
    folders.change_flags("Inbox", unique, "S")
    both = {f"new/{unique}", f"cur/{unique}:2,S"}
    monkeypatch.setattr(folders, "places", lambda name: both if name == "Inbox" else set())
    index.update(folders, summarise)
    assert [row.flags for row in index.rows(index.ids("Inbox"))] == ["S"]


def test_a_file_that_vanishes_before_it_is_read_is_no_error(index: Index, folders: Folders) -> None:
    put(folders, "Inbox", 1)
    put(folders, "Inbox", 2)

    def vanishing(path: Path) -> Summary:
        summary = summarise(path)
        if summary.subject == "letter 1":
            path.unlink()
            raise FileNotFoundError(path)
        return summary

    assert index.update(folders, vanishing).added == 1


def test_a_message_that_cannot_be_read_or_parsed_is_listed_as_such(index: Index, folders: Folders) -> None:
    put(folders, "Inbox", 1, Crash="boom")
    put(folders, "Inbox", 2)

    def denied(path: Path) -> Summary:
        summary = summarise(path)
        if summary.subject == "letter 2":
            raise PermissionError(13, "Permission denied")
        return summary

    index.update(folders, denied)
    assert sorted(subjects(index, "Inbox")) == [
        "(this message can't be read: Permission denied)",
        "(this message can't be read: ValueError)",
    ]


def test_what_is_no_file_is_passed_over(index: Index, folders: Folders) -> None:
    (folders.folder("Inbox") / "cur" / "folder").mkdir()
    os.mkfifo(folders.folder("Inbox") / "cur" / "pipe:2,")
    assert index.update(folders, summarise).added == 0


def test_a_date_in_the_future_does_not_stay_on_top(index: Index, folders: Folders) -> None:
    put(folders, "Inbox", 1, Date="9e10")
    index.update(folders, summarise)
    unique = next(folders.scan("Inbox")).unique
    path = folders.path("Inbox", unique)
    assert path is not None
    assert index.rows(index.ids("Inbox"))[0].date == path.stat().st_mtime + index_update.FUTURE


def test_a_message_without_a_date_has_the_time_of_its_arrival(index: Index, folders: Folders) -> None:
    folders.add("Inbox", b"Subject: undated", received=1.5e9)
    index.update(folders, summarise)
    assert index.rows(index.ids("Inbox"))[0].date == 1.5e9


def test_a_name_that_is_no_text_is_followed_too(index: Index, folders: Folders) -> None:
    with open(os.fsencode(folders.folder("Inbox")) + b"/cur/\xff\xfe:2,S", "wb") as file:  # noqa: PTH123
        file.write(b"Subject: odd")
    index.update(folders, summarise)
    row = index.rows(index.ids("Inbox"))[0]
    assert folders.path("Inbox", row.unique, row.place) is not None
    assert not index.update(folders, summarise, everything=True)


def test_search_looks_through_headers_and_text_in_all_folders_but_quarantine(index: Index, folders: Folders) -> None:
    put(folders, "Inbox", 1, From="Eve Müller <eve@example.org>", Text="the budget of the river")
    put(folders, "Archive", 2, "S", To="bob@example.org", Text="a river of budgets", Attached="1")
    put(folders, "Quarantine", 3, Text="budget river")
    index.update(folders, summarise)
    assert found(index, "river") == {"letter 1", "letter 2"}
    assert found(index, "RIVER budg*", "Inbox") == {"letter 1"}
    assert found(index, '"river of"') == {"letter 2"}
    assert found(index, "from:muller") == {"letter 1"}
    assert found(index, "from:eve@example.org -to:bob") == {"letter 1"}
    assert found(index, "to:bob") == found(index, "has:attachment") == found(index, "in:archive") == {"letter 2"}
    assert found(index, "is:unread") == {"letter 1"}
    assert found(index, "-budget") == {"letter 2"}
    assert found(index, "letter", "Quarantine") == {"letter 3"}
    assert found(index, "budget", "Quarantine") == set()  # only its headers are known
    assert found(index, "river", "No such folder") == found(index, "") == set()
    assert found(index, "after:2001-09 before:2001-10 river") == {"letter 1", "letter 2"}
    assert len(index.search("letter", limit=1)) == 1


def test_a_change_that_we_made_is_shown_at_once_and_an_update_finds_nothing_more(
    index: Index, folders: Folders
) -> None:
    uniques = [put(folders, "Inbox", number) for number in (1, 2, 3)]
    index.update(folders, summarise)
    third, second, first = index.ids("Inbox")
    flagged, moved = folders.change_flags("Inbox", uniques[0], "S"), folders.move("Inbox", uniques[1], "Trash")
    assert flagged is not None
    assert moved is not None
    index.relocate(first, "Inbox", flagged)
    index.relocate(second, "Trash", moved)
    folders.remove("Inbox", uniques[2])
    index.drop([third])
    fourth = index.add(folders, "Inbox", put(folders, "Inbox", 4), summarise)
    assert list(index.ids("Inbox")) == [fourth, first]
    assert list(index.ids("Trash")) == [second]
    assert index.counts()["Inbox"] == Counts(2, 1)
    assert not index.update(folders, summarise, everything=True)
    assert index.add(folders, "Inbox", "gone", summarise) is None


def test_a_row_stays_when_an_update_was_quicker_to_see_its_new_place(index: Index, folders: Folders) -> None:
    unique = put(folders, "Inbox", 1)
    index.update(folders, summarise)
    (row,) = index.ids("Inbox")
    moved = folders.move("Inbox", unique, "Archive")
    assert moved is not None
    index.add(folders, "Archive", unique, summarise)
    index.relocate(row, "Archive", moved)
    assert list(index.ids("Archive")) == [row]
    assert list(index.ids("Inbox")) == []


def test_copies_of_a_message_are_found_by_its_message_id(index: Index, folders: Folders) -> None:
    put(folders, "Inbox", 1)
    put(folders, "Sent", 1)
    index.update(folders, summarise)
    assert {row.folder for row in index.by_message_id("<1@x>")} == {"Inbox", "Sent"}
    assert index.by_message_id("<2@x>") == []


def test_a_folder_that_is_gone_is_forgotten(index: Index, folders: Folders) -> None:
    folders.create("Plans")
    put(folders, "Plans", 1)
    index.update(folders, summarise)
    (folders.root / "Plans").rename(folders.root / "Ideas")
    changes = index.update(folders, lambda path: pytest.fail(f"{path} was read again"))
    assert changes.folders == {"Plans", "Ideas"}
    assert subjects(index, "Ideas") == ["letter 1"]
    assert "Plans" not in index.counts()


def test_a_stopped_update_keeps_what_it_did_and_the_next_goes_on(
    index: Index, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_update, "FIRST_BATCH", 2)
    for number in range(5):
        put(folders, "Inbox", number)
    heard: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        heard.append((done, total))
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.update(folders, summarise, stop)
    assert heard == [(0, 5), (2, 5)]
    assert len(index.ids("Inbox")) == 2
    assert index.update(folders, summarise).added == 3


@pytest.mark.parametrize("damage", [b"this is no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_damaged_index_is_set_aside_and_made_again(tmp_path: Path, folders: Folders, damage: bytes) -> None:
    path = tmp_path / "index.sqlite"
    path.write_bytes(damage)
    put(folders, "Inbox", 1)
    index = Index.open(path, now=lambda: LATER)
    assert index.damaged == tmp_path / "index.sqlite.damaged-4000000000"
    assert index.damaged.read_bytes() == damage
    index.update(folders, summarise)
    assert subjects(index, "Inbox") == ["letter 1"]


def test_damage_that_shows_during_use_is_mended_for_every_connection(index: Index, folders: Folders) -> None:
    for number in range(200):
        put(folders, "Inbox", number, Text="river " * 50)
    index.update(folders, summarise)
    index.close()
    size = index.path.stat().st_size
    with index.path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))
    assert list(index.ids("Inbox")) == []
    assert index.damaged is not None
    assert index.update(folders, summarise).added == 200
    assert len(index.search("river")) == 200


def test_only_one_of_two_processes_sets_a_damaged_file_aside(tmp_path: Path, folders: Folders) -> None:
    put(folders, "Inbox", 1)
    path = tmp_path / "index.sqlite"
    one, two = Index.open(path, now=lambda: LATER), Index.open(path, now=lambda: LATER + 1)
    index_schema.set_aside(path, LATER)  # what `one` does when it finds damage
    one.close()
    one.update(folders, summarise)
    two._set_damaged_aside(0)
    assert two.damaged is None
    assert subjects(two, "Inbox") == ["letter 1"]


def test_an_index_of_another_version_is_made_again(index: Index, folders: Folders) -> None:
    put(folders, "Inbox", 1)
    index.update(folders, summarise)
    index.close()
    connection = connect(index.path, "")
    connection.executescript("DROP TABLE message; PRAGMA user_version=99")
    connection.close()
    again = Index.open(index.path, now=lambda: LATER)
    assert list(again.ids("Inbox")) == []
    assert again.damaged is None
    again.update(folders, summarise)
    assert subjects(again, "Inbox") == ["letter 1"]


def test_an_index_that_cannot_be_opened_is_a_readable_error(tmp_path: Path) -> None:
    with pytest.raises(IndexUnavailable, match="Your mail is not touched"):
        Index.open(tmp_path / "missing" / "index.sqlite")


def test_words_of_deleted_mail_are_cleared_out_when_they_outweigh_the_rest(
    index: Index, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_update, "MUCH_GONE", 2)
    uniques = [put(folders, "Inbox", number) for number in range(6)]
    index.update(folders, summarise)
    for unique in uniques[:5]:
        folders.remove("Inbox", unique)
    index.update(folders, summarise)
    assert index.update(folders, summarise).added == 1
    assert found(index, "letter") == {"letter 5"}


def test_lists_and_searches_go_on_while_an_update_reads(index: Index, folders: Folders) -> None:
    put(folders, "Inbox", 1)
    index.update(folders, summarise)
    put(folders, "Inbox", 2)
    reading, go_on = threading.Event(), threading.Event()

    def slow(path: Path) -> Summary:
        reading.set()
        assert go_on.wait(10)
        return summarise(path)

    thread = threading.Thread(target=index.update, args=(folders, slow))
    thread.start()
    assert reading.wait(10)
    assert subjects(index, "Inbox") == ["letter 1"]
    assert found(index, "letter") == {"letter 1"}
    index.drop(index.ids("Inbox"))
    go_on.set()
    thread.join()
    assert "letter 2" in subjects(index, "Inbox")


_place: Callable[[], st.SearchStrategy[str]] = lambda: st.one_of(  # noqa: E731
    st.sampled_from("abc").map("new/{}".format),
    st.tuples(st.sampled_from("abc"), st.sampled_from(["", "S", "FS"])).map("cur/{0[0]}:2,{0[1]}".format),
)


@given(st.sets(_place()), st.sets(_place()))
def test_after_a_difference_the_index_knows_exactly_what_was_found(before: set[str], after: set[str]) -> None:
    known = {place: row for row, place in enumerate(sorted(before))}
    result = difference(known, after)
    places = {row: place for place, row in known.items()}
    places.update(result.renamed)
    for row in result.removed:
        del places[row]
    assert sorted([*places.values(), *result.added]) == sorted(after)


@given(st.builds(Summary, st.text(), st.text(), st.lists(st.text()).map(tuple), st.text(), st.floats(), text=st.text()))
def test_whatever_a_message_says_can_be_stored(summary: Summary) -> None:
    checked = bounded(summary)
    assert 0 <= checked.date < 1e11
    for line in (checked.message_id, checked.sender, checked.subject, *checked.recipients):
        assert line.isprintable() or not {*line} & {*map(chr, range(32))}
        line.encode()
    checked.text.encode()


def test_a_header_of_a_million_characters_is_cut() -> None:
    huge = Summary(subject="x" * 1_000_000, references=tuple(str(number) for number in range(1000)))
    assert len(bounded(huge).subject) == MAX_HEADER
    assert bounded(huge).references == tuple(str(number) for number in range(1000 - MAX_REFERENCES, 1000))


def test_an_undecodable_character_can_be_stored() -> None:
    assert bounded(Summary(subject="a\udcffb\nc")).subject == "a?b c"


def test_a_row_follows_a_message_to_which_a_program_appended_its_number(index: Index, folders: Folders) -> None:
    unique = put(folders, "Inbox", 1)
    index.update(folders, summarise)
    row = index.ids("Inbox")[0]
    path = folders.path("Inbox", unique)
    assert path is not None
    path.rename(path.parent.with_name("cur") / f"{unique},U=7:2,S")
    assert index.update(folders, summarise).added == 0
    (found,) = index.rows([row])
    assert (found.unique, found.place) == (unique, f"cur/{unique},U=7:2,S")


def test_two_messages_with_one_unique_name_are_two_rows_and_neither_is_taken_for_the_other(
    index: Index, folders: Folders
) -> None:
    cur = folders.folder("Inbox") / "cur"
    (cur / "1:2,S").write_bytes(b"Subject: one\r\n\r\n")
    (cur / "1:2,RS").write_bytes(b"Subject: two\r\n\r\n")
    index.update(folders, summarise)
    (cur / "1:2,S").rename(cur / "1:2,FS")
    (cur / "1:2,RS").rename(cur / "1,U=1:2,RS")
    index.update(folders, summarise)
    assert {row.place: row.subject for row in index.rows(index.ids("Inbox"))} == {
        "cur/1:2,FS": "one",
        "cur/1,U=1:2,RS": "two",
    }
