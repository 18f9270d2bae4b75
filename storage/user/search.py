"""What a user types into the search line, made into a query that can't go wrong; and text made findable by it.

Words, "phrases", beg*, -without (or NOT), a OR b, from: to: cc: subject: body: filename: id: in: is: has: before:
after: date:. The parsing is pure; running the query is the index's work.
"""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo

from storage.errors import USAGE, P2PMailError

MAX_TERMS = 32
"""Terms taken of one query; nobody types more, and each costs a look into the index."""

_TERM = re.compile(r'(?P<minus>-?)(?:(?P<name>[A-Za-z]+):)?(?P<value>"[^"]*"?\*?|[^\s"]+)')

_COLUMNS = {
    "from": "{sender}",
    "to": "{recipients}",
    "cc": "{recipients}",
    "subject": "{subject}",
    "body": "{body}",
    "filename": "{files}",
}
_CONDITIONS = ("is", "has", "before", "after", "date", "in", "id")
_SPACED = re.compile(rf"(?<!\S)(-?(?:{'|'.join((*_COLUMNS, *_CONDITIONS))})):\s+(?=\S)", re.IGNORECASE)
"""`from: zoe`, as it is often typed."""
_AGO = re.compile(r"(\d{1,4})([dwmy])")
_DAYS = {"d": 1, "w": 7, "m": 30, "y": 365}

_FLAGS = {
    "unread": "unread = 1",
    "read": "unread = 0",
    "flagged": "instr(flags, 'F') > 0",
    "answered": "instr(flags, 'R') > 0",
    "draft": "instr(flags, 'D') > 0",
}


class SearchError(P2PMailError):
    """The query can't be understood; the message says which word, and what would do."""

    exit_code = USAGE


