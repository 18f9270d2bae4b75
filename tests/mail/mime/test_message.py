"""Reading messages for display, and saving attachments (mail/mime/message.py, mail/mime/attachments.py)."""

from __future__ import annotations

from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mail.mime import body_text, parser
from mail.mime import message as mime_message
from mail.mime.attachments import AttachmentError, safe_name
from mail.mime.message import Address, Message, read_headers, read_message, save_attachment, summarise
from mail.mime.parser import Defect
from storage.user import index_summary
from tests.mail.sample_messages import FIXTURES, MALFORMED, NESTED, UNFIT, VALID, assert_fit_for_a_terminal, mutants


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("message") / "message.eml"


def _valid(name: str) -> Message:
    return read_message(FIXTURES / "valid" / f"{name}.eml")


def _malformed(name: str) -> Message:
    return read_message(FIXTURES / "malformed" / f"{name}.eml")


@given(data=mutants() | st.binary(max_size=500))
def test_any_bytes_are_read_and_fit_for_a_terminal(place: Path, data: bytes) -> None:
    place.write_bytes(data)
    message = read_message(place)
    assert_fit_for_a_terminal(message)
    # The handler for all exceptions would hide a bug, so it must not have run.
    assert str(Defect.UNREADABLE) not in message.defects
    assert message.size == len(data)
    summary = summarise(place)
    assert not summary.subject.startswith("(this message can't be read")
    assert (summary.message_id, summary.subject, summary.references) == (
        message.message_id,
        message.subject,
        message.references,
    )
    for text in (summary.sender, *summary.recipients, summary.text):
        assert not UNFIT.search(text)


@given(message=NESTED)
def test_every_attachment_is_listed_and_saved_as_it_was(place: Path, message: EmailMessage) -> None:
    place.write_bytes(message.as_bytes())
    leaves = [part for part in _leaves(message) if not part.is_multipart()]
    listed = read_message(place).attachments
    files = [attachment for attachment in listed if attachment.content_type == "application/octet-stream"]
    assert [attachment.name for attachment in files] == [safe_name(part.get_filename() or "") for part in leaves]
    for attachment, part in zip(files, leaves, strict=True):
        saved = save_attachment(place, attachment.index, place.parent)
        assert saved.read_bytes() == part.get_payload(decode=True)
        saved.unlink()


def _leaves(message: EmailMessage) -> list[EmailMessage]:
    """The parts, also those within a forwarded message."""
    if message.get_content_type() == "message/rfc822":
        return _leaves(message.get_payload(0))  # type: ignore[arg-type]
    if not message.is_multipart():
        return [message]
    return [part for child in message.iter_parts() for part in _leaves(child)]  # type: ignore[arg-type]


@pytest.mark.parametrize("path", [*VALID, *MALFORMED], ids=lambda path: path.stem)
def test_every_fixture_is_read_and_fit_for_a_terminal(path: Path) -> None:
    message = read_message(path)
    assert_fit_for_a_terminal(message)
    assert str(Defect.UNREADABLE) not in message.defects


def test_encoded_headers_are_decoded() -> None:
    message = _valid("encoded-words")
    assert message.sender == Address("Jürgen Müller", "juergen@example.org")
    assert message.to == (Address("Łódź", "lodz@example.org"), Address("Doe, Jane", "jane@example.org"))
    assert message.subject == "äö and naïve"
    assert message.date == 1772529120.0
    assert message.message_id == "words.1@example.org"
    assert message.in_reply_to == "plain.1@example.org"
    assert message.references == ("a@example.org", "plain.1@example.org")
    assert message.text == "café goes on\n"


def test_of_two_dresses_the_plain_one_is_shown_and_the_rich_one_is_no_attachment() -> None:
    message = _valid("alternative")
    assert message.text == "The plain one.\n"
    assert message.attachments == ()
    assert not message.from_html


def test_html_alone_is_shown_as_text() -> None:
    message = _valid("html-only")
    assert message.from_html
    assert message.text == (
        "News\n====\n\nPay at https://bank.example [1] now.\n\n[image: our logo]\n\n[1] https://evil.example/login\n"
    )


def test_attachments_have_names_types_and_sizes() -> None:
    message = _valid("attachments")
    assert message.text == (
        "See attached.\n\n---------- Message ----------\nFrom: carol@example.org\nSubject: Within\n\nInner text.\n"
    )
    assert [(found.name, found.content_type, found.size) for found in message.attachments] == [
        ("report.pdf", "application/pdf", 265),
        ("für 2026.csv", "text/csv", 8),
        ("part-4.eml", "message/rfc822", 124),
    ]


def test_groups_replies_and_followups_are_read() -> None:
    message = _valid("group-addresses")
    assert [str(address) for address in message.to] == [
        "bob@example.net", "Carol <carol@example.org>", "Dave <dave@example.org>",
    ]  # fmt: skip
    assert [address.address for address in message.reply_to] == ["list@example.org"]
    assert [address.address for address in message.followup_to] == ["list@example.org", "bob@example.net"]


