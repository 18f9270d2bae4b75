"""Parses header fields: text, dates, Message-IDs.

Each function takes the bytes of one field and never raises. mail/mime/parser.py finds the fields in a file;
mail/mime/sanitize.py makes text safe for a terminal, which isn't done here.
"""

from __future__ import annotations

import binascii
import email.utils
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from mail.mime import charset as charsets

RECIPIENTS_TEXT = 4 * 1024 * 1024
"""Bytes of an address field of a message that is sent; 10,000 recipients need some 600,000."""
ADDRESS_TEXT = 64 * 1024
"""Bytes of an address field that are parsed for display: about 2,000 recipients."""
DATE_TEXT = 200
"""Bytes of a date that are parsed; RFC 5322's longest, with a comment, has fewer than 60."""
LAST_DATE = 253_402_300_799.0
"""The end of the year 9999, the last that `datetime` has."""
IDS_LIMIT = 200
"""Message-IDs kept of References, the last ones: these are the nearest ancestors."""
LINE_LIMIT = 998
"""Characters of a line without its end (RFC 5322, section 2.1.1)."""
ID_LIMIT = LINE_LIMIT
"""Characters of a Message-ID."""


@dataclass(frozen=True, slots=True)
class Headers:
    """Fields in the order of the message: (name in lower case, unfolded value as bytes)."""

    fields: tuple[tuple[str, bytes], ...] = ()

    def first(self, name: str) -> bytes | None:
        """The first field called `name` (lower case), or None."""
        for field, value in self.fields:
            if field == name:
                return value
        return None

    def all(self, name: str) -> list[bytes]:
        """Every field called `name` (lower case), in order."""
        return [value for field, value in self.fields if field == name]


def raw_text(value: bytes, hint: str = "") -> str:
    """A field's bytes as text, encoded words not decoded: UTF-8 (RFC 6532), else in `hint`, the charset of another part
    of the message, or in what is detected. Never raises."""
    return charsets.decode(value, hint=hint)


_WORD_CHARSET = re.compile(rb"=\?([A-Za-z0-9_:.-]{1,64})(?:\*[A-Za-z-]{0,64})?\?[bBqQ]\?")


def word_charset(value: bytes | None) -> str:
    """The charset of the first encoded word in a field, or ""."""
    found = _WORD_CHARSET.search(value or b"")
    return found.group(1).decode("ascii") if found else ""


