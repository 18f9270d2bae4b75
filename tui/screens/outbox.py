"""The Outbox: each letter, each recipient, and what is true of her copy. Facts only, as the outbox has them."""

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
    from mail.mailbox import Letter, Recipient

WIDE = 100
"""Cells from which a recipient's line has room for what its state means."""

PLAIN = ("collected", "stored")
"""As it should be: in a narrow window the reason has a line of its own, and these need none."""

MEANING = {
    "queued": "waits here; no node has it yet",
    "stored": "lies at the nodes until it is collected",
    "collected": "collected: the recipient's signed receipt is here",
    "expired": "the nodes have let it go; no proof came that it was collected",
    "failed": "given up",
}


def urgency(letter: Letter) -> int:
    """Where a letter stands: first what wasn't delivered, then what is on its way, then what was collected."""
    return 0 if undelivered(letter) else 1 if not letter.settled else 2


def undelivered(letter: Letter) -> bool:
    """Whether somebody won't get it."""
    return any(str(recipient.state) in ("failed", "expired") for recipient in letter.recipients)


class Letters(Lines):
    """Two kinds of lines: a letter, and below it one line for each recipient."""

    PREFIX = "outbox"
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"outbox--{name}" for name in ("plain", "dim", "subject", "good", "bad", "waiting", "selected")
    }

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(id="letters")
        self.letters: Sequence[Letter] | None = None
        self.selected: str | None = None
        self._shown: list[tuple[Letter, Recipient | None, int] | None] = []
        """What each line says: the letter's head, or which line of a recipient's; None: nothing, between letters."""
        self._now = now

    def show(self, letters: Sequence[Letter]) -> None:
        """Show these, trouble first; the selection stays with its letter."""
        self.letters = letters = sorted(letters, key=urgency)
        if self.selected not in [letter.message_id for letter in letters]:
            self.selected = letters[0].message_id if letters else None
        self._arrange()

    def on_resize(self) -> None:
        """Another width."""
        self._arrange()

    def move(self, step: int) -> None:
        """The next letter."""
        names = [letter.message_id for letter in self.letters or ()]
        if self.selected in names:
            place = max(0, min(len(names) - 1, names.index(self.selected) + step))
            self.selected = names[place]
            lines = [number for number in range(len(self._shown)) if self._whose(number) == self.selected]
            self.show_line(lines[-1])
            self.show_line(lines[0])
            self.refresh()

    def line_count(self) -> int:
        """As arranged; one where there is no letter, to say so."""
        return len(self._shown) or 1

    def line_background(self, y: int) -> str | None:
        """The selected letter."""
        return "selected" if self._whose(y) is not None and self._whose(y) == self.selected else None

    def line_pieces(self, y: int, width: int) -> Sequence[Piece]:
        """As arranged."""
        if not self._shown:
            return [] if self.letters is None else [("  Nothing was sent yet. c writes a letter.", "dim")]
        shown, width = self._shown[y], max(40, width)
        if shown is None:
            return []
        letter, recipient, number = shown
        if recipient is not None:
            return self._recipient(letter, recipient, width)[number]
        date = when(letter.created, self._now(), 12)
        subject = sanitize.line(letter.subject) or "(no subject)"
        return [(f" {fit(subject, width - 16)}", "subject"), (f" {date:>13} ", "dim")]

    def _whose(self, y: int) -> str | None:
        shown = self._shown[y] if self._shown else None
        return None if shown is None else shown[0].message_id

    def _arrange(self) -> None:
        wide = self.scrollable_content_region.width >= WIDE
        self._shown = []
        for letter in self.letters or ():
            self._shown.append((letter, None, 0))
            for recipient in letter.recipients:
                lines = 1 if wide or str(recipient.state) in PLAIN else 2
                self._shown += [(letter, recipient, number) for number in range(lines)]
            self._shown.append(None)
        self.lines_changed()

    def _recipient(self, letter: Letter, recipient: Recipient, width: int) -> list[list[Piece]]:
        state = str(recipient.state)
        style = {"collected": "good", "failed": "bad", "expired": "bad"}.get(state, "waiting")
        copies = "bodies {}/{}  notices {}/{}".format(*recipient.bodies, *recipient.notifications)
        if not any((*recipient.bodies, *recipient.notifications)):
            copies = ""
        more = sanitize.line(recipient.reason) or MEANING[state]
        if state == "queued" and letter.next_attempt > self._now():
            more = more.rstrip(".") + f"; next try in {_span(letter.next_attempt - self._now())}"
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
    """How far each sent message has come."""

    BINDINGS = bindings(Context.OUTBOX)
    AUTO_FOCUS = "#letters"

    class OutboxRead(Message):
        """The outbox was read."""

        def __init__(self, letters: Sequence[Letter]) -> None:
            super().__init__()
            self.letters = letters

    def __init__(self, session: Session, now: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._session, self._now = session, now

    def compose(self) -> ComposeResult:
        """Title, letters, hints."""
        yield TitleLine(id="title")
        yield Letters(self._now)
        yield HintLine(id="hints")

    def on_mount(self) -> None:
        """Read it."""
        self.query_one(TitleLine).place = "Outbox"
        self.query_one(TitleLine).whose = self._session.address
        self._load()

    def on_key(self, event: object) -> None:
        """Up and down."""
        from textual.events import Key

        assert isinstance(event, Key)
        if event.key in ("j", "down", "k", "up"):
            event.stop()
            self.query_one(Letters).move(1 if event.key in ("j", "down") else -1)

    def _load(self) -> None:
        mailbox = self._session.mailbox
        in_background(self, "read the outbox", lambda: OutboxScreen.OutboxRead(mailbox.outbox()))

    @on(OutboxRead)
    def _loaded(self, event: OutboxRead) -> None:
        waiting = sum(not letter.settled for letter in event.letters)
        trouble = sum(undelivered(letter) for letter in event.letters)
        told = f" · {trouble} not delivered" if trouble else ""
        self.query_one(TitleLine).place = f"Outbox{told} · {waiting} on the way · {len(event.letters)}"
        self.query_one(Letters).show(event.letters)

    @on(Heard)
    def _heard(self, event: Heard) -> None:
        if isinstance(event.event, OutboxChanged):
            self._load()

    @on(Failed)
    def _failed(self, event: Failed) -> None:
        self.notify(event.text, severity="error", markup=False)

    @on(Changed)
    def _changed(self) -> None:
        self._load()

    def action_retry(self) -> None:
        """Once more."""
        mailbox, letter = self._session.mailbox, self.query_one(Letters).selected
        if letter is None:
            return

        def work() -> Message:
            if not mailbox.retry(letter):
                raise ValueError("nothing of it has failed; it is tried again by itself")
            return Changed()

        self._session.changes.put(self, "try that letter again", work)
        self.action_sync_now()

    def action_forget(self) -> None:
        """Off the list."""
        mailbox, letter = self._session.mailbox, self.query_one(Letters).selected
        if letter is None:
            return

        def work() -> Message:
            mailbox.forget(letter)
            return Changed()

        self._session.changes.put(self, "take it off the list", work)

    def action_sync_now(self) -> None:
        """Send."""
        application(self).sync()

    async def action_dismiss(self, result: None = None) -> None:
        """Back."""
        self.dismiss(result)


def _span(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.0f} h"
    )
