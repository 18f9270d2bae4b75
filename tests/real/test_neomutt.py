"""neomutt on the same Maildir at the same time as our mailbox: each sees what the other does, and nothing is lost."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mail.mailbox import Mailbox
from mail.mime.addresses import Address
from mail.write.drafts import DraftForm
from storage.user.profile import Profile
from tests.real.process_network import ask, p2pmail
from tests.real.programs import until
from tests.real.terminal import Terminal

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("neomutt")]

NAMES = ("apples", "pears", "plums", "quinces")
SETTINGS = """
set folder = ~
set delete = yes
set mark_old = no
set sort = date
set timeout = 1
set mail_check = 1
set check_new = yes
set wait_key = no
"""


def message(name: str) -> bytes:
    day = 1 + (NAMES.index(name) if name in NAMES else len(NAMES))
    return (
        f"From: Bob <bob@village.example>\r\nTo: alice@village.example\r\nSubject: about {name}\r\n"
        f"Date: Sun, {day:02} Mar 2026 12:00:00 +0000\r\nMessage-ID: <{name}@village.example>\r\n\r\n"
        f"There are {name} in the cellar.\r\n"
    ).encode()


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    """Alice's profile with four messages in her Inbox."""
    made = Profile(tmp_path / "alice")
    made.create()
    for name in NAMES:
        made.folders().add("Inbox", message(name))
    return made


@pytest.fixture
def mailbox(profile: Profile) -> Iterator[Mailbox]:
    with closing(Mailbox(profile)) as made:
        made.refresh()
        yield made


@pytest.fixture
def neomutt(need_program: Callable[[str], str], profile: Profile, tmp_path: Path) -> Iterator[Terminal]:
    """neomutt, with the Inbox on its screen."""
    settings = tmp_path / "neomuttrc"
    settings.write_text(SETTINGS)
    arguments: list[str | Path] = [need_program("neomutt"), "-n", "-F", settings, "-f", profile.folder("Inbox")]
    with Terminal(arguments, socket=tmp_path / "tmux", env={"HOME": str(tmp_path)}) as terminal:
        terminal.shows(r"about quinces")
        yield terminal


def inbox(profile: Profile) -> dict[str, list[str]]:
    """What our list says of the Inbox: subject to flags."""
    return {row["subject"]: row["flags"] for row in ask(profile.root, "list")}


def act(mailbox: Mailbox, name: str) -> list[int]:
    row = mailbox.find(f"{name}@village.example", "Inbox")
    assert row is not None
    return [row.id]


def neomutt_notices(neomutt: Terminal, profile: Profile, subject: str) -> None:
    """Wait until neomutt shows a new message.

    It takes no notice of what changes in the very moment when it opens a folder, so the folder's time is moved on
    until it looks: what it finds then is what was there.
    """

    def look() -> bool:
        for part in ("new", "cur"):
            os.utime(profile.folder("Inbox") / part)
        return subject in neomutt.screen

    until(look, f"neomutt shows {subject}", 60)


def test_neomutt_lists_what_we_filed(neomutt: Terminal) -> None:
    screen = neomutt.screen
    assert [name for name in NAMES if f"about {name}" in screen] == list(NAMES)
    neomutt.write("q")
    assert neomutt.ended() == 0


def test_what_neomutt_flags_and_deletes_is_seen_here(neomutt: Terminal, profile: Profile) -> None:
    assert inbox(profile) == {f"about {name}": [] for name in NAMES}
    neomutt.write("1\n")  # jump to apples
    neomutt.write("F")
    neomutt.write("2\n")
    neomutt.write("d")
    neomutt.write("$")  # write the changes

    expected = {"about apples": ["flagged"], "about plums": [], "about quinces": []}
    until(lambda: inbox(profile) == expected, "our list says what neomutt did")
    assert p2pmail(profile.root, "show", "<pears@village.example>").code == 65
    assert p2pmail(profile.root, "show", "<apples@village.example>", "--raw").out == message("apples")


def test_what_we_do_is_seen_by_neomutt(neomutt: Terminal, profile: Profile, mailbox: Mailbox) -> None:
    mailbox.archive(act(mailbox, "plums"))
    mailbox.flag(act(mailbox, "pears"), add="F")
    profile.folders().add("Inbox", message("walnuts"))

    neomutt_notices(neomutt, profile, "about walnuts")
    neomutt.shows(r"^ *3 [ NO]*D .*about plums")  # neomutt's way to show that another program took it away
    neomutt.shows(r"^ *2 .*!.*about pears")
    neomutt.write("$")
    neomutt.shows_not(r"about plums")
    assert [row["subject"] for row in ask(profile.root, "list", "Archive")] == ["about plums"]
    assert p2pmail(profile.root, "show", "plums@village.example", "--raw").out == message("plums")


