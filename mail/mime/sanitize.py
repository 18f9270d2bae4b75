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
_DRAWN_AS_NOTHING = (
    "\u00ad\u115f\u1160\u17b4\u17b5\u180e\u200b\u2060-\u2065\u206a-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb"
    "\U00016fe4\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"
)
"""Default-ignorable characters (zero-width, Hangul fillers, tags) that no writing needs. They hide differences."""
_JOINING = "\u034f\u180b-\u180d\u180f\u200c-\u200f\ufe00-\ufe0f\U000e0100-\U000e01ef"
"""Those that some writings and emoji need: joiners, marks of direction, variants. Alone they draw nothing either."""
_BLANK = "\u2800\U00013441\U00013442"
"""Characters that are drawn as a space and that Python doesn't count as one, such as the empty braille pattern."""
_INVISIBLE = re.compile(f"[{_DRAWN_AS_NOTHING}]|[\ud800-\udfff]")
"""Invisible characters, and lone surrogates, which can't be encoded."""
_SUSPECT = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u061c\u2028\u2029\ud800-\udfff" + _DRAWN_AS_NOTHING + "]"
)
_SPACES = re.compile(rf"[\s{_BLANK}][\s{_BLANK}{_JOINING}]*|^[{_JOINING}]+")
_UNSEEN = re.compile(f"[{_BLANK}{_JOINING}]")
_AT_THE_END = " \u200c\u200d\u200e\u200f"


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
    """`text` as one line: as `block`, and every run of white space becomes one space. Never raises.

    Characters that draw nothing don't count as text, so a line of them alone is "".
    """
    if not _SUSPECT.search(text) and "\n" not in text and "  " not in text and not _UNSEEN.search(text):
        return text.strip()
    return _SPACES.sub(" ", block(text)).strip(_AT_THE_END)


def _named(match: re.Match[str]) -> str:
    return f"<U+{ord(match.group()):04X}>"


def _replaced(match: re.Match[str]) -> str:
    return "\ufffd" if "\ud800" <= match.group() <= "\udfff" else ""
