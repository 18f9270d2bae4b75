"""Header fields of ours that never leave this computer, taken out of a message on its way through.

What they say is their own modules' (mail/write/drafts.py). Which messages travel is decided elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

PREFIX = b"x-p2pmail-"
"""What the names of all private fields begin with, in lower case."""
HEADER_LIMIT = 4 * 1024 * 1024
"""Bytes of a header that are held; a file without an empty line in them is no message of ours."""

_END = re.compile(rb"(\n)\r?\n")
_FIELD = re.compile(rb"^x-p2pmail-[!-9;-~]*[ \t]*:[^\n]*\n?(?:[ \t][^\n]*\n?)*", re.IGNORECASE | re.MULTILINE)


def is_private(name: bytes) -> bool:
    """Whether a header field must not travel."""
    return name.lower().startswith(PREFIX)


def without_private(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """A message, piece by piece, without the private fields of its own header; all else byte for byte."""
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