_WORD_START = re.compile(r"=\?([^?\s*]{1,64})(?:\*[^?\s]{0,64})?\?([bBqQ])\?")
_HEX = re.compile(r"[0-9A-Fa-f]{2}")
_QUOTED = re.compile(rb"=([0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class EncodedWord:
    """An encoded word (RFC 2047) in a text, from `start` to `end`; `charset` in lower case, `data` undecoded."""

    start: int
    end: int
    charset: str
    data: bytes


def find_words(text: str) -> list[EncodedWord]:
    """The encoded words in `text`, in order, also those with spaces or question marks within. Takes linear time."""
    if "=?" not in text:
        return []
    starts = list(_WORD_START.finditer(text))
    words: list[EncodedWord] = []
    for number, match in enumerate(starts):
        limit = starts[number + 1].start() if number + 1 < len(starts) else len(text)
        end = _end_of_word(text, match.end(), limit, quoted=match.group(2) in "qQ")
        if end >= 0:
            data = _word(match.group(2), text[match.end() : end])
            words.append(EncodedWord(match.start(), end + 2, match.group(1).lower(), data))
    return words


def _end_of_word(text: str, start: int, limit: int, *, quoted: bool) -> int:
    """Where the `?=` stands that ends the word whose text begins at `start`; -1 if there is none before `limit`.

    In quoted text a question mark may stand before an encoded character: `really?=C3=A9?=`.
    """
    first = at = text.find("?=", start, limit)
    while quoted and at >= 0:
        if not _HEX.match(text, at + 2):
            return at
        at = text.find("?=", at + 2, limit)
    return first


def decode_words(text: str) -> str:
    """Decode the encoded words (RFC 2047) in `text`. Never raises.

    White space between two of them is dropped, and adjacent ones in the same charset are decoded together, because
    mail programs split characters between them. (The standard library's decode_header takes quadratic time on a
    hostile field.)
    """
    words = find_words(text)
    if not words:
        return text
    out: list[str] = []
    pending = b""
    charset = ""
    position = 0
    for word in words:
        between = text[position : word.start]
        if word.charset == charset and position > 0 and not between.strip():
            pending += word.data
        else:
            if pending:
                out.append(charsets.decode(pending, charset))
            if position == 0 or between.strip():
                out.append(between)
            pending, charset = word.data, word.charset
        position = word.end
    if pending:
        out.append(charsets.decode(pending, charset))
    out.append(text[position:])
    return "".join(out)


def _word(encoding: str, text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    if encoding in "qQ":
        return _QUOTED.sub(lambda match: bytes([int(match.group(1), 16)]), data.replace(b"_", b" "))
    try:
        return binascii.a2b_base64(data + b"==")
    except ValueError:
        return data


def text(value: bytes | None, hint: str = "") -> str:
    """An unstructured field (Subject) as text. Never raises."""
    return "" if value is None else decode_words(raw_text(value, hint))


_VISIBLE = re.compile(r"[!-~]+")
_FIRST_ID = re.compile(f"<([^<>\\s]{{1,{ID_LIMIT}}})>")


def message_ids(value: bytes | None) -> tuple[str, ...]:
    """The Message-IDs in a field, without angle brackets, visible ASCII only; the last IDS_LIMIT. Never raises."""
    if value is None:
        return ()
    source = value[: 4 * ADDRESS_TEXT].decode("latin-1")
    found = [identifier for identifier in _FIRST_ID.findall(source) if _visible(identifier)]
    return tuple(dict.fromkeys(found[-IDS_LIMIT:]))


def parent(value: bytes | None, people: Collection[str]) -> str:
    """The Message-ID that an In-Reply-To names, without angle brackets; "" when there is none. Never raises.

    Older programs write more into it: `Message from Ann <ann@x> of "Tue" <parent@x>`. What stands behind a name, or is
    the address of one of `people`, is no Message-ID.
    """
    source = (value or b"")[: 4 * ADDRESS_TEXT].decode("latin-1")
    found = [match for match in _FIRST_ID.finditer(source) if _visible(match.group(1)) and match.group(1) not in people]
    plain = [match for match in found if not source[max(match.start() - 9, 0) : match.start()].rstrip()[-1:].isalpha()]
    return (plain or found)[0].group(1) if found else ""


def message_id(value: bytes | None) -> str:
    """The Message-ID of a message, without angle brackets; "" when there is none that can be used. Never raises."""
    found = message_ids(value)
    if found or value is None:
        return found[0] if found else ""
    # Some mail programs omit the brackets, or put a space within them.
    bare = value[: 2 * ID_LIMIT].decode("latin-1").strip().strip("<>").strip()
    return bare if len(bare) <= ID_LIMIT and _visible(bare) else ""


def _visible(identifier: str) -> bool:
    return _VISIBLE.fullmatch(identifier) is not None


_ISO_8601 = re.compile(r"\d{4}-\d\d-\d\d([T ]|\Z)")


def date(value: bytes | None) -> float | None:
    """A Date field in seconds since the epoch, from 1970 to 9999; None for any other. Never raises."""
    if value is None:
        return None
    source = value[:DATE_TEXT].decode("latin-1").strip()
    seconds: float | None = None
    try:
        if _ISO_8601.match(source):  # a date that `parsedate_tz` takes for another one
            moment = datetime.fromisoformat(source)
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        else:
            parts = email.utils.parsedate_tz(source)
            seconds = email.utils.mktime_tz(parts) if parts else None
    except Exception:  # ValueError, OverflowError, TypeError, IndexError, by what the field holds
        return None
    if seconds is None or not 0 <= seconds <= LAST_DATE:
        return None
    return seconds
