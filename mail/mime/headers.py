"""Parses header fields: text, addresses, parameters, dates, Message-IDs.

Each function takes the bytes of one field and never raises. mail/mime/parser.py finds the fields in a file;
mail/mime/sanitize.py makes text safe for a terminal, which isn't done here.
"""

from __future__ import annotations

import binascii
import email.utils
import re
from dataclasses import dataclass

from mail.mime import charset as charsets

RECIPIENTS_TEXT = 4 * 1024 * 1024
"""Bytes of an address field of a message that is sent; 10,000 recipients need some 600,000."""
ADDRESS_TEXT = 64 * 1024
"""Bytes of an address field that are parsed for display: about 2,000 recipients."""
PARAMETER_TEXT = 16 * 1024
"""Bytes of a Content-Type or Content-Disposition that are parsed; real ones stay below 1 KiB."""
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


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox: display name and bare address. Either is empty where the message gives none that can be parsed."""

    name: str
    address: str

    def __str__(self) -> str:
        if not self.name:
            return self.address
        return f"{self.name} <{self.address}>" if self.address else self.name


def raw_text(value: bytes) -> str:
    """A field's bytes as text, encoded words not decoded: UTF-8 (RFC 6532), else windows-1252. Never raises."""
    return charsets.decode(value)


_WORD = re.compile(r"=\?([^?\s*]{1,64})(?:\*[^?\s]{0,64})?\?([bBqQ])\?([^?]*)\?=")
_QUOTED = re.compile(rb"=([0-9A-Fa-f]{2})")


def decode_words(text: str) -> str:
    """Decode the encoded words (RFC 2047) in `text`. Never raises.

    White space between two of them is dropped, and adjacent ones in the same charset are decoded together, because
    mail programs split characters between them. (The standard library's decode_header takes quadratic time on a
    hostile field.)
    """
    if "=?" not in text:
        return text
    out: list[str] = []
    pending = b""
    charset = ""
    position = 0
    for match in _WORD.finditer(text):
        between = text[position : match.start()]
        data = _word(match.group(2), match.group(3))
        same = match.group(1).lower() == charset and position > 0 and not between.strip()
        if same:
            pending += data
        else:
            if pending:
                out.append(charsets.decode(pending, charset))
            if position == 0 or between.strip():
                out.append(between)
            pending, charset = data, match.group(1).lower()
        position = match.end()
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


def text(value: bytes | None) -> str:
    """An unstructured field (Subject) as text. Never raises."""
    return "" if value is None else decode_words(raw_text(value))


_SIMPLE = re.compile(
    r'\s*(?:"?([^"<>@,;:()\\]*?)"?\s*<([^\s<>@,;:()"\\]+@[^\s<>@,;:()"\\]+)>|([^\s<>@,;:()"\\]+@[^\s<>@,;:()"\\]+))\s*'
)


def addresses(values: list[bytes], limit: int = ADDRESS_TEXT) -> tuple[Address, ...]:
    """The mailboxes of address fields, groups flattened, from the first `limit` bytes of each. Never raises.

    A field that can't be parsed becomes one Address whose name is the field's text, so that something is shown.
    """
    found: list[Address] = []
    for value in values:
        source = raw_text(value[:limit])
        simple = _SIMPLE.fullmatch(source) if len(source) < 1000 else None
        if simple:
            name, address, bare = simple.groups()
            found.append(Address(decode_words(name or "").strip(), address or bare))
            continue
        found.extend(_parsed(source))
    return tuple(found)


def _parsed(source: str) -> list[Address]:
    try:
        pairs = email.utils.getaddresses([source])
    except Exception:  # the parser raises IndexError, AttributeError, RecursionError on hostile fields
        pairs = []
    parsed = [
        Address(decode_words(str(name)).strip(), str(address).strip()) for name, address in pairs if name or address
    ]
    if not parsed and source.strip():
        return [Address(decode_words(source[:200]).strip(), "")]
    return parsed


_FIRST_ID = re.compile(f"<([^<>\\s]{{1,{ID_LIMIT}}})>")


