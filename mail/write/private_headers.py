"""Removes this program's private header fields from a message before it leaves the computer.

mail/write/drafts.py defines what the fields contain.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

PREFIX = b"x-p2pmail-"
"""The prefix of all private fields' names, in lower case."""
HEADER_LIMIT = 4 * 1024 * 1024
"""Bytes of a header held in memory; a file without an empty line within them is no message of ours."""

_END = re.compile(rb"(\n)\r?\n")
_FIELD = re.compile(rb"^x-p2pmail-[!-9;-~]*[ \t]*:[^\n]*\n?(?:[ \t][^\n]*\n?)*", re.IGNORECASE | re.MULTILINE)


def is_private(name: bytes) -> bool:
    """Whether a header field must not leave this computer."""
    return name.lower().startswith(PREFIX)


def without_private(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The message in pieces, without the private fields of its header; all else is unchanged."""
    pieces = iter(chunks)
    head = b""
    for piece in pieces:
        head += piece
        end = _END.search(head)
        if end is not None or len(head) > HEADER_LIMIT:
            cut = end.end(1) if end is not None else 0
            yield _FIELD.sub(b"", head[:cut]) + head[cut:]
            yield from pieces
            return
    yield _FIELD.sub(b"", head)
