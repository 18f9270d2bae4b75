"""Messages for the tests of mail/: fixtures, nested messages, mutants, and a check that text is safe for a terminal."""

from __future__ import annotations

import re
from email.message import EmailMessage
from pathlib import Path

from hypothesis import strategies as st

from mail.mime.message import Message

FIXTURES = Path(__file__).parent / "fixtures"
VALID = sorted((FIXTURES / "valid").glob("*.eml"))
MALFORMED = sorted((FIXTURES / "malformed").glob("*.eml"))
UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that must never reach a terminal. \\n is checked apart, in fields of one line."""


def texts(message: Message) -> list[str]:
    """Every text in a message that a screen or a command may print."""
    people = [message.sender, *message.reply_to, *message.to, *message.cc, *message.followup_to]
    lines = [part for person in people for part in (person.name, person.address)]
    lines += [message.subject, message.message_id, message.in_reply_to, *message.references, *message.defects]
    lines += [text for attachment in message.attachments for text in (attachment.name, attachment.content_type)]
    lines += [text for field in message.headers for text in field]
    assert not any("\n" in line or "\t" in line for line in lines)
    return [*lines, message.text]


def assert_fit_for_a_terminal(message: Message) -> None:
    """Assert that no shown text of `message` has a control sequence, an override or a lone surrogate."""
    for text in texts(message):
        assert not UNFIT.search(text), repr(text)
        assert "\t" not in text
        text.encode()


def leaf(content: bytes, encoding: str, name: str) -> EmailMessage:
    """A part with `content` as an application/octet-stream attachment."""
    part = EmailMessage()
    part.set_content(content, "application", "octet-stream", cte=encoding, filename=name)
    return part


_LEAVES = st.builds(
    leaf, st.binary(max_size=300), st.sampled_from(["base64", "quoted-printable"]), st.sampled_from(["a.bin", "ü.txt"])
)


def _multipart(kind: str, parts: list[EmailMessage]) -> EmailMessage:
    whole = EmailMessage()
    whole["Content-Type"] = f"multipart/{kind}"
    for part in parts:
        whole.attach(part)
    return whole


def _forwarded(message: EmailMessage) -> EmailMessage:
    whole = EmailMessage()
    whole.set_content(message)
    return whole


NESTED = st.recursive(
    _LEAVES,
    lambda within: (
        st.builds(
            _multipart, st.sampled_from(["mixed", "related", "parallel"]), st.lists(within, min_size=1, max_size=3)
        )
        | st.builds(_forwarded, within)
    ),
    max_leaves=6,
)
"""Random nested messages, built with the standard library."""

_ODD = st.sampled_from(
    [b"\r\n", b"\n", b"--", b"\x00", b"\x1b[2J", b"=", b"=?utf-8?q?=1B]0;x=07?=", b'"', b";", b":", b"boundary=", b"<",
     b"Content-Type: message/rfc822\r\n", b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n", b"(", b"\xff",
     b"Content-Transfer-Encoding: base64\r\n", b"\xe2\x80\xae", b"charset=utf-7", b"*0*=", b" ", b"\t"]
)  # fmt: skip


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """A fixture with bytes removed, doubled, moved or inserted."""
    data = draw(st.sampled_from([*VALID, *MALFORMED])).read_bytes()
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(start + 40, len(data))))
        match draw(st.sampled_from(["cut", "double", "put", "noise"])):
            case "cut":
                data = data[:start] + data[end:]
            case "double":
                data = data[:end] + data[start:end] + data[end:]
            case "put":
                data = data[:start] + draw(_ODD) + data[start:]
            case _:
                data = data[:start] + draw(st.binary(max_size=8)) + data[end:]
    return data


EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST" + b"-FILE!$H+H*"
"""The scanners' test file, concatenated so that no scanner finds it in this file."""


def with_attachment(
    content: bytes, name: str = "file.bin", encoding: str = "base64", text: str = "See attached."
) -> bytes:
    """A message with one attachment."""
    message = EmailMessage()
    message["From"] = "mallory@example.org"
    message["Subject"] = "For you"
    message.set_content(text)
    message.add_attachment(content, "application", "octet-stream", cte=encoding, filename=name)
    return message.as_bytes()
