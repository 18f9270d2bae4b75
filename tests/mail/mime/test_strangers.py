"""Messages as strangers' programs write them (mail/mime): each was misread by some version of this one.

The kinds come from the bug trackers of mail programs; the inputs are written here.
"""

from __future__ import annotations

import base64
import binascii
import quopri
from pathlib import Path

import pytest

from mail.mime.message import Message, read_message, save_attachment, summarise

MULTIPART = 'Content-Type: multipart/mixed; boundary="b"'
HTML = b"<p>Hello <b>you</b></p>"


def written(place: Path, *fields: str | bytes, body: bytes = b"x\n", start: bytes = b"") -> Path:
    lines = [field if isinstance(field, bytes) else field.encode() for field in fields]
    named = b"".join(lines).lower()
    for name, value in ((b"From", b"Ann <ann@x.example>"), (b"Subject", b"Hello"), (b"Message-ID", b"<1@x.example>")):
        if name.lower() + b":" not in named:
            lines.append(name + b": " + value)
    path = place / "message.eml"
    path.write_bytes(start + b"\r\n".join(lines) + b"\r\n\r\n" + body)
    return path


def read(place: Path, *fields: str | bytes, body: bytes = b"x\n", start: bytes = b"") -> Message:
    path = written(place, *fields, body=body, start=start)
    message = read_message(path)
    assert message.defects == ()
    assert (summarise(path).message_id, summarise(path).subject) == (message.message_id, message.subject)
    return message


@pytest.mark.parametrize(
    "field",
    [
        "text/html, charset=utf-8",
        "text/html (made by x); charset=utf-8",
        "text/html charset=utf-8",
        '"text/html"; charset=utf-8',
        "TEXT/HTML;;charset=utf-8;",
        "text/html; charset=utf-8 (Unicode (all of it))",
    ],
)
def test_a_content_type_is_understood_however_it_is_separated(tmp_path: Path, field: str) -> None:
    message = read(tmp_path, f"Content-Type: {field}", body=HTML + " für".encode())
    assert (message.from_html, message.text) == (True, "Hello you\n\nfür\n")


@pytest.mark.parametrize("boundary", ['boundary="b"', "boundary=b", "boundary=b (c)", ";boundary=b; type=x"])
def test_a_multipart_without_a_semicolon_has_its_parts(tmp_path: Path, boundary: str) -> None:
    body = b"--b\r\n\r\nHello\r\n--b\r\nContent-Type: application/pdf; name=a.pdf\r\n\r\n%PDF\r\n--b--\r\n"
    message = read(tmp_path, f"Content-Type: multipart/mixed {boundary}", body=body)
    assert (message.text, [found.name for found in message.attachments]) == ("Hello\n", ["a.pdf"])


@pytest.mark.parametrize(
    ("name", "encoded"),
    [
        ("base64 (by x)", base64.b64encode("Grüße".encode())),
        ('"base64"', base64.b64encode("Grüße".encode())),
        ("Base64;", base64.b64encode("Grüße".encode())),
        ("quoted printable", quopri.encodestring("Grüße".encode())),
        ("quoted_printable (c)", quopri.encodestring("Grüße".encode())),
        ("x-uuencode", b"begin 644 -\r\n" + binascii.b2a_uu("Grüße".encode()) + b"`\r\nend\r\n"),
        ("x-uue", binascii.b2a_uu("Grüße".encode())),
    ],
)
def test_a_transfer_encoding_is_understood_in_other_spellings(tmp_path: Path, name: str, encoded: bytes) -> None:
    fields = "Content-Type: text/plain; charset=utf-8", f"Content-Transfer-Encoding: {name}"
    assert read(tmp_path, *fields, body=encoded).text == "Grüße\n"


@pytest.mark.parametrize("start", [b"\xef\xbb\xbf", b"\r\n", b"\n\n", b"\xef\xbb\xbf\r\n", b"From ann Tue Feb 3\r\n"])
def test_what_stands_before_the_header_hides_no_field(tmp_path: Path, start: bytes) -> None:
    message = read(tmp_path, "From: Ann <ann@x.example>", start=start)
    assert (message.sender.address, message.subject, message.text) == ("ann@x.example", "Hello", "x\n")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"This is not base64 at all, no.\n", "This is not base64 at all, no.\n\n(not base64)\n"),
        (b"Hello\n", "Hello\n\n(not base64)\n"),
        (b"Thanks\n", "Thanks\n\n(not base64)\n"),
        (b"Two words\nand more\n", "Two words\nand more\n\n(not base64)\n"),
        (b"R3LDvMOfZQ\n", "Grüße\n"),  # only the padding is missing
        (
            base64.encodebytes(b"Hello. " * 20) + b"\n____________\nlist footer\nhttp://list.example\n",
            "Hello. " * 20 + "____________\nlist footer\nhttp://list.example\n",
        ),
        (base64.b64encode(b"Hello!!\n") + b"\nUnsubscribe\n", "Hello!!\nUnsubscribe\n"),
        (base64.b64encode(b"Hello ") + b"\n" + base64.b64encode(b"you") + b"\n", "Hello you\n"),
    ],
)
def test_text_after_base64_or_instead_of_it_is_text(tmp_path: Path, body: bytes, text: str) -> None:
    assert read(tmp_path, "Content-Transfer-Encoding: base64", body=body).text == text


