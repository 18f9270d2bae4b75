"""Decodes a message's bytes to text, whatever charset it claims.

Never raises, and never runs a codec that isn't a character set: a hostile message may name Python's `zip`, `rot13`,
`idna` or `punycode`. mail/mime/sanitize.py makes the text safe for a terminal.
"""

from __future__ import annotations

import codecs
import re
from functools import lru_cache

_CHARSETS = re.compile(
    r"utf-(8|7|16|32)(-[bl]e|-sig)?|ascii|iso8859-\d+|iso2022_\w+|cp\d+|koi8-\w|gb2312|gbk|gb18030|hz|big5\w*|euc_\w+"
    r"|shift_ji\w+|johab|mac-\w+|tis-620|ptcp154|kz1048|hp-roman8"
)
"""Python's names of the character sets that occur in mail."""

NAME_LIMIT = 64
"""Characters of a charset's name; the longest registered ones have 45."""


@lru_cache(maxsize=256)
def codec(name: str) -> str | None:
    """Python's name for the charset `name`, or None when it isn't a known character set. Never raises."""
    name = name.strip().strip("\"'").lower()[:NAME_LIMIT]
    if not name.isascii():
        return None
    # Mail programs label windows-1252 as us-ascii or iso-8859-1; it is a superset of both in what can be shown.
    if name in ("us-ascii", "ascii", "iso-8859-1", "latin1", "latin-1", ""):
        return None
    try:
        found = codecs.lookup(name).name
    except (LookupError, ValueError):
        return None
    return found if _CHARSETS.fullmatch(found) else None


def decode(data: bytes, charset: str = "") -> str:
    """`data` as text: in `charset` when that is known, else as UTF-8, else as windows-1252. Never raises.

    Bytes that can't be decoded become U+FFFD. The result has no lone surrogates.
    """
    known = codec(charset)
    if known is None or known == "utf-8":
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            if known is None:
                return data.decode("cp1252", "replace")
            return data.decode("utf-8", "replace")
    try:
        text = data.decode(known, "replace")
    except (ValueError, LookupError):
        return data.decode("utf-8", "replace")
    if known == "utf-7":
        # Only this codec lets lone surrogates through.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
