"""Makes text findable by its words, whatever the language: the same for what is indexed and for what is asked.

SQLite's tokenizer finds words between spaces and drops accents. It has no words where a language puts no spaces, and
keeps letters that don't decompose (ø, ł, ß). So runs of such writings become pairs of neighbouring characters, which
are searched for as a phrase, and those letters become the ones that people type for them.
"""

from __future__ import annotations

import re
import unicodedata

_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\u0e01-\u0e5b\U00020000-\U0003ffff]+")
"""Kana, Han, Hangul (particles are written at the word) and Thai."""
_ALONE = re.compile(f"(?<!{_UNSPACED.pattern[:-1]}){_UNSPACED.pattern[:-1]}$")
"""A single one of them at the end."""
_THAI_SIGNS = re.compile("[\u0e31\u0e34-\u0e3a\u0e47-\u0e4e]")
"""Vowels and tones above and below a letter, which the tokenizer takes for spaces."""
_LETTERS = str.maketrans(
    {
        "ł": "l", "Ł": "l", "ø": "o", "Ø": "o", "đ": "d", "Đ": "d", "ð": "d", "Ð": "d", "ß": "ss", "ẞ": "ss",
        "æ": "ae", "Æ": "ae", "œ": "oe", "Œ": "oe", "þ": "th", "Þ": "th", "ħ": "h", "Ħ": "h", "ı": "i", "ŧ": "t",
        "Ŧ": "t", "ŋ": "ng", "Ŋ": "ng",
    }
)  # fmt: skip


def indexed(text: str) -> str:
    """Text as it goes into the index."""
    return text if text.isascii() else _UNSPACED.sub(_pairs_and_last, _folded(text))


def asked(text: str) -> tuple[str, bool]:
    """Words of a query as they are looked up, and whether the last of them must be taken for a beginning.

    A single character of an unspaced writing is the beginning of a pair.
    """
    if text.isascii():
        return text, False
    folded = _folded(text)
    return _UNSPACED.sub(_pairs, folded), _ALONE.search(folded) is not None


def _folded(text: str) -> str:
    return _THAI_SIGNS.sub("", unicodedata.normalize("NFKC", text).translate(_LETTERS))


def _pairs(match: re.Match[str]) -> str:
    run = match.group()
    return f" {' '.join(run[at : at + 2] for at in range(max(len(run) - 1, 1)))} "


def _pairs_and_last(match: re.Match[str]) -> str:
    """The last character too, so that it is found alone."""
    run = match.group()
    return f" {' '.join(run[at : at + 2] for at in range(len(run)))} "
