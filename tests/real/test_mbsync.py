"""mbsync between the profile's folders and others: drafts, moves and undo in between leave both sides the same."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from mail.mailbox import ARCHIVE, DRAFTS, INBOX, Mailbox
from mail.mime.addresses import Address
from mail.write.drafts import DraftForm
from storage.user.folders import Folders
from storage.user.profile import Profile

pytestmark = pytest.mark.real

ME = Address("", "alice@village.example")
SETTINGS = """
MaildirStore near
Path {near}/
Inbox {near}/Inbox
SubFolders Verbatim

MaildirStore far
Path {far}/
Inbox {far}/Inbox
SubFolders Verbatim

Channel both
Far :far:
Near :near:
Patterns INBOX Archive Drafts
Create Both
Expunge Both
SyncState {state}/
"""


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    made = Profile(tmp_path / "alice")
    made.create()
    return made


@pytest.fixture
def far(tmp_path: Path) -> Folders:
    """The other side."""
    return Folders(tmp_path / "far")


@pytest.fixture
def mbsync(need_program: Callable[[str], str], profile: Profile, far: Folders, tmp_path: Path) -> Callable[[], None]:
    """Brings both sides together, once."""
    state = tmp_path / "state"
    for folder in (state, far.root):
        folder.mkdir()
    settings = tmp_path / "mbsyncrc"
    settings.write_text(SETTINGS.format(near=profile.mail, far=far.root, state=state))
    arguments = [need_program("mbsync"), "-c", str(settings), "-a", "-q"]

    def run() -> None:
        ended = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
        assert (ended.returncode, ended.stderr) == (0, "")

    return run


def messages(folders: Folders, name: str) -> list[tuple[bytes, str]]:
    """Subject line and flags of every message of the folder."""
    found = []
    for entry in folders.scan(name):
        data = (folders.folder(name) / entry.place).read_bytes()
        subject = next(line for line in data.splitlines() if line.startswith(b"Subject: "))
        found.append((subject.removeprefix(b"Subject: "), entry.flags))
    return sorted(found)


def test_a_draft_kept_three_times_and_sent_leaves_nothing_on_either_side(
    mbsync: Callable[[], None], profile: Profile, far: Folders
) -> None:
    with closing(Mailbox(profile)) as mailbox:
        told: list[str] = []
        kept = None
        for number in range(3):
            kept = mailbox.save_draft(DraftForm(to="bob@x.example", subject=f"v{number}"), ME, kept, told.append)
            mbsync()
            assert messages(far, DRAFTS) == [(f"v{number}".encode(), "DS")]
        assert kept is not None and ",U=" in next(profile.folders().scan(DRAFTS)).place
        assert mailbox.discard_draft(kept) == ""
        mbsync()
    assert (messages(profile.folders(), DRAFTS), messages(far, DRAFTS), told) == ([], [], [])


def test_undo_after_mbsync_keeps_what_was_flagged_on_the_other_side(
    mbsync: Callable[[], None], profile: Profile, far: Folders
) -> None:
    near = profile.folders()
    for number in range(3):
        near.add(INBOX, f"From: b@x.example\r\nSubject: m{number}\r\n\r\nx\r\n".encode(), "S")
    mbsync()
    with closing(Mailbox(profile)) as mailbox:
        mailbox.refresh()
        mailbox.archive(list(mailbox.ids(INBOX))[:2])
        mbsync()
        for entry in list(far.scan(ARCHIVE)):
            far.change_flags(ARCHIVE, entry.unique, "F")
        mbsync()
        assert mailbox.undo() == "archived 2 messages"
        mbsync()
        mbsync()
    assert messages(near, ARCHIVE) == messages(far, ARCHIVE) == []
    assert sorted(flags for _, flags in messages(near, INBOX)) == ["FS", "FS", "S"]
    assert messages(near, INBOX) == messages(far, INBOX)
