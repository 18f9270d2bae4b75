"""Parsing messages: parts, content, header fields.

mail/mime/parser.py, mail/mime/content_decoding.py, mail/mime/headers.py.
"""

from __future__ import annotations

import base64
import email
import io
import quopri
import tracemalloc
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mail.mime import charset, content_decoding, headers, parameters, parser
from mail.mime.addresses import addresses
from mail.mime.parser import Defect, Structure
from tests.mail.sample_messages import MALFORMED, NESTED, VALID, mutants


def _walk(data: bytes) -> Structure:
    return parser.walk(io.BytesIO(data))


def _content(data: bytes, index: int) -> bytes:
    file = io.BytesIO(data)
    return b"".join(content_decoding.content(file, parser.walk(file).parts[index]))


def _encoded(encoding: str, body: bytes) -> bytes:
    return b"Content-Transfer-Encoding: " + encoding.encode() + b"\r\n\r\n" + body


@given(NESTED)
def test_a_well_formed_message_has_the_parts_and_contents_that_the_standard_library_sees(message: EmailMessage) -> None:
    data = message.as_bytes()
    structure = _walk(data)
    theirs = list(email.message_from_bytes(data).walk())
    assert [part.content_type for part in structure.parts] == [part.get_content_type() for part in theirs]
    assert structure.defects == ()
    for part, their in zip(structure.parts, theirs, strict=True):
        if not their.is_multipart():
            assert _content(data, part.index) == their.get_payload(decode=True)
            assert part.file_name == their.get_filename()


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_a_valid_message_has_no_defects(path: Path) -> None:
    assert _walk(path.read_bytes()).defects == ()


def _sane(structure: Structure) -> None:
    assert structure.parts
    for part in structure.parts:
        assert 0 <= part.start <= part.body <= part.end <= structure.size
        assert part.depth <= parser.DEPTH_LIMIT
        for child in part.children:
            within = structure.parts[child]
            assert within.parent == part.index < within.index
            assert part.body <= within.start <= within.end <= part.end


@given(mutants())
def test_any_bytes_give_parts_that_lie_within_one_another(data: bytes) -> None:
    structure = _walk(data)
    _sane(structure)
    for part in structure.parts:
        for chunk in content_decoding.content(io.BytesIO(data), part):
            assert len(chunk) <= content_decoding.BLOCK
        assert content_decoding.size(io.BytesIO(data), part) >= 0


@pytest.mark.parametrize("path", [*VALID, *MALFORMED], ids=lambda path: path.stem)
def test_the_parts_are_the_same_whatever_the_size_of_the_blocks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = path.read_bytes() + b"\r\n" * 40
    whole = _walk(data)
    for block in (320, 321, 400, 613):
        monkeypatch.setattr(parser, "BLOCK", block)
        assert _walk(data) == whole


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
@pytest.mark.parametrize("shift", range(40))
def test_a_boundary_on_the_edge_of_a_block_is_found(shift: int, ending: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser, "BLOCK", 1024)
    text = b"x" * (1500 + shift)
    lines = [
        b"Content-Type: multipart/mixed; boundary=frontier",
        b"",
        b"--frontier",
        b"",
        text,
        b"--frontier",
        b"",
        b"two",
    ]
    data = ending.join([*lines, b"--frontier--", b""])
    assert [_content(data, index) for index in (1, 2)] == [text, b"two"]


def test_a_header_of_one_megabyte_is_cut_and_what_follows_is_still_read() -> None:
    long = b"To: " + b"someone@example.org, " * 50_000
    folded = b"Cc: " + b"someone@example.org,\r\n " * 50_000
    for field in (long, folded):
        data = field + b"\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhello\r\n--b--\r\n"
        structure = _walk(data)
        assert structure.defects == (Defect.HEADER_CUT,)
        assert not parser.MAY_HIDE_PARTS & set(structure.defects)
        assert _content(data, 1) == b"hello"
        assert len(structure.parts[0].headers.fields[0][1]) == parser.FIELD_LIMIT


def test_a_flood_of_header_fields_is_bounded_and_says_so() -> None:
    structure = _walk(b"a:\n" * 500_000 + b"\nbody")
    assert Defect.HEADERS_TOO_LONG in structure.defects
    assert structure.parts[0].body == 1_500_001


