"""Filing: checked before it is anywhere to be seen, where it belongs, with every byte that it came with."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from mail.checks.pipeline import Check, Clean, IncomingMessage, Pipeline, Verdict
from mail.checks.spam import GTUBE
from mail.checks.standard import standard_pipeline
from mail.mailbox import Mailbox, MailboxError
from mail.mime.attachments import save_attachment
from mail.mime.message import read_message
from mail.receive.filing import Filing
from storage.database import DatabaseError
from storage.user.index import IndexUnavailable
from tests.mail.sample_messages import EICAR, MALFORMED, VALID, with_attachment
from tests.mail.user_agents import UserAgent, plain_message


async def deliver(alice: UserAgent, bob: UserAgent, message: bytes, message_id: str = "letter@example.org") -> None:
    """Send these bytes, and collect them."""
    alice.write(bob, message_id=message_id, message=message)
    await alice.send()
    assert await bob.collect() == 1


def with_real_checks(user_agent: UserAgent) -> None:
    pipeline = standard_pipeline(user_agent.state, clamd="/nowhere/clamd.sock")
    user_agent.receiving._filing = Filing(user_agent.profile.folders(), user_agent.index, pipeline, user_agent.state)


@pytest.mark.parametrize("path", [*VALID, *MALFORMED], ids=lambda path: path.stem)
async def test_original_bytes_are_kept_byte_for_byte(alice: UserAgent, bob: UserAgent, path: Path) -> None:
    original = path.read_bytes()
    await deliver(alice, bob, original)
    assert bob.everywhere() == [original]


@pytest.mark.parametrize(
    "body",
    [b"", b"no line end", b"\r\rodd\r\n\nline\n\rends\r", bytes(range(256)) * 9, b"\xff\xfe\x00", b"From here\n.\n"],
    ids=["empty", "no line end", "odd line ends", "every byte", "not UTF-8", "dots"],
)
async def test_odd_bytes_are_kept_byte_for_byte(alice: UserAgent, bob: UserAgent, body: bytes) -> None:
    original = plain_message(alice.address, [bob.address], "letter@example.org", body)
    await deliver(alice, bob, original)
    assert bob.folder("Inbox") == [original]


async def test_an_attachment_of_5_mb_is_identical_after_saving(
    alice: UserAgent, bob: UserAgent, tmp_path: Path
) -> None:
    content = random.Random(5).randbytes(5_000_000)
    message = with_attachment(content, "photo.jpg").replace(b"mallory@example.org", alice.address.encode())
    await deliver(alice, bob, message)
    folders = bob.profile.folders()
    (entry,) = folders.scan("Inbox")
    path = folders.path("Inbox", entry.unique)
    assert path is not None
    (attachment,) = read_message(path).attachments
    saved = save_attachment(path, attachment.index, tmp_path / "saved.jpg")
    assert saved.read_bytes() == content


async def test_eicar_goes_to_quarantine_and_is_not_opened(alice: UserAgent, bob: UserAgent) -> None:
    with_real_checks(bob)
    message = with_attachment(EICAR, "readme.txt").replace(b"mallory@example.org", alice.address.encode())
    await deliver(alice, bob, message)
    assert bob.folder("Quarantine") == bob.everywhere() == [message]
    mailbox = Mailbox(bob.profile, now=bob.world.clock)
    mailbox.refresh()
    (row,) = mailbox.rows(mailbox.ids("Quarantine"))
    assert "EICAR" in mailbox.quarantined(row).found.upper()
    for look in (mailbox.open, mailbox.source):
        with pytest.raises(MailboxError):
            look(row)
    with pytest.raises(MailboxError):
        mailbox.save_attachment(row, 0, bob.profile.root / "out")
    mailbox.close()


async def test_gtube_goes_to_junk(alice: UserAgent, bob: UserAgent) -> None:
    with_real_checks(bob)
    message = plain_message(alice.address, [bob.address], "letter@example.org", GTUBE.encode() + b"\n")
    await deliver(alice, bob, message)
    assert bob.folder("Junk") == bob.everywhere() == [message]


@pytest.mark.parametrize(
    "sender",
    ["carol@example.org", "", "From::;-", "Alice <carol@example.org>", "carol@example.org, alice@example.org"],
)
async def test_a_from_that_is_not_the_signer_goes_to_quarantine(alice: UserAgent, bob: UserAgent, sender: str) -> None:
    message = plain_message(sender, [bob.address], "letter@example.org")
    await deliver(alice, bob, message)
    assert bob.folder("Quarantine") == bob.everywhere() == [message]
    (entry,) = bob.profile.folders().scan("Quarantine")
    why = bob.state.quarantine_reason(entry.unique)
    assert why is not None
    assert "alice@example.org sent it" in why


async def test_a_second_from_goes_to_quarantine_since_programs_differ_in_which_they_show(
    alice: UserAgent, bob: UserAgent
) -> None:
    message = b"From: alice@example.org\nFrom: carol@example.org\nSubject: Hello\n\nText\n"
    await deliver(alice, bob, message)
    assert bob.folder("Quarantine") == [message]


async def test_the_signers_address_may_be_written_in_any_case(alice: UserAgent, bob: UserAgent) -> None:
    message = plain_message('"Alice" <ALICE@Example.ORG>', [bob.address], "letter@example.org")
    await deliver(alice, bob, message)
    assert bob.folder("Inbox") == [message]


class Spy:
    """A check that looks at where the message is while it is checked."""

    name = "spy"

    def __init__(self, look: Callable[[], list[bytes]]) -> None:
        self._look = look
        self.seen: list[bytes] | None = None

    def check(self, incoming: IncomingMessage) -> Verdict:
        self.seen = self._look()
        return Clean()


class FailingCheck:
    """A check that fails."""

    name = "broken"

    def check(self, incoming: IncomingMessage) -> Verdict:
        raise RuntimeError("a bug")


def check_with(user_agent: UserAgent, check: Check) -> None:
    user_agent.receiving._filing = Filing(
        user_agent.profile.folders(), user_agent.index, Pipeline([check]), user_agent.state
    )


async def test_nothing_is_in_any_folder_before_every_check_has_spoken(alice: UserAgent, bob: UserAgent) -> None:
    spy = Spy(bob.everywhere)
    check_with(bob, spy)
    await deliver(alice, bob, plain_message(alice.address, [bob.address], "letter@example.org"))
    assert spy.seen == []


async def test_what_could_not_be_checked_goes_to_quarantine(alice: UserAgent, bob: UserAgent) -> None:
    check_with(bob, FailingCheck())
    await deliver(alice, bob, plain_message(alice.address, [bob.address], "letter@example.org"))
    assert len(bob.folder("Quarantine")) == 1


async def test_an_index_that_cannot_be_written_keeps_no_mail_back(
    alice: UserAgent, bob: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take(*_: object) -> None:
        raise IndexUnavailable("the disk is full")

    monkeypatch.setattr(bob.index, "add", take)
    await deliver(alice, bob, plain_message(alice.address, [bob.address], "letter@example.org"))
    assert len(bob.folder("Inbox")) == 1
    assert bob.troubles == []


async def test_what_is_filed_is_in_the_index_at_once(alice: UserAgent, bob: UserAgent) -> None:
    await deliver(alice, bob, plain_message(alice.address, [bob.address], "letter@example.org"))
    (row,) = bob.index.by_message_id("letter@example.org")
    assert (row.folder, row.subject, row.unread) == ("Inbox", "Hello", True)


ADDED = b"Content-Length: 42\n"
"""What neomutt writes into what it moves."""


async def killed_once_it_is_filed(
    alice: UserAgent, bob: UserAgent, monkeypatch: pytest.MonkeyPatch, message: bytes
) -> None:
    """Bob's process dies when the message is in his Inbox, before that is noted."""
    alice.write(bob, message_id="letter@example.org", message=message)
    await alice.send()

    def dies(*_: object) -> None:
        raise DatabaseError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(bob.state, "mark_filed", dies)
        with pytest.raises(DatabaseError):
            await bob.collect()
    assert bob.folder("Inbox") == [message]