@dataclass(frozen=True, slots=True)
class Query:
    """A query in the index's terms: one FTS5 expression ("" for none), and SQL conditions on the messages."""

    match: str = ""
    conditions: tuple[str, ...] = ()
    parameters: tuple[str | float, ...] = ()
    folder: str | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing was asked for; such a query finds nothing."""
        return not (self.match or self.conditions or self.folder)


@dataclass(slots=True)
class _QueryParts:
    matches: list[str] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)
    parameters: list[str | float] = field(default_factory=list)
    folder: str | None = None
    either: bool = False
    """Whether OR was read, so that the next word is another choice for the last one."""

    def ask(self, match: str) -> None:
        if self.either:
            self.matches[-1] = f"({self.matches[-1]} OR ({match}))"
            self.either = False
        else:
            self.matches.append(f"({match})")

    def require(self, condition: str, *parameters: str | float, negated: bool) -> None:
        self.conditions.append(f"NOT ({condition})" if negated else condition)
        self.parameters.extend(parameters)


def parse(
    text: str, *, typing: bool = False, zone: tzinfo | None = None, now: Callable[[], float] = time.time
) -> Query:
    """Make a query of what was typed. Dates are days in `zone` (None: the local one); `now` is for relative ones.

    With `typing` the last word may be unfinished and finds what begins with it. Raises SearchError for an `is:`,
    `has:` or date that means nothing, and for an OR that isn't between words; any other text is a query, if need be one
    for its words.
    """
    parts = _QueryParts()
    text = _SPACED.sub(r"\1:", text)
    terms = list(_TERM.finditer(text))[:MAX_TERMS]
    without = False
    for number, term in enumerate(terms):
        last = number == len(terms) - 1
        if term.group() == "OR" and not last:
            _begin_choice(parts, terms[number + 1])
        elif term.group() == "NOT" and not last:
            without = True
        else:
            unfinished = typing and last and term.end() == len(text)
            negated, without = without or term["minus"] == "-", False
            context = _Context(unfinished, zone, now)
            _add(parts, negated, (term["name"] or "").lower(), term["value"], context)
    return Query(" AND ".join(parts.matches), tuple(parts.conditions), tuple(parts.parameters), parts.folder)


@dataclass(frozen=True, slots=True)
class _Context:
    unfinished: bool
    zone: tzinfo | None
    now: Callable[[], float]


def _begin_choice(parts: _QueryParts, following: re.Match[str]) -> None:
    """OR binds the word before it to the one behind it."""
    name = (following["name"] or "").lower()
    if not parts.matches or following["minus"] or name in _CONDITIONS or following.group() in ("OR", "NOT"):
        raise SearchError(f"OR stands between two words or fields, not before {following.group()}.")
    parts.either = True


def _add(parts: _QueryParts, negated: bool, name: str, value: str, context: _Context) -> None:
    plain = value.rstrip("*").strip('"')
    if name in _CONDITIONS:
        if context.unfinished and _half_typed(name, plain, context):
            return
        _condition(parts, negated, name, plain, context)
        return
    if name and name not in _COLUMNS:
        plain = f"{name} {plain}"  # "http://x" or "12:30": words like any others
    if not any(letter.isalnum() for letter in plain):
        return
    words, beginning = asked(plain.replace('"', " ").replace("\0", " "))
    prefix = beginning or value.endswith("*") or (context.unfinished and not value.endswith('"'))
    match = f'"{words}"{" *" if prefix else ""}'
    if name in _COLUMNS:
        match = f"{_COLUMNS[name]} : {match}"
    if negated:
        parts.require("id IN (SELECT rowid FROM text WHERE text MATCH ?)", match, negated=True)
    else:
        parts.ask(match)


def _condition(parts: _QueryParts, negated: bool, name: str, value: str, context: _Context) -> None:
    match name:
        case "is":
            if value.lower() not in _FLAGS:
                raise SearchError(f"is:{value} means nothing here; try is:{', is:'.join(_FLAGS)}.")
            parts.require(_FLAGS[value.lower()], negated=negated)
        case "has":
            if value.lower() not in ("attachment", "attachments"):
                raise SearchError(f"has:{value} means nothing here; try has:attachment.")
            parts.require("attachments = 1", negated=negated)
        case "in":
            if negated:
                parts.require("folder IN (SELECT id FROM folder WHERE name = ? COLLATE NOCASE)", value, negated=True)
            else:
                parts.folder = value
        case "id":
            parts.require("message_id = ?", value.strip("<>"), negated=negated)
        case "before":
            parts.require("date < ?", _span(name, value, context)[0], negated=negated)
        case "after":
            parts.require("date >= ?", _span(name, value, context)[0], negated=negated)
        case _:
            parts.require("date >= ? AND date < ?", *_span(name, value, context), negated=negated)


def _half_typed(name: str, value: str, context: _Context) -> bool:
    """Whether the condition at the end of the line is still being typed: not yet worth an error."""
    try:
        _condition(_QueryParts(), False, name, value, context)
    except SearchError:
        return True
    return name == "in"


def _span(name: str, value: str, context: _Context) -> tuple[float, float]:
    """The first moment of the day, month or year written and the first one after it, in seconds since the epoch.

    `before:` ends where it begins and `after:` begins there, as in the web mail that most people know. `7d`, `2w`, `3m`
    and `1y` are the time from so long ago until now.
    """
    try:
        today = datetime.fromtimestamp(context.now(), context.zone).replace(hour=0, minute=0, second=0, microsecond=0)
        if ago := _AGO.fullmatch(value.lower()):
            begin = context.now() - int(ago[1]) * _DAYS[ago[2]] * 86400.0
            return begin, context.now()
        if value.lower() in ("today", "yesterday"):
            first = today - timedelta(days=value.lower() == "yesterday")
            return first.timestamp(), (first + timedelta(days=1)).timestamp()
    except (ValueError, OverflowError, OSError):
        pass
    for form in ("%Y-%m-%d", "%Y-%m", "%Y"):
        try:
            first = datetime.strptime(value, form).replace(tzinfo=context.zone)
            return first.timestamp(), _following(first, form).timestamp()
        except (ValueError, OverflowError, OSError):
            continue
    raise SearchError(
        f"{name}:{value} is no date; write {name}:2024, {name}:2024-05, {name}:2024-05-31, {name}:yesterday or"
        f" {name}:7d."
    )


def _following(first: datetime, form: str) -> datetime:
    """The beginning of the next day, month or year."""
    if form == "%Y":
        return first.replace(year=first.year + 1)
    return first + timedelta(days=1) if form == "%Y-%m-%d" else (first + timedelta(days=32)).replace(day=1)


# -- words in any writing
#
# SQLite's tokenizer finds words between spaces and drops accents. It has no words where a language puts no spaces, and
# keeps letters that don't decompose (ø, ł, ß). So runs of such writings become pairs of neighbouring characters, which
# are searched for as a phrase, and those letters become the ones that people type for them: in what is indexed and in
# what is asked alike.

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
