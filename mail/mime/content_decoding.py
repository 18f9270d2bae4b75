"""Decodes the content of a part in chunks: base64, quoted-printable, uuencoded or unencoded (RFC 2045, section 6).

Holds one block in memory, whatever the size, and never raises on any bytes. The virus scan and saving both use this
module, so nothing can be saved that was not scanned.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from typing import BinaryIO

from mail.mime import uuencode
from mail.mime.parser import Part

BLOCK = 192 * 1024
"""Bytes read at once."""
LINE_LIMIT = 64 * 1024
"""Bytes of a quoted-printable line held in memory; a longer line is split between two characters."""
ENDS_LIMIT = 64
"""Padded ends in one base64 text, where texts follow each other; all readers here drop what follows."""

_NOT_BASE64 = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="))
_OTHER_LINE = re.compile(rb"^(?=[^\n]*[^A-Za-z0-9+/=\s]|[ \t]*[A-Za-z0-9+/=]+[ \t]+[A-Za-z0-9+/=])", re.MULTILINE)
"""The beginning of a line that isn't base64: another character, or several words."""
_NO_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
"""Control characters that are in no text."""
_NO_UTF8 = re.compile(rb"(?<![\x80-\xff])[\x80-\xff](?![\x80-\xff])")
"""A lone byte above 127, which UTF-8 never has."""
SHORT = 1024
"""Bytes of a part that are looked at to tell whether it is base64."""


def content(file: BinaryIO, part: Part) -> Iterator[bytes]:
    """The decoded content of `part`, in chunks of at most BLOCK bytes. An unknown encoding isn't decoded.

    The content of a multipart or of a message is its bytes in the file. Raises OSError alone, from reading the file.
    """
    raw = _blocks(file, part.body, part.end)
    if part.is_multipart or part.is_message:
        return raw
    if part.encoding == "base64":
        return _base64_text(raw) if part.content_type.startswith("text/") else _base64(raw)
    if part.encoding == "quoted-printable":
        return _quoted_printable(raw)
    if part.encoding == "x-uuencode":
        return uuencode.decode(raw)
    return raw


def copy(file: BinaryIO, part: Part, target: BinaryIO) -> int:
    """Write the decoded content of `part` to `target`; returns the bytes written. Raises OSError."""
    written = 0
    for chunk in content(file, part):
        target.write(chunk)
        written += len(chunk)
    return written


def head(file: BinaryIO, part: Part, limit: int) -> tuple[bytes, bool]:
    """The first `limit` bytes of the decoded content, and whether there is more. Raises OSError."""
    pieces: list[bytes] = []
    have = 0
    for chunk in content(file, part):
        pieces.append(chunk)
        have += len(chunk)
        if have > limit:
            break
    data = b"".join(pieces)
    return data[:limit], len(data) > limit


def size(file: BinaryIO, part: Part) -> int:
    """The decoded size in bytes, without decoding: exact where base64 has lines of equal length."""
    length = part.end - part.body
    if part.encoding != "base64" or part.is_message or length <= 0:
        return max(length, 0)
    tail_at = max(part.end - 16, part.body)
    file.seek(tail_at)
    tail = file.read(part.end - tail_at)
    length -= len(tail) - len(tail.rstrip())
    file.seek(part.body)
    first = file.read(1024).partition(b"\n")[0] + b"\n"
    breaks = length // len(first) * (2 if first.endswith(b"\r\n") else 1)
    signs = b"".join(tail.split())
    padding = len(signs) - len(signs.rstrip(b"="))
    return max((length - breaks) // 4 * 3 - padding, 0)


def _blocks(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    position = start
    while position < end:
        file.seek(position)
        data = file.read(min(BLOCK, end - position))
        if not data:
            return
        position += len(data)
        yield data


def _base64(raw: Iterator[bytes]) -> Iterator[bytes]:
    """Decode base64. Skips other characters; after padding another text may begin, as in mail programs."""
    held = b""
    ends = 0
    for data in raw:
        held += data.translate(None, _NOT_BASE64)
        while b"=" in held:
            text, _, held = held.partition(b"=")
            held = held.lstrip(b"=")
            if text:
                ends += 1
                yield _text64(text)
            if ends >= ENDS_LIMIT:
                return
        whole = len(held) // 4 * 4
        if whole:
            yield binascii.a2b_base64(held[:whole])
            held = held[whole:]
    if held:
        yield _text64(held)


def _base64_text(raw: Iterator[bytes]) -> Iterator[bytes]:
    """Decode base64 up to the first line that isn't, and leave the rest as it is.

    Mailing lists append a footer in plain text, and some programs call a text base64 that never was.
    """
    rest: list[bytes] = []

    def encoded() -> Iterator[bytes]:
        held = b""
        padded = False
        for data in raw:
            held += data
            cut = held.rfind(b"\n") + 1 or (len(held) if len(held) > LINE_LIMIT else 0)
            lines, held = held[:cut], held[cut:]
            end = _base64_end(lines, padded)
            yield lines[:end]
            if end < len(lines):
                rest.append(lines[end:] + held)
                return
            padded = padded or b"=" in lines
        end = _base64_end(held, padded)
        yield held[:end]
        rest.append(held[end:])

    yield from _base64(encoded())
    if rest:
        yield from rest
        yield from raw


def _base64_end(lines: bytes, padded: bool) -> int:
    """Where the first line begins that isn't base64. After padding, a line that has no whole groups of four isn't."""
    found = _OTHER_LINE.search(lines)
    end = found.start() if found else len(lines)
    padding = 0 if padded else lines.find(b"=", 0, end)
    if padding < 0:
        return end
    position = 0 if padded else lines.find(b"\n", padding, end) + 1 or end
    while position < end:
        after = lines.find(b"\n", position, end) + 1 or end
        line = lines[position:after].strip()
        if len(line) % 4 and b"=" not in line:
            return position
        position = after
    return end


def was_never_base64(file: BinaryIO, part: Part) -> bytes | None:
    """The text (its first SHORT bytes) of a part that is called base64 and isn't; None for any other. Raises OSError.

    That is a text whose first line has other characters, or one line without whole groups of four (`Hello`) that would
    decode to what no text has.
    """
    if part.encoding != "base64" or not part.content_type.startswith("text/"):
        return None
    file.seek(part.body)
    raw = file.read(min(part.end - part.body, SHORT)).strip()
    first, _, more = raw.partition(b"\n")
    if not first.strip() or (not _OTHER_LINE.match(first) and (more or len(first) % 4 == 0 or b"=" in first)):
        return None
    if not _OTHER_LINE.match(first):
        decoded = _text64(first.strip())
        utf8 = part.charset.lower() in ("", "utf-8", "us-ascii")
        if not _NO_TEXT.search(decoded) and not (utf8 and _NO_UTF8.search(decoded)):
            return None
    return raw


def _text64(text: bytes) -> bytes:
    """Decode one base64 text without padding; drop a last single character, which makes no byte."""
    if len(text) % 4 == 1:
        text = text[:-1]
    return binascii.a2b_base64(text + b"=" * (-len(text) % 4))


def _quoted_printable(raw: Iterator[bytes]) -> Iterator[bytes]:
    held = b""
    for data in raw:
        held += data
        cut = held.rfind(b"\n") + 1
        if not cut:
            if len(held) < LINE_LIMIT:
                continue
            # Don't cut within `=XX`, or within the `=` and blanks of a soft break.
            cut = len(held)
            last = held.rfind(b"=", cut - 3)
            cut = last if last > 0 else cut
        yield binascii.a2b_qp(held[:cut])
        held = held[cut:]
    if held:
        yield binascii.a2b_qp(held)
