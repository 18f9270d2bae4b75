"""The message reader: draws the lines that tui/reading.py lays out, scrolls, and highlights matches.

It reads no files. It is given a function that lays out the message for a width, and calls it when the width changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from tui import reading
from tui.actions import Context, bindings
from tui.reading import Line, Match, Piece
from tui.widgets.lines import Lines

_STYLES = (
    "plain", "subject", "label", "value", "rule", "notice", "warning", "attachment", "link",
    "quote1", "quote2", "quote3", "signature", "match", "match-here",
)  # fmt: skip

MARGIN = 1

LayOut = Callable[[int], tuple[Line, ...]]


class Reader(Lines):
    """Shows a message, its source, or why it isn't shown."""

    PREFIX = "reader"
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"reader--{name}" for name in _STYLES}
    BINDINGS = bindings(Context.READER)

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.ask: Callable[[str], None] = lambda what: None
        """Called with the ID of an action of the screen. Not posted, so that the focus moves before the next key."""
        self._lay_out: LayOut | None = None
        self._lines: tuple[Line, ...] = ()
        self._width = 0
        self._words = ""
        self._found: list[Match] = []
        self._found_in: dict[int, list[int]] = {}
        """Line -> the places found in it, as places in `_found`."""
        self._here = 0

    # -- what is shown

    def show(self, lay_out: LayOut | None, *, words: str = "", keep_place: bool = False) -> None:
        """Show what `lay_out` gives for a width; None: nothing. `words` are shown where they occur."""
        self._lay_out, self._words = lay_out, words
        self._arrange()
        if not keep_place:
            self.scroll_to(y=0, animate=False, immediate=True)

    def find(self, words: str) -> int:
        """Mark where `words` occur and go to the first place from here on; how many there are."""
        self._words = words
        self._search()
        top = self.scroll_offset.y
        self._here = next((i for i, place in enumerate(self._found) if place.line >= top), 0)
        self._to_found()
        return len(self._found)

    @property
    def found(self) -> tuple[int, int]:
        """Which of the places found is shown (from 1), and how many there are."""
        return (self._here + 1 if self._found else 0), len(self._found)

    # -- drawing

    def line_count(self) -> int:
        """As laid out."""
        return len(self._lines)

    def line_pieces(self, y: int, width: int) -> Sequence[Piece]:
        """The line with what was found in it."""
        line = self._lines[y]
        places = [(self._found[i], i == self._here) for i in self._found_in.get(y, ())]
        return [(" " * MARGIN, "plain"), *(_marked(line, places) if places else line)]

    def on_resize(self) -> None:
        """Lay out anew for another width."""
        if self.text_width != self._width:
            self._arrange()

    @property
    def text_width(self) -> int:
        """Cells that a line may have."""
        return self.scrollable_content_region.width - 2 * MARGIN

    def _arrange(self) -> None:
        self._width = self.text_width
        ready = self._lay_out is not None and self._width > 0
        self._lines = self._lay_out(self._width) if self._lay_out is not None and ready else ()
        self._search()
        self.lines_changed()

    def _search(self) -> None:
        self._found = reading.find(self._lines, self._words)
        self._found_in = {}
        for number, place in enumerate(self._found):
            self._found_in.setdefault(place.line, []).append(number)
        self._here = 0
        self.refresh()

    def _to_found(self) -> None:
        if self._found:
            line = self._found[self._here].line
            height = max(1, self.size.height)
            if not self.scroll_offset.y <= line < self.scroll_offset.y + height:
                self.scroll_to(y=max(0, line - height // 3), animate=False, immediate=True)
        self.refresh()

    # -- moving

    def _by(self, lines: int) -> None:
        self.scroll_to(y=self.scroll_offset.y + lines, animate=False, immediate=True)

    def action_line_down(self) -> None:
        """A line."""
        self._by(1)

    def action_line_up(self) -> None:
        """A line."""
        self._by(-1)

    def action_text_down(self) -> None:
        """A page; at the end the next message."""
        if self.scroll_offset.y >= self.max_scroll_y:
            self.ask("next_message")
        else:
            self._by(max(1, self.size.height - 2))

    def action_text_up(self) -> None:
        """A page."""
        self._by(-max(1, self.size.height - 2))

    def action_text_home(self) -> None:
        """Top."""
        self.scroll_to(y=0, animate=False, immediate=True)

    def action_text_end(self) -> None:
        """End."""
        self.scroll_to(y=self.max_scroll_y, animate=False, immediate=True)

    def action_find_next(self) -> None:
        """The next place."""
        if self._found:
            self._here = (self._here + 1) % len(self._found)
            self._to_found()
            self.ask("found")

    def action_find_previous(self) -> None:
        """The place before."""
        if self._found:
            self._here = (self._here - 1) % len(self._found)
            self._to_found()
            self.ask("found")

    # -- what the screen does

    def action_next_message(self) -> None:
        """The next one of the list."""
        self.ask("next_message")

    def action_previous_message(self) -> None:
        """The one before."""
        self.ask("previous_message")

    def action_attachments(self) -> None:
        """Open or save."""
        self.ask("attachments")

    def action_find(self) -> None:
        """Ask for words."""
        self.ask("find")

    def action_source(self) -> None:
        """Source or message."""
        self.ask("source")

    def action_to_list(self) -> None:
        """Leave to the left."""
        self.ask("to_list")


def _marked(line: Line, places: Sequence[tuple[Match, bool]]) -> list[Piece]:
    """The line's pieces, cut where a match begins and ends."""
    pieces: list[Piece] = []
    start = 0
    for text, name in line:
        at = start
        end = start + len(text)
        for place, here in places:
            begin, stop = max(at, place.start), min(end, place.end)
            if begin < stop:
                pieces += [(text[at - start : begin - start], name)]
                pieces += [(text[begin - start : stop - start], "match-here" if here else "match")]
                at = stop
        pieces.append((text[at - start :], name))
        start = end
    return [piece for piece in pieces if piece[0]]