def message_ids(value: bytes | None) -> tuple[str, ...]:
    """The Message-IDs in a field, without angle brackets, visible ASCII only; the last IDS_LIMIT. Never raises."""
    if value is None:
        return ()
    source = value[: 4 * ADDRESS_TEXT].decode("latin-1")
    found = [identifier for identifier in _FIRST_ID.findall(source) if _visible(identifier)]
    return tuple(dict.fromkeys(found[-IDS_LIMIT:]))


def message_id(value: bytes | None) -> str:
    """The Message-ID of a message, without angle brackets; "" when there is none that can be used. Never raises."""
    found = message_ids(value)
    if found or value is None:
        return found[0] if found else ""
    # Some mail programs omit the brackets, or put a space within them.
    bare = value[: 2 * ID_LIMIT].decode("latin-1").strip().strip("<>").strip()
    return bare if len(bare) <= ID_LIMIT and _visible(bare) else ""


def _visible(identifier: str) -> bool:
    return bool(identifier) and all("!" <= character <= "~" for character in identifier)


def date(value: bytes | None) -> float | None:
    """A Date field in seconds since the epoch, from 1970 to 9999; None for any other. Never raises."""
    if value is None:
        return None
    try:
        parts = email.utils.parsedate_tz(value[:DATE_TEXT].decode("latin-1"))
        seconds = float(email.utils.mktime_tz(parts)) if parts else None
    except Exception:  # ValueError, OverflowError, TypeError, IndexError, by what the field holds
        return None
    if seconds is None or not 0 <= seconds <= LAST_DATE:
        return None
    return seconds


_PARAMETER = re.compile(r';\s*([^\s=;"]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_TYPE = re.compile(r"[!#$%&'*+.^_`{|}~0-9a-z-]+/[!#$%&'*+.^_`{|}~0-9a-z-]+")


def parameters(value: bytes) -> tuple[str, dict[str, str]]:
    """A field such as Content-Type: the value before the first `;` in lower case, and the parameters.

    Names are in lower case; of two with the same name the first counts. Joins RFC 2231's continuations and decodes its
    charsets, and decodes RFC 2047's words too, which mail programs use here although the RFC forbids it. Never raises.
    """
    source = value[:PARAMETER_TEXT].decode("latin-1")
    main, _, _ = source.partition(";")
    plain: dict[str, str] = {}
    parted: dict[str, list[tuple[int, bool, str]]] = {}
    for name, given in _PARAMETER.findall(source):
        name = name.lower()
        given = _ESCAPED.sub(r"\1", given[1:-1]) if len(given) > 1 and given[0] == given[-1] == '"' else given.strip()
        base, star, rest = name.partition("*")
        if not star:
            # A boundary is bytes, not text: it is searched for in the file.
            known = given if name == "boundary" else decode_words(charsets.decode(given.encode("latin-1")))
            plain.setdefault(name, known)
            continue
        number, extended = rest.rstrip("*"), rest.endswith("*") or rest == ""
        order = int(number) if number.isascii() and number.isdigit() and len(number) < 4 else 0
        parted.setdefault(base, []).append((order, extended, given))
    for base, pieces in parted.items():
        plain[base] = _joined(pieces)
    return main.strip().lower(), plain


def _joined(pieces: list[tuple[int, bool, str]]) -> str:
    """Join the continuations of one parameter (RFC 2231): (number, percent-encoded or not, text)."""
    charset = ""
    data = b""
    for position, (_, extended, given) in enumerate(sorted(pieces, key=lambda piece: piece[0])):
        if extended and position == 0 and given.count("'") >= 2:
            charset, _, given = given.split("'", 2)
        data += _unquoted(given) if extended else given.encode("latin-1")
    return charsets.decode(data, charset)


_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")


def _unquoted(given: str) -> bytes:
    return _PERCENT.sub(lambda match: bytes([int(match.group(1), 16)]), given.encode("latin-1"))


def media_type(value: bytes | None, default: str) -> tuple[str, dict[str, str]]:
    """A Content-Type: type in lower case (`default` when it is missing or can't be parsed), and its parameters."""
    if value is None:
        return default, {}
    main, found = parameters(value)
    return (main if _TYPE.fullmatch(main) else default), found
