"""Parses the fields that describe a part: Content-Type, Content-Disposition, Content-Transfer-Encoding.

They are read as mail programs write them, not only as RFC 2045 has them: comments, missing or odd separators, values
without quotes that hold spaces, Windows paths. Every function takes the bytes of one field, never raises, and takes
time that grows with the length alone.
"""

from __future__ import annotations

import re

from mail.mime import charset as charsets
from mail.mime.headers import decode_words

PARAMETER_TEXT = 16 * 1024
"""Bytes of a field that are parsed; real ones stay below 1 KiB."""

_TYPE = re.compile(r"[!#$%&'*+.^_`{|}~0-9a-z-]+/[!#$%&'*+.^_`{|}~0-9a-z-]+")
_NAME = re.compile(r"[\s,;]*([^\s=;,\"]+)\s*=\s*")
_NEXT = re.compile(
    r"[\s,](?=(?:boundary|charset|delsp|filename|format|method|micalg|name|protocol|report-type|start|type)\*?\d*\*?=)",
    re.IGNORECASE,
)
"""Before a parameter whose semicolon is missing: only names that occur, because file names hold spaces."""
_FILE_NAMES = frozenset({"name", "filename"})
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_QUOTED_PATH = re.compile(r'"[^"]*"(?=\s*(?:;|\Z))')
"""A Windows folder, whose last backslash escapes nothing."""
_QUOTED_PAIR = re.compile(r'\\(["\\])')
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")
_ENCODINGS = {
    "quotedprintable": "quoted-printable",
    "base64": "base64",
    "xuuencode": "x-uuencode",
    "uuencode": "x-uuencode",
    "xuue": "x-uuencode",
    "uue": "x-uuencode",
    "uuencoded": "x-uuencode",
}


def media_type(value: bytes | None, default: str) -> tuple[str, dict[str, str]]:
    """A Content-Type: type in lower case (`default` when it is missing or can't be parsed), and its parameters."""
    if value is None:
        return default, {}
    main, found = parameters(value)
    return (main if _TYPE.fullmatch(main) else default), found


def transfer_encoding(value: bytes | None) -> str:
    """A Content-Transfer-Encoding in lower case, in the RFC's spelling where it is recognised."""
    source = _without_comments((value or b"")[:100].decode("latin-1").lower()).partition(";")[0].strip(" \t\r\n\"'")
    return _ENCODINGS.get(re.sub(r"[\s_-]", "", source), source)


def parameters(value: bytes) -> tuple[str, dict[str, str]]:
    """The value before the parameters, in lower case, and the parameters.

    Names are in lower case; of two with the same name the first counts. Joins RFC 2231's continuations and decodes its
    charsets, and decodes RFC 2047's words too, which mail programs use here although the RFC forbids it.
    """
    main, *pieces = _pieces(value[:PARAMETER_TEXT].decode("latin-1"))
    main, rest = _main(main)
    plain: dict[str, str] = {}
    parted: dict[str, list[tuple[int, bool, str]]] = {}
    for name, given in (found for piece in [rest, *pieces] for found in _named(piece)):
        base, star, number = name.partition("*")
        if not star:
            # A boundary is bytes, not text: it is searched for in the file.
            known = given if name == "boundary" else decode_words(charsets.decode(given.encode("latin-1")))
            plain.setdefault(name, known)
            continue
        digits, extended = number.rstrip("*"), number.endswith("*") or number == ""
        order = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 4 else 0
        parted.setdefault(base, []).append((order, extended, given))
    for base, continued in parted.items():
        plain[base] = _joined(continued)
    return main, plain


def _pieces(source: str) -> list[str]:
    """The field, divided at the semicolons that aren't in a quoted text."""
    pieces: list[str] = []
    start = at = 0
    quotes = True
    while at < len(source):
        if source[at] == ";":
            pieces.append(source[start:at])
            start = at + 1
        elif source[at] == '"' and quotes:
            end = _end_of_quoted(source, at)
            quotes = end > at  # a quote that is never closed is a character like another
            at = end
        at += 1
    return [*pieces, source[start:]]


def _end_of_quoted(source: str, at: int) -> int:
    """Where the quoted text that begins at `at` ends; `at` itself when it doesn't."""
    found = _QUOTED.match(source, at) or _QUOTED_PATH.match(source, at)
    return found.end() - 1 if found else at


def _main(piece: str) -> tuple[str, str]:
    """The value proper of the first piece, and what stands behind it, which should have been a piece of its own."""
    piece = _without_comments(piece).strip()
    lowered = piece.lower()
    found = _TYPE.match(lowered.lstrip("\"'"))
    if found:
        skipped = len(lowered) - len(lowered.lstrip("\"'"))
        return found.group(), piece[skipped + found.end() :]
    if "=" in piece:  # `filename="a.pdf"`: the value is missing
        first, _, rest = piece.partition(" ")
        return (first.lower(), rest) if "=" not in first else ("", piece)
    return lowered, ""


def _named(piece: str) -> list[tuple[str, str]]:
    """The parameters of a piece: one, unless a semicolon is missing."""
    found: list[tuple[str, str]] = []
    while match := _NAME.match(piece):
        name, piece = match.group(1).lower(), piece[match.end() :]
        end = _end_of_quoted(piece, 0) if piece.startswith('"') else 0
        if end:
            found.append((name, _QUOTED_PAIR.sub(r"\1", piece[1:end])))
            piece = piece[end + 1 :]
            continue
        behind = _NEXT.search(piece)
        given, piece = (piece, "") if behind is None else (piece[: behind.start()], piece[behind.start() :])
        given = given if name.partition("*")[0] in _FILE_NAMES else _without_comments(given)
        found.append((name, given.strip(" \t\r\n,")))
    return found


def _without_comments(source: str) -> str:
    """Leave out RFC 5322's comments, which may lie within one another; an open one is no comment."""
    if "(" not in source:
        return source
    kept: list[str] = []
    depth = start = 0
    opened = -1
    for at, character in enumerate(source):
        if character == "(":
            if depth == 0:
                kept.append(source[start:at])
                opened = at
            depth += 1
        elif character == ")" and depth:
            depth -= 1
            start = at + 1
    kept.append(source[opened if depth else start :])
    return "".join(kept)


def _joined(pieces: list[tuple[int, bool, str]]) -> str:
    """Join the continuations of one parameter (RFC 2231): (number, percent-encoded or not, text)."""
    charset = ""
    data = b""
    for position, (_, extended, given) in enumerate(sorted(pieces, key=lambda piece: piece[0])):
        if extended and position == 0 and given.count("'") >= 2:
            charset, _, given = given.split("'", 2)
        data += _unquoted(given) if extended else given.encode("latin-1")
    return charsets.decode(data, charset)


def _unquoted(given: str) -> bytes:
    return _PERCENT.sub(lambda match: bytes([int(match.group(1), 16)]), given.encode("latin-1"))
