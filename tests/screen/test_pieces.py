"""The parts of the screen that draw nothing: the listing, the columns, the layout of a message, finding, paths."""

from __future__ import annotations

from array import array
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from mail.events import NodeStatus
from mail.mailbox import Row
from mail.mime.addresses import Address
from mail.mime.message import Message
from tui.columns import columns, fit, person, pieces, when
from tui.delivery import summary
from tui.listing import CACHE, Listing
from tui.reading import find, lay_out, wrap
from tui.screens.node import availability, copies, exact_percent, network
from tui.screens.prompt import completed

NOW = 1_790_000_000.0
ROW = Row(1, "Inbox", "u", "m@x", "Ada <ada@x.example>", (), "Hello", NOW - 60, "", 10, False, "", ())
MESSAGE = Message(
    sender=Address("Ada", "ada@x.example"),
    reply_to=(), to=(), cc=(), bcc=(), followup_to=(), subject="Hello", date=NOW, message_id="m@x", in_reply_to="",
    references=(), text="", from_html=False, attachments=(), headers=(), defects=(), size=10,
)  # fmt: skip


def utc(moment: float) -> datetime:
    return datetime.fromtimestamp(moment, UTC)


def listing(*ids: int) -> Listing:
    shown = Listing()
    shown.replace(array("q", ids))
    return shown


@given(st.lists(st.integers(1, 50), unique=True, min_size=1), st.data())
def test_whatever_comes_and_goes_the_selection_is_the_same_message_or_none(ids: list[int], data: st.DataObject) -> None:
    shown = listing(*ids)
    shown.select(data.draw(st.integers(0, len(ids) - 1)))
    before = shown.selected
    after = data.draw(st.lists(st.integers(1, 60), unique=True))
    shown.replace(array("q", after))
    assert shown.selected == (before if before in after else None)
    if shown.selected is not None:
        assert shown.ids[shown.place] == shown.selected


@given(st.lists(st.integers(1, 30), unique=True, min_size=1), st.data())
def test_after_the_users_own_removal_a_message_that_is_there_is_selected(ids: list[int], data: st.DataObject) -> None:
    shown = listing(*ids)
    shown.select(data.draw(st.integers(0, len(ids) - 1)))
    gone = data.draw(st.sets(st.sampled_from(ids)))
    shown.remove(gone)
    left = [number for number in ids if number not in gone]
    assert list(shown.ids) == left
    assert (shown.selected in left) if left else (shown.selected is None)


def test_removing_what_is_selected_selects_the_next_one() -> None:
    shown = listing(1, 2, 3)
    shown.select(1)
    shown.remove([2])
    assert shown.selected == 3
    shown.remove([3])
    assert shown.selected == 1


def test_marks_stay_with_their_messages_and_go_with_them() -> None:
    shown = listing(1, 2, 3)
    shown.mark(2)
    shown.mark(3)
    shown.replace(array("q", [9, 3, 1]))
    assert shown.chosen() == [3]


def test_no_more_rows_are_kept_than_the_cache_holds() -> None:
    shown = listing(*range(5000))
    for start in range(0, 5000, 500):
        shown.keep(replace(ROW, id=number) for number in range(start, start + 500))
    assert len(shown._rows) == CACHE
    assert shown.row(4999) is not None and shown.row(0) is None


@given(st.text(max_size=60), st.integers(1, 40))
def test_a_column_is_exactly_as_wide_as_it_is_meant_to_be(text: str, width: int) -> None:
    assert cell_len(fit("".join(c for c in text if c.isprintable()), width)) == width


@given(st.integers(60, 200), st.booleans(), st.booleans())
def test_a_line_of_the_list_fills_its_width(width: int, state: bool, folder: bool) -> None:
    line = pieces(ROW, columns(width, state=state, folder=folder), NOW, delivery="collected 1/2", local=utc)
    assert cell_len("".join(text for text, _ in line)) == width


def test_a_subject_with_control_sequences_is_shown_without_them() -> None:
    row = replace(ROW, subject="a\x1b]0;evil\x07b\x1b[2Jc\nd", sender="\x1b[31mred <x@y.example>")
    text = "".join(text for text, _ in pieces(row, columns(80), NOW, local=utc))
    assert "\x1b" not in text and "\n" not in text and "abc d" in text


