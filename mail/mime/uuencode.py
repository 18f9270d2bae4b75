"""Finds and decodes uuencoded files (POSIX `uuencode`), which old programs put into the text of a message."""

from __future__ import annotations

import re
from collections.abc import Iterator

BEGIN = re.compile(rb"\nbegin(-base64)? [0-7]{3,4} ([^\r\n]{1,200})\r?\n")
"""The line above a file, with the file's name. It begins after a line feed."""
END = re.compile(rb"\n(?:end|====)[ \t]{0,9}(?=\r?\n|\Z)")
"""The line below it."""

LINE_LIMIT = 128
"""Bytes of a line; real ones have 61 (45 bytes of the file)."""


def is_line(line: bytes) -> bool:
    """Whether a line is one of a uuencoded file: its first character gives the length that it has."""
    line = line.rstrip(b"\r\n")
    if not line or not 32 <= line[0] <= 96:
        return False
    characters = (((line[0] - 32) & 63) + 2) // 3 * 4
    # Some programs leave out trailing spaces, others add a checksum.
    return len(line.rstrip()) - 1 <= characters + 1 and (characters == 0 or len(line) > 1)


def decode(raw: Iterator[bytes]) -> Iterator[bytes]:
    """Decode the lines of a file, without `begin` and `end`, block by block. Never raises: a broken line ends it."""
    held = b""
    for block in raw:
        *lines, held = (held + block).split(b"\n")
        yield b"".join(map(_line, lines))
        held = held[:LINE_LIMIT]
    yield _line(held)


def _line(line: bytes) -> bytes:
    line = line.rstrip(b"\r")[:LINE_LIMIT]
    if not line or line.startswith((b"begin ", b"end")) or not is_line(line):
        return b""
    length = (line[0] - 32) & 63
    values = [(character - 32) & 63 for character in line[1:]]
    values += [0] * (-len(values) % 4)
    out = bytearray()
    for a, b, c, d in zip(*[iter(values)] * 4, strict=True):
        out += bytes(((a << 2 | b >> 4) & 255, (b << 4 | c >> 2) & 255, (c << 6 | d) & 255))
    return bytes(out[:length])
