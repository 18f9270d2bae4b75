"""The messages that workers and the agent post to screens."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from textual.message import Message

from mail.events import Event
from mail.mailbox import Counts, QuarantinedMessage, Row
from tui.reading import LaidOut

if TYPE_CHECKING:
    from mail.mime.message import Message as Mail
    from storage.user.notices import Notice


@dataclass
class Heard(Message, bubble=False):
    """The agent reported an event."""

    event: Event


@dataclass
class ListLoaded(Message, bubble=False):
    """A folder or the results of `query` were read. `selected`: where the selected message is now, if it has moved."""

    folder: str
    query: str
    ids: array[int]
    rows: Sequence[Row]
    again: bool
    selected: int | None = None
    more: bool = False


@dataclass
class CountsLoaded(Message, bubble=False):
    """Counts of each folder; `waiting`: unsettled messages in the outbox; `delivery`: Message-ID -> state."""

    folders: Mapping[str, Counts]
    waiting: int
    delivery: Mapping[str, str] = field(default_factory=dict)


@dataclass
class NoticesLoaded(Message, bubble=False):
    """What the user must know and hasn't seen, newest first."""

    notices: Sequence[Notice]


@dataclass
class RowsLoaded(Message, bubble=False):
    """Rows that the list had asked for were read."""

    rows: Sequence[Row]


@dataclass
class MailOpened(Message, bubble=False):
    """A message was read from disk, to be shown: itself, or what may be shown of a message in Quarantine."""

    row: Row
    content: Mail | QuarantinedMessage
    lines: LaidOut
    enter: bool


@dataclass
class SourceLoaded(Message, bubble=False):
    """The source of a message."""

    row: Row
    lines: LaidOut


@dataclass
class Changed(Message, bubble=False):
    """A change to the mail is done; `text` tells the user what changed, "" if nothing needs to be said."""

    text: str = ""


@dataclass
class Refreshed(Message, bubble=False):
    """The index was brought up to date; whether anything had changed."""

    changed: bool
