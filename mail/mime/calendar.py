"""Says in words what an invitation holds (text/calendar: RFC 5545, RFC 5546)."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from icalendar import Component

EVENTS = 20
"""Events and tasks of one calendar that are shown."""
PEOPLE = 30
"""Names listed of an event's guests."""
VALUE = 2000
"""Characters shown of one value."""
PARSED = 128 * 1024
"""Characters of a calendar that are parsed."""

_METHODS = {
    "REQUEST": "Invitation",
    "CANCEL": "Cancelled",
    "REPLY": "Reply to an invitation",
    "COUNTER": "Another time is proposed",
    "DECLINECOUNTER": "The proposed time was declined",
    "REFRESH": "The newest version is asked for",
    "ADD": "More dates",
    "PUBLISH": "Event",
}
_ANSWERS = {
    "ACCEPTED": "accepted",
    "DECLINED": "declined",
    "TENTATIVE": "perhaps",
    "DELEGATED": "delegated",
    "NEEDS-ACTION": "not answered",
}
_EVERY = {"DAILY": "day", "WEEKLY": "week", "MONTHLY": "month", "YEARLY": "year", "HOURLY": "hour"}
_FOLD = re.compile(r"\r?\n[ \t]")
_SEARCHED = re.compile(r"^(?:SUMMARY|LOCATION|DESCRIPTION|COMMENT|ORGANIZER|ATTENDEE)[;:].*$", re.MULTILINE)
_ESCAPED = re.compile(r"\\([\\;,nN])")


def searched(text: str) -> str:
    """The words of a calendar that a search finds, without parsing it whole."""
    return "\n".join(line.partition(":")[2] for line in _SEARCHED.findall(_FOLD.sub("", text)))


def in_words(text: str) -> str:
    """A calendar as lines to read; the text itself when it can't be parsed."""
    from icalendar import Calendar

    try:
        calendar = Calendar.from_ical(text[:PARSED]) if len(text) <= PARSED else _cut(text)
        items = [item for item in calendar.walk() if item.name in ("VEVENT", "VTODO")]
        method = str(calendar.get("METHOD", "")).upper()
        blocks = [_item(item, method) for item in items[:EVENTS]]
    except Exception:  # the library raises much more than ValueError on what isn't a calendar
        return text
    if len(items) > EVENTS:
        blocks.append(f"[{len(items) - EVENTS} more events are not shown; save the attachment to see them.]")
    return "\n\n".join(blocks) or text


def _cut(text: str) -> Component:
    """The first whole events of a calendar that is too long."""
    from icalendar import Calendar

    end = text.rfind("END:VEVENT", 0, PARSED)
    return Calendar.from_ical(text[: end + len("END:VEVENT")] + "\nEND:VCALENDAR\n")


def _item(item: Component, method: str) -> str:
    lines = [f"{_METHODS.get(method, 'Event')}: {_text(item, 'SUMMARY') or '(no title)'}"]
    changed = int(item.get("SEQUENCE", 0) or 0)
    if method == "REQUEST" and changed > 0:
        lines[0] = f"Changed invitation: {_text(item, 'SUMMARY') or '(no title)'}"
    if str(item.get("STATUS", "")).upper() == "CANCELLED" and method != "CANCEL":
        lines.append("Cancelled")
    lines.append(f"When:  {_when(item)}")
    for words, name in (("Where", "LOCATION"), ("Link", "URL")):
        if _text(item, name):
            lines.append(f"{words}: {_text(item, name)}")
    if "ORGANIZER" in item:
        lines.append(f"From:  {_person(item['ORGANIZER'])}")
    guests = item.get("ATTENDEE", [])
    guests = guests if isinstance(guests, list) else [guests]
    if guests:
        names = [f"{_person(guest)}{_answer(guest)}" for guest in guests[:PEOPLE]]
        more = f" and {len(guests) - PEOPLE} more" if len(guests) > PEOPLE else ""
        lines.append(f"Who:   {', '.join(names)}{more}")
    for name in ("COMMENT", "DESCRIPTION"):
        if _text(item, name):
            lines += ["", _text(item, name)]
    return "\n".join(lines)


def _text(item: Component, name: str) -> str:
    value = item.get(name, "")
    value = value[0] if isinstance(value, list) and value else value
    return str(value).strip()[:VALUE]


def _person(value: object) -> str:
    address = re.sub(r"^mailto:", "", unquote(str(value)), flags=re.IGNORECASE)
    name = str(getattr(value, "params", {}).get("CN", "")).strip().strip('"')
    return f"{name} <{address}>" if name and name != address else address


def _answer(guest: object) -> str:
    answer = str(getattr(guest, "params", {}).get("PARTSTAT", "")).upper()
    return f" ({_ANSWERS[answer]})" if answer in _ANSWERS else ""


def _when(item: Component) -> str:
    start = item.decoded("DTSTART", None)
    end = item.decoded("DTEND", None) or item.decoded("DUE", None)
    if start is None:
        return f"until {_moment(end)}" if end is not None else "no time is given"
    length = item.decoded("DURATION", None)
    if end is None and isinstance(length, timedelta):
        end = start + length
    words = _span(start, end)
    if "RRULE" in item:
        words += f"; {_repeats(item['RRULE'])}"
    return words


def _span(start: date, end: date | None) -> str:
    if not isinstance(start, datetime):
        last = end - timedelta(days=1) if end is not None and not isinstance(end, datetime) else start
        return _day(start) if last <= start else f"{_day(start)} to {_day(last)}"
    here = _here(start)
    words = f"{_day(here)} {here:%H:%M}"
    if isinstance(end, datetime) and (end.tzinfo is None) == (start.tzinfo is None) and end != start:
        ends = _here(end)
        words += f" to {ends:%H:%M}" if ends.date() == here.date() else f" to {_day(ends)} {ends:%H:%M}"
    if start.tzinfo is None:
        return f"{words} (local time)"
    words += f" {here.tzname()}"
    if start.utcoffset() != here.utcoffset():
        words += f" ({start:%H:%M} {_zone(start)})"
    return words


def _moment(at: date) -> str:
    return _span(at, None)


def _here(at: datetime) -> datetime:
    """A time in this computer's zone; one without a zone stays as it is."""
    return at if at.tzinfo is None else at.astimezone()


def _zone(at: datetime) -> str:
    return str(getattr(at.tzinfo, "key", None) or at.tzname() or "")


def _day(at: date) -> str:
    return f"{at:%a} {at.day} {at:%b %Y}"


def _repeats(rule: object) -> str:
    """The most common recurrences in words. A rule is never expanded: it may have no end."""
    values = {str(name).upper(): found for name, found in dict(rule).items()}  # type: ignore[call-overload]
    every = str((values.get("FREQ") or [""])[0]).upper()
    step = int((values.get("INTERVAL") or [1])[0])
    unit = _EVERY.get(every, every.lower())
    words = f"every {unit}" if step == 1 else f"every {step} {unit}s"
    if "UNTIL" in values:
        until = values["UNTIL"][0]
        words += f" until {_day(until if not isinstance(until, datetime) else until.astimezone(UTC))}"
    elif "COUNT" in values:
        words += f", {values['COUNT'][0]} times"
    return words
