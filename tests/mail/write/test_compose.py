"""Composing messages, replies and forwards, and reading messages that other programs submit."""

from __future__ import annotations

import email
import io
import tracemalloc
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mail.mime.addresses import Address
from mail.mime.message import read_message, save_attachment
from mail.send.enqueue import CannotAccept
from mail.write.compose import ComposeError, Draft, Enclosure, compose, new_message_id
from mail.write.reply import forward, quoted, reply
from mail.write.submission import FIELD_LIMIT, Submission, SubmissionError, read_submission
from tests.mail.sample_messages import FIXTURES

ALICE = Address("Alice", "alice@example.org")
BOB = Address("Bob", "bob@example.net")
CAROL = Address("Carol", "carol@example.org")
NOON = 1772529120.0


def _token(size: int) -> str:
    return "ab" * size


def _written(draft: Draft) -> bytes:
    out = io.BytesIO()
    compose(out, draft, now=lambda: NOON, token=_token)
    return out.getvalue()


def _parsed(data: bytes) -> EmailMessage:
    message = email.message_from_bytes(data, policy=default)
    assert isinstance(message, EmailMessage)
    return message


_NAMES = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=30)


@given(
    name=_NAMES,
    subject=st.text(max_size=200),
    text=st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=300),
)
def test_a_message_reads_back_as_it_was_composed(name: str, subject: str, text: str) -> None:
    data = _written(Draft(ALICE, (Address(name, "bob@example.net"),), subject=subject, text=text))
    message = _parsed(data)
    assert message["To"].addresses[0].addr_spec == "bob@example.net"
    assert message.get_content().rstrip("\r\n") == text.rstrip("\n")
    assert all(len(line) <= 998 for line in data.split(b"\r\n"))
    assert b"\n" not in data.replace(b"\r\n", b"")


def test_a_message_has_the_headers_that_it_needs_and_never_bcc() -> None:
    draft = Draft(
        ALICE, (BOB,), (CAROL,), (Address("", "secret@example.org"),), "Grüße", "Hallo", (), "p@x", ("r@x", "p@x")
    )
    data = _written(draft)
    message = _parsed(data)
    assert message["From"] == "Alice <alice@example.org>"
    assert message["To"] == "Bob <bob@example.net>"
    assert message["Cc"] == "Carol <carol@example.org>"
    assert message["Subject"] == "Grüße"
    assert message["Message-ID"] == f"<{'ab' * 16}@example.org>"
    assert message["In-Reply-To"] == "<p@x>"
    assert message["References"] == "<r@x> <p@x>"
    assert message["Date"].datetime.timestamp() == NOON
    assert b"secret" not in data
    assert b"bcc" not in data.lower()
    assert draft.recipients == ("bob@example.net", "carol@example.org", "secret@example.org")


def test_a_line_break_in_a_subject_or_a_name_makes_no_header() -> None:
    sneaky = "x\r\nBcc: victim@example.org"
    message = _parsed(_written(Draft(Address(sneaky, "alice@example.org"), (BOB,), subject=sneaky)))
    assert "Bcc" not in message
    assert message["Subject"] == "x Bcc: victim@example.org"


@pytest.mark.parametrize("address", ["", "bob", "bob@", "@x", "a@x\r\nBcc: v@x", "a@x, b@x", "<a@x>"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ComposeError, match="not an e-mail address"):
        _written(Draft(ALICE, (Address("", address),)))


def test_an_address_beyond_ascii_is_written_in_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "m.eml"
    path.write_bytes(_written(Draft(Address("Ż", "żółw@example.org"), (BOB,), subject="ü", text="x")))
    message = read_message(path)
    assert message.sender == Address("Ż", "żółw@example.org")
    assert message.subject == "ü"


def test_long_message_ids_are_never_folded_or_encoded() -> None:
    long = "x" * 120 + "@example.org"
    data = _written(Draft(ALICE, (BOB,), in_reply_to=long, references=(long, long + "2")))
    assert f"References: <{long}>\r\n <{long}2>\r\n".encode() in data
    assert f"In-Reply-To: <{long}>\r\n".encode() in data


@given(content=st.binary(max_size=500), name=st.text(min_size=1, max_size=20))
def test_an_attachment_comes_back_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str
) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "file").write_bytes(content)
    (folder / "m.eml").write_bytes(
        _written(Draft(ALICE, (BOB,), text="see", enclosures=(Enclosure(folder / "file", name=name),)))
    )
    message = read_message(folder / "m.eml")
    assert message.text == "see\n"
    assert message.defects == ()
    (found,) = message.attachments
    assert found.size == len(content) or found.content_type == "message/rfc822"
    saved = save_attachment(folder / "m.eml", found.index, folder)
    assert saved.read_bytes() == content
    saved.unlink()


