"""The reader on a real terminal, on real nodes: what came is read, answered and written with keys alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.real.process_network import ProcessNetwork, ask, p2pmail, sync, until_state
from tests.real.programs import command, until
from tests.real.terminal import Terminal

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("tui")]

SIZES = [pytest.param(80, 24, id="80x24"), pytest.param(120, 34, id="120x34")]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessNetwork]:
    made = ProcessNetwork(tmp_path_factory.mktemp("village"), k=3)
    try:
        made.start(3)
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def alice(network: ProcessNetwork) -> Path:
    return network.member("alice")


@pytest.fixture(scope="module")
def bob(network: ProcessNetwork) -> Path:
    return network.member("bob")


@pytest.fixture
def reader(need_program: Callable[[str], str], tmp_path: Path) -> Iterator[Callable[[Path, int, int], Terminal]]:
    """`reader(profile, columns, rows)` starts the reader; what still runs after the test is ended."""
    need_program("tmux")
    opened: list[Terminal] = []

    def start(profile: Path, columns: int, rows: int) -> Terminal:
        arguments = [*command("p2pmail-tui"), "--profile", str(profile)]
        terminal = Terminal(arguments, columns=columns, rows=rows, socket=tmp_path / f"tmux{len(opened)}")
        opened.append(terminal)
        return terminal

    yield start
    for terminal in opened:
        terminal.close()


def post(alice: Path, subject: str, text: str) -> None:
    message = f"From: Alice <alice@village.example>\nSubject: {subject}\n\n{text}\n"
    answer = p2pmail(alice, "send", "bob@village.example", stdin=message.encode())
    assert answer.code == 0, answer.err
    sync(alice)


FIELDS = ("To", "Cc", "Bcc", "Subject")


def tab_to(screen: Terminal, row: int) -> None:
    """Go to the next field, and wait until it shows that it has the cursor."""
    before = screen.drawn(row)
    screen.press("Tab")
    until(lambda: screen.drawn(row) != before, f"the cursor in row {row}")


def fill_in(screen: Terminal, to: str, subject: str, text: str) -> None:
    """Write a message, from the first field to the last."""
    lines = screen.shows(r"^ *Subject").splitlines()
    first = next(row for row, line in enumerate(lines) if line.split() == ["To"])
    screen.write(to)
    screen.shows(rf"^ *To +{to}$")
    for row in range(first + 1, first + len(FIELDS)):
        tab_to(screen, row)
    screen.write(subject)
    screen.shows(rf"^ *Subject +{subject}$")
    tab_to(screen, first + len(FIELDS) + 1)
    screen.write(text)
    screen.shows(rf"^ *{text}$")


def row(profile: Path, folder: str, subject: str) -> dict[str, object] | None:
    return next((found for found in ask(profile, "list", folder) if found["subject"] == subject), None)


@pytest.mark.parametrize(("columns", "rows"), SIZES)
def test_what_was_sent_is_collected_and_read_on_the_screen(
    alice: Path, bob: Path, reader: Callable[[Path, int, int], Terminal], columns: int, rows: int
) -> None:
    subject = f"seen at {columns}"
    post(alice, subject, f"The bell rings at {rows}.")

    screen = reader(bob, columns, rows)
    shown = screen.shows(rf"Alice .*{subject}")  # collected by the reader itself
    assert "Inbox" in shown
    assert "bob@village.example" in screen.shows(r"bob@village\.example")
    screen.press("Home", "Enter")
    screen.shows(rf"The bell rings at {rows}\.")
    screen.press("C-q")
    assert screen.ended() == 0

    found = row(bob, "Inbox", subject)
    assert found is not None
    assert found["flags"] == ["seen"]
    until_state(alice, subject, "collected", "bob@village.example", syncing=True)


@pytest.mark.parametrize(("columns", "rows"), SIZES)
def test_an_answer_typed_on_the_screen_arrives(
    alice: Path, bob: Path, reader: Callable[[Path, int, int], Terminal], columns: int, rows: int
) -> None:
    subject = f"question at {columns}"
    post(alice, subject, "Shall we?")

    screen = reader(bob, columns, rows)
    screen.shows(rf"Alice .*{subject}")
    screen.shows(r"bob@village\.example")
    screen.press("Home", "Enter")
    screen.shows(r"Shall we\?")
    screen.press("r")
    screen.shows(r"> Shall we\?")
    screen.write("We shall.")
    screen.shows(r"We shall\.")
    screen.press("F5")
    answer = f"Re: {subject}"
    until(lambda: row(bob, "Sent", answer), "the answer is in Sent")
    screen.shows(r"^ ?p2pmail .*Inbox")
    screen.press("o")
    screen.shows(r"stored +alice@village\.example")
    sync(alice)
    screen.press("$")
    screen.shows(r"collected +alice@village\.example")
    screen.press("Escape")
    screen.press("C-q")
    assert screen.ended() == 0

    found = row(alice, "Inbox", answer)
    assert found is not None
    text = p2pmail(alice, "show", str(found["id"])).text
    assert "We shall.\n" in text
    assert "> Shall we?" in text
    (question,) = ask(bob, "search", f"is:answered question {columns}")
    assert set(question["flags"]) == {"seen", "replied"}


def test_a_message_with_an_attachment_is_written_on_the_screen(
    alice: Path, bob: Path, reader: Callable[[Path, int, int], Terminal], tmp_path: Path
) -> None:
    enclosed = tmp_path / "notes.bin"
    enclosed.write_bytes(bytes(range(256)) * 256)
    screen = reader(alice, 80, 24)
    screen.shows(r"alice@village\.example")
    screen.press("c")
    fill_in(screen, "bob@village.example", "Notes", "All of them.")
    screen.press("F6")
    screen.shows(r"Which file\?")
    screen.press("C-u")
    screen.shows_not(re.escape(str(Path.cwd())))
    screen.write(str(enclosed))
    screen.shows(r"notes\.bin")
    screen.press("Enter")
    screen.shows(r"^ *Attached")
    screen.press("F5")
    screen.shows(r"^ ?p2pmail .*Inbox")
    screen.press("o")
    screen.shows(r"stored +bob@village\.example")
    screen.press("C-q")
    assert screen.ended() == 0

    sync(bob)
    found = row(bob, "Inbox", "Notes")
    assert found is not None
    text = p2pmail(bob, "show", str(found["id"])).text
    assert "All of them." in text
    assert re.search(r"^Attachment: notes\.bin \(.*, 65536 bytes\)$", text, re.MULTILINE)


def test_a_reader_killed_while_one_writes_keeps_the_draft(
    alice: Path, reader: Callable[[Path, int, int], Terminal]
) -> None:
    screen = reader(alice, 80, 24)
    screen.shows(r"alice@village\.example")
    screen.press("c")
    fill_in(screen, "bob@village.example", "Half of it", "To begin with")
    until(lambda: row(alice, "Drafts", "Half of it"), "the draft is on disk")
    screen.close()  # the terminal goes away, and the reader with it
    assert row(alice, "Drafts", "Half of it") is not None