def test_files_uuencoded_in_a_text_are_attachments_and_not_in_the_text(tmp_path: Path) -> None:
    files = {"photo.jpg": bytes(range(256)) * 5, "empty.txt": b"", "notes here.txt": b"Hello you world\n"}
    body = b"See the files.\n"
    for name, data in files.items():
        lines = [binascii.b2a_uu(data[at : at + 45]) for at in range(0, len(data), 45)]
        body += f"begin 644 {name}\n".encode() + b"".join(lines) + b"`\nend\n"
    message = read(tmp_path, "X: y", body=body + b"Bye, and begin 644 is no file.\nbegin 644 x\nneither\n")
    assert message.text.split()[:3] == ["See", "the", "files."]
    assert message.text.endswith("Bye, and begin 644 is no file.\nbegin 644 x\nneither\n")
    assert "`" not in message.text
    saved = [save_attachment(tmp_path / "message.eml", found.index, tmp_path) for found in message.attachments]
    assert {path.name: path.read_bytes() for path in saved} == files


@pytest.mark.parametrize(
    ("field", "name"),
    [
        (r'attachment; filename="C:\Users\ann\new.pdf"', "new.pdf"),
        ('filename="plain.pdf"', "plain.pdf"),
        ("attachment; filename=my file (1).pdf", "my file (1).pdf"),
        ("attachment filename=plain.pdf", "plain.pdf"),
        ("attachment; filename*=utf-8''f%C3%BCr.pdf", "für.pdf"),
        ('attachment; filename="a\\"b.pdf"', "a_b.pdf"),
        ("attachment; filename==?utf-8?q?f=C3=BCr.pdf?=", "für.pdf"),
    ],
)
def test_file_names_are_read_as_they_are_written(tmp_path: Path, field: str, name: str) -> None:
    head = f"--b\r\nContent-Type: application/pdf\r\nContent-Disposition: {field}\r\n\r\n%PDF\r\n--b--"
    assert [found.name for found in read(tmp_path, MULTIPART, body=head.encode()).attachments] == [name]


@pytest.mark.parametrize("kind", ["x-patch", "markdown", "csv", "x-unheard-of", "troff"])
def test_an_unknown_kind_of_text_is_text(tmp_path: Path, kind: str) -> None:
    message = read(tmp_path, f"Content-Type: text/{kind}", body=b"some words\n")
    assert (message.text, message.attachments) == ("some words\n", ())


def test_rich_text_has_no_commands(tmp_path: Path) -> None:
    body = b"<bold>Now</bold> or <<never>, <color><param>red</param>soon</color>\n"
    assert read(tmp_path, "Content-Type: text/enriched", body=body).text == "Now or <never>, soon\n"


def test_flowed_text_is_joined_and_unstuffed(tmp_path: Path) -> None:
    body = b"One paragraph \r\nthat goes on.\r\n> quoted \r\n> too\r\n From here\r\n-- \r\nAnn\r\n"
    text = "One paragraph that goes on.\n> quoted too\nFrom here\n-- \nAnn\n"
    assert read(tmp_path, "Content-Type: text/plain; format=flowed", body=body).text == text
    delsp = read(tmp_path, "Content-Type: text/plain; Format=Flowed; DelSp=Yes", body="日本 \r\n語\r\n".encode())
    assert delsp.text == "日本語\n"


# What is within


INNER = b"From: Cy <cy@x.example>\r\nSubject: inside\r\nDate: Tue, 3 Feb 2026 10:00:00 +0000\r\n\r\ninner words\r\n"
SHOWN = "---------- Message ----------\nFrom: Cy <cy@x.example>\nDate: Tue, 3 Feb 2026 10:00:00 +0000\nSubject: inside"


