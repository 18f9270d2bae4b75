"""The top line: folder and counts, whether the node is offline, current work, and the user's address."""

from __future__ import annotations

from rich.cells import cell_len
from rich.text import Text
from textual.reactive import reactive
from textual.widget import Widget

from tui.columns import fit

BAR = 10
"""Cells of the progress bar."""


class TitleLine(Widget):
    """One line. If it doesn't fit, the least important part is left out first."""

    place: reactive[str] = reactive("")
    """Folder and counts."""
    offline: reactive[str] = reactive("")
    """Words for being offline, with the time since when; "" while other nodes answer."""
    work: reactive[str] = reactive("")
    """What is being done."""
    share: reactive[float] = reactive(-1.0)
    """How much of it is done, 0 to 1; below 0: not known."""
    whose: reactive[str] = reactive("")
    """The user's address, or why there is none."""

    def render(self) -> Text:
        """The line."""
        width = self.size.width
        left = f"p2pmail  {self.place}"
        right = self.work
        if self.work and self.share >= 0:
            done = round(min(1.0, self.share) * BAR)
            right = f"{self.work} {'━' * done}{'╌' * (BAR - done)} {min(1.0, self.share):4.0%}"
        offline = f" {self.offline} " if self.offline else ""
        if offline and right:
            right = f"  {right}"
        whose = f"  {self.whose}"
        if cell_len(left) + cell_len(offline) + cell_len(right) + cell_len(whose) + 2 > width and (right or offline):
            whose = ""
        room = width - cell_len(offline) - cell_len(right) - cell_len(whose)
        line = Text(no_wrap=True, end="")
        line.append(fit(left, max(1, room)), "bold")
        line.append(offline, "bold reverse")
        line.append(right, "")
        line.append(whose, "dim" if not right else "")
        return line
