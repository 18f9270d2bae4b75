"""Makes text from messages safe for a terminal: no control character or escape sequence gets through.

Every text in the values of mail/mime/message.py has passed this module, so that no screen and no command can forget
to. Knows nothing of messages, colours or widths.
"""

from __future__ import annotations

import re

TAB = 8
"""Columns between tab stops, as in every terminal."""

_SEQUENCE = re.compile(
    # OSC (links, titles, clipboard), DCS, SOS, PM, APC with their contents; CSI; any other escape. Each contents
    # stops at the next ESC, so an unfinished sequence costs one pass, not one for each that follows.
    "(?:\x1b\\]|\x9d)[^\x07\x1b\x9c\n]{0,4096}(?:\x07|\x1b\\\\|\x9c)"
    "|(?:\x1b[PX^_]|[\x90\x98\x9e\x9f])[^\x1b\x9c\n]{0,4096}(?:\x1b\\\\|\x9c)"
    "|(?:\x1b\\[|\x9b)[0-?]{0,64}[ -/]{0,16}[@-~]"
    "|\x1b[ -/]{0,16}[0-~]"
)
_BREAKS = re.compile("\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069\u061c]")
"""Characters that can make `gpj.exe` read as `exe.jpg`. LRM and RLM stay: alone they reorder nothing."""
_INVISIBLE = re.compile("[\u200b\u2060-\u2064\ufeff\u00ad\ufff9-\ufffb\U000e0001]|[\ud800-\udfff]")
"""Zero-width characters, which hide differences, and lone surrogates, which can't be encoded."""
_SUSPECT = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u061c\u2028\u2029"
    "\u200b\u2060-\u2064\ufeff\u00ad\ufff9-\ufffb\ud800-\udfff\U000e0001]"
)
_SPACES = re.compile(r"\s+")


def block(text: str) -> str:
    """`text` with several lines: line ends are \\n, tabs are expanded, nothing else is below U+0020 or in U+007F-009F.

    Bidirectional overrides are shown as `<U+202E>`. Idempotent; never raises.
    """
    text = text.replace("\r\n", "\n")
    if not _SUSPECT.search(text):
        return text
    text = _BREAKS.sub("\n", text)
    text = _CONTROL.sub("", _SEQUENCE.sub("", text))
    text = _INVISIBLE.sub(_replaced, _BIDI.sub(_named, text))
    return text.expandtabs(TAB)


def line(text: str) -> str:
    """`text` as one line: as `block`, and every run of white space becomes one space. Never raises."""
    if not _SUSPECT.search(text) and "\n" not in text and "  " not in text:
        return text.strip()
    return _SPACES.sub(" ", block(text)).strip()


def _named(match: re.Match[str]) -> str:
    return f"<U+{ord(match.group()):04X}>"


def _replaced(match: re.Match[str]) -> str:
    return "\ufffd" if "\ud800" <= match.group() <= "\udfff" else ""