def test_memory_stays_below_4_mib_for_a_large_attachment(tmp_path: Path) -> None:
    large = tmp_path / "large.bin"
    with large.open("wb") as file:
        file.truncate(25 * 1024 * 1024)
    told: list[int] = []
    with (tmp_path / "m.eml").open("wb") as out:
        tracemalloc.start()
        try:
            compose(out, Draft(ALICE, (BOB,), enclosures=(Enclosure(large),)), progress=told.append)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 4 * 1024 * 1024
    assert told == sorted(told)
    assert told[-1] == 25 * 1024 * 1024
    assert read_message(tmp_path / "m.eml").attachments[0].size == 25 * 1024 * 1024


@pytest.mark.parametrize("enclosure", [Enclosure(Path("/nowhere/at all")), Enclosure(Path("/"))])
def test_an_attachment_that_cannot_be_read_is_a_clear_error(enclosure: Enclosure) -> None:
    with pytest.raises(ComposeError, match="can't be read"):
        _written(Draft(ALICE, (BOB,), enclosures=(enclosure,)))


def test_a_message_id_is_of_the_senders_domain_and_never_of_an_odd_one() -> None:
    assert new_message_id("alice@example.org", _token) == f"{'ab' * 16}@example.org"
    assert new_message_id("alice@żółw.example", _token).endswith("@xn--w-uga1v8h.example")
    for odd in ("alice", "alice@", "alice@a b", "alice@>\r\nX: y", "a@" + "ü" * 300):
        assert new_message_id(odd, _token) == f"{'ab' * 16}@p2pmail.invalid"
    assert new_message_id("a@b.example") != new_message_id("a@b.example")


def _original(tmp_path: Path, *fields: str, body: str = "Hello.\n") -> Path:
    path = tmp_path / "original.eml"
    path.write_bytes(("\r\n".join(fields) + "\r\n\r\n" + body).encode())
    return path


def _to(draft: Draft) -> tuple[list[str], list[str]]:
    return [person.address for person in draft.to], [person.address for person in draft.cc]


LIST = (
    "From: Alice <alice@example.org>",
    "To: bob@example.net, CAROL@Example.org, Bob <BOB@example.net>",
    "Cc: dave@example.org, alice@EXAMPLE.org",
    "Subject: Lunch",
    "Date: Tue, 03 Mar 2026 10:12:00 +0100",
    "Message-ID: <m@x>",
    "References: <a@x> <b@x>",
)


def test_a_reply_goes_to_the_author_and_quotes_her(tmp_path: Path) -> None:
    draft = reply(read_message(_original(tmp_path, *LIST, body="Noon?\n\n> earlier\n\n-- \nAlice\n")), BOB)
    assert _to(draft) == (["alice@example.org"], [])
    assert draft.subject == "Re: Lunch"
    assert draft.in_reply_to == "m@x"
    assert draft.references == ("a@x", "b@x", "m@x")
    assert draft.text == "On 2026-03-03 09:12 UTC, Alice <alice@example.org> wrote:\n> Noon?\n>\n>> earlier\n"


def test_a_reply_to_all_goes_to_each_once_and_not_to_me(tmp_path: Path) -> None:
    draft = reply(read_message(_original(tmp_path, *LIST)), BOB, all=True)
    assert _to(draft) == (["alice@example.org"], ["CAROL@Example.org", "dave@example.org"])


def test_reply_to_is_honoured(tmp_path: Path) -> None:
    message = read_message(_original(tmp_path, *LIST, "Reply-To: list@example.org"))
    assert _to(reply(message, BOB)) == (["list@example.org"], [])
    assert _to(reply(message, BOB, all=True))[0] == ["list@example.org"]


def test_mail_followup_to_is_honoured_by_a_reply_to_all(tmp_path: Path) -> None:
    message = read_message(_original(tmp_path, *LIST, "Mail-Followup-To: list@example.org, bob@example.net"))
    assert _to(reply(message, BOB, all=True)) == (["list@example.org"], [])
    assert _to(reply(message, BOB)) == (["alice@example.org"], [])


def test_a_reply_to_ones_own_message_goes_to_its_recipients(tmp_path: Path) -> None:
    message = read_message(_original(tmp_path, *LIST))
    assert _to(reply(message, ALICE)) == (["bob@example.net", "CAROL@Example.org"], [])
    assert _to(reply(message, ALICE, all=True))[1] == ["dave@example.org"]