@pytest.mark.parametrize("disposition", ["", "Content-Disposition: inline\r\n", "Content-Disposition: attachment\r\n"])
def test_a_message_within_is_shown_with_its_header_and_can_be_saved(tmp_path: Path, disposition: str) -> None:
    part = b"--b\r\n\r\nsee below\r\n--b\r\nContent-Type: message/rfc822\r\n" + disposition.encode() + b"\r\n" + INNER
    message = read(tmp_path, MULTIPART, body=part + b"\r\n--b--\r\n")
    assert message.text == f"see below\n\n{SHOWN}\n\ninner words\n"
    (attachment,) = message.attachments
    assert save_attachment(tmp_path / "message.eml", attachment.index, tmp_path).read_bytes() == INNER
    assert "inner words" in summarise(tmp_path / "message.eml").text


def test_a_message_that_is_nothing_else_is_shown(tmp_path: Path) -> None:
    assert read(tmp_path, "Content-Type: message/rfc822", body=INNER).text == f"{SHOWN}\n\ninner words\n"


def test_a_digest_shows_each_of_its_messages(tmp_path: Path) -> None:
    body = b"--b\r\n\r\n" + INNER + b"\r\n--b\r\n\r\nSubject: two\r\n\r\nsecond\r\n--b--\r\n"
    message = read(tmp_path, "Content-Type: multipart/digest; boundary=b", body=body)
    assert message.text == f"{SHOWN}\n\ninner words\n\n---------- Message ----------\nSubject: two\n\nsecond\n"
    assert [found.content_type for found in message.attachments] == 2 * ["message/rfc822"]


def test_a_message_1000_deep_is_shown_to_a_depth_and_says_so(tmp_path: Path) -> None:
    path = written(
        tmp_path, "Content-Type: message/rfc822", body=b"Content-Type: message/rfc822\r\n\r\n" * 1000 + INNER
    )
    message = read_message(path)
    assert "not shown" in message.text
    assert message.text.count("----- Message -----") == 8
    assert "parts lie too deep within one another" in message.defects


def calendar(*lines: str, method: str = "REQUEST") -> bytes:
    rows = ["BEGIN:VCALENDAR", f"METHOD:{method}", "VERSION:2.0", "BEGIN:VEVENT", "UID:1@x", *lines, "END:VEVENT"]
    return "\r\n".join([*rows, "END:VCALENDAR", ""]).encode()


LUNCH = "SUMMARY:Team lunch", "DTSTART:20260310T110000Z", "DTEND:20260310T120000Z"


@pytest.mark.parametrize(
    ("lines", "method", "says"),
    [
        (LUNCH, "REQUEST", ["Invitation: Team lunch", "When:  Tue 10 Mar 2026 11:00 to 12:00 UTC"]),
        ((*LUNCH, "SEQUENCE:2"), "REQUEST", ["Changed invitation: Team lunch"]),
        (LUNCH, "CANCEL", ["Cancelled: Team lunch"]),
        ((*LUNCH, "LOCATION:Harbour 4"), "PUBLISH", ["Event: Team lunch", "Where: Harbour 4"]),
        (("SUMMARY:Fair", "DTSTART;VALUE=DATE:20260310", "DTEND;VALUE=DATE:20260312"), "REQUEST",
         ["When:  Tue 10 Mar 2026 to Wed 11 Mar 2026"]),
        (("SUMMARY:Call", "DTSTART:20260310T110000Z", "DURATION:PT30M", "RRULE:FREQ=WEEKLY;INTERVAL=2"), "REQUEST",
         ["11:00 to 11:30 UTC; every 2 weeks"]),
        (("SUMMARY:Call", "DTSTART;TZID=Europe/Berlin:20260310T110000"), "REQUEST",
         ["Tue 10 Mar 2026 10:00 UTC (11:00 Europe/Berlin)"]),
        ((*LUNCH, "ORGANIZER;CN=Ann:mailto:ann@x.example", "ATTENDEE;CN=Ben;PARTSTAT=DECLINED:mailto:ben@x.example"),
         "REPLY", ["Reply to an invitation: Team lunch", "Ann <ann@x.example>", "Ben <ben@x.example> (declined)"]),
    ],
)  # fmt: skip
def test_an_invitation_is_shown_in_words(tmp_path: Path, lines: tuple[str, ...], method: str, says: list[str]) -> None:
    message = read(tmp_path, "Content-Type: text/calendar; charset=utf-8", body=calendar(*lines, method=method))
    for words in says:
        assert words in message.text
    assert lines[0].partition(":")[2] in summarise(tmp_path / "message.eml").text


