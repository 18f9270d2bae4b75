"""The main screen: folders, list, reader. Loads what they show in threads, and reloads it when it changes.

What a user does with messages is in tui/screens/mail_actions.py.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.screen import Screen
from textual.timer import Timer

from mail.events import Progress
from mail.mailbox import DRAFTS, INBOX, QUARANTINE, QuarantinedMessage, Row
from tui.actions import Context, bindings
from tui.application import Application
from tui.background import Failed, Latest
from tui.delivery import summary
from tui.messages import (
    Changed,
    CountsLoaded,
    Heard,
    ListLoaded,
    MailOpened,
    NoticesLoaded,
    Refreshed,
    RowsLoaded,
    SourceLoaded,
)
from tui.pauses import after
from tui.reading import LaidOut, lay_out, lay_out_source, lay_out_suspect
from tui.screens.mail_actions import MailActions
from tui.widgets.folder_list import OUTBOX, FolderList
from tui.widgets.hint_line import HintLine
from tui.widgets.message_list import MessageList
from tui.widgets.notice_line import NoticeLine
from tui.widgets.query_bar import QueryBar
from tui.widgets.reader import Reader
from tui.widgets.title_line import TitleLine

if TYPE_CHECKING:
    from mail.mime.message import Message as Mail


LAYOUTS = ("", "-force-below", "-force-beside", "-force-over")

ONLY_IN_QUARANTINE = frozenset({"release"})
NOT_IN_QUARANTINE = frozenset({"reply", "reply_all", "forward", "archive", "move", "spam"})


class MailScreen(Screen[None]):
    """Shows the mailbox."""

    BINDINGS = bindings(Context.MAIL)
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-below"), (150, "-beside")]  # noqa: RUF012 - Textual's own type
    AUTO_FOCUS = "#list"

    def __init__(self, app: Application) -> None:
        super().__init__()
        self._application = app
        self.session = app.session
        self.actions = MailActions(self, app)
        self.now = app.now
        self.pauses = app.pauses
        self.folder = INBOX
        self.words = ""
        self._finished = True
        self.opened: Row | None = None
        self.content: Mail | QuarantinedMessage | None = None
        self._source = False
        self._list_work, self._rows_work, self._open_work = Latest(), Latest(), Latest()
        self._counts_work, self._watch_work, self._refresh_work = Latest(), Latest(), Latest(every=True)
        self._notices_work = Latest()
        self._sent: tuple[tuple[object, ...], int, Mapping[str, str]] | None = None
        """The outbox's stamp, its unsettled messages, and the state of each. Read again only when the stamp changes."""
        self._settling: Timer | None = None
        self._typing: Timer | None = None
        self._saying: Timer | None = None
        self._stamps: tuple[object, ...] = ()

    def compose(self) -> ComposeResult:
        """Lay out title, notice, folders, list above or beside the reader, hints."""
        yield TitleLine(id="title")
        yield NoticeLine(id="notice")
        with Horizontal(id="panes"):
            yield FolderList(id="folders")
            with Vertical(id="mail"):
                with Vertical(id="list-pane"):
                    yield QueryBar("Search ", "words  from:ada  is:unread  has:attachment  after:2026-03", id="search")
                    yield MessageList(self.now, id="list")
                with Vertical(id="reader-pane"):
                    yield Reader(id="reader")
                    yield QueryBar("Find ", "words in this message", id="find")
        yield HintLine(id="hints")

    def on_mount(self) -> None:
        """Read the folder at once; everything else comes after the first paint."""
        self.query_one(FolderList).when_chosen = self._folder_chosen
        self.query_one(FolderList).choose(self.folder)
        self.messages.when_opened = self._open_selected
        self.messages.when_left = self._to_folders
        self.reader.ask = self._reader_asked
        self.title_line.offline = self._application.offline
        self.load()
        self.load_counts()
        self.load_notices()

    def begin_watching(self) -> None:
        """After the first paint: bring the index up to date, and watch for changes by other programs."""
        self.refresh_index()
        self.set_interval(self.pauses.watch, self._watch)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """In Quarantine a message is released or deleted, and nothing else; elsewhere nothing is released."""
        quarantined = self.folder == QUARANTINE and not self.words
        return action not in (NOT_IN_QUARANTINE if quarantined else ONLY_IN_QUARANTINE)

    # -- parts

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

    def painted(self) -> None:
        """The first list is drawn: slow work may start now."""
        self._application.first_list()

    def heard_progress(self, what: str, done: int, total: int) -> None:
        """Progress of our own work, from any thread."""
        self.app.post_message(Heard(Progress(what, done, total)))

    # -- loading

    def load(self, *, again: bool = False) -> None:
        """Read the folder (or the search) that is shown. `again`: it was shown already, and stays where it is."""
        mailbox, folder, words = self.session.mailbox, self.folder, self.words
        typing = not self._finished
        self.messages.notice = self.messages.notice or "reading ..."
        listing = self.messages.listing
        selected, row = (listing.selected, self.messages.selected) if again else (None, None)
        top, height = (self.messages.scroll_offset.y if again else 0), max(self.size.height, 40)

        def loaded(ids: array[int], more: bool = False) -> ListLoaded:
            moved = None
            if selected is not None and row is not None and selected not in ids:
                other = mailbox.find(row.message_id, row.folder)
                moved = other.id if other is not None else None
            anchor = moved or selected
            first = max(0, ids.index(anchor) - height) if anchor is not None and anchor in ids else top
            rows = mailbox.rows(ids[first : first + 2 * height])
            return ListLoaded(folder, words, ids, rows, again, moved, more)

        def work() -> Message | None:
            if not words:
                return loaded(mailbox.ids(folder))
            last = loaded(array("q"))
            for number, ids in enumerate(mailbox.search(words, typing=typing)):
                if number:
                    self.post_message(last)
                last = loaded(ids)
            return last

        self._list_work.run(self, "read the folder", work)

    def load_counts(self) -> None:
        """Count the messages of each folder, and read the state of sent mail."""
        mailbox = self.session.mailbox

        def work() -> Message:
            stamp = mailbox.outbox_stamp()
            if self._sent is None or stamp != self._sent[0]:
                entries = mailbox.outbox()
                delivery = {entry.message_id: summary([str(r.state) for r in entry.recipients]) for entry in entries}
                self._sent = stamp, sum(not entry.settled for entry in entries), delivery
            return CountsLoaded(mailbox.folders(), *self._sent[1:])

        self._counts_work.run(self, "count the mail", work)

    def refresh_index(self) -> None:
        """Bring the index up to date with the folders on disk."""
        mailbox = self.session.mailbox

        def progress(done: int, total: int) -> None:
            if total >= 500 and (done % 500 == 0 or done == total):
                self.heard_progress("indexing mail", done, total)

        def work() -> Message:
            self._stamps = mailbox.stamps()
            return Refreshed(bool(mailbox.refresh(progress)))

        self._refresh_work.run(self, "bring the index up to date", work)

    def _watch(self) -> None:
        mailbox, before = self.session.mailbox, self._stamps

        def work() -> Message | None:
            if mailbox.stamps() != before:
                self.app.call_from_thread(self.refresh_index)
            return None

        self._watch_work.run(self, "look at the folders", work)
        self.load_notices()

    def load_notices(self) -> None:
        """Show the notices that the user hasn't seen. Another process may have written one."""
        mailbox = self.session.mailbox
        self._notices_work.run(self, "read the notices", lambda: NoticesLoaded(mailbox.notices()))

    @on(NoticesLoaded)
    def _notices_loaded(self, event: NoticesLoaded) -> None:
        self.query_one(NoticeLine).show([notice.text for notice in event.notices])

    @on(ListLoaded)
    def _list_loaded(self, event: ListLoaded) -> None:
        if (event.folder, event.query) != (self.folder, self.words):
            return
        self.messages.notice = "Nothing found." if event.query else f"{event.folder} is empty."
        if event.selected is not None:
            self.messages.listing.selected = event.selected
        same = event.again or (bool(event.query) and self.messages.everywhere)
        self.messages.show(event.folder, event.ids, event.rows, everywhere=bool(event.query), again=same)
        if event.query:
            self.query_one("#search", QueryBar).found(f"{len(event.ids)} found")
        self.describe()
        self.painted()

    @on(CountsLoaded)
    def _counts_loaded(self, event: CountsLoaded) -> None:
        self.query_one(FolderList).show(event.folders, event.waiting)
        if self.messages.delivery != event.delivery:
            self.messages.delivery = event.delivery
            self.messages.refresh()
        self.describe()

    @on(Refreshed)
    def _refreshed(self, event: Refreshed) -> None:
        # Always: a message filed just now is in the index already, so the refresh reports no change.
        self.load(again=True)
        self.load_counts()

    @on(Changed)
    def _changed(self, event: Changed) -> None:
        if event.text:
            self.say(event.text)
        self.load(again=True)
        self.load_counts()

    @on(Failed)
    def _failed(self, event: Failed) -> None:
        self._application.release_keys()
        if self.words and "search" in event.text:
            self.query_one("#search", QueryBar).found("?")
        self.notify(event.text, severity="error", timeout=8, markup=False)
        if not self.words:
            self.load_counts()

    @on(MessageList.Wanted)
    def _rows_wanted(self, event: MessageList.Wanted) -> None:
        mailbox, ids = self.session.mailbox, event.ids
        self._rows_work.run(self, "read the list", lambda: RowsLoaded(mailbox.rows(ids)))

    @on(RowsLoaded)
    def _rows_loaded(self, event: RowsLoaded) -> None:
        self.messages.take_rows(event.rows)
        selected = self.messages.selected
        if selected is not None and (self.opened is None or self.opened.id != selected.id):
            self._settle()

    # -- folders and search

    def _folder_chosen(self, folder: str, stay: bool) -> None:
        if folder == OUTBOX:
            if not stay:
                self.actions.outbox()
            else:
                self.show_folder(OUTBOX)
            return
        if folder != self.folder or self.words:
            self.show_folder(folder)
        if not stay:
            self.set_focus(self.messages)

    def _to_folders(self) -> None:
        self.set_focus(self.query_one(FolderList))

    def show_folder(self, folder: str) -> None:
        """Open a folder, ending a search."""
        self.words = ""
        self.query_one("#search", QueryBar).end()
        self.folder = folder
        self.query_one(FolderList).choose(folder)
        self.close_reader()
        self.refresh_bindings()
        if folder == OUTBOX:
            self.messages.notice = "Enter shows how far each message has come."
            self.messages.show(OUTBOX, array("q"))
            self.describe()
            return
        self.load()

    @on(QueryBar.Typed)
    def _typed(self, event: QueryBar.Typed) -> None:
        if event.bar.id == "find":
            self.find_in_message(event.words, event.entered)
            return
        if self._typing is not None:
            self._typing.stop()
        if event.entered:
            self.set_focus(self.messages)
            self._look_for(event.words, finished=True)
        elif event.words != self.words:
            self._typing = after(self, self.pauses.typing, partial(self._look_for, event.words, finished=False))

    def _look_for(self, words: str, *, finished: bool) -> None:
        self.words, self._finished = words.strip(), finished or words.endswith(" ")
        self.load()

    @on(QueryBar.Ended)
    def _query_ended(self, event: QueryBar.Ended) -> None:
        event.bar.end()
        if event.bar.id == "find":
            self.reader.find("")
            self.set_focus(self.reader)
            return
        if self._typing is not None:
            self._typing.stop()
        if self.words:
            self.words = ""
            self.load()
        self.set_focus(self.messages)

    # -- reading

    @on(MessageList.Moved)
    def _moved(self) -> None:
        self.describe()
        if not self.reader_beside and not self.has_class("-reading"):
            return
        self._settle()

    def _settle(self) -> None:
        if self._settling is not None:
            self._settling.stop()
        self._settling = after(self, self.pauses.settle, self._show_selected)

    def _show_selected(self) -> None:
        row = self.messages.selected
        if row is None:
            if not self.messages.listing.ids or self.messages.listing.selected is None:
                self.clear_reader()
            return
        if self.opened is None or self.opened.id != row.id or self.opened.folder != row.folder:
            self.open_row(row, enter=self.has_class("-reading"))

    def _open_selected(self) -> None:
        row = self.messages.selected
        if row is None:
            return
        if row.folder == DRAFTS:
            self.actions.continue_draft(row)
            return
        # At once, so that keys typed ahead are for the message that is being opened.
        self._application.hold_keys()
        self.add_class("-reading")
        self.set_focus(self.reader)
        if self.opened is None or self.opened.id != row.id:
            self.clear_reader()
        self.open_row(row, enter=True)

    def open_row(self, row: Row, *, enter: bool) -> None:
        """Read a message from disk. `enter`: the user means to read it; else it is only shown beside the list."""
        mailbox, width = self.session.mailbox, self.reader.text_width

        def work() -> Message:
            content: Mail | QuarantinedMessage
            if row.folder == QUARANTINE:
                content = mailbox.quarantined(row)
                lines = LaidOut(partial(lay_out_suspect, content))
            else:
                content = mailbox.open(row)
                lines = LaidOut(partial(lay_out, content))
            lines(width)
            return MailOpened(row, content, lines, enter)

        self._open_work.run(self, "open the message", work)

    @on(MailOpened)
    def _mail_opened(self, event: MailOpened) -> None:
        self.opened, self.content, self._source = event.row, event.content, False
        self._application.release_keys()
        self.reader.show(event.lines)
        if event.enter and event.row.unread:
            self.actions.mark_seen(event.row)
        self.describe()

    @on(SourceLoaded)
    def _source_loaded(self, event: SourceLoaded) -> None:
        if self.opened is not None and self.opened.id == event.row.id:
            self._source = True
            self.reader.show(event.lines)

    def _reader_asked(self, what: str) -> None:
        match what:
            case "next_message":
                self.messages.action_cursor_down()
            case "previous_message":
                self.messages.action_cursor_up()
            case "to_list":
                self.action_back()
            case "find":
                self.query_one("#find", QueryBar).begin()
            case "found":
                self.say_found()
            case "source":
                self.toggle_source()
            case "attachments":
                self.actions.attachments()

    def toggle_source(self) -> None:
        """The source, or the message again."""
        row, mailbox = self.opened, self.session.mailbox
        if row is None:
            return
        if self._source:
            self.open_row(row, enter=False)
            return
        width = self.reader.text_width

        def work() -> Message:
            lines = LaidOut(partial(lay_out_source, mailbox.source(row)))
            lines(width)
            return SourceLoaded(row, lines)

        self._open_work.run(self, "read the source", work)

    def find_in_message(self, words: str, entered: bool) -> None:
        """Show where the words occur; Enter goes back to the text."""
        self.reader.find(words)
        self.say_found()
        if entered:
            self.set_focus(self.reader)

    def say_found(self) -> None:
        """Show which match is selected, of how many."""
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

    # -- moving between views

    def action_back(self) -> None:
        """Close the message, then the search, then the marks. It never quits: Ctrl+Q does."""
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

    def action_layout(self) -> None:
        """Switch to the next layout of list and reader."""
        now = next((name for name in LAYOUTS if name and self.has_class(name)), "")
        chosen = LAYOUTS[(LAYOUTS.index(now) + 1) % len(LAYOUTS)]
        for name in LAYOUTS:
            if name:
                self.set_class(name == chosen, name)
        names = {"": "as wide as fits", "-force-below": "reader below", "-force-beside": "reader beside"}
        self.say(f"layout: {names.get(chosen, 'reader over the list')}")

    # -- the title

    def describe(self) -> None:
        """Show folder and counts in the title."""
        counts = self.query_one(FolderList).folders.get(self.folder)
        marked = len(self.messages.listing.marked)
        if self.words:
            place = f"search: {len(self.messages.listing)} found"
        else:
            place = self.folder
            if counts is not None and counts.unread and self.folder != OUTBOX:
                place += f" · {counts.unread} unread"
            if counts is not None and counts.total:
                place += f" · {counts.total}"
        self.title_line.place = f"{place} · {marked} marked" if marked else place

    def say(self, text: str) -> None:
        """Show `text` in the title for a few seconds."""
        self.title_line.work, self.title_line.share = text, -1.0
        if self._saying is not None:
            self._saying.stop()
        self._saying = after(self, self.pauses.said, partial(self._said, text))

    def show_progress(self, what: str, done: int, total: int) -> None:
        """Show progress in the title until the work ends, or until no progress comes for `Pauses.silent` seconds."""
        over = 0 < total <= done
        self.title_line.work = "" if over else what
        self.title_line.share = done / total if total else -1.0
        if self._saying is not None:
            self._saying.stop()
        if what and not over:
            self._saying = after(self, self.pauses.silent, partial(self._said, what))

    def _said(self, text: str) -> None:
        if self.title_line.work == text:
            self.title_line.work = ""

    # -- actions of Context.MAIL that tui/screens/mail_actions.py carries out

    def action_delete(self) -> None:
        self.actions.delete()

    def action_archive(self) -> None:
        self.actions.archive()

    def action_spam(self) -> None:
        self.actions.spam()

    def action_move(self) -> None:
        self.actions.move()

    def action_release(self) -> None:
        self.actions.release()

    def action_undo(self) -> None:
        self.actions.undo()

    def action_flag(self) -> None:
        self.actions.flag()

    def action_toggle_read(self) -> None:
        self.actions.toggle_read()

    def action_compose(self) -> None:
        self.actions.compose()

    def action_reply(self) -> None:
        self.actions.reply()

    def action_reply_all(self) -> None:
        self.actions.reply_all()

    def action_forward(self) -> None:
        self.actions.forward()

    def action_attachments(self) -> None:
        self.actions.attachments()

    def action_outbox(self) -> None:
        self.actions.outbox()

    def action_notices(self) -> None:
        self.actions.notices()

    def action_node(self) -> None:
        self.actions.node()

    def action_sync(self) -> None:
        self.actions.sync()

    def action_join(self) -> None:
        self.actions.join()

    def action_invite(self) -> None:
        self.actions.invite()