def test_both_change_one_folder_at_once_and_nothing_is_lost(
    neomutt: Terminal, profile: Profile, mailbox: Mailbox
) -> None:
    neomutt.write("1\n")
    neomutt.write("F")  # not written yet
    neomutt.write("2\n")
    neomutt.write("d")
    neomutt.shows(r"!.*about apples")
    # Nothing is renamed by us while neomutt looks: its version 20220429 takes a message that it misses in one look for
    # deleted, goes on believing so when it finds it again, and deletes the file when it writes its changes.
    mailbox.archive(act(mailbox, "quinces"))
    profile.folders().add("Inbox", message("walnuts"))
    neomutt_notices(neomutt, profile, "about walnuts")
    neomutt.write("$")

    until(lambda: "about pears" not in inbox(profile), "neomutt writes its changes")
    until(lambda: "flagged" in inbox(profile).get("about apples", []), "neomutt's flag is there")
    assert sorted(inbox(profile)) == ["about apples", "about plums", "about walnuts"]
    for name in ("apples", "plums", "quinces", "walnuts"):
        assert p2pmail(profile.root, "show", f"{name}@village.example", "--raw").out == message(name)


def test_a_message_that_neomutt_moved_under_us_is_still_opened(
    neomutt: Terminal, profile: Profile, mailbox: Mailbox
) -> None:
    (row,) = mailbox.rows(act(mailbox, "pears"))
    neomutt.write("2\n")
    neomutt.write("F")
    neomutt.write("$")
    until(lambda: "flagged" in inbox(profile)["about pears"], "neomutt renames the file")
    assert "pears in the cellar" in mailbox.open(row).text


SUBMIT = """
import sys
from pathlib import Path
from mail.write.submission import read_submission
read_submission(sys.stdin.buffer, Path(sys.argv[1]), [], "alice@village.example", from_headers=True)
"""


def test_a_readers_draft_is_readdressed_and_sent_by_neomutt(
    need_program: Callable[[str], str], profile: Profile, mailbox: Mailbox, tmp_path: Path
) -> None:
    unsent = DraftForm(to="bob@village.example, half", bcc="carol@village.example", subject="plan", text="hello\n")
    kept = mailbox.save_draft(unsent, Address("", "alice@village.example"))
    submit = tmp_path / "submit.py"
    # Its own first line names the interpreter: neomutt gives a program its bare name, from which Python finds no venv.
    submit.write_text(f"#!{sys.executable}{SUBMIT}")
    submit.chmod(0o700)
    sent = tmp_path / "sent.eml"
    settings = tmp_path / "neomuttrc"
    settings.write_text(
        SETTINGS
        + f'set from = alice@village.example\nset postponed = "{profile.folder("Drafts")}"\nset record = ""\n'
        + 'set mbox_type = Maildir\nset recall = yes\nset editor = "true"\nset abort_unmodified = no\n'
        + f'set sendmail = "{submit} {sent}"\nset sendmail_wait = 0\n'
    )
    arguments: list[str | Path] = [need_program("neomutt"), "-n", "-F", settings, "-f", profile.folder("Inbox")]
    env = {"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    with Terminal(arguments, socket=tmp_path / "tmux", env=env) as terminal:
        terminal.shows(r"about quinces")
        terminal.write("m")
        terminal.shows(r"To: bob@village.example")
        terminal.write("t")
        terminal.shows(r"^To: bob@village\.example *$")
        terminal.write("\x15dave@village.example\n")
        terminal.shows(r"To: dave@village.example")
        terminal.write("P")
        terminal.shows(r"about quinces")

        def readdressed() -> DraftForm | None:
            mailbox.refresh()
            found = [mailbox.open_draft(row) for row in mailbox.rows(mailbox.ids("Drafts"))]
            return found[0] if [draft.to for draft in found] == ["dave@village.example"] else None

        draft = until(readdressed, "the draft is neomutt's, and the only one", 60)
        assert (draft.bcc, draft.subject, draft.text) == (unsent.bcc, unsent.subject, unsent.text)
        told: list[str] = []
        ours = mailbox.save_draft(unsent, Address("", "alice@village.example"), kept, told.append)
        assert len(told) == 1 and len(mailbox.ids("Drafts")) == 2
        mailbox.discard_draft(ours)

    # Another neomutt: a running one counts what is postponed by the folder's time in whole seconds.
    with Terminal(arguments, socket=tmp_path / "tmux2", env=env) as terminal:
        terminal.shows(r"about quinces")
        terminal.write("m")
        terminal.shows(r"To: dave@village.example")
        terminal.write("y")
        until(sent.exists, "neomutt hands the letter in", 60)
        terminal.shows(r"about quinces")
    until(lambda: not list(profile.folders().scan("Drafts")), "the draft is gone", 60)
    data = sent.read_bytes()
    assert b"To: dave@village.example" in data and b"hello" in data
    assert b"carol" not in data
    assert not re.search(rb"(?im)^(bcc|x-p2pmail)", data)
