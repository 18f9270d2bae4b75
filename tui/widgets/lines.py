"""A scrolling view that draws only the lines which are visible: what the list and the reader have in common.

Textual's own lists make a widget or a rich text for every line, which takes seconds for 100,000. Subclasses say how
many lines there are and what each one holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip


class Lines(ScrollView, can_focus=True):
    """Lines of styled pieces. The name of each piece's style is a component class `lines--NAME`."""

    NAMES: ClassVar[tuple[str, ...]] = ()
    """The styles that pieces may have; each subclass declares them as COMPONENT_CLASSES with its prefix."""
    PREFIX: ClassVar[str] = "lines"

    def line_count(self) -> int:
        """How many lines there are."""
        raise NotImplementedError

    def line_pieces(self, y: int, width: int) -> Sequence[tuple[str, str]]:
        """The pieces of line `y`, for `width` cells."""
        raise NotImplementedError

    def line_background(self, y: int) -> str | None:
        """The style whose background line `y` has as a whole, if any."""
        return None

    def lines_changed(self) -> None:
        """There are more or fewer lines now, or other ones: draw again."""
        self.virtual_size = Size(0, self.line_count())
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """Draw the line at `y` of the window."""
        width = self.scrollable_content_region.width
        line = y + self.scroll_offset.y
        base = self.rich_style
        if line >= self.line_count():
            return Strip.blank(width, base)
        background = self.line_background(line)
        under = base + self._style(background) if background else base
        segments = [
            Segment(text, self._over(under, name, background is not None))
            for text, name in self.line_pieces(line, width)
        ]
        return Strip(segments).adjust_cell_length(width, under)

    def show_line(self, line: int) -> None:
        """Scroll as little as it takes for `line` to be visible."""
        height = self.scrollable_content_region.height
        top = self.scroll_offset.y
        if line < top:
            self.scroll_to(y=line, animate=False, immediate=True)
        elif height and line >= top + height:
            self.scroll_to(y=line - height + 1, animate=False, immediate=True)

    def refresh_row(self, line: int) -> None:
        """Draw one line again, if it is visible."""
        y = line - self.scroll_offset.y
        region = self.scrollable_content_region
        if 0 <= y < region.height:
            self.refresh(Region(0, y, self.size.width, 1))

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"{self.PREFIX}--{name}", partial=True)

    def _over(self, under: Style, name: str, tinted: bool) -> Style:
        style = self._style(name)
        return under + (style if not tinted or style.bgcolor is None else style.without_color + _ink(style))


def _ink(style: Style) -> Style:
    """The same without a background, so that the line's own shows."""
    return Style(color=style.color, bold=style.bold, italic=style.italic, underline=style.underline, dim=style.dim)
