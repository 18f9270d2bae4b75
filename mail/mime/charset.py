"""Decodes a message's bytes to text, whatever charset it claims.

A label means what the WHATWG's Encoding Standard says, which is what mail programs mean by it: `gb2312` is gb18030,
`shift_jis` is windows-31j, `iso-8859-1` is windows-1252. Bytes without a label, or with one that nobody knows, are
UTF-8 if they can be; otherwise the label of another part of the message is tried, and then a detector.

Never raises, and never runs a codec that isn't a character set: a hostile message may name Python's `zip`, `rot13`,
`idna` or `punycode`. mail/mime/sanitize.py makes the text safe for a terminal.
"""

from __future__ import annotations

import codecs
import re
from functools import lru_cache

import webencodings

_CHARSETS = re.compile(
    r"utf-(8|7|16|32)(-[bl]e|-sig)?|ascii|iso8859-\d+|iso2022_\w+|cp\d+|koi8-\w|gb2312|gbk|gb18030|hz|big5\w*|euc_\w+"
    r"|shift_ji\w+|johab|mac-\w+|tis-620|ptcp154|kz1048|hp-roman8"
)
"""Python's names of the character sets that occur in mail."""
_SUPERSETS = {
    "gbk": "gb18030", "gb2312": "gb18030", "euc_kr": "cp949", "shift_jis": "cp932", "big5": "big5hkscs",
    "iso8859-1": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874", "tis-620": "cp874",
}  # fmt: skip
"""What Windows programs mean by the smaller set's name, under whatever label Python's name was found."""
_OTHER_NAMES = {"utf8mb4": "utf-8", "utf-8-mac": "utf-8", "hz-gb-2312": "hz", "8859-1": "cp1252", "x-johab": "johab"}
_OTHER_NAMES |= dict.fromkeys(("iso-2022-jp-ms", "x-windows-iso2022jp", "cp50220", "cp50221", "cp50222"), "iso-2022-jp")
"""Labels that neither the WHATWG nor Python knows, or that the WHATWG forbids because of web pages."""
_CODE_PAGE = re.compile(r"(?:x-)?(?:win|windows|cp|ibm|ms|microsoft-cp)[-_ ]?(\d{3,5})")

NAME_LIMIT = 64
"""Characters of a charset's name; the longest registered ones have 45."""
META_LIMIT = 2048
"""Bytes at the beginning of an HTML text in which its charset is looked for (the HTML standard: 1024)."""
SAMPLE = 4096
"""Bytes that the detector looks at."""
_META = re.compile(rb"<meta[^>]{0,500}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{1,64})", re.IGNORECASE)
_PLAUSIBLE = [
    "cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "koi8_r", "cp874", "gb18030", "big5", "cp932",
    "euc_jp", "cp949",
]  # fmt: skip
"""What mail without a label is written in; a detector that knows more is wrong more often."""
_ESCAPE = re.compile(rb"\x1b(\$[@B]|\([BJI]|\$\(D)")
"""ISO-2022-JP's changes between its sets of characters (RFC 1468)."""


@lru_cache(maxsize=256)
def codec(name: str) -> str | None:
    """Python's name for the charset `name`, or None when it isn't a known character set. Never raises.

    None as well for us-ascii and windows-1252 under any of its names: programs put those on text in any charset.
    """
    found = _codec_meant(name)
    return found if found not in ("cp1252", "ascii") else None


@lru_cache(maxsize=256)
def _codec_meant(label: str) -> str | None:
    name = re.split(r"[\s;,(]", label.strip().strip("\"'").lower()[:NAME_LIMIT], maxsplit=1)[0].strip("\"'")
    if not name or not name.isascii():
        return None
    name = _OTHER_NAMES.get(name, name)
    known = webencodings.lookup(name)
    try:
        # ISO-2022-KR is what the WHATWG replaces with nothing; Korean mail is written in it.
        found = known.codec_info.name if known and known.name != "replacement" else codecs.lookup(name).name
    except (LookupError, ValueError):
        page = _CODE_PAGE.fullmatch(name)
        return None if page is None or name == f"cp{page[1]}" else _codec_meant(f"cp{page[1]}")
    found = _SUPERSETS.get(found, found)
    return found if _CHARSETS.fullmatch(found) else None


