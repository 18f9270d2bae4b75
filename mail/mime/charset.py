"""Bytes of a message to text, whatever charset it claims.

What lives here never raises and never runs a codec that isn't a character set (Python's `zip`, `rot13`, `idna`,
`punycode` are names a hostile message may give). Making the text fit for a terminal is mail/mime/sanitize.py's.
"""

from __future__ import annotations

import codecs
import re
from functools import lru_cache

_CHARSETS = re.compile(
    r"utf-(8|7|16|32)(-[bl]e|-sig)?|ascii|iso8859-\d+|iso2022_\w+|cp\d+|koi8-\w|gb2312|gbk|gb18030|hz|big5\w*|euc_\w+"
    r"|shift_ji\w+|johab|mac-\w+|tis-620|ptcp154|kz1048|hp-roman8"
)
"""Python's names of the codecs that are character sets found in mail."""

NAME_LIMIT = 64
"""Characters of a charset's name; the longest registered ones have 45."""


@lru_cache(maxsize=256)
def codec(name: str) -> str | None:
    """Python's name for the charset `name`, or None when it isn't a known character set. Never raises."""
    name = name.strip().strip("\"'").lower()[:NAME_LIMIT]
    if not name.isascii():
        return None
    # Mailers say us-ascii and iso-8859-1 for what is really windows-1252, which has the same letters and more.
    if name in ("us-ascii", "ascii", "iso-8859-1", "latin1", "latin-1", ""):
        return None
    try:
        found = codecs.lookup(name).name
    except (LookupError, ValueError):
        return None
    return found if _CHARSETS.fullmatch(found) else None


def decode(data: bytes, charset: str = "") -> str:
    """`data` as text: in `charset` when that is known, else as UTF-8, else as windows-1252. Never raises.

    What can't be decoded becomes U+FFFD. The result holds no lone surrogates.
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
        # The one codec of these that lets lone surrogates through.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