def test_every_state_has_a_sign_besides_its_colour() -> None:
    plain = "".join(text for text, _ in pieces(replace(ROW, flags="S"), columns(80), NOW, local=utc))
    changed = [replace(ROW, flags=flags) for flags in ("", "FS", "RS", "PS")] + [
        replace(ROW, flags="S", attachments=True)
    ]
    for row in changed:
        assert "".join(text for text, _ in pieces(row, columns(80), NOW, local=utc)) != plain


def test_dates_are_as_short_as_they_can_be() -> None:
    assert when(NOW - 60, NOW, 6, utc) == f"{utc(NOW - 60):%H:%M}"
    assert when(NOW - 5 * 86400, NOW, 6, utc) == f"{utc(NOW - 5 * 86400):%d %b}"
    assert when(NOW - 900 * 86400, NOW, 6, utc) == f"{utc(NOW - 900 * 86400):%b %y}"
    assert when(0, NOW, 6, utc) == ""
    assert when(1e18, NOW, 6, utc) == "?"


def test_a_person_is_shown_by_name_where_there_is_one() -> None:
    assert person('"Lovelace, Ada" <ada@x.example>') == "Lovelace, Ada"
    assert person("<ada@x.example>") == "ada@x.example"
    assert person("ada@x.example") == "ada@x.example"


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), max_size=300), st.integers(2, 60))
def test_wrapped_text_fits_and_loses_no_word(text: str, width: int) -> None:
    lines = wrap(text, width)
    assert all(cell_len(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_quotes_links_and_signature_are_told_apart() -> None:
    text = "see https://x.example/a b\n> one\n>> two\n-- \nAda\n"
    lines = lay_out(replace(MESSAGE, text=text), 80, utc)
    styles = {style: piece for line in lines for piece, style in line}
    assert styles["link"] == "https://x.example/a"
    assert styles["quote1"].endswith("one") and styles["quote2"].endswith("two")
    assert styles["signature"] == "Ada"


def test_a_message_of_line_ends_only_is_bounded() -> None:
    assert len(lay_out(replace(MESSAGE, text="\n" * 1_000_000 + "x"), 80, utc)) <= 60_000


def test_finding_ignores_case_and_gives_every_place() -> None:
    lines = lay_out(replace(MESSAGE, text="Straße strasse\nSTRASSE\n"), 80, utc)
    assert len(find(lines, "strasse")) == 2
    assert find(lines, "") == []


def test_delivery_says_the_worst_first() -> None:
    assert summary([]) == ""
    assert summary(["collected", "collected"]) == "collected"
    assert summary(["collected", "stored"]) == "collected 1/2"
    assert summary(["failed", "collected"]) == "failed 1/2"
    assert summary(["queued", "stored"]) == "queued 1/2"


def test_paths_are_completed_as_a_shell_does(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "north").mkdir()
    (tmp_path / ".hidden").write_text("")
    assert completed(f"{tmp_path}/nor") == f"{tmp_path}/north/"
    assert completed(f"{tmp_path}/not") == f"{tmp_path}/notes.txt"
    assert completed(f"{tmp_path}/.h") == f"{tmp_path}/.hidden"
    assert completed(f"{tmp_path}/zz") is None
    assert completed("/no/such/folder/x") is None


def test_the_node_screen_says_what_k_copies_reach() -> None:
    status = NodeStatus("", "", "node", 1, 0, 0, 1, 0, 0.4, 20, "1", (0.36, 0.44), 100, 0.9999, 0.998)
    assert copies(status) == ("20", "reach 99.8% here, not the target of 99.99%")
    assert copies(replace(status, reached=0.99995)) == ("20", "reach the target of 99.99%")
    unknown = replace(status, availability=None, interval=None, reached=None)
    assert copies(unknown) == ("20", "until p is known; the target is 99.99%")
    assert availability(unknown)[0] == "not measured yet"
    assert availability(status) == ("40.0% of nodes are up", "36% to 44% (90%), 100 probed")


def test_the_node_screen_says_whether_anybody_answers() -> None:
    status = NodeStatus("", "", "node", 1, 0, 0, 1, 0, 0.4, 20, "1", online=True)
    assert network(status)[0] == "online"
    assert network(replace(status, alone=True))[0] == "this node alone"
    offline = network(replace(status, online=False, offline_since=NOW))
    assert offline == ("offline", "since 21 Sep 14:13: mail waits until somebody answers")


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0.99, "99%"), (0.98765, "98.7%"), (0.99876, "99.87%"), (0.998996, "99.89%"), (0.99999, "99.999%"), (0.5, "50%")],
)
def test_a_success_rate_is_never_rounded_up(share: float, shown: str) -> None:
    assert exact_percent(share) == shown
