"""What a user does with messages: the actions of tui/actions.py that the main screen carries out.

Each concerns the marked messages, or else the selected one, by their rows: what the user saw when she pressed the
key. The list shows the outcome at once; the change itself follows in its turn in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from textual.containers import Vertical
from textual.screen import Screen

from mail.events import Progress
from mail.mailbox import ARCHIVE, DRAFTS, JUNK, QUARANTINE, TRASH, QuarantinedMessage, Row
from tui.messages import Changed, Heard
from tui.session import Session
from tui.widgets.message_list import MessageList
from tui.widgets.query_bar import QueryBar
from tui.widgets.reader import Reader
from tui.widgets.title_line import TitleLine

if TYPE_CHECKING:
    from textual.message import Message

    from mail.mime.message import Message as Mail
    from tui.app import MailApp

LAYOUTS = ("", "-force-below", "-force-beside", "-force-over")

ONLY_IN_QUARANTINE = frozenset({"release"})
NOT_IN_QUARANTINE = frozenset({"reply", "reply_all", "forward", "archive", "move", "spam"})


class MailActions(Screen[None]):
    """The half of the main screen that changes things."""

    session: Session
    folder: str
    words: str
    opened: Row | None
    content: Mail | QuarantinedMessage | None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """In Quarantine a message is released or deleted, and nothing else; elsewhere nothing is released."""
        quarantined = self.folder == QUARANTINE and not self.words
        return action not in (NOT_IN_QUARANTINE if quarantined else ONLY_IN_QUARANTINE)

    # -- parts

    @property
    def mail_app(self) -> MailApp:
        """The application, typed."""
        from tui.app import MailApp

        assert isinstance(self.app, MailApp)
        return self.app

    @property
    def messages(self) -> MessageList:
        """The list."""
        return self.query_one("#list", MessageList)

    @property
    def reader(self) -> Reader:
        """The reader."""
        return self.query_one("#reader", Reader)

    @property
    def title_line(self) -> TitleLine:
        """The top line."""
        return self.query_one("#title", TitleLine)

    @property
    def reader_beside(self) -> bool:
        """Whether the reader is visible together with the list."""
        return self.query_one("#reader-pane", Vertical).display and self.query_one("#list-pane", Vertical).display

    def describe(self) -> None:
        """Say where we are; the other half does."""
        raise NotImplementedError

    def say(self, text: str) -> None:
        """Say what was done; the other half does."""
        raise NotImplementedError

    def load(self, *, again: bool = False) -> None:
        """Read the list; the other half does."""
        raise NotImplementedError

    def painted(self) -> None:
        """The first list stands: now the slow parts may start."""
        self.mail_app.first_list()

    def heard_progress(self, what: str, done: int, total: int) -> None:
        """Progress of our own work, from any thread."""
        self.app.post_message(Heard(Progress(what, done, total)))

    # -- messages in the list

    def _chosen(self) -> Sequence[int]:
        """The message that is being read; else what is marked; else what is selected."""
        listing = self.messages.listing
        if self.reader.has_focus:
            chosen = [self.opened.id] if self.opened else [] if listing.selected is None else [listing.selected]
        else:
            chosen = listing.chosen()
        if not chosen:
            self.say("No message is selected.")
        return chosen

    def _change(self, what: str, work: Callable[[], object], said: str = "", undo: bool = True) -> None:
        """Put a change in the queue; `said` is shown when it is done."""

        def run() -> Message:
            done = work()
            count = f" {done}" if isinstance(done, int) and not isinstance(done, bool) and done > 1 else ""
            return Changed(f"{said}{count}{' (u: undo)' if undo else ''}" if said else "")

        self.session.changes.put(self, what, run)

    def _take_away(self, ids: Sequence[int]) -> None:
        """Let the messages leave the list at once, and the reader if one of them is open in it."""
        if self.words:
            return  # a search shows messages wherever they are
        gone = set(ids)
        reading = self.opened is not None and self.opened.id in gone
        self.messages.take_out(list(ids))
        if reading and not self.reader_beside:
            self.close_reader()
            self.set_focus(self.messages)
        elif reading:
            self.clear_reader()

    def action_delete(self) -> None:
        """To Trash; for good from Trash and Quarantine, after a question."""
        ids = self._chosen()
        if not ids:
            return
        mailbox = self.session.mailbox
        if self.folder in (TRASH, QUARANTINE) and not self.words:
            from tui.screens.confirm import Confirm

            count = "this message" if len(ids) == 1 else f"these {len(ids)} messages"
            self.app.push_screen(
                Confirm("Delete for good", f"Delete {count} for good? That can't be undone.", "Delete"),
                partial(self._purge, ids),
            )
            return
        self._take_away(ids)
        self._change("delete", lambda: mailbox.delete(ids), "deleted")

    def _purge(self, ids: Sequence[int], sure: bool | None) -> None:
        if sure:
            mailbox = self.session.mailbox
            self._take_away(ids)
            self._change("delete for good", lambda: mailbox.purge(ids), "deleted for good", undo=False)

    def action_archive(self) -> None:
        """To Archive."""
        ids = self._chosen()
        if ids and self._may_leave() and self.folder != ARCHIVE:
            mailbox = self.session.mailbox
            self._take_away(ids)
            self._change("archive", lambda: mailbox.archive(ids), "archived")

    def action_spam(self) -> None:
        """Spam, or in Junk not spam."""
        ids = self._chosen()
        if not ids or not self._may_leave():
            return
        mailbox = self.session.mailbox
        self._take_away(ids)
        if self.folder == JUNK:
            self._change("mark as not spam", lambda: mailbox.mark_ham(ids), "not spam: moved to Inbox, and learned")
        else:
            self._change("mark as spam", lambda: mailbox.mark_spam(ids), "spam: moved to Junk, and learned")

    def action_move(self) -> None:
        """To a folder that is asked for."""
        from tui.screens.choose_folder import ChooseFolder

        ids = self._chosen()
        if not ids or not self._may_leave():
            return

        def moved(target: str | None) -> None:
            if target:
                mailbox = self.session.mailbox
                if target != self.folder:
                    self._take_away(ids)
                self._change("move", lambda: mailbox.move(ids, target), f"moved to {target}")

        self.app.push_screen(ChooseFolder(self.session.mailbox, self.folder), moved)

    def _may_leave(self) -> bool:
        if self.folder == QUARANTINE:
            self.say("Quarantine: only d (delete) and Ctrl+R (release).")
            return False
        return True

    def action_release(self) -> None:
        """Out of Quarantine, after the word was typed."""
        from tui.screens.confirm import TypedConfirm

        if self.folder != QUARANTINE:
            self.say("Only for messages in Quarantine.")
            return
        ids = self._chosen()
        if not ids:
            return
        found = self.content.found if isinstance(self.content, QuarantinedMessage) and len(ids) == 1 else ""
        text = f"{found}\n\nOnce released the message lies in the Inbox like any other, attachments and all."
        screen = TypedConfirm("Release from Quarantine", text.strip(), "release")

        def sure(yes: bool | None) -> None:
            if yes:
                mailbox = self.session.mailbox
                self._take_away(ids)
                self._change("release", lambda: mailbox.release(ids), "released to the Inbox")

        self.app.push_screen(screen, sure)

    def action_undo(self) -> None:
        """Take the last change back."""
        mailbox = self.session.mailbox

        def work() -> Message:
            what = mailbox.undo()
            return Changed(f"undone: {what}" if what else "Nothing to undo.")

        self.session.changes.put(self, "undo", work)

    def action_flag(self) -> None:
        """Flag, or take flags off where all have one."""
        self._toggle("F", "flagged", "flag taken off")

    def action_toggle_read(self) -> None:
        """Unread, or read where all are unread."""
        self._toggle("S", "marked as read", "marked as unread")

    def _toggle(self, flag: str, on: str, off: str) -> None:
        ids = self._chosen()
        if not ids:
            return
        mailbox = self.session.mailbox
        rows = [self.messages.listing.row(number) for number in ids]
        take_off = all(row is not None and flag in row.flags for row in rows)
        if take_off:
            self._change(off, lambda: mailbox.flag(ids, "", flag, off), off)
        else:
            self._change(on, lambda: mailbox.flag(ids, flag, "", on), on)

    def mark_seen(self, row: Row) -> None:
        """It was read."""
        mailbox = self.session.mailbox
        self.messages.take_rows([replace(row, flags="".join(sorted({*row.flags, "S"})))])
        self._change("mark as read", lambda: mailbox.seen(row))

    # -- writing

    def action_compose(self) -> None:
        """A new message."""
        self.mail_app.write()

    def action_reply(self) -> None:
        """To the sender."""
        self._answer(everybody=False)

    def action_reply_all(self) -> None:
        """To everybody."""
        self._answer(everybody=True)

    def _answer(self, *, everybody: bool) -> None:
        row = self._one()
        if row is not None:
            self.mail_app.answer(row, everybody=everybody)

    def action_forward(self) -> None:
        """Pass it on."""
        row = self._one()
        if row is not None:
            self.mail_app.pass_on(row)

    def _one(self) -> Row | None:
        """The message that is read, or the selected one; none of Quarantine."""
        row = self.opened if self.reader.has_focus and self.opened is not None else self.messages.selected
        if row is None:
            self.say("No message is selected.")
        elif row.folder == QUARANTINE:
            self.say("Messages in Quarantine aren't answered or passed on.")
            return None
        elif row.folder == DRAFTS:
            self.continue_draft(row)
            return None
        return row

    def continue_draft(self, row: Row) -> None:
        """Go on writing."""
        self.mail_app.continue_draft(row)

    # -- reading

    def action_attachments(self) -> None:
        """Open or save what is attached."""
        from tui.screens.attachments import Attachments

        content = None if isinstance(self.content, QuarantinedMessage) else self.content
        if self.opened is None and self.has_class("-reading"):
            self.say("still opening the message ...")
            return
        if self.opened is None or content is None or not content.attachments:
            self.say("Nothing is attached.")
            return
        self.app.push_screen(Attachments(self.session.mailbox, self.opened, content.attachments))

    def find_in_message(self, words: str, entered: bool) -> None:
        """Show where the words occur; Enter goes back to the text."""
        self.reader.find(words)
        self.say_found()
        if entered:
            self.set_focus(self.reader)

    def say_found(self) -> None:
        """Which of how many."""
        here, count = self.reader.found
        words = self.query_one("#find", QueryBar).words
        text = f"{here} of {count}" if count else "not found" if words else ""
        self.query_one("#find", QueryBar).found(text)

    def clear_reader(self) -> None:
        """Show nothing in it."""
        self.opened = self.content = None
        self.reader.show(None)

    def close_reader(self) -> None:
        """Back to the list alone, or to the list above the reader."""
        self.remove_class("-reading")
        self.query_one("#find", QueryBar).end()
        self.clear_reader()

    # -- going about

    def action_back(self) -> None:
        """From the message to the list, from the search to the folder, and then nothing: leaving is Ctrl+Q."""
        if self.has_class("-reading"):
            self.remove_class("-reading")
            self.query_one("#find", QueryBar).end()
            if not self.reader_beside:
                self.clear_reader()
            self.set_focus(self.messages)
        elif self.words:
            self.words = ""
            self.query_one("#search", QueryBar).end()
            self.load()
            self.set_focus(self.messages)
        elif not self.messages.has_focus:
            self.set_focus(self.messages)
        elif self.messages.listing.marked:
            self.messages.action_unmark_all()
        else:
            self.say("Ctrl+Q leaves.")

    def action_search(self) -> None:
        """Search all folders."""
        self.remove_class("-reading")
        self.query_one("#search", QueryBar).begin()

    def action_outbox(self) -> None:
        """How far each letter has come."""
        from tui.screens.outbox import OutboxScreen

        self.app.push_screen(OutboxScreen(self.session, self.mail_app.now))

    def action_notices(self) -> None:
        """What the user must know; what was shown there was seen."""
        from tui.messages import NoticesLoaded
        from tui.screens.notices import NoticesScreen

        mailbox = self.session.mailbox

        def closed(newest: int | None) -> None:
            def work() -> Message:
                mailbox.see_notices(newest or 0)
                return NoticesLoaded(mailbox.notices())

            self.session.changes.put(self, "note that the notices were seen", work)

        self.app.push_screen(NoticesScreen(self.session, self.mail_app.now()), closed)

    def action_node(self) -> None:
        """The node."""
        from tui.screens.node import NodeScreen

        self.app.push_screen(NodeScreen(self.session))

    def action_sync(self) -> None:
        """Now."""
        self.mail_app.sync()

    def action_join(self) -> None:
        """Set-up again."""
        self.mail_app.set_up()

    def action_invite(self) -> None:
        """A line for somebody to join with."""
        from tui.screens.invite import InviteScreen

        agent = self.session.agent
        if agent is None or not agent.founder():
            self.say("only who founded a network can invite others")
            return
        self.app.push_screen(InviteScreen(agent))

    def action_layout(self) -> None:
        """The next way to lay out list and reader."""
        now = next((name for name in LAYOUTS if name and self.has_class(name)), "")
        chosen = LAYOUTS[(LAYOUTS.index(now) + 1) % len(LAYOUTS)]
        for name in LAYOUTS:
            if name:
                self.set_class(name == chosen, name)
        names = {"": "as wide as fits", "-force-below": "reader below", "-force-beside": "reader beside"}
        self.say(f"layout: {names.get(chosen, 'reader over the list')}")
