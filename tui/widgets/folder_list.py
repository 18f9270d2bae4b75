"""The folders with how much is unread in each, and the Outbox among them. Counts are handed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType

from mail.mailbox import DRAFTS, JUNK, QUARANTINE, SENT, TRASH, Counts
from tui.columns import Piece, fit
from tui.widgets.lines import Lines

OUTBOX = "Outbox"
"""A view of its own that is listed among the folders: sent messages and their delivery."""

_STYLES = ("plain", "unread", "dim", "selected", "selected-away")


class FolderList(Lines):
    """A list of folders; the folder under the cursor opens at once."""

    PREFIX = "folders"
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"folders--{name}" for name in _STYLES}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "cursor_down", show=False),
        Binding("k,up", "cursor_up", show=False),
        Binding("home", "first", show=False),
        Binding("end,G", "last", show=False),
        Binding("enter,l,right", "enter", show=False),
    ]

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.when_chosen: Callable[[str, bool], None] = lambda folder, stay: None
        """Called with the folder, and whether the focus stays here."""
        self.folders: dict[str, Counts] = {}
        self.current = ""
        self.waiting = 0

    def show(self, folders: Mapping[str, Counts], waiting: int) -> None:
        """Show these folders; `waiting`: number of unsettled messages in the outbox."""
        shown: dict[str, Counts] = {}
        for name, counts in folders.items():
            if name == QUARANTINE and not counts.total:
                continue
            shown[name] = counts
            if name == SENT:
                shown[OUTBOX] = Counts(waiting, 0)
        if shown != self.folders or waiting != self.waiting:
            self.folders, self.waiting = shown, waiting
            self.lines_changed()

    def choose(self, folder: str) -> None:
        """Show which folder is open."""
        self.current = folder
        self.refresh()

    def line_count(self) -> int:
        """One line a folder."""
        return len(self.folders)

    def line_background(self, y: int) -> str | None:
        """The open folder."""
        if list(self.folders)[y] != self.current:
            return None
        return "selected" if self.has_focus else "selected-away"

    def line_pieces(self, y: int, width: int) -> Sequence[Piece]:
        """Name and count: what is unread, or for drafts and the outbox what is there."""
        name, counts = list(self.folders.items())[y]
        whole = name in (DRAFTS, OUTBOX, QUARANTINE)
        number = counts.total if whole else 0 if name in (TRASH, SENT) else counts.unread
        count = f"{number}" if number else ""
        style = "unread" if number and not whole and name != JUNK else "plain"
        sign = "›" if name == self.current else " "
        return [
            (sign, style),
            (fit(name, max(1, width - len(count) - 3)), style),
            (f" {count} ", "unread" if style == "unread" else "dim"),
        ]

    def _go(self, step: int) -> None:
        names = list(self.folders)
        place = names.index(self.current) if self.current in names else 0
        place = max(0, min(len(names) - 1, place + step))
        if names and names[place] != self.current:
            self.choose(names[place])
            self.show_line(place)
            self.when_chosen(names[place], True)

    def action_cursor_down(self) -> None:
        """The next folder."""
        self._go(1)

    def action_cursor_up(self) -> None:
        """The one before."""
        self._go(-1)

    def action_first(self) -> None:
        """The first."""
        self._go(-len(self.folders))

    def action_last(self) -> None:
        """The last."""
        self._go(len(self.folders))

    def action_enter(self) -> None:
        """Into the list."""
        self.when_chosen(self.current, False)

    def on_focus(self) -> None:
        """The cursor's line looks different with the focus."""
        self.refresh()

    def on_blur(self) -> None:
        """Redraw the cursor's line without the focus."""
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        """Open what was clicked."""
        place = event.y + self.scroll_offset.y
        if place < len(self.folders):
            self.choose(list(self.folders)[place])
            self.when_chosen(self.current, False)