def test_a_reply_to_a_note_to_myself_goes_to_me(tmp_path: Path) -> None:
    message = read_message(_original(tmp_path, "From: alice@example.org", "To: alice@example.org"))
    assert _to(reply(message, ALICE, all=True)) == (["alice@example.org"], [])


@pytest.mark.parametrize("subject", ["Re: Lunch", "RE: re: Lunch", "AW: Re[2]: Lunch", "Lunch"])
def test_re_is_said_once(tmp_path: Path, subject: str) -> None:
    assert (
        reply(read_message(_original(tmp_path, "From: a@x.example", f"Subject: {subject}")), BOB).subject == "Re: Lunch"
    )


def test_a_reply_to_nothing_that_can_be_read_does_not_raise(tmp_path: Path) -> None:
    draft = reply(read_message(FIXTURES / "malformed" / "empty.eml"), BOB, all=True)
    assert (draft.to, draft.cc, draft.references) == ((), (), ())
    assert quoted("") == ">"


def test_a_forward_brings_the_text_and_the_attachments(tmp_path: Path) -> None:
    source = FIXTURES / "valid" / "attachments.eml"
    draft = forward(source, BOB, (CAROL,))
    assert draft.subject == "Fwd: Files"
    assert "From: Alice <alice@example.org>\nSubject: Files\nTo: Bob <bob@example.net>\n\nSee attached." in draft.text
    copy = tmp_path / "copy.eml"
    copy.write_bytes(_written(draft))
    before, after = read_message(source), read_message(copy)
    assert after.defects == ()
    assert [(found.name, found.content_type) for found in after.attachments] == [
        (found.name, found.content_type) for found in before.attachments
    ]
    for old, new in zip(before.attachments, after.attachments, strict=True):
        folder = tmp_path / str(new.index)
        folder.mkdir()
        first, second = save_attachment(source, old.index, folder), save_attachment(copy, new.index, folder)
        assert first.read_bytes() == second.read_bytes()


# Submission by other programs.


def _submit(tmp_path: Path, data: bytes, *recipients: str, from_headers: bool = False) -> tuple[Submission, bytes]:
    taken = read_submission(
        io.BytesIO(data), tmp_path / "spool", recipients, "alice@example.org",
        from_headers=from_headers, now=lambda: NOON, token=_token,
    )  # fmt: skip
    kept = taken.path.read_bytes()
    assert taken.size == len(kept)
    taken.path.unlink()
    return taken, kept


COMPLETE = (
    b"From: Alice <alice@example.org>\nTo: bob@example.net\nDate: Tue, 03 Mar 2026 10:12:00 +0100\n"
    b"Message-ID: <kept@example.org>\nSubject: =?utf-8?q?=C3=A4?=\n\n"
)


@given(st.binary(max_size=300), st.sampled_from([b"\n", b"\r\n"]))
def test_a_complete_message_is_kept_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, ending: bytes
) -> None:
    data = COMPLETE.replace(b"\n", ending) + body
    taken, kept = _submit(tmp_path_factory.getbasetemp(), data, "bob@example.net")
    assert kept == data
    assert taken.message_id == "kept@example.org"
    assert taken.sender == "alice@example.org"
    assert taken.subject == "ä"
    assert taken.date == NOON


