"""What the index knows of a message: the few headers a list shows, and the text that a search looks through.

The values and their bounds live here. Reading a message into one (which is parsing what strangers wrote) is done
in mail/ and handed to the index as a function.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

MAX_HEADER = 1000
"""Characters kept of a header that is shown in one line; RFC 5322 allows 998 a line, a hostile header has a million."""

MAX_RECIPIENTS = 200
"""Recipients kept for the list and the search; the message itself has them all."""

MAX_REFERENCES = 100
"""Message-IDs kept of References: the last ones, which are the nearest ancestors (RFC 5322, 3.6.4)."""

MAX_TEXT = 64 * 1024
"""Characters of text that are searched of one message."""

_CONTROLS = dict.fromkeys((*range(32), *range(127, 160), 8232, 8233), " ")


@dataclass(frozen=True, slots=True)
class Summary:
    """The headers of one message, decoded; `date` in seconds since the epoch (0: none), `size` in bytes of the file."""

    message_id: str = ""
    sender: str = ""
    recipients: tuple[str, ...] = ()
    subject: str = ""
    date: float = 0.0
    in_reply_to: str = ""
    references: tuple[str, ...] = ()
    size: int = 0
    attachments: bool = False
    text: str = ""
    file_names: tuple[str, ...] = ()
    """Of the attachments."""


def bounded(summary: Summary) -> Summary:
    """The same summary within the limits above: one-line headers, storable text, a finite date."""
    return replace(
        summary,
        message_id=_line(summary.message_id),
        sender=_line(summary.sender),
        recipients=tuple(_line(recipient) for recipient in summary.recipients[:MAX_RECIPIENTS]),
        subject=_line(summary.subject),
        date=summary.date if math.isfinite(summary.date) and 0 < summary.date < 1e11 else 0.0,
        in_reply_to=_line(summary.in_reply_to),
        references=tuple(_line(reference) for reference in summary.references[-MAX_REFERENCES:]),
        text=_storable(summary.text[:MAX_TEXT]),
        file_names=tuple(_line(name) for name in summary.file_names[:MAX_RECIPIENTS]),
    )


def unreadable(why: str, size: int = 0) -> Summary:
    """The summary that stands for a file which can't be read, so that the user sees it's there, and why."""
    return Summary(subject=f"(this message can't be read: {why})", size=size)


def _line(text: str) -> str:
    return _storable(text[:MAX_HEADER].translate(_CONTROLS)).strip()


def _storable(text: str) -> str:
    """Text without lone surrogates, which come from undecodable bytes and which no database takes."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
