"""The list of messages: it draws only the visible lines, so that 100,000 messages open as fast as ten.

Theory of operation
-------------------
The list holds the IDs of all its messages (8 bytes each) and the rows of those near the cursor (tui/listing.py). It
fetches nothing itself:

    show       the screen has read the IDs of a folder or search, and the first rows
    Wanted     posted when a line is to be drawn whose row isn't here; only the latest is answered
    take_rows  the screen brings the rows, and the lines are drawn again
    take_out   the user moved or deleted messages: they leave at once, before the change is on disk
    Moved      posted when the cursor is on another message; only the latest matters

A folder that changes (new mail, another program) is read again as a whole and shown with `again`: the message under
the cursor stays where it is on the screen, however many came above it.

Invariants:

- Selection and marks belong to messages, never to line numbers. Whatever comes or goes, a key acts on the message that
  the user saw when it was pressed. If another program takes the selected message away, nothing is selected.
- A message that the user takes away passes the selection to the next one, or to the last.
- Keys that are typed ahead keep their order: opening calls `when_opened` at once instead of posting a message, so that
  the focus has moved before the next key arrives.
- Drawing costs the visible lines only, and never waits for the disk.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from textual import events
from textual.geometry import Offset
from textual.message import Message
from textual.reactive import reactive

from mail.mailbox import SENT, Row
from tui.actions import Context, bindings
from tui.columns import Piece, columns, pieces
from tui.listing import Listing
from tui.widgets.lines import Lines

STYLES = ("plain", "unread", "dim", "cursor", "mark", "flag", "good", "bad", "selected", "selected-away", "empty")


class MessageList(Lines):
    """A folder, or the results of a search."""

    PREFIX = "list"
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"list--{name}" for name in STYLES}
    BINDINGS = bindings(Context.LIST)

    notice: reactive[str] = reactive("")
    """Shown when there are no messages."""

    class Wanted(Message):
        """These rows are to be shown and aren't here."""

        def __init__(self, ids: Sequence[int]) -> None:
            super().__init__()
            self.ids = list(ids)

        def can_replace(self, message: Message) -> bool:
            """Only what is visible now matters."""
            return isinstance(message, MessageList.Wanted)

    class Moved(Message):
        """The cursor is on another message (or none)."""

        def can_replace(self, message: Message) -> bool:
            """The last place counts."""
            return isinstance(message, MessageList.Moved)

    def __init__(self, now: Callable[[], float] = time.time, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.listing = Listing()
        self.delivery: Mapping[str, str] = {}
        """Message-ID -> how far the message has come, for what was sent."""
        self.folder = ""
        self.everywhere = False
        """Whether messages of several folders are shown, so that each one's folder must be."""
        self.when_opened: Callable[[], None] = lambda: None
        """Called, not posted, so that the focus has moved before the next key is handled."""
        self.when_left: Callable[[], None] = lambda: None
        self._now = now
        self._moment = now()
        self._last_mark: int | None = None

    # -- what is shown

    def show(
        self, folder: str, ids: array[int], rows: Sequence[Row] = (), *, everywhere: bool = False, again: bool = False
    ) -> None:
        """Show these messages. `again`: the same list, as it is now; else the cursor goes to the first one."""
        self._moment = self._now()
        if not again or folder != self.folder:
            self.listing = Listing()
            self._last_mark = None
        self.folder, self.everywhere = folder, everywhere
        before, top = self.listing.place, self.scroll_offset.y
        self.listing.forget()
        self.listing.keep(rows)
        self.listing.replace(ids)
        self.lines_changed()
        if again:
            # Keep the message under the cursor on the same line of the screen.
            self.scroll_to(y=top + self.listing.place - before, animate=False, immediate=True)
        else:
            self.scroll_to(y=0, animate=False, immediate=True)
        self.show_line(self.listing.place)
        self.post_message(self.Moved())

    def take_rows(self, rows: Sequence[Row]) -> None:
        """Rows that were asked for have come."""
        self.listing.keep(rows)
        self.refresh()

    def take_out(self, ids: Sequence[int]) -> None:
        """Take messages out at once, because the user deleted or moved them; the next one is selected."""
        self.listing.remove(ids)
        self.lines_changed()
        self.show_line(self.listing.place)
        self.post_message(self.Moved())

    @property
    def selected(self) -> Row | None:
        """The selected message, if it was fetched."""
        return None if self.listing.selected is None else self.listing.row(self.listing.selected)

    def select(self, number: int) -> None:
        """Put the cursor on this message, if it is in the list."""
        if number in self.listing.ids:
            self._go(self.listing.ids.index(number))

    # -- drawing

    def line_count(self) -> int:
        """As many lines as messages."""
        return len(self.listing) or 1

    def line_background(self, y: int) -> str | None:
        """The selected message's line."""
        if self.listing.selected is None or y != self.listing.place or not self.listing.ids:
            return None
        return "selected" if self.has_focus else "selected-away"

    def line_pieces(self, y: int, width: int) -> Sequence[Piece]:
        """One message."""
        if not self.listing.ids:
            return [(f"  {self.notice}", "empty")]
        number = self.listing.ids[y]
        row = self.listing.row(number)
        if row is None:
            return [("  …", "dim")]
        sent = self.folder == SENT
        return pieces(
            row,
            columns(width, state=sent, folder=self.everywhere),
            self._moment,
            selected=number == self.listing.selected,
            marked=number in self.listing.marked,
            delivery=self.delivery.get(row.message_id, "") if sent else "",
        )

    def watch_notice(self) -> None:
        """Draw it."""
        self.lines_changed()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Scrolled: ask for what is missing."""
        super().watch_scroll_y(old_value, new_value)
        self._want()

    def on_resize(self) -> None:
        """More or fewer lines: ask for what is missing; keep the cursor in sight."""
        self.show_line(self.listing.place)
        self._want()

    def on_focus(self) -> None:
        """The cursor's line looks different with the focus."""
        self.refresh()
        self._put_terminal_cursor()

    def on_blur(self) -> None:
        """Redraw the cursor's line without the focus."""
        self.refresh()

    def _want(self) -> None:
        missing = self.listing.missing(self.scroll_offset.y, max(1, self.size.height))
        if missing:
            self.post_message(self.Wanted(missing))

    # -- moving

    def _go(self, place: int) -> None:
        before = self.listing.place
        if self.listing.select(place):
            self.show_line(self.listing.place)
            self.refresh_row(before)
            self.refresh_row(self.listing.place)
            self._put_terminal_cursor()
            self.post_message(self.Moved())

    def _put_terminal_cursor(self) -> None:
        """Where screen readers and input methods look."""
        y = self.listing.place - self.scroll_offset.y
        if 0 <= y < self.size.height:
            self.app.cursor_position = Offset(self.region.x, self.region.y + y)

    def action_cursor_down(self) -> None:
        """The next message; the one at the cursor's place when none was selected."""
        self._go(self.listing.place + (self.listing.selected is not None))

    def action_cursor_up(self) -> None:
        """The one before."""
        self._go(self.listing.place - (self.listing.selected is not None))

    def action_page_down(self) -> None:
        """A page on."""
        self._go(self.listing.place + max(1, self.size.height - 1))

    def action_page_up(self) -> None:
        """A page back."""
        self._go(self.listing.place - max(1, self.size.height - 1))

    def action_first(self) -> None:
        """To the top."""
        self._go(0)

    def action_last(self) -> None:
        """To the bottom."""
        self._go(len(self.listing) - 1)

    def action_next_unread(self) -> None:
        """The next unread message among those that were fetched, or as far as that is known."""
        for place in range(self.listing.place + 1, len(self.listing)):
            row = self.listing.row(self.listing.ids[place])
            if row is None or row.unread:
                self._go(place)
                return

    def action_open(self) -> None:
        """Read it."""
        if self.listing.selected is not None:
            self.when_opened()

    def action_to_folders(self) -> None:
        """Leave to the left."""
        self.when_left()

    # -- marking

    def action_mark(self) -> None:
        """Mark or unmark, and on to the next."""
        if self.listing.selected is not None:
            self.listing.mark(self.listing.selected)
            self._last_mark = self.listing.selected
            self.refresh_row(self.listing.place)
            self.action_cursor_down()
            self.post_message(self.Moved())

    def action_mark_to(self) -> None:
        """Mark everything from the last mark to here."""
        here = self.listing.place
        last = self._last_mark
        start = here if last is None or last not in self.listing.ids else self.listing.ids.index(last)
        self.listing.marked.update(self.listing.ids[min(start, here) : max(start, here) + 1])
        self.refresh()
        self.post_message(self.Moved())

    def action_unmark_all(self) -> None:
        """No marks."""
        self.listing.marked.clear()
        self.refresh()
        self.post_message(self.Moved())

    # -- the mouse

    def on_click(self, event: events.Click) -> None:
        """A click selects, a second one opens."""
        place = event.y + self.scroll_offset.y
        if place < len(self.listing):
            same = self.listing.selected == self.listing.ids[place]
            self._go(place)
            if same or event.chain == 2:
                self.action_open()