@given(
    st.binary(max_size=200)
    | st.lists(
        st.sampled_from([b"To: a@x.example\n", b"Bcc:b@x.example\r\n", b" c\n", b"\n", b"\r\n", b"x", b"From \n"])
    ).map(b"".join)
)
def test_any_bytes_are_taken_whole_or_refused_with_nothing_left(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder = tmp_path_factory.mktemp("any", numbered=True)
    try:
        taken, kept = _submit(folder, data, "bob@example.net")
    except SubmissionError:
        assert list(folder.iterdir()) == []
        return
    (folder / "m").write_bytes(kept)
    message = read_message(folder / "m")
    assert message.message_id == taken.message_id
    assert message.date == taken.date or message.date is None
    assert "bcc" not in [name for name, _ in message.headers]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_what_is_missing_is_added_in_the_messages_own_line_ends(tmp_path: Path, ending: bytes) -> None:
    taken, kept = _submit(tmp_path, ending.join([b"Subject: cron", b"", b"done", b""]), "bob@example.net")
    lines = kept.split(ending)
    assert lines[0] == b"Subject: cron"
    assert lines[1] == b"From: alice@example.org"
    assert lines[2].startswith(b"Date: ")
    assert lines[3] == f"Message-ID: <{'ab' * 16}@example.org>".encode()
    assert lines[4:] == [b"", b"done", b""]
    assert b"\r\r" not in kept
    assert taken.message_id == "ab" * 16 + "@example.org"
    assert taken.date == NOON


@pytest.mark.parametrize(
    "data", [b"just text\nno header: at all\n", b" indented\n", b"", b"Subject: x", b"Subject: x\nbody: not\x00"]
)
def test_a_message_without_a_body_or_a_header_gets_both(tmp_path: Path, data: bytes) -> None:
    _, kept = _submit(tmp_path, data, "bob@example.net")
    header, empty, _ = kept.partition(b"\n\n")
    assert empty
    assert b"\nMessage-ID: <" in b"\n" + header


def test_with_t_the_recipients_come_from_the_header_and_bcc_goes(tmp_path: Path) -> None:
    data = (
        b"To: Bob <bob@example.net>,\n carol@example.org\nbcc: x@example.org,\n\ty@example.org\nCc: BOB@example.net\n"
        b"Subject: s\n\nBcc: this is text\n"
    )
    taken, kept = _submit(tmp_path, data, "dave@example.org", from_headers=True)
    assert taken.recipients == (
        "dave@example.org", "bob@example.net", "carol@example.org", "x@example.org", "y@example.org",
    )  # fmt: skip
    assert b"x@example.org" not in kept
    assert b"y@example.org" not in kept
    assert kept.startswith(b"To: Bob <bob@example.net>,\n carol@example.org\nCc: BOB@example.net\nSubject: s\n")
    assert kept.endswith(b"\n\nBcc: this is text\n")


def test_without_t_the_header_names_no_recipient_and_bcc_goes_all_the_same(tmp_path: Path) -> None:
    taken, kept = _submit(tmp_path, b"To: carol@example.org\nBcc: x@example.org\n\nhi\n", "bob@example.net")
    assert taken.recipients == ("bob@example.net",)
    assert b"x@example.org" not in kept


def test_an_mbox_line_goes(tmp_path: Path) -> None:
    _, kept = _submit(tmp_path, b"From a@x Tue Mar  3 2026\n" + COMPLETE, "bob@example.net")
    assert kept == COMPLETE


@pytest.mark.parametrize(
    ("data", "recipients", "why"),
    [
        (b"To: undisclosed-recipients:;\n\n", (), "no recipient"),
        (b"Subject: x\n\n", (), "no recipient"),
        (b"To: bob@example.net, nonsense\n\n", (), "nonsense can't be a recipient"),
        (b"Message-ID: <a b>\nTo: bob@example.net\n\n", (), "Message-ID can't be used"),
        (b"To: " + b"bob@example.net, " * (FIELD_LIMIT // 16) + b"\n\n", (), "longer than 4 MiB"),
        (b"To: " + b",".join(b"b%d@x.example" % n for n in range(10_001)) + b"\n\n", (), "10,001 recipients"),
        (b"Subject: x\n\n", ("bob@",), "can't be a recipient"),
    ],
)  # fmt: skip
def test_what_cannot_be_sent_is_refused_and_leaves_nothing(
    tmp_path: Path, data: bytes, recipients: tuple[str, ...], why: str
) -> None:
    with pytest.raises((SubmissionError, CannotAccept), match=why):
        _submit(tmp_path, data, *recipients, from_headers=True)
    assert list(tmp_path.iterdir()) == []


def test_a_large_message_is_streamed(tmp_path: Path) -> None:
    data = COMPLETE + b"X-Long: " + b"x" * 1000 + b"\n" + b"y" * (20 * 1024 * 1024)
    stream = io.BytesIO(data)
    tracemalloc.start()
    try:
        taken = read_submission(stream, tmp_path / "spool", ["bob@example.net"], "alice@example.org")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 1024 * 1024
    assert taken.path.read_bytes() == data


def test_a_header_of_one_megabyte_that_nobody_needs_is_kept(tmp_path: Path) -> None:
    data = b"X-Long: " + b"x" * 1_000_000 + b"\n" + COMPLETE + b"hi\n"
    assert _submit(tmp_path, data, "bob@example.net")[1] == data


def test_attack_a_reply_does_not_carry_a_name_that_is_another_address(tmp_path: Path) -> None:
    path = tmp_path / "message.eml"
    path.write_bytes(b'From: "boss@bank.example" <mallory@x.example>\r\nSubject: Pay\r\n\r\nNow.\r\n')
    draft = reply(read_message(path), Address("", "ann@x.example"))
    assert draft.to == (Address("", "mallory@x.example"),)
    assert draft.text.startswith('mallory@x.example (calls itself "boss@bank.example") wrote:')
