"""The line below the title: the newest unseen notice, and how many more there are."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text
from textual.reactive import reactive
from textual.widget import Widget

from mail.mime import sanitize
from tui.columns import fit


class NoticeLine(Widget):
    """One line, or none while there is nothing to say."""

    texts: reactive[Sequence[str]] = reactive((), always_update=True)
    """The notices that weren't seen, newest first."""

    def on_mount(self) -> None:
        """Nothing yet."""
        self.show(())

    def show(self, texts: Sequence[str]) -> None:
        """Show these."""
        self.texts = texts
        self.display = bool(texts)

    def render(self) -> Text:
        """The line: the newest one as far as it fits; the key that opens them all stays in sight."""
        if not self.texts:
            return Text()
        more = len(self.texts) - 1
        right = f"  and {more} more  w reads them" if more else "  w reads it"
        left = fit(sanitize.line(self.texts[0]), max(1, self.size.width - cell_len(right)))
        return Text(left + right, no_wrap=True, end="")

    def on_click(self) -> None:
        """As the key."""
        self.app.simulate_key("w")
