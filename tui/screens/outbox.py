"""The Outbox screen: each sent message with the delivery state of each recipient's copy."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.message import Message
from textual.screen import Screen

from mail.events import OutboxChanged
from mail.mime import sanitize
from tui.actions import Context, bindings
from tui.application import application
from tui.background import Failed, in_background
from tui.columns import Piece, fit, when
from tui.delivery import SIGNS
from tui.messages import Changed, Heard
from tui.session import Session
from tui.widgets.hint_line import HintLine
from tui.widgets.lines import Lines
from tui.widgets.title_line import TitleLine

if TYPE_CHECKING:
    from mail.mailbox import Recipient
    from storage.user.outbox_entry import OutboxEntry

WIDE = 100
"""Width in cells from which a recipient's line has room for the reason."""

PLAIN = ("collected", "stored")
"""States that need no reason: in a narrow window the reason takes a second line."""

MEANING = {
    "queued": "waits here; no node has it yet",
    "stored": "stored on nodes until it is collected",
    "collected": "collected: the recipient's signed receipt is here",
    "expired": "the nodes no longer keep it; no receipt says that it was collected",
    "failed": "given up",
}


def urgency(entry: OutboxEntry) -> int:
    """Sort key: undelivered first, then on the way, then collected."""
    return 0 if undelivered(entry) else 1 if not entry.settled else 2


def undelivered(entry: OutboxEntry) -> bool:
    """Whether delivery failed or expired for any recipient."""
    return any(str(recipient.state) in ("failed", "expired") for recipient in entry.recipients)


class OutboxList(Lines):
    """A line for each message, and below it one or two lines for each recipient."""

    PREFIX = "outbox"
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"outbox--{name}" for name in ("plain", "dim", "subject", "good", "bad", "waiting", "selected")
    }

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(id="entries")
        self.entries: Sequence[OutboxEntry] | None = None
        self.selected: str | None = None
        self._shown: list[tuple[OutboxEntry, Recipient | None, int] | None] = []
        """Content of each line: entry, recipient (None on the entry's own line), line number; None is a blank line."""
        self._now = now

    def show(self, entries: Sequence[OutboxEntry]) -> None:
        """Show these entries, undelivered ones first. The selection stays with its message."""
        self.entries = entries = sorted(entries, key=urgency)
        if self.selected not in [entry.message_id for entry in entries]:
            self.selected = entries[0].message_id if entries else None
        self._arrange()

    def on_resize(self) -> None:
        """Arrange the lines for the new width."""
        self._arrange()

    def move(self, step: int) -> None:
        """Move the selection by `step` messages."""
        names = [entry.message_id for entry in self.entries or ()]
        if self.selected in names:
            place = max(0, min(len(names) - 1, names.index(self.selected) + step))
            self.selected = names[place]
            lines = [number for number in range(len(self._shown)) if self._whose(number) == self.selected]
            self.show_line(lines[-1])
            self.show_line(lines[0])
            self.refresh()

    def line_count(self) -> int:
        """Number of lines; 1 when the outbox is empty."""
        return len(self._shown) or 1

    def line_background(self, y: int) -> str | None:
        """Highlight the selected message."""
        return "selected" if self._whose(y) is not None and self._whose(y) == self.selected else None

    def line_pieces(self, y: int, width: int) -> Sequence[Piece]:
        """The pieces of line `y`."""
        if not self._shown:
            return [] if self.entries is None else [("  Nothing has been sent yet.", "dim")]
        shown, width = self._shown[y], max(40, width)
        if shown is None:
            return []
        entry, recipient, number = shown
        if recipient is not None:
            return self._recipient(entry, recipient, width)[number]
        date = when(entry.created, self._now(), 12)
        subject = sanitize.line(entry.subject) or "(no subject)"
        return [(f" {fit(subject, width - 16)}", "subject"), (f" {date:>13} ", "dim")]

    def _whose(self, y: int) -> str | None:
        shown = self._shown[y] if self._shown else None
        return None if shown is None else shown[0].message_id

    def _arrange(self) -> None:
        wide = self.scrollable_content_region.width >= WIDE
        self._shown = []
        for entry in self.entries or ():
            self._shown.append((entry, None, 0))
            for recipient in entry.recipients:
                lines = 1 if wide or str(recipient.state) in PLAIN else 2
                self._shown += [(entry, recipient, number) for number in range(lines)]
            self._shown.append(None)
        self.lines_changed()

    def _recipient(self, entry: OutboxEntry, recipient: Recipient, width: int) -> list[list[Piece]]:
        state = str(recipient.state)
        style = {"collected": "good", "failed": "bad", "expired": "bad"}.get(state, "waiting")
        copies = "bodies {}/{}  notices {}/{}".format(*recipient.bodies, *recipient.notifications)
        if not any((*recipient.bodies, *recipient.notifications)):
            copies = ""
        more = sanitize.line(recipient.reason) or MEANING[state]
        if state == "queued" and entry.next_attempt > self._now():
            more = more.rstrip(".") + f"; next try in {_span(entry.next_attempt - self._now())}"
        wide = width >= WIDE
        who = 32 if wide else max(16, width - 46)
        line: list[Piece] = [
            (f"   {SIGNS[state]} {state:<10}", style),
            (fit(sanitize.line(recipient.address), who) + "  ", "plain"),
            (f"{copies:<28}", "dim"),
        ]
        if wide:
            return [[*line, (fit(more, width - who - 46), "dim")]]
        return [line, [(" " * 15 + fit(more, width - 16), "dim")]]


