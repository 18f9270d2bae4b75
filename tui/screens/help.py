"""The help screen: all keys, generated from tui/actions.py, and the search syntax."""

from __future__ import annotations

from typing import ClassVar

from rich.table import Table
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
    ("from:ada", "in this field; also to: cc: subject: body:"),
    ("is:unread", "by state; also is:read is:flagged is:answered is:draft"),
    ("has:attachment", "with attachments"),
    ("in:archive", "in one folder"),
    ("after:2026-03", "from that day, month or year on; also before:"),
)
COLUMN = 20


class Help(ModalScreen[None]):
    """A scrolling table; Esc, q, ? or F1 closes it."""

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


def help_text() -> Table:
    """Every action by its context, then the search."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, width=COLUMN)
    table.add_column()
    for context in Context:
        actions = list(of(context))
        if not actions:
            continue
        table.add_row(Text(context.value, "bold underline"))
        for action in actions:
            table.add_row(Text(action.shown_keys or "in the palette", "bold"), Text(action.help))
        table.add_row()
    table.add_row(Text("Search", "bold underline"))
    for example, meaning in SEARCH:
        table.add_row(Text(example, "bold"), Text(meaning))
    table.add_row()
    table.add_row(Text("Signs", "bold underline"), Text(LEGEND))
    return table
