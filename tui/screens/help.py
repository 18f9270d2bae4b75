"""All keys, made of the registry, and what can be typed into the search."""

from __future__ import annotations

from typing import ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from tui.actions import Context, of
from tui.columns import LEGEND

SEARCH = (
    ("budget review", "messages with both words"),
    ('"budget review"', "with this phrase"),
    ("budg*", "words that begin like this"),
    ("-draft", "without this word"),
    ("from:ada to:bob subject:plan", "in these fields"),
    ("is:unread is:flagged is:answered", "by state"),
    ("has:attachment in:archive", "with attachments; in one folder"),
    ("after:2026-03 before:2026-04-15", "by date"),
)
COLUMN = 20


class Help(ModalScreen[None]):
    """Scrolls; any of the usual keys closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,f1", "dismiss", "close", key_display="Esc"),
        Binding("j", "down", show=False),
        Binding("k", "up", show=False),
        Binding("space", "page", show=False),
    ]

    def compose(self) -> ComposeResult:
        """One text."""
        with Vertical(classes="dialog wide") as box:
            box.border_title = "Keys"
            box.border_subtitle = "Esc closes"
            with VerticalScroll(id="help"):
                yield Static(help_text())

    def action_down(self) -> None:
        """A line."""
        self.query_one("#help").scroll_down(animate=False)

    def action_up(self) -> None:
        """A line."""
        self.query_one("#help").scroll_up(animate=False)

    def action_page(self) -> None:
        """A page."""
        self.query_one("#help").scroll_page_down(animate=False)


def help_text() -> Text:
    """Every action by its context, then the search."""
    text = Text()
    for context in Context:
        actions = list(of(context))
        if not actions:
            continue
        text.append(f"{context.value}\n", "bold underline")
        for action in actions:
            keys = action.shown_keys or ":"
            text.append(keys + " " * max(1, COLUMN - cell_len(keys)), "bold")
            text.append(f"{action.label}", "")
            text.append(f"  {action.help}\n", "dim")
        text.append("\n")
    text.append("What can be searched for\n", "bold underline")
    for example, meaning in SEARCH:
        text.append(example.ljust(36), "bold")
        text.append(f"{meaning}\n", "dim")
    text.append("\nSigns in the list\n", "bold underline")
    text.append(LEGEND)
    return text