async def test_what_another_program_moved_before_it_was_noted_is_not_filed_again(
    alice: UserAgent, bob: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = plain_message(alice.address, [bob.address], "letter@example.org", b"the text\r\n")
    await killed_once_it_is_filed(alice, bob, monkeypatch, message)
    folders = bob.profile.folders()
    (entry,) = folders.scan("Inbox")
    folders.remove("Inbox", entry.unique)
    header, empty, body = message.partition(b"\r\n\r\n" if b"\r\n\r\n" in message else b"\n\n")
    moved = header + empty[: len(empty) // 2] + ADDED + empty[len(empty) // 2 :] + body
    folders.add("Archive", moved)
    await bob.collect()
    assert bob.everywhere() == [moved]


async def test_what_is_gone_before_it_was_noted_is_filed_again_beside_another_of_that_id(
    alice: UserAgent, bob: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = plain_message(alice.address, [bob.address], "letter@example.org", b"the text\r\n")
    await killed_once_it_is_filed(alice, bob, monkeypatch, message)
    folders = bob.profile.folders()
    (entry,) = folders.scan("Inbox")
    folders.remove("Inbox", entry.unique)
    other = message.replace(b"the text", b"and this")
    folders.add("Archive", other)
    await bob.collect()
    assert sorted(bob.everywhere()) == sorted([message, other])


async def test_what_was_filed_before_the_process_died_is_announced_in_its_folder_and_not_filed_again(
    alice: UserAgent, bob: UserAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = plain_message(alice.address, [bob.address], "letter@example.org", b"the text\r\n")
    await killed_once_it_is_filed(alice, bob, monkeypatch, message)
    assert await bob.collect() == 1
    assert [event.folder for event in bob.new_mail] == ["Inbox"]
    assert bob.everywhere() == [message]


@pytest.mark.parametrize(
    "field",
    [
        "",
        "{own} <boss@bank.example>",
        "{own}, boss@bank.example",
        "Team: {own}, boss@bank.example;",
        "=?utf-8?q?x,boss@bank.example,?= <{own}>",
    ],
)
async def test_mail_that_is_not_plainly_from_its_proven_sender_goes_to_quarantine(
    alice: UserAgent, bob: UserAgent, field: str
) -> None:
    written = field.format(own=alice.address)
    message = f"From: {written}\r\nMessage-ID: <letter@example.org>\r\nSubject: x\r\n\r\nPay.\r\n".encode()
    await deliver(alice, bob, message)
    assert bob.folder("Quarantine") == bob.everywhere() == [message]
    mailbox = Mailbox(bob.profile, now=bob.world.clock)
    mailbox.refresh()
    (row,) = mailbox.rows(mailbox.ids("Quarantine"))
    assert alice.address in mailbox.quarantined(row).found
    assert row.who.startswith("claims: ")
