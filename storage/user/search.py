"""What a user types into the search line, made into a query that can't go wrong.

Words, "phrases", beg*, -without, from: to: subject: in: is: has: before: after:. The parsing is pure; running the
query is the index's work.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, tzinfo

from storage.errors import USAGE, P2PMailError

MAX_TERMS = 32
"""Terms taken of one query; nobody types more, and each costs a look into the index."""

_TERM = re.compile(r'(?P<minus>-?)(?:(?P<name>[A-Za-z]+):)?(?P<value>"[^"]*"?\*?|[^\s"]+)')

_COLUMNS = {"from": "{sender}", "to": "{recipients}", "cc": "{recipients}", "subject": "{subject}", "body": "{body}"}

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

    def require(self, condition: str, *parameters: str | float, negated: bool) -> None:
        self.conditions.append(f"NOT ({condition})" if negated else condition)
        self.parameters.extend(parameters)


def parse(text: str, *, typing: bool = False, zone: tzinfo | None = None) -> Query:
    """Make a query of what was typed. Dates are days in `zone` (None: the local one).

    With `typing` the last word may be unfinished and finds what begins with it. Raises SearchError for an `is:`,
    `has:`, `before:` or `after:` that means nothing; any other text is a query, if need be one for its words.
    """
    parts = _QueryParts()
    terms = list(_TERM.finditer(text))[:MAX_TERMS]
    for number, term in enumerate(terms):
        unfinished = typing and number == len(terms) - 1 and term.end() == len(text)
        _add(parts, term["minus"] == "-", (term["name"] or "").lower(), term["value"], unfinished=unfinished, zone=zone)
    return Query(" AND ".join(parts.matches), tuple(parts.conditions), tuple(parts.parameters), parts.folder)


def _add(parts: _QueryParts, negated: bool, name: str, value: str, *, unfinished: bool, zone: tzinfo | None) -> None:
    plain = value.rstrip("*").strip('"')
    if name in ("is", "has", "before", "after", "in"):
        if unfinished and _half_typed(name, plain, zone):
            return
        _condition(parts, negated, name, plain, zone)
        return
    if name and name not in _COLUMNS:
        plain = f"{name} {plain}"  # "http://x" or "12:30": words like any others
    if not any(letter.isalnum() for letter in plain):
        return
    prefix = value.endswith("*") or (unfinished and not value.endswith('"'))
    words = plain.replace('"', " ").replace("\0", " ")
    match = f'"{words}"{" *" if prefix else ""}'
    if name in _COLUMNS:
        match = f"{_COLUMNS[name]} : {match}"
    if negated:
        parts.require("id IN (SELECT rowid FROM text WHERE text MATCH ?)", match, negated=True)
    else:
        parts.matches.append(f"({match})")


def _condition(parts: _QueryParts, negated: bool, name: str, value: str, zone: tzinfo | None) -> None:
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
        case "before":
            parts.require("date < ?", _begin(name, value, zone), negated=negated)
        case _:
            parts.require("date >= ?", _begin(name, value, zone), negated=negated)


def _half_typed(name: str, value: str, zone: tzinfo | None) -> bool:
    """Whether the condition at the end of the line is still being typed: not yet worth an error."""
    try:
        _condition(_QueryParts(), False, name, value, zone)
    except SearchError:
        return True
    return name == "in"


def _begin(name: str, value: str, zone: tzinfo | None) -> float:
    """The first moment of the day, month or year written, in seconds since the epoch.

    `before:` ends there and `after:` begins there, as in the web mail that most people know.
    """
    for form in ("%Y-%m-%d", "%Y-%m", "%Y"):
        try:
            begin = datetime.strptime(value, form)  # noqa: DTZ007 - the zone follows
            return (begin.replace(tzinfo=zone) if zone else begin).timestamp()
        except (ValueError, OverflowError, OSError):
            continue
    raise SearchError(f"{name}:{value} is no date; write {name}:2024, {name}:2024-05 or {name}:2024-05-31.")