def test_too_many_parts_are_bounded_and_say_so() -> None:
    structure = _walk(b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nx\n" * 5000)
    assert len(structure.parts) == parser.PART_LIMIT
    assert Defect.TOO_MANY_PARTS in structure.defects


@pytest.mark.parametrize(
    "data",
    [
        b"".join(b"--b%d\nContent-Type: multipart/mixed; boundary=b%d\n\n" % (i, i + 1) for i in range(2000)),
        b"Content-Type: message/rfc822\n\n" * 2000,
    ],
    ids=["multiparts", "messages"],
)
def test_deep_nesting_is_bounded_and_says_so(data: bytes) -> None:
    structure = _walk(b"Content-Type: multipart/mixed; boundary=b0\n\n" + data if data[:2] == b"--" else data)
    assert Defect.TOO_DEEP in structure.defects
    assert max(part.depth for part in structure.parts) == parser.DEPTH_LIMIT


def test_a_boundary_that_begins_like_another_is_not_taken_for_it() -> None:
    data = next(path for path in MALFORMED if path.stem == "prefix-boundaries").read_bytes()
    assert [part.content_type for part in _walk(data).parts] == [
        "multipart/mixed", "multipart/mixed", "text/plain", "text/plain",
    ]  # fmt: skip
    assert _content(data, 2) == b"--bbb is text"


@given(st.binary(max_size=2000), st.integers(4, 100), st.sampled_from([b"\n", b"\r\n"]))
@example(bytes(4), 7, b"\n")  # the padding on two lines
def test_base64_comes_out_as_it_went_in_however_it_is_broken(content: bytes, width: int, ending: bytes) -> None:
    text = base64.b64encode(content)
    broken = ending.join(text[at : at + width] for at in range(0, len(text), width))
    data = _encoded("base64", broken)
    assert _content(data, 0) == content
    file = io.BytesIO(data)
    assert content_decoding.size(file, parser.walk(file).parts[0]) == len(content)


@given(st.binary(max_size=2000))
def test_quoted_printable_comes_out_as_it_went_in(content: bytes) -> None:
    assert _content(_encoded("quoted-printable", quopri.encodestring(content)), 0) == content


@given(st.binary(max_size=1500), st.sampled_from(["base64", "quoted-printable", "8bit", "x-unknown"]))
def test_content_is_the_same_whatever_the_size_of_the_blocks(body: bytes, encoding: str) -> None:
    data = _encoded(encoding, body)
    whole = _content(data, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content_decoding, "BLOCK", 61)
        assert _content(data, 0) == whole


def test_base64_texts_one_after_the_other_are_all_read_but_not_without_end() -> None:
    assert _content(_encoded("base64", b"SGVs\r\nbG8=\r\nIHlvdQ==\r\n"), 0) == b"Hello you"
    assert len(_content(_encoded("base64", b"QQ==" * 100_000), 0)) == content_decoding.ENDS_LIMIT


def test_an_endless_quoted_printable_line_is_not_cut_within_a_character() -> None:
    content = "é".encode() * 60_000
    data = _encoded("quoted-printable", b"".join(b"=%02X" % byte for byte in content))
    assert _content(data, 0) == content


def test_memory_stays_below_4_mib_for_a_large_message(tmp_path: Path) -> None:
    path, out = tmp_path / "large.eml", tmp_path / "out"
    lines = base64.encodebytes(bytes(range(256)) * 4096)
    with path.open("wb") as file:
        file.write(b"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Transfer-Encoding: base64\n\n")
        for _ in range(20):
            file.write(lines)
        file.write(b"--b--\n")
    del lines
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        with path.open("rb") as file, out.open("wb") as target:
            written = content_decoding.copy(file, parser.walk(file).parts[1], target)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert written == out.stat().st_size == 20 * 256 * 4096
    assert peak < 4 * 1024 * 1024


@given(st.text(), st.text())
def test_any_charset_name_decodes_without_raising(name: str, text: str) -> None:
    assert charset.decode(text.encode("utf-8", "surrogatepass"), name).encode() is not None


@pytest.mark.parametrize("name", ["rot13", "zip", "punycode", "idna", "unicode_escape", "undefined", "hex", "mbcs"])
def test_a_codec_that_is_no_charset_is_never_run(name: str) -> None:
    assert charset.codec(name) is None
    assert charset.decode(b"plain \\u0041", name) == "plain \\u0041"


@given(st.binary(max_size=300))
def test_no_header_field_makes_the_parsers_raise(value: bytes) -> None:
    headers.text(value)
    addresses([value, value + b"<", b"(" * 3000 + value])
    parameters.parameters(value)
    headers.date(value)
    assert all(" " not in identifier for identifier in headers.message_ids(value))
    headers.message_id(value)


def test_a_character_cut_in_two_by_encoded_words_is_put_together() -> None:
    assert headers.text(b"=?utf-8?b?w6TD?= =?utf-8?b?tg==?= end") == "äö end"


@pytest.mark.parametrize(
    ("field", "read"),
    [
        ("=?UTF-8?Q?really?=C3=BC?=", "really?ü"),
        ("=?UTF-8?Q?Why? Because?= =?utf-8?q?_x?=", "Why? Because x"),
        ("=?utf-8?q?a?==?utf-8?q?b?=", "ab"),
        ("=?utf-8?B?w7w=?==?utf-8?B?w7w=?=", "üü"),
        ("=?utf-8?B?4pyT?x", "=?utf-8?B?4pyT?x"),
        ("=?=?utf-8?q?x?=", "=?x"),
    ],
)
def test_encoded_words_are_read_with_question_marks_and_without_spaces(field: str, read: str) -> None:
    assert headers.text(field.encode()) == read


@pytest.mark.parametrize("piece", ["=?a?q?", "=?a?q?x", "=?", "=?a?b?=", "=?a?q?x?=", "?=", "=?a?q?=?="])
def test_attack_no_character_is_searched_twice_for_the_end_of_an_encoded_word(
    piece: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = 0
    real = headers._end_of_word

    def counted(text: str, start: int, limit: int, *, quoted: bool) -> int:
        nonlocal searched
        searched += limit - start
        return real(text, start, limit, quoted=quoted)

    monkeypatch.setattr(headers, "_end_of_word", counted)
    field = piece * 10_000
    headers.text(field.encode())
    assert searched <= len(field)


def test_a_date_outside_of_what_can_be_shown_is_none() -> None:
    assert headers.date(b"Tue, 03 Mar 2026 10:12:00 +0100") == 1772529120.0
    assert headers.date(b"Fri, 31 Dec 99999 23:59:59 +9999") is None
    assert headers.date(b"Thu, 1 Jan 1903 00:00:00 +0000") is None
