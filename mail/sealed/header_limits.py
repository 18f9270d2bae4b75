"""Header texts as a notification tells them: one line, no control characters, cut to a number of bytes.

What lives here cuts and cleans strings, and knows no headers; the body carries them whole.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

_ELLIPSIS = "…"

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that turn the direction of the text after them: a subject could repaint its neighbours."""


def clean(text: str) -> str:
    """One line without control sequences: what could steer a terminal is a space, and spaces are single."""
    if text.isascii() and text.isprintable() and "  " not in text:
        return text.strip(" ")
    shown = ((" " if _steers(character) else character) for character in text)
    return " ".join("".join(shown).split())


def cut(text: str, limit: int) -> str:
    """Clean text of at most `limit` bytes of UTF-8 (4 or more); an ellipsis shows that there was more."""
    text = clean(text[: limit * 4])
    data = text.encode()
    if len(data) <= limit:
        return text
    return data[: limit - len(_ELLIPSIS.encode())].decode(errors="ignore").rstrip() + _ELLIPSIS


def fit(texts: Iterable[str], room: int, each: int) -> tuple[tuple[str, ...], int]:
    """The first texts that together have at most `room` bytes, each cut to `each`; and how much room is left.

    Once one doesn't fit no more is taken, and no room is left.
    """
    kept: list[str] = []
    for text in texts:
        text = cut(text, each)
        room -= len(text.encode())
        if room < 0:
            return tuple(kept), 0
        kept.append(text)
    return tuple(kept), room


def most_recent(identifiers: Iterable[str], room: int, each: int) -> tuple[str, ...]:
    """The last Message-IDs that have at most `room` bytes together, in their order.

    The very last is kept whatever the room; those that are no identifiers (see is_identifier) are left out.
    """
    kept: list[str] = []
    for identifier in reversed([text for text in identifiers if is_identifier(text, each)]):
        room -= len(identifier.encode())
        if room < 0 and kept:
            break
        kept.append(identifier)
    return tuple(reversed(kept))


def is_identifier(text: str, limit: int) -> bool:
    """Whether a text can be told as a Message-ID: printable, not empty, at most `limit` bytes. It is never cut."""
    return 0 < len(text) <= limit and text.isprintable() and len(text.encode()) <= limit


def _steers(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in _BIDI