def test_an_invitation_beside_a_text_is_shown_with_it(tmp_path: Path) -> None:
    body = b"--b\r\n\r\nCome!\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>Come!\r\n--b\r\n"
    body += b"Content-Type: text/calendar\r\n\r\n"
    field = "Content-Type: multipart/alternative; boundary=b"
    message = read(tmp_path, field, body=body + calendar(*LUNCH) + b"\r\n--b--\r\n")
    assert message.text.startswith("Come!\n\nInvitation: Team lunch\n")
    assert not message.from_html


@pytest.mark.parametrize(
    "body",
    [
        b"no calendar\r\n",
        calendar(*LUNCH)[:90],
        calendar("SUMMARY:x", "DTSTART:99999999T999999Z"),
        calendar("SUMMARY:x", "RRULE:FREQ=SECONDLY", "DTSTART:20260310T110000Z"),
        b"BEGIN:VCALENDAR\r\n" + b"BEGIN:VEVENT\r\nSUMMARY:many\r\nEND:VEVENT\r\n" * 20_000 + b"END:VCALENDAR\r\n",
    ],
)
def test_a_broken_or_endless_calendar_is_shown_as_far_as_it_can_be(tmp_path: Path, body: bytes) -> None:
    text = read(tmp_path, "Content-Type: text/calendar", body=body).text
    assert text.strip()
    assert len(text) < 10_000


def test_a_delivery_report_is_shown_in_words(tmp_path: Path) -> None:
    report = (
        b"Reporting-MTA: dns; mx.example\r\n\r\nFinal-Recipient: rfc822; ben@x.example\r\nAction: failed\r\n"
        b"Status: 5.1.1\r\nDiagnostic-Code: smtp; 550 no such\r\n user here\r\n"
    )
    body = b"--b\r\nContent-Type: message/delivery-status\r\n\r\n" + report + b"\r\n--b--\r\n"
    message = read(tmp_path, "Content-Type: multipart/report; boundary=b", body=body)
    assert message.text == "It could not be delivered to ben@x.example. 5.1.1 550 no such user here\n"


def test_a_card_is_shown_without_its_photo(tmp_path: Path) -> None:
    photo = b"PHOTO;ENCODING=b:" + b"\r\n ".join([b"QUJD" * 18] * 2000) + b"\r\n"
    body = b"BEGIN:VCARD\r\nFN:Ann Lee\r\nORG:Harbour;Boats\r\nitem1.EMAIL;TYPE=work:ann@x.example\r\n" + photo
    message = read(tmp_path, "Content-Type: text/vcard", body=body + b"END:VCARD\r\n")
    assert message.text == "Contact\n  Name: Ann Lee\n  Organisation: Harbour, Boats\n  E-mail: ann@x.example\n"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("application/ms-tnef; name=winmail.dat", "winmail.dat"),
        ("application/pkcs7-mime; smime-type=enveloped-data", "S/MIME"),
        ("application/pgp-signature; name=signature.asc", "does not check such signatures"),
    ],
)
def test_what_cannot_be_opened_is_named(tmp_path: Path, kind: str, words: str) -> None:
    body = f"--b\r\nContent-Type: {kind}\r\n\r\nabc\r\n--b--\r\n".encode()
    message = read(tmp_path, MULTIPART, body=body)
    assert words in message.text
    assert len(message.attachments) == 1


# Charsets


@pytest.mark.parametrize(
    ("label", "text", "codec"),
    [
        ("gb2312", "朱镕基", "gb18030"),
        ("x-gbk", "中文", "gbk"),
        ("ks_c_5601-1987", "똠방각하", "cp949"),
        ("shift_jis", "①㈱髙橋", "cp932"),
        ("x-sjis", "日本語①", "cp932"),
        ("windows-31j", "日本語", "cp932"),
        ("iso-8859-1", "“hi” – €5", "cp1252"),
        ("ISO8859-1", "“hi”", "cp1252"),
        ("latin1", "“hi”", "cp1252"),
        ("latin-1", "“hi”", "cp1252"),
        ("iso8859_1", "“hi”", "cp1252"),
        ("8859-1", "“hi”", "cp1252"),
        ("win-1251", "Привет", "cp1251"),
        ("x-cp-1251", "Привет", "cp1251"),
        ("iso8859_9", "İstanbul €", "cp1254"),
        ("iso-2022-kr", "안녕하세요", "iso2022_kr"),
        ("hz-gb-2312", "中文", "hz"),
        ("iso-2022-jp-ms", "日本語", "iso2022_jp"),
        ("utf8mb4", "日本語", "utf-8"),
        ("utf-16", "Привет 日本", "utf-16"),
        ("us-ascii", "Grüße", "utf-8"),
        ("ANSI_X3.4-1968", "Grüße", "utf-8"),
        ("iso-8859-9", "İstanbul €", "cp1254"),
        ("iso-8859-8-i", "שלום", "iso8859-8"),
        ("windows-874", "สวัสดี", "cp874"),
        ("tis-620", "สวัสดี", "cp874"),
        ("iso-8859-2 (Czech)", "žluťoučký", "iso8859-2"),
        ('"koi8-r"', "Привет", "koi8-r"),
        ("unknown-8bit", "Grüße", "utf-8"),
        ("", "Привет, как дела? Это обычный текст письма.", "cp1251"),
    ],
)
def test_a_charset_is_what_programs_mean_by_its_label(tmp_path: Path, label: str, text: str, codec: str) -> None:
    field = f"Content-Type: text/plain; charset={label}" if label else "X: y"
    assert read(tmp_path, field, body=text.encode(codec)).text == text + "\n"


