"""The one door into the outbox: what is accepted is there once, and so is its copy in Sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mail.accepting import accept
from storage.outbox import Outbox
from storage.profile import Profile

MESSAGE = b"Subject: the plan\r\nMessage-ID: <1@x.example>\r\n\r\nhello\r\n"


class Sender:
    """A profile whose owner hands in one message, as often as she likes."""

    def __init__(self, profile: Profile, outbox: Outbox) -> None:
        self.folders = profile.folders()
        self.outbox = outbox
        self._file = profile.root / "message"
        self._file.write_bytes(MESSAGE)

    def hands_it_in(self, now: float) -> None:
        accept(self.outbox, self.folders, self._file, "1@x.example", "the plan", "a@x.example", ["b@x.example"], now)

    def sent(self) -> list[bytes]:
        folder = self.folders.folder("Sent")
        return [(folder / place).read_bytes() for place in self.folders.places("Sent")]


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[Sender]:
    profile = Profile(tmp_path / "anna")
    profile.create()
    with closing(Outbox(profile.outbox_file)) as outbox:
        yield Sender(profile, outbox)


def test_a_message_handed_in_again_after_a_kill_has_one_copy_in_sent(sender: Sender) -> None:
    sender.hands_it_in(now=1000.0)
    sender.hands_it_in(now=1007.5)
    assert sender.sent() == [MESSAGE]
    assert len(sender.outbox.entries()) == 1


def test_a_copy_that_was_moved_and_flagged_meanwhile_is_not_made_again(sender: Sender) -> None:
    sender.hands_it_in(now=1000.0)
    (entry,) = sender.folders.scan("Sent")
    sender.folders.change_flags("Sent", entry.unique, "FS")
    sender.folders.move("Sent", entry.unique, "Archive")
    sender.hands_it_in(now=1007.5)
    assert sender.sent() == []


def test_a_copy_that_the_kill_prevented_is_made_by_the_next_attempt(sender: Sender) -> None:
    sender.hands_it_in(now=1000.0)
    (entry,) = sender.folders.scan("Sent")
    sender.folders.remove("Sent", entry.unique)
    sender.hands_it_in(now=1007.5)
    assert sender.sent() == [MESSAGE]
