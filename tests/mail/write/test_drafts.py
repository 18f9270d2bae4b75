"""Drafts that other programs read, change and send: their version counts, and no private field leaves."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mail.mime.addresses import Address
from mail.mime.flowed import unflowed
from mail.write import drafts
from mail.write.compose import ComposeError, Enclosure, compose
from mail.write.drafts import DraftForm
from mail.write.private_headers import without_private
from mail.write.submission import read_submission

ME = Address("", "alice@network.example")
KEY = b"k" * 32


def written(unsent: DraftForm, key: bytes = KEY) -> bytes:
    out = io.BytesIO()
    drafts.write(out, unsent, sender=ME, message_id="d@network.example", now=1e9, key=key)
    return out.getvalue()


def read(tmp_path: Path, data: bytes, key: bytes = KEY) -> DraftForm:
    place = tmp_path / "draft"
    place.write_bytes(data)
    return drafts.read(place, key)


def header(data: bytes, name: str) -> str:
    return str(message_from_bytes(data, policy=policy.default)[name])


FULL = DraftForm(
    to="bob@x.example, half",
    cc="Čapek <c@x.example>",
    bcc="secret@x.example, secr",
    subject="for bob",
    text="hello bob",
    enclosures=(Enclosure(Path("/tmp/plan.pdf")),),
    in_reply_to="m@x.example",
    references=("l@x.example", "m@x.example"),
    answers="m@x.example",
)


def test_every_field_is_where_other_programs_look_for_it() -> None:
    data = written(FULL)
    assert header(data, "To") == "bob@x.example"
    assert header(data, "Cc") == "Čapek <c@x.example>"
    assert header(data, "Bcc") == "secret@x.example"
    assert header(data, "In-Reply-To") == "<m@x.example>"
    assert header(data, "References") == "<l@x.example> <m@x.example>"


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        (b"To: bob@x.example", b"To: carol@x.example", {"to": "carol@x.example"}),
        (b"To: bob@x.example\r\n", b"", {"to": ""}),
        (b"Bcc: secret@x.example\r\n", b"", {"bcc": ""}),
        (b"Subject: for bob", b"Subject: for carol", {"subject": "for carol"}),
        (b"aGVsbG8gYm9i", b"aGVsbG8gY2Fyb2wK", {"text": "hello carol\n"}),
        (b"In-Reply-To: <m@x.example>\r\n", b"", {"in_reply_to": "", "answers": ""}),
        (b"Date:", b"Reply-To: a2@x.example\r\nDate:", {"others": (("reply-to", "a2@x.example"),)}),
    ],
)
def test_what_another_program_changed_wins_and_nothing_of_the_old_comes_back(
    tmp_path: Path, old: bytes, new: bytes, changes: dict[str, str]
) -> None:
    data = written(FULL)
    assert data.count(old) == 1
    assert read(tmp_path, data.replace(old, new)) == replace(FULL, **changes)  # type: ignore[arg-type]


def test_a_header_that_was_only_folded_and_encoded_anew_is_the_same(tmp_path: Path) -> None:
    message = message_from_bytes(written(FULL), policy=policy.SMTP.clone(max_line_length=76, refold_source="all"))
    assert read(tmp_path, message.as_bytes()) == FULL


def test_attachments_that_were_only_named_are_let_go_aloud_when_another_program_attached_something(
    tmp_path: Path,
) -> None:
    message = message_from_bytes(written(FULL), policy=policy.SMTP)
    assert isinstance(message, EmailMessage)
    message.add_attachment(b"theirs", maintype="application", subtype="pdf", filename="theirs.pdf")
    found = read(tmp_path, message.as_bytes())
    assert [(item.name, item.inside) for item in found.enclosures] == [("theirs.pdf", True)]
    assert "/tmp/plan.pdf" in found.notes


@pytest.mark.parametrize("key", [b"", b"x" * 32])
def test_attack_a_strangers_message_can_not_name_files_of_this_computer_as_its_attachments(
    tmp_path: Path, key: bytes
) -> None:
    forged = written(
        DraftForm(to="mallory@x.example", enclosures=(Enclosure(Path("/home/alice/.ssh/id_ed25519")),)), key
    )
    found = read(tmp_path, forged)
    assert found.enclosures == ()
    assert "id_ed25519" in found.notes


def test_a_draft_of_an_older_version_is_read_from_its_header_and_says_what_it_had_attached(tmp_path: Path) -> None:
    old = (
        b"To: carol@x.example\r\nSubject: s\r\nX-P2pmail-Draft: eyJ0byI6ICJib2JAeC5leGFtcGxlIiwgImVuY2xvc3VyZXMiOiBbWy"
        b"IvdG1wL3BsYW4ucGRmIiwgbnVsbCwgIiJdXX0=\r\n\r\nText\r\n"
    )
    found = read(tmp_path, old)
    assert (found.to, found.text, found.enclosures) == ("carol@x.example", "Text\n", ())
    assert "/tmp/plan.pdf" in found.notes


def test_a_draft_that_another_program_sends_tells_nobody_of_bcc(tmp_path: Path) -> None:
    data = written(FULL).replace(b"\r\n", b"\n")
    spool = tmp_path / "spool"
    taken = read_submission(io.BytesIO(data), spool, [], ME.address, from_headers=True)
    assert taken.recipients == ("bob@x.example", "c@x.example", "secret@x.example")
    sent = spool.read_bytes()
    assert b"secr" not in sent
    assert not re.search(rb"(?im)^(x-p2pmail-|bcc)", sent)
    assert b"aGVsbG8gYm9i" in sent


def test_our_field_itself_holds_no_complete_address_of_bcc() -> None:
    import base64

    (field,) = re.findall(rb"X-P2pmail-Draft: ((?:.*\r\n)(?: .*\r\n)*)", written(FULL))
    assert b"secret@x.example" not in base64.b64decode(b"".join(field.split()))


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_private_fields_are_taken_out_of_a_header_however_it_comes(step: int) -> None:
    data = b"X-P2pmail-Draft: a\r\n b\r\nSubject: s\r\nx-p2pMAIL-other:\r\n\tc\r\n\r\nX-P2pmail-Draft: text\r\n"
    pieces = [data[start : start + step] for start in range(0, len(data), step)]
    assert b"".join(without_private(pieces)) == b"Subject: s\r\n\r\nX-P2pmail-Draft: text\r\n"


@given(st.binary(), st.binary())
def test_all_else_passes_byte_for_byte(head: bytes, body: bytes) -> None:
    data = head.replace(b"-", b"") + b"\n\n" + body
    assert b"".join(without_private([data])) == data


def test_an_attached_draft_loses_our_field(tmp_path: Path) -> None:
    place = tmp_path / "message.eml"
    place.write_bytes(written(FULL))
    out = io.BytesIO()
    compose(out, drafts.draft_of(DraftForm(to="bob@x.example", enclosures=(Enclosure(place),)), ME))
    assert b"for bob" in out.getvalue()
    assert b"p2pmail-draft" not in out.getvalue().lower()


def with_attachment() -> EmailMessage:
    message = EmailMessage(policy=policy.SMTP)
    message["To"] = "bob@x.example"
    message["Reply-To"] = "alice2@x.example"
    message["X-Mutt-Fcc"] = "=Sent"
    message.set_content("see below\n")
    message.add_attachment("Grüße\r\n".encode("latin-1"), maintype="text", subtype="plain", filename="a.txt")
    message.get_payload(1).set_param("charset", "iso-8859-1")  # type: ignore[union-attr]
    return message


def test_attachments_and_fields_of_another_programs_draft_are_kept_when_it_is_saved_and_sent(tmp_path: Path) -> None:
    found = read(tmp_path, with_attachment().as_bytes())
    assert found.whole and [item.name for item in found.enclosures] == ["a.txt"]
    again = message_from_bytes(written(replace(found, text="more\n")), policy=policy.default)
    assert again["X-Mutt-Fcc"] == "=Sent"
    text, attached = again.iter_parts()
    assert text.get_content() == "more\n"
    assert (attached.get_filename(), attached.get_content()) == ("a.txt", "Grüße\r\n")
    out = io.BytesIO()
    compose(out, drafts.draft_of(found, ME))
    sent = message_from_bytes(out.getvalue(), policy=policy.default)
    assert (sent["Reply-To"], sent["X-Mutt-Fcc"]) == ("alice2@x.example", None)
    *_, attached = sent.iter_parts()
    assert attached.get_content() == "Grüße\r\n"


def test_a_draft_that_can_not_be_kept_whole_says_so(tmp_path: Path) -> None:
    message = EmailMessage(policy=policy.SMTP)
    message["To"] = "bob@x.example"
    message.set_content("plain\n")
    message.add_alternative("<p>rich</p>", subtype="html")
    found = read(tmp_path, message.as_bytes())
    assert not found.whole
    assert found.text == "plain\n" and "stays in Drafts" in found.notes


@pytest.mark.parametrize("text", ["", "\n\nx", "no end", "tab\there\n\n\n", "x" * 2_000_000 + "\n"])
def test_the_text_is_kept_exactly(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, written(DraftForm(to="b@x.example", text=text))).text == text


def test_flowed_lines_are_joined_again(tmp_path: Path) -> None:
    data = b"Content-Type: text/plain; format=flowed\r\n\r\n"
    data += b"one \r\nlong line\r\n From here\r\n>> quoted \r\n>> on\r\n-- \r\nme\r\n"
    assert read(tmp_path, data).text == "one long line\nFrom here\n>> quoted on\n-- \nme\n"
    assert unflowed("a \nb", delete_space=True) == "ab"
    assert unflowed("> a \nb") == "> a \nb"


def test_five_thousand_recipients_are_all_there_again(tmp_path: Path) -> None:
    people = [f"member{number}@network.example" for number in range(5000)]
    unsent = read(tmp_path, written(DraftForm(to=", ".join(people))))
    assert unsent.to.split(", ") == people
    assert list(drafts.draft_of(unsent, ME).recipients) == people


def test_nobody_who_was_typed_is_left_out_in_silence() -> None:
    with pytest.raises(ComposeError, match=r"half@ is not"):
        drafts.parse_people('"Doe, John" <john@example.org>, half@')
    assert drafts.parse_people("friends: a@x.example, b@x.example;") == (
        Address("", "a@x.example"),
        Address("", "b@x.example"),
    )
    assert [person.address for person in drafts.parse_people('"Doe, John" <j@x.example>,\nb@x.example,')] == [
        "j@x.example",
        "b@x.example",
    ]


@given(st.text(max_size=60), st.text(max_size=40), st.text(max_size=200))
def test_reading_never_fails_on_what_was_typed(
    tmp_path_factory: pytest.TempPathFactory, to: str, subject: str, text: str
) -> None:
    place = tmp_path_factory.getbasetemp() / "typed"
    place.write_bytes(written(DraftForm(to=to, subject=subject, text=text)))
    drafts.read(place, KEY)