@pytest.mark.parametrize("label", ["; charset=iso-2022-jp", ""])
def test_japanese_with_the_characters_that_windows_adds_is_read(tmp_path: Path, label: str) -> None:
    raw = b"\x1b$B-!-j\x1b(B \x1b$BF|K\\8l\x1b(B"
    message = read(tmp_path, b"Subject: " + raw, f"Content-Type: text/plain{label}", body=raw)
    assert (message.subject, message.text) == ("①㈱ 日本語", "①㈱ 日本語\n")


def test_the_charset_of_html_is_the_one_in_its_head(tmp_path: Path) -> None:
    body = '<html><head><meta http-equiv="x" content="text/html; charset=koi8-r"></head>Привет, мир'.encode("koi8-r")
    assert read(tmp_path, "Content-Type: text/html", body=body).text == "Привет, мир\n"


def test_a_field_of_eight_bits_is_in_the_charset_of_the_body_and_the_other_way_round(tmp_path: Path) -> None:
    field = "Content-Type: text/plain; charset=windows-1251"
    assert read(tmp_path, b"Subject: " + "Привет".encode("cp1251"), field).subject == "Привет"
    assert read(tmp_path, "Subject: =?koi8-r?B?8NLJ18XU?=", body="Привет".encode("koi8-r")).text == "Привет\n"


def test_a_question_mark_in_an_encoded_word_ends_nothing(tmp_path: Path) -> None:
    message = read(tmp_path, "Subject: =?UTF-8?Q?What are you working on? =C3=BCbung?= =?utf-8?q?_ok??=")
    assert message.subject == "What are you working on? übung ok?"


# Dates and ids


@pytest.mark.parametrize(
    ("field", "date"),
    [
        ("2026-02-03T10:00:00Z", 1770112800.0),
        ("2026-02-03 10:00:00+01:00", 1770109200.0),
        ("2026-02-03", 1770076800.0),
        ("Tue, 3 Feb 2026 10:00:00 +0000 (UTC)", 1770112800.0),
        ("yesterday", None),
        ("2026-13-45T10:00:00Z", None),
    ],
)
def test_dates_are_read_and_none_is_made_up(tmp_path: Path, field: str, date: float | None) -> None:
    assert read(tmp_path, f"Date: {field}").date == date


@pytest.mark.parametrize(
    ("field", "parent"),
    [
        ('Message from Ann Lee <ann@x.example> of "Tue" <parent@x.example>', "parent@x.example"),
        ("<parent@x.example> from Ann <ben@x.example>", "parent@x.example"),
        ('Your message of "Tue, 3 Feb" <parent@x.example>', "parent@x.example"),
        ("Ann Lee <ann@x.example>", ""),
        ("Your message of Tue <parent@x.example>", "parent@x.example"),
    ],
)
def test_a_parent_is_never_an_address(tmp_path: Path, field: str, parent: str) -> None:
    message = read(tmp_path, f"In-Reply-To: {field}")
    assert message.in_reply_to == summarise(tmp_path / "message.eml").in_reply_to == parent


def test_what_lies_in_a_message_within_is_said_to(tmp_path: Path) -> None:
    inner = b"Content-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n"
    inner += b"Content-Type: image/png; name=a.png\r\n\r\nx\r\n--c--\r\n"
    body = (
        b"--b\r\nContent-Type: message/rfc822\r\n\r\n"
        + inner
        + b"--b\r\nContent-Type: image/png; name=b.png\r\n\r\ny\r\n--b--"
    )
    found = read(tmp_path, MULTIPART, body=body).attachments
    assert [(each.name, each.within) for each in found] == [("a.png", True), ("part-1.eml", False), ("b.png", False)]