def test_a_from_of_colons_does_not_raise() -> None:
    """python/cpython#83281: the standard library's parser raises AttributeError."""
    message = _malformed("from-colons")
    assert message.subject == "python/cpython#83281"
    assert message.text == "The body is still there.\n"


def test_control_sequences_in_a_subject_a_name_and_a_body_are_gone() -> None:
    message = _malformed("control-subject")
    assert message.sender.name == "Mallory"
    assert message.subject == "red click x two Bcc: victim"
    assert message.text.startswith("body link")
    assert "evil" not in message.text


def test_a_multipart_without_a_boundary_is_shown_as_it_stands() -> None:
    message = _malformed("no-boundary")
    assert "still readable somehow" in message.text
    assert message.defects == (str(Defect.NO_BOUNDARY),)


def test_references_that_cannot_be_used_are_left_out() -> None:
    message = _malformed("bare-ids")
    assert message.message_id == "bare.1@example.org"
    assert message.references == ("ok@example.org", "last@example.org")
    assert message.in_reply_to == "ok@example.org"
    assert message.date is None


def test_a_long_text_is_cut_and_says_so(place: Path) -> None:
    place.write_bytes(b"Subject: long\n\n" + b"word " * (mime_message.TEXT_LIMIT // 4))
    message = read_message(place)
    assert len(message.text) < mime_message.TEXT_LIMIT + 200
    assert message.text.endswith(body_text.CUT + "\n")
    assert len(summarise(place).text) <= index_summary.MAX_TEXT + 1


def test_a_fault_in_the_reading_costs_the_text_and_never_the_reader(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object) -> None:
        raise RecursionError

    place.write_bytes(b"Subject: x\n\ny")
    monkeypatch.setattr(body_text, "lay_out", fault)
    assert read_message(place).defects == (str(Defect.UNREADABLE),)
    assert "can't be read" in summarise(place).subject
    monkeypatch.setattr(parser, "walk", fault)
    assert read_message(place).defects == (str(Defect.UNREADABLE),)


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*/*.eml")), ids=lambda path: path.stem)
def test_headers_alone_are_those_of_the_whole_message(path: Path) -> None:
    whole = read_message(path)
    assert read_headers(path) == replace(whole, text="", from_html=False, attachments=())


def test_a_file_that_has_gone_is_an_oserror(tmp_path: Path) -> None:
    for read in (read_message, read_headers, summarise):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "gone")


def test_a_summary_holds_what_the_index_needs() -> None:
    summary = summarise(FIXTURES / "valid" / "encoded-words.eml")
    assert summary.sender == "Jürgen Müller <juergen@example.org>"
    assert summary.recipients == ("Łódź <lodz@example.org>", "Doe, Jane <jane@example.org>")
    assert summary.date == 1772529120.0
    assert not summary.attachments
    assert summarise(FIXTURES / "valid" / "attachments.eml").attachments
    assert summarise(FIXTURES / "valid" / "plain.eml").date == 1772529120.0
    assert summarise(FIXTURES / "malformed" / "far-dates.eml").date == 0.0


def test_no_path_traversal_by_the_name_of_an_attachment(tmp_path: Path) -> None:
    folder = tmp_path / "downloads"
    folder.mkdir()
    hostile = FIXTURES / "malformed" / "path-name.eml"
    for attachment in read_message(hostile).attachments:
        saved = save_attachment(hostile, attachment.index, folder)
        assert saved.parent == folder
    assert sorted(path.name for path in folder.iterdir()) == ["_-rf", "_CON", "bashrc", "part-4.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["downloads"]


@given(
    st.text() | st.sampled_from(["..", ".", "/", "\\", "a/..", "con.txt", "~root", "-x", "\u202egpj.exe", "x" * 500])
)
def test_a_safe_name_is_one_plain_file_name(name: str) -> None:
    safe = safe_name(name)
    assert safe == Path(safe).name
    assert safe[0] not in ".-~ "
    assert not set(safe) & set('/\\:*?"<>|\x00\n')
    assert not UNFIT.search(safe)
    assert 0 < len(safe.encode()) <= 200
    assert safe_name(safe) == safe


def test_saving_never_replaces_a_file_and_never_follows_a_link(tmp_path: Path) -> None:
    source = FIXTURES / "valid" / "attachments.eml"
    (tmp_path / "report.pdf").write_text("mine")
    (tmp_path / "report (1).pdf").symlink_to(tmp_path / "elsewhere")
    saved = save_attachment(source, 2, tmp_path)
    assert saved.name == "report (2).pdf"
    assert saved.read_bytes().startswith(b"%PDF")
    assert (tmp_path / "report.pdf").read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()
    assert save_attachment(source, 2, tmp_path / "named.bin").name == "named.bin"


def test_saving_what_is_not_there_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(AttachmentError, match="Nothing was saved"):
        save_attachment(FIXTURES / "valid" / "plain.eml", 7, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_half_of_an_attachment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mail.mime.content_decoding.copy", full)
    with pytest.raises(OSError, match="No space"):
        save_attachment(FIXTURES / "valid" / "attachments.eml", 2, tmp_path)
    assert list(tmp_path.iterdir()) == []