class OutboxScreen(Screen[None]):
    """Shows how far each sent message has come."""

    BINDINGS = bindings(Context.OUTBOX)
    AUTO_FOCUS = "#entries"

    class OutboxRead(Message):
        """The outbox was read."""

        def __init__(self, entries: Sequence[OutboxEntry]) -> None:
            super().__init__()
            self.entries = entries

    def __init__(self, session: Session, now: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._session, self._now = session, now

    def compose(self) -> ComposeResult:
        """Lay out title, messages, hints."""
        yield TitleLine(id="title")
        yield OutboxList(self._now)
        yield HintLine(id="hints")

    def on_mount(self) -> None:
        """Read the outbox."""
        self.query_one(TitleLine).place = "Outbox"
        self.query_one(TitleLine).whose = self._session.address
        self._load()

    def on_key(self, event: object) -> None:
        """Move the selection."""
        from textual.events import Key

        assert isinstance(event, Key)
        if event.key in ("j", "down", "k", "up"):
            event.stop()
            self.query_one(OutboxList).move(1 if event.key in ("j", "down") else -1)

    def _load(self) -> None:
        mailbox = self._session.mailbox
        in_background(self, "read the outbox", lambda: OutboxScreen.OutboxRead(mailbox.outbox()))

    @on(OutboxRead)
    def _loaded(self, event: OutboxRead) -> None:
        waiting = sum(not entry.settled for entry in event.entries)
        trouble = sum(undelivered(entry) for entry in event.entries)
        told = f" · {trouble} not delivered" if trouble else ""
        self.query_one(TitleLine).place = f"Outbox{told} · {waiting} on the way · {len(event.entries)}"
        self.query_one(OutboxList).show(event.entries)

    @on(Heard)
    def _heard(self, event: Heard) -> None:
        if isinstance(event.event, OutboxChanged):
            self._load()

    @on(Failed)
    def _failed(self, event: Failed) -> None:
        self.notify(event.text, severity="error", markup=False)

    @on(Changed)
    def _changed(self, event: Changed) -> None:
        if event.text:
            self.notify(event.text, markup=False)
        self._load()

    def action_retry(self) -> None:
        """Try the selected message now: from the beginning where it failed or expired, else before its time."""
        mailbox, entry = self._session.mailbox, self.query_one(OutboxList).selected
        if entry is None:
            return

        def work() -> Message:
            again = mailbox.retry(entry)
            return Changed("tried again from the beginning" if again else "tried again now")

        self._session.changes.put(self, "try that message again", work)
        self.action_sync_now()

    def action_forget(self) -> None:
        """Take the selected message off the list."""
        mailbox, entry = self._session.mailbox, self.query_one(OutboxList).selected
        if entry is None:
            return

        def work() -> Message:
            mailbox.forget(entry)
            return Changed()

        self._session.changes.put(self, "take it off the list", work)

    def action_sync_now(self) -> None:
        """Send what waits, now."""
        application(self).sync()

    async def action_dismiss(self, result: None = None) -> None:
        """Close the screen."""
        self.dismiss(result)


def _span(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.0f} h"
    )
