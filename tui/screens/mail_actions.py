"""Carries out the keys of the main screen: what they do to mail, and which screens they open.

Each action concerns the marked messages, or else the selected one, by their rows: what the user saw when the key was
pressed. The list shows the outcome at once; the change itself follows in its turn in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from mail.mailbox import ARCHIVE, DRAFTS, JUNK, QUARANTINE, TRASH, QuarantinedMessage, Row
from tui.application import Application
from tui.messages import Changed
from tui.session import Session
from tui.widgets.message_list import MessageList
from tui.widgets.reader import Reader

if TYPE_CHECKING:
    from textual.app import App
    from textual.message import Message
    from textual.widget import Widget
    from textual.worker import Worker

    from mail.mime.message import Message as Mail


class MailView(Protocol):
    """The main screen as its actions see it (tui/screens/mail.py's MailScreen).

    folder    the folder that is shown
    words     of the search that is shown, "" for none
    opened    the message in the reader, None for none
    content   what was read of it; in Quarantine its header alone
    """

    folder: str
    words: str
    opened: Row | None
    content: Mail | QuarantinedMessage | None

    @property
    def app(self) -> App[object]: ...
    @property
    def session(self) -> Session: ...
    @property
    def messages(self) -> MessageList: ...
    @property
    def reader(self) -> Reader: ...
    @property
    def reader_beside(self) -> bool: ...
    def say(self, text: str) -> None: ...
    def clear_reader(self) -> None: ...
    def close_reader(self) -> None: ...
    def has_class(self, *class_names: str) -> bool: ...
    def set_focus(self, widget: Widget | None, scroll_visible: bool = True, from_app_focus: bool = False) -> None: ...
    def post_message(self, message: Message) -> bool: ...
    def run_worker(
        self,
        work: Coroutine[None, None, None],
        name: str | None = "",
        group: str = "default",
        description: str = "",
        exit_on_error: bool = True,
    ) -> Worker[None]: ...


class MailActions:
    """Carries out the actions of Context.MAIL (tui/actions.py) that change mail, write it or open another screen."""

    def __init__(self, view: MailView, app: Application) -> None:
        self._view = view
        self._app = app

    # -- messages in the list

    def _chosen(self) -> Sequence[int]:
        """IDs that an action is for: the message being read, else the marked ones, else the selected one."""
        listing = self._view.messages.listing
        if self._view.reader.has_focus:
            opened = self._view.opened
            chosen = [opened.id] if opened else [] if listing.selected is None else [listing.selected]
        else:
            chosen = listing.chosen()
        if not chosen:
            self._view.say("No message is selected.")
        return chosen

    def _change(self, what: str, work: Callable[[], object], said: str = "", undo: bool = True) -> None:
        """Put a change in the queue; `said` is shown when it is done."""

        def run() -> Message:
            done = work()
            count = f" {done}" if isinstance(done, int) and not isinstance(done, bool) and done > 1 else ""
            return Changed(f"{said}{count}{' (u: undo)' if undo else ''}" if said else "")

        self._view.session.changes.put(self._view, what, run)

    def _take_away(self, ids: Sequence[int]) -> None:
        """Let the messages leave the list at once, and the reader if one of them is open in it."""
        if self._view.words:
            return  # a search shows messages wherever they are
        gone = set(ids)
        reading = self._view.opened is not None and self._view.opened.id in gone
        self._view.messages.take_out(list(ids))
        if reading and not self._view.reader_beside:
            self._view.close_reader()
            self._view.set_focus(self._view.messages)
        elif reading:
            self._view.clear_reader()

    def delete(self) -> None:
        """Move to Trash. In Trash and Quarantine: delete for good, after a question."""
        ids = self._chosen()
        if not ids:
            return
        mailbox = self._view.session.mailbox
        if self._view.folder in (TRASH, QUARANTINE) and not self._view.words:
            from tui.screens.confirm import Confirm

            count = "this message" if len(ids) == 1 else f"these {len(ids)} messages"
            self._view.app.push_screen(
                Confirm("Delete for good", f"Delete {count} for good? That can't be undone.", "Delete"),
                partial(self._purge, ids),
            )
            return
        self._take_away(ids)
        self._change("delete", lambda: mailbox.delete(ids), "deleted")

    def _purge(self, ids: Sequence[int], sure: bool | None) -> None:
        if sure:
            mailbox = self._view.session.mailbox
            self._take_away(ids)
            self._change("delete for good", lambda: mailbox.purge(ids), "deleted for good", undo=False)

    def archive(self) -> None:
        """Move to Archive."""
        ids = self._chosen()
        if ids and self._may_leave() and self._view.folder != ARCHIVE:
            mailbox = self._view.session.mailbox
            self._take_away(ids)
            self._change("archive", lambda: mailbox.archive(ids), "archived")

    def spam(self) -> None:
        """Mark as spam; in Junk, as not spam."""
        ids = self._chosen()
        if not ids or not self._may_leave():
            return
        mailbox = self._view.session.mailbox
        self._take_away(ids)
        if self._view.folder == JUNK:
            self._change("mark as not spam", lambda: mailbox.mark_ham(ids), "not spam: moved to Inbox, and learned")
        else:
            self._change("mark as spam", lambda: mailbox.mark_spam(ids), "spam: moved to Junk, and learned")

    def move(self) -> None:
        """Ask for a folder, and move there."""
        from tui.screens.choose_folder import ChooseFolder

        ids = self._chosen()
        if not ids or not self._may_leave():
            return

        def moved(target: str | None) -> None:
            if target:
                mailbox = self._view.session.mailbox
                if target != self._view.folder:
                    self._take_away(ids)
                self._change("move", lambda: mailbox.move(ids, target), f"moved to {target}")

        self._view.app.push_screen(ChooseFolder(self._view.session.mailbox, self._view.folder), moved)

    def _may_leave(self) -> bool:
        if self._view.folder == QUARANTINE:
            self._view.say("Quarantine: only d (delete) and Ctrl+R (release).")
            return False
        return True

    def release(self) -> None:
        """Move from Quarantine to Inbox, after the user has typed "release"."""
        from tui.screens.confirm import TypedConfirm

        if self._view.folder != QUARANTINE:
            self._view.say("Only for messages in Quarantine.")
            return
        ids = self._chosen()
        if not ids:
            return
        found = self._view.content.found if isinstance(self._view.content, QuarantinedMessage) and len(ids) == 1 else ""
        text = f"{found}\n\nOnce released the message lies in the Inbox like any other, attachments and all."
        screen = TypedConfirm("Release from Quarantine", text.strip(), "release")

        def sure(yes: bool | None) -> None:
            if yes:
                mailbox = self._view.session.mailbox
                self._take_away(ids)
                self._change("release", lambda: mailbox.release(ids), "released to the Inbox")

        self._view.app.push_screen(screen, sure)

    def undo(self) -> None:
        """Undo the last change."""
        mailbox = self._view.session.mailbox

        def work() -> Message:
            what = mailbox.undo()
            return Changed(f"undone: {what}" if what else "Nothing to undo.")

        self._view.session.changes.put(self._view, "undo", work)

    def flag(self) -> None:
        """Flag; if all are flagged, remove the flags."""
        self._toggle("F", "flagged", "flag taken off")

    def toggle_read(self) -> None:
        """Mark as unread; if all are unread, as read."""
        self._toggle("S", "marked as read", "marked as unread")

    def _toggle(self, flag: str, on: str, off: str) -> None:
        ids = self._chosen()
        if not ids:
            return
        mailbox = self._view.session.mailbox
        rows = [self._view.messages.listing.row(number) for number in ids]
        take_off = all(row is not None and flag in row.flags for row in rows)
        if take_off:
            self._change(off, lambda: mailbox.flag(ids, "", flag, off), off)
        else:
            self._change(on, lambda: mailbox.flag(ids, flag, "", on), on)

    def mark_seen(self, row: Row) -> None:
        """Mark a message as read, because it was opened."""
        mailbox = self._view.session.mailbox
        self._view.messages.take_rows([replace(row, flags="".join(sorted({*row.flags, "S"})))])
        self._change("mark as read", lambda: mailbox.mark_seen(row))

    # -- writing

    def compose(self) -> None:
        """Write a new message."""
        self._app.write()

    def reply(self) -> None:
        """Reply to the sender."""
        self._begin_reply(everybody=False)

    def reply_all(self) -> None:
        """Reply to the sender and all recipients."""
        self._begin_reply(everybody=True)

    def _begin_reply(self, *, everybody: bool) -> None:
        row = self._one()
        if row is not None:
            self._app.answer(row, everybody=everybody)

    def forward(self) -> None:
        """Forward."""
        row = self._one()
        if row is not None:
            self._app.pass_on(row)

    def _one(self) -> Row | None:
        """The message being read, else the selected one. None in Quarantine; a draft is opened instead."""
        opened = self._view.opened if self._view.reader.has_focus else None
        row = opened or self._view.messages.selected
        if row is None:
            self._view.say("No message is selected.")
        elif row.folder == QUARANTINE:
            self._view.say("Messages in Quarantine can't be answered or forwarded.")
            return None
        elif row.folder == DRAFTS:
            self.continue_draft(row)
            return None
        return row

    def continue_draft(self, row: Row) -> None:
        """Open a draft."""
        self._app.continue_draft(row)

    # -- reading

    def attachments(self) -> None:
        """List the attachments, to open or save them."""
        from tui.screens.attachments import Attachments

        content = None if isinstance(self._view.content, QuarantinedMessage) else self._view.content
        if self._view.opened is None and self._view.has_class("-reading"):
            self._view.say("still opening the message ...")
            return
        if self._view.opened is None or content is None or not content.attachments:
            self._view.say("Nothing is attached.")
            return
        self._view.app.push_screen(Attachments(self._view.session.mailbox, self._view.opened, content.attachments))

    # -- other screens

    def outbox(self) -> None:
        """Show the state of each sent message."""
        from tui.screens.outbox import OutboxScreen

        self._view.app.push_screen(OutboxScreen(self._view.session, self._app.now))

    def notices(self) -> None:
        """Show the notices, and then mark those shown as seen."""
        from tui.messages import NoticesLoaded
        from tui.screens.notices import NoticesScreen

        mailbox = self._view.session.mailbox

        def closed(newest: int | None) -> None:
            def work() -> Message:
                mailbox.mark_notices_seen(newest or 0)
                return NoticesLoaded(mailbox.notices())

            self._view.session.changes.put(self._view, "note that the notices were seen", work)

        self._view.app.push_screen(NoticesScreen(self._view.session, self._app.now()), closed)

    def node(self) -> None:
        """Show the node."""
        from tui.screens.node import NodeScreen

        self._view.app.push_screen(NodeScreen(self._view.session))

    def sync(self) -> None:
        """Send and collect now."""
        self._app.sync()

    def join(self) -> None:
        """Show the set-up screen."""
        self._app.set_up()

    def invite(self) -> None:
        """Make an invite."""
        from tui.screens.invite import InviteScreen

        agent = self._view.session.agent
        if agent is None or not agent.founder():
            self._view.say("Only the founder of a network can invite others.")
            return
        self._view.app.push_screen(InviteScreen(agent))