def declared(data: bytes) -> str:
    """The charset that an HTML text names in its head, or ""."""
    found = _META.search(data[:META_LIMIT])
    return found.group(1).decode("ascii") if found else ""


def decode(data: bytes, charset: str = "", *, hint: str = "") -> str:
    """`data` as text: in `charset` when that is known, else as UTF-8, else in `hint`, else in what is detected.

    `hint`: the charset of another part or field of the same message. Bytes that can't be decoded become U+FFFD. The
    result has no lone surrogates. Never raises.
    """
    known = codec(charset)
    if known is None or known == "utf-8":
        if b"\x1b" in data and known is None and _ESCAPE.search(data):
            return _iso_2022_jp(data)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            if known is not None:
                return data.decode("utf-8", "replace")
            known = codec(hint) or ("cp1252" if _says_western(charset) else _detected(data[:SAMPLE]))
    if known == "iso2022_jp":
        return _iso_2022_jp(data)
    if known in ("utf-16-le", "utf-16-be") and data[:2] in _BYTE_ORDER:
        known, data = _BYTE_ORDER[data[:2]], data[2:]
    try:
        text = data.decode(known, "replace")
    except (ValueError, LookupError):
        return data.decode("utf-8", "replace")
    if known == "utf-7":
        # Only this codec lets lone surrogates through.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


_BYTE_ORDER = {b"\xfe\xff": "utf-16-be", b"\xff\xfe": "utf-16-le"}
"""What the mark at the beginning of a text says, against its label (the Encoding Standard, section 6)."""


def _says_western(charset: str) -> bool:
    return _codec_meant(charset) in ("cp1252", "ascii")


def _detected(data: bytes) -> str:
    """The most probable charset of bytes that have no label; windows-1252 when nothing is probable."""
    import charset_normalizer

    if len(data) < 16:  # too little to tell
        return "cp1252"
    try:
        best = charset_normalizer.from_bytes(data, steps=3, chunk_size=512, cp_isolation=_PLAUSIBLE).best()
    except Exception:  # the detector is not ours, and it sees hostile bytes
        best = None
    found = codec(best.encoding) if best is not None else None
    return found or "cp1252"


def _iso_2022_jp(data: bytes) -> str:
    """ISO-2022-JP with the characters that Windows adds in row 13, which Python's codec doesn't know."""
    pieces: list[str] = []
    mode = b"(B"
    position = 0
    for change in (*_ESCAPE.finditer(data), None):
        chunk = data[position : len(data) if change is None else change.start()]
        pieces.append(_in_set(chunk, mode))
        if change is not None:
            mode, position = change.group(1), change.end()
    return "".join(pieces)


def _in_set(chunk: bytes, mode: bytes) -> str:
    if mode in (b"$@", b"$B"):
        return _from_jis(chunk)
    if mode == b"$(D":
        return (
            b"".join(b"\x8f" + chunk[at : at + 2] for at in range(0, len(chunk), 2))
            .translate(_HIGH)
            .decode("euc_jp", "replace")
        )
    if mode == b"(I":  # half-width katakana
        return chunk.translate(_HIGH).decode("cp932", "replace")
    return chunk.decode("cp932" if mode == b"(J" else "ascii", "replace")


_HIGH = bytes(code | 0x80 if 0x20 < code < 0x7F else code for code in range(256))


def _from_jis(chunk: bytes) -> str:
    """Rows and cells of JIS X 0208 as windows-31j, in which they are other bytes."""
    out = bytearray()
    at = 0
    while at < len(chunk):
        row, cell = chunk[at], chunk[at + 1] if at + 1 < len(chunk) else 0
        if not (0x21 <= row <= 0x7E and 0x21 <= cell <= 0x7E):
            out.append(row if row < 0x80 else 0x3F)  # a line end that nobody went back for
            at += 1
            continue
        out.append(((row - 0x21) >> 1) + (0x81 if row < 0x5F else 0xC1))
        out.append(cell + (0x7E if row % 2 == 0 else 0x20 if cell > 0x5F else 0x1F))
        at += 2
    return out.decode("cp932", "replace")
