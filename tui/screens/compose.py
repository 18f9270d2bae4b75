"""The screen for writing a message. Saves what is typed as a draft every few seconds.

mail/write/compose.py turns the draft into a message; the agent sends it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from textual import events, on
from textual.app import ComposeResult, SuspendNotSupported
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Input, Label, Static, TextArea

from mail.events import Progress
from mail.mime.addresses import Address
from mail.send.enqueue import CannotAccept, check_size
from mail.write.compose import ComposeError, Draft, Enclosure, composed_size
from mail.write.drafts import DraftForm, draft_of
from tui.actions import Context, bindings
from tui.application import application
from tui.background import Failed, explain, in_background
from tui.messages import Changed, Heard
from tui.pauses import Pauses, after
from tui.reading import size
from tui.session import Session
from tui.widgets.hint_line import HintLine
from tui.widgets.title_line import TitleLine


class Compose(Screen[None]):
    """Fields and text of one message."""

    BINDINGS = bindings(Context.COMPOSE)

    class Kept(Message):
        """The draft is on disk, under this unique name; `words` are warnings for the user."""

        def __init__(self, unsent: DraftForm, unique: str, words: Sequence[str] = ()) -> None:
            super().__init__()
            self.unsent, self.unique, self.words = unsent, unique, words

    class Prepared(Message):
        """The content that a reply, a forward or a draft begins with is ready."""

        def __init__(self, unsent: DraftForm) -> None:
            super().__init__()
            self.unsent = unsent

    def __init__(
        self,
        session: Session,
        pauses: Pauses,
        me: Address,
        prepare: Callable[[], DraftForm] | None = None,
        *,
        draft: str | None = None,
        begin: str = "#to",
    ) -> None:
        """`prepare` makes the initial content in a thread; `begin` is the field that gets the focus.

        The screen doesn't wait for `prepare`, so text typed meanwhile goes into the message. Keys that reach the
        application in the same read as the key that opened this screen are dropped; they are never commands.
        """
        super().__init__()
        self._session, self._pauses, self._me = session, pauses, me
        self._prepare, self._begin = prepare, begin
        self._unsent = self._kept = DraftForm()
        """`_kept`: the content that was saved last, or that needs no saving."""
        self._draft = draft
        self._continued = draft is not None
        self._timer: Timer | None = None
        self._latest: Timer | None = None
        self._sending = False
        self._over = False

    def compose(self) -> ComposeResult:
        """Fields and text."""
        yield TitleLine(id="title")
        with Vertical(id="fields"):
            for name in ("To", "Cc", "Bcc"):
                with Horizontal(classes="field"):
                    yield Label(name, classes="field-name")
                    yield Input(id=name.lower(), compact=True, select_on_focus=False)
            with Horizontal(classes="field"):
                yield Label("Subject", classes="field-name")
                yield Input(id="subject", compact=True, select_on_focus=False)
            yield Static("", id="enclosures", markup=False)
        yield TextArea(id="text", soft_wrap=True, compact=True, tab_behavior="focus")
        yield HintLine(id="hints")

    def on_mount(self) -> None:
        """Set the focus, and start preparing the initial content."""
        title = self.query_one(TitleLine)
        title.place, title.whose = "New message", self._me.address
        self._show_enclosures()
        self.set_focus(self.query_one(self._begin))
        if self._prepare is not None:
            prepare = self._prepare
            title.work = "preparing ..."
            application(self).hold_keys()
            in_background(self, "prepare the message", lambda: self.Prepared(prepare()))

    @on(Prepared)
    def _prepared(self, event: Prepared) -> None:
        """Fill in the initial content; text typed meanwhile stays in front of it."""
        unsent, title = event.unsent, self.query_one(TitleLine)
        self._prepare = None
        self._unsent = unsent
        if not unsent.whole:
            self._draft = None  # the original draft stays
        if unsent.notes:
            self.notify(unsent.notes, severity="warning", timeout=20, markup=False)
        for name, value in (("to", unsent.to), ("cc", unsent.cc), ("bcc", unsent.bcc), ("subject", unsent.subject)):
            line = self.query_one(f"#{name}", Input)
            line.value = f"{line.value}{value}" if line.has_focus else value
        text = self.query_one("#text", TextArea)
        ahead = text.text
        room = "\n\n" if unsent.in_reply_to and not self._continued else ""
        text.text = ahead + room + unsent.text
        text.move_cursor(text.document.end if self._continued else _end(ahead))
        title.place, title.work = unsent.subject or "New message", ""
        self._show_enclosures()
        application(self).release_keys()
        # Don't save an untouched reply as a draft.
        self._kept = replace(self.unsent, text=room + unsent.text) if ahead else self.unsent

    # -- what was typed

    @property
    def unsent(self) -> DraftForm:
        """The message as it is on the screen."""
        return replace(
            self._unsent,
            to=self.query_one("#to", Input).value,
            cc=self.query_one("#cc", Input).value,
            bcc=self.query_one("#bcc", Input).value,
            subject=self.query_one("#subject", Input).value,
            text=self.query_one("#text", TextArea).text,
        )

    @on(Input.Changed)
    @on(TextArea.Changed)
    def _typed(self) -> None:
        if self._timer is not None:
            self._timer.stop()
        self._timer = after(self, self._pauses.keep, self._keep)
        if self._latest is None:
            self._latest = after(self, self._pauses.keep_at_least, self._keep)

    def on_key(self, event: events.Key) -> None:
        """Insert a character that bubbled up: it was typed before the focused field was ready to take it."""
        place = self.focused
        if event.is_printable and event.character and isinstance(place, (Input, TextArea)):
            event.stop()
            if isinstance(place, Input):
                place.insert_text_at_cursor(event.character)
            else:
                place.insert(event.character)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter goes to the next field."""
        event.stop()
        self.focus_next()

    def _keep(self) -> None:
        """Save the draft in a thread, in its turn among the changes."""
        for timer in (self._timer, self._latest):
            if timer is not None:
                timer.stop()
        self._timer = self._latest = None
        unsent = self.unsent
        if unsent == self._kept or unsent.empty or self._over or self._prepare is not None:
            return

        def work() -> Message | None:
            return self._write(unsent)

        self._session.changes.put(self, "keep the draft", work)

    def _write(self, unsent: DraftForm) -> Message | None:
        if self._over or unsent == self._kept:
            return None
        words: list[str] = []
        self._draft = self._session.mailbox.save_draft(unsent, self._me, self._draft, words.append)
        self._kept = unsent
        return self.Kept(unsent, self._draft, words)

    def keep_now(self) -> None:
        """Save the draft synchronously: the program is about to end."""
        unsent = self.unsent
        if not unsent.empty:
            self._write(unsent)

    @on(Kept)
    def _was_kept(self, event: Kept) -> None:
        for words in event.words:
            self.notify(words, severity="warning", timeout=20, markup=False)
        if not self._sending:
            self.query_one(TitleLine).work = "kept in Drafts"

    @on(Failed)
    def _failed(self, event: Failed) -> None:
        self.query_one(TitleLine).work = "NOT KEPT"
        self.notify(event.text, severity="error", markup=False)

    # -- attachments

    def _show_enclosures(self) -> None:
        shown = self.query_one("#enclosures", Static)
        shown.display = bool(self._unsent.enclosures)
        lines = []
        for item in self._unsent.enclosures:
            if item.part is not None:
                lines.append(f"{item.name} (from the message)")
                continue
            try:
                lines.append(f"{item.path}  {size(item.path.stat().st_size)}")
            except OSError:
                lines.append(f"{item.path}  NOT THERE")
        shown.update("Attached  " + "\n          ".join(lines))

    def action_attach(self) -> None:
        """Ask for a file and attach it."""
        from tui.screens.prompt import Prompt

        def attach(typed: str | None) -> None:
            if not typed:
                return
            path = Path(typed).expanduser().absolute()
            if not path.is_file():
                self.notify(f"{path} is not a file.", severity="warning", markup=False)
                return
            enclosures = (*self._unsent.enclosures, Enclosure(path))
            try:
                check_size(composed_size(Draft(self._me, enclosures=enclosures)))
            except (ComposeError, CannotAccept) as error:
                self.notify(str(error), severity="warning", markup=False)
                return
            self._unsent = replace(self._unsent, enclosures=enclosures)
            self._show_enclosures()
            self._keep()

        self.app.push_screen(Prompt("Attach", "Which file?", f"{Path.cwd()}/", path=True), attach)

    def action_detach(self) -> None:
        """Remove the last attachment."""
        self._unsent = replace(self._unsent, enclosures=self._unsent.enclosures[:-1])
        self._show_enclosures()
        self._keep()

    # -- the editor

    def action_editor(self) -> None:
        """Write the text in $VISUAL or $EDITOR."""
        command = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
        text = self.query_one("#text", TextArea)
        self._keep()
        with tempfile.TemporaryDirectory(prefix="p2pmail-") as folder:
            file = Path(folder) / "message.txt"
            file.write_text(text.text, "utf-8")
            try:
                with self.app.suspend():
                    ended = subprocess.call([*command, str(file)])  # noqa: S603 - the user's own editor
            except SuspendNotSupported:
                self.notify("An editor can't be started from this terminal.", severity="warning")
                return
            except OSError as error:
                self.notify(f"{command[0]} can't be started: {error.strerror}. Set EDITOR.", severity="error")
                return
            if ended == 0:
                text.text = file.read_text("utf-8", errors="replace")
        self.refresh(layout=True)
        self._keep()

    # -- the end

    def action_send(self) -> None:
        """Hand the message to the agent."""
        if self._sending or self._prepare is not None:
            return
        unsent = self.unsent
        agent = self._session.agent
        if agent is None or not self._session.started:
            self._keep()
            self.notify("Not connected: the message is kept in Drafts and can be sent later.", severity="warning")
            return
        try:
            draft = draft_of(unsent, self._me)
        except ComposeError as error:
            self.notify(str(error), severity="warning", markup=False)
            self.query_one("#to").focus()
            return
        self._keep()
        self._sending = True
        self.query_one(TitleLine).work = "sealing ..."
        writing_in = self.focused
        self._lock(locked=True)
        application(self).hold_keys()  # they are for the screen behind

        async def send() -> None:
            try:
                await self._session.changes.finish()
                await agent.submit(draft)
            except Exception as error:
                self._sending = False
                self.query_one(TitleLine).work = "not sent"
                self._lock(locked=False)
                self.set_focus(writing_in)
                application(self).release_keys()
                self.notify(explain("send it; it stays in Drafts", error), severity="error", timeout=10, markup=False)
                return
            self._done(unsent, "sent: the Outbox says how far it has come")

        self.run_worker(send(), group="send", exclusive=True, exit_on_error=False)

    def _done(self, unsent: DraftForm, said: str) -> None:
        """After sending: delete the draft, and mark the message that it answers or forwards."""
        self._over = True
        mailbox, draft = self._session.mailbox, self._draft
        flag = "R" if unsent.in_reply_to else "P"

        def work() -> Message:
            words = mailbox.discard_draft(draft) if draft is not None else ""
            mailbox.let_go(unsent)
            mailbox.mark_answered(unsent.answers, flag)
            return Changed(f"{said}. {words}" if words else said)

        self._session.changes.put(self._behind(), "tidy up after sending", work)
        self.dismiss(None)
        application(self).release_keys()

    def _lock(self, *, locked: bool) -> None:
        """While a message is being sent nothing can be written into it: that would be lost."""
        self.query_one("#fields").disabled = self.query_one("#text").disabled = locked

    def _behind(self) -> Screen[object]:
        return self.app.screen_stack[-2]

    def action_close(self) -> None:
        """Close; save the draft unless it is empty or unchanged."""
        if self._sending:
            return
        unsent = self.unsent
        behind, mailbox = self._behind(), self._session.mailbox
        if not unsent.empty and unsent != self._kept:

            def work() -> Message:
                kept = self._write(unsent)
                mailbox.let_go(unsent, kept=True)
                words = kept.words if isinstance(kept, self.Kept) else ()
                return Changed(" ".join(words) or "kept in Drafts")

            self._session.changes.put(behind, "keep the draft", work)
        else:
            kept = self._continued or self._draft is not None

            def let_go() -> Message:
                mailbox.let_go(unsent, kept=kept)
                return Changed("")

            self._session.changes.put(behind, "tidy up", let_go)
        self.dismiss(None)

    def action_discard(self) -> None:
        """Discard the draft, after a question."""
        from tui.screens.confirm import Confirm

        def discard(sure: bool | None) -> None:
            if not sure:
                return
            self._over = True
            mailbox, draft, unsent = self._session.mailbox, self._draft, self.unsent

            def work() -> Message:
                words = mailbox.discard_draft(draft) if draft is not None else ""
                mailbox.let_go(unsent)
                return Changed(words or "draft discarded")

            self._session.changes.put(self._behind(), "discard the draft", work)
            self.dismiss(None)

        self.app.push_screen(Confirm("Discard", "Throw this draft away? That can't be undone.", "Discard"), discard)

    @on(Heard)
    def _heard(self, event: Heard) -> None:
        if self._sending and isinstance(event.event, Progress):
            title = self.query_one(TitleLine)
            title.work, title.share = (
                event.event.what,
                event.event.done / event.event.total if event.event.total else -1,
            )


def _end(text: str) -> tuple[int, int]:
    """The position after `text`, as row and column."""
    lines = text.split("\n")
    return len(lines) - 1, len(lines[-1])
