"""One message as one line of the list: what stands in which column, and how wide the columns are.

Pure: a row, a width and a moment in, pieces of text out, each with the name of its style. Every state has a sign of
its own, so that nothing is told by colour alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from rich.cells import cell_len, set_cell_size

from mail.author import MIXED, listed, mailbox
from mail.mailbox import DRAFTS, SENT, Row
from mail.mime import sanitize

Piece = tuple[str, str]
"""Text and the name of its style (see widgets/message_list.py)."""

CURSOR, MARKED, UNREAD, REPLIED, PASSED, FLAGGED, ATTACHED = "›", "x", "●", "r", "f", "!", "@"
LEGEND = (
    f"{UNREAD} unread   {REPLIED} replied   {PASSED} forwarded   {FLAGGED} flagged   {ATTACHED} attachment   x marked"
    f"   {MIXED} looks like another"
)


@dataclass(frozen=True, slots=True)
class Columns:
    """Widths in cells; 0: the column isn't shown."""

    who: int
    subject: int
    state: int
    folder: int
    date: int


def columns(width: int, *, state: bool = False, folder: bool = False) -> Columns:
    """Share `width` cells: signs (5), who, subject, the state of sent mail, the folder of a result, date."""
    date = 6 if width < 90 else 12
    state_width = 13 if state else 0
    folder_width = 10 if folder else 0
    left = width - 5 - date - 1 - (state_width + 1 if state else 0) - (folder_width + 1 if folder else 0) - 2
    who = max(10, min(26, left * 3 // 10))
    return Columns(who, max(4, left - who), state_width, folder_width, date)


def pieces(
    row: Row,
    widths: Columns,
    now: float,
    *,
    selected: bool = False,
    marked: bool = False,
    delivery: str = "",
    local: Callable[[float], datetime] = datetime.fromtimestamp,
) -> list[Piece]:
    """The line for one message, exactly as wide as the columns together."""
    unread = row.unread
    status = UNREAD if unread else REPLIED if "R" in row.flags else PASSED if "P" in row.flags else " "
    text = "unread" if unread else "plain"
    line = [
        (CURSOR if selected else " ", "cursor"),
        (MARKED if marked else " ", "mark"),
        (status, "unread" if unread else "dim"),
        (FLAGGED if "F" in row.flags else " ", "flag"),
        (" ", "plain"),
        (fit(who(row), widths.who), text),
        (" ", "plain"),
        (fit(sanitize.line(row.subject) or "(no subject)", widths.subject), text if row.subject else "dim"),
        (ATTACHED if row.attachments else " ", "flag"),
    ]
    if widths.folder:
        line += [(" ", "plain"), (fit(row.folder, widths.folder), "dim")]
    if widths.state:
        line += [(" ", "plain"), (fit(delivery, widths.state), _state_style(delivery))]
    line += [(" ", "plain"), (when(row.date, now, widths.date, local).rjust(widths.date), "dim")]
    return line


def who(row: Row) -> str:
    """The person a line shows: the sender, or the recipients in Sent and Drafts."""
    if row.folder in (SENT, DRAFTS):
        names = ", ".join(person(recipient) for recipient in row.recipients)
        return f"To: {names}" if names else "(nobody yet)"
    return row.who or person(row.sender) or "(no sender)"


def person(text: str) -> str:
    """The name in "Ada Lovelace <ada@example.org>", or the address where it has none that can be trusted."""
    return listed(mailbox(text))


def when(moment: float, now: float, width: int, local: Callable[[float], datetime] = datetime.fromtimestamp) -> str:
    """A date as short as it can be: the time today, the weekday this week, the day this year, else the month."""
    if moment <= 0:
        return ""
    try:
        then, today = local(moment), local(now)
    except (OverflowError, OSError, ValueError):
        return "?"
    if width >= 12:
        return f"{then:%d %b %H:%M}" if then.year == today.year else f"{then:%d %b %Y}"
    if then.date() == today.date():
        return f"{then:%H:%M}"
    return f"{then:%d %b}" if then.year == today.year else f"{then:%b %y}"


def fit(text: str, width: int) -> str:
    """Text in exactly `width` cells; an ellipsis shows that there was more."""
    if text.isascii():
        return text.ljust(width) if len(text) <= width else text[: width - 1] + "…"
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(set_cell_size(text, width - 1).rstrip() + "…", width)


def _state_style(delivery: str) -> str:
    if delivery.startswith(("failed", "expired")):
        return "bad"
    return "good" if delivery.startswith("collected") else "dim"
