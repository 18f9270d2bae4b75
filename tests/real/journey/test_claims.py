"""The judge finds what it is there for: messages that are lost, doubled or changed, and states that aren't true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.real.journey.claims import Answered, Claim, Claims, Finding, Whereabouts

MESSAGE = b"From: anna@x.example\r\nMessage-ID: <1@x.example>\r\n\r\nhello\r\n"


class TwoUsers:
    """Anna has sent one message to Ben."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.claims = Claims()
        self.anna = Whereabouts("anna@x.example", folder / "anna")
        self.ben = Whereabouts("ben@x.example", folder / "ben")
        message = folder / "letter"
        message.write_bytes(MESSAGE)
        self.claim: Claim = self.claims.hand_in("1@x.example", self.anna.address, [self.ben.address], message)
        self.claim.answered = Answered.YES
        self.state = "collected"
        self.put("anna", "Sent")
        self.put("ben", "Inbox")

    def put(self, user: str, folder: str, name: str = "1", message: bytes = MESSAGE) -> None:
        """File a copy."""
        path = self.folder / user / "mail" / folder / "cur" / f"{name}:2,S"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(message)

    def take(self, user: str, folder: str) -> None:
        """Take the copy away."""
        (self.folder / user / "mail" / folder / "cur" / "1:2,S").unlink()

    def found(self, listed: int | None = None) -> list[Finding]:
        """What is wrong. `listed`: how often Ben's list has it; None: as often as it is there."""
        users = [self.anna, self.ben]
        entry: dict[str, Any] = {
            "id": "<1@x.example>",
            "recipients": [{"address": self.ben.address, "state": self.state}],
        }
        lists = {user.address: [copy.message_id for copy in user.now()] for user in users}
        if listed is not None:
            lists[self.ben.address] = ["1@x.example"] * listed
        outboxes: dict[str, list[dict[str, Any]]] = {
            self.anna.address: [entry] if self.state else [],
            self.ben.address: [],
        }
        return [wrong.found for wrong in self.claims.judge(users, outboxes, lists)]


@pytest.fixture
def two(tmp_path: Path) -> TwoUsers:
    return TwoUsers(tmp_path)


def test_a_message_that_arrived_once_and_is_called_collected_is_well(two: TwoUsers) -> None:
    assert two.found() == []


def test_a_message_that_is_nowhere_is_lost(two: TwoUsers) -> None:
    two.take("ben", "Inbox")
    assert two.found() == [Finding.LOST]
    assert two.claims.missing([two.anna, two.ben]) == {("1@x.example", "ben@x.example")}


def test_a_message_in_two_folders_is_doubled(two: TwoUsers) -> None:
    two.put("ben", "Archive")
    assert two.found() == [Finding.DOUBLED]


def test_a_second_copy_in_sent_is_doubled(two: TwoUsers) -> None:
    two.put("anna", "Sent", "2")
    assert two.found() == [Finding.DOUBLED]


def test_a_byte_that_differs_is_a_change(two: TwoUsers) -> None:
    two.put("ben", "Inbox", message=MESSAGE[:-1])
    assert two.found() == [Finding.CHANGED]


@pytest.mark.parametrize("state", ["queued", "stored", "failed", "expired"])
def test_another_state_of_what_arrived_is_untrue(two: TwoUsers, state: str) -> None:
    two.state = state
    assert two.found() == [Finding.UNTRUE]


def test_a_message_that_was_refused_and_arrives_is_untrue(two: TwoUsers) -> None:
    two.claim.answered = Answered.NO
    two.state = ""
    two.take("anna", "Sent")
    assert two.found() == [Finding.UNTRUE]


def test_a_message_after_a_kill_may_be_taken_or_not(two: TwoUsers) -> None:
    two.claim.answered = Answered.NOTHING
    assert two.found() == []
    two.state = ""
    two.take("ben", "Inbox")
    assert two.found() == []


def test_an_accepted_message_that_the_outbox_forgot_is_untrue(two: TwoUsers) -> None:
    two.state = ""
    assert two.found() == [Finding.UNTRUE]


def test_a_list_that_shows_it_twice_is_untrue(two: TwoUsers) -> None:
    assert two.found(listed=2) == [Finding.UNTRUE]
    assert two.found(listed=0) == [Finding.UNTRUE]


def test_what_lies_in_a_profile_that_a_backup_replaced_has_arrived(two: TwoUsers) -> None:
    (two.folder / "ben").rename(two.folder / "replaced")
    two.put("ben", "Inbox", message=MESSAGE.replace(b"<1@", b"<0@"))
    assert two.found() == [Finding.LOST]
    two.ben.replaced.append(two.folder / "replaced")
    assert two.found() == []


@pytest.mark.parametrize("end", [b"\r\nX-TUID: abcdefghijkl\r\n\r\n", b"\r\nContent-Length: 7\n\n"])
def test_what_mbsync_and_neomutt_add_is_no_change(two: TwoUsers, end: bytes) -> None:
    two.put("ben", "Inbox", message=MESSAGE.replace(b"\r\n\r\n", end))
    assert two.found() == []
