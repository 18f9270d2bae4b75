"""A line to type words in: for searching folders, and for finding in a message. Hidden while it isn't used."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input, Label


class QueryBar(Horizontal):
    """Posts what is typed as it is typed; Enter goes to the results, Escape ends it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "end", "end the search", show=True, key_display="Esc"),
        Binding("down", "enter", show=False),
    ]

    class Typed(Message):
        """The text so far; `entered`: Enter was pressed."""

        def __init__(self, bar: QueryBar, words: str, entered: bool) -> None:
            super().__init__()
            self.bar, self.words, self.entered = bar, words, entered

    class Ended(Message):
        """The user closed the bar."""

        def __init__(self, bar: QueryBar) -> None:
            super().__init__()
            self.bar = bar

    def __init__(self, label: str, placeholder: str, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._label, self._placeholder = label, placeholder
        self.display = False

    def compose(self) -> ComposeResult:
        """Label, line, and how many were found."""
        yield Label(self._label, classes="query-label")
        yield Input(placeholder=self._placeholder, compact=True, select_on_focus=False)
        yield Label("", classes="query-found")

    @property
    def words(self) -> str:
        """The text in the bar."""
        return self.query_one(Input).value

    def begin(self) -> None:
        """Show it and type into it."""
        self.display = True
        line = self.query_one(Input)
        self.screen.set_focus(line)
        line.cursor_position = len(line.value)

    def end(self) -> None:
        """Hide the bar and clear its text."""
        self.display = False
        with self.prevent(Input.Changed):
            self.query_one(Input).value = ""
        self.found("")

    def found(self, text: str) -> None:
        """Say how many were found."""
        self.query_one(".query-found", Label).update(text)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Typed."""
        event.stop()
        self.post_message(self.Typed(self, event.value, False))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Entered."""
        event.stop()
        self.action_enter()

    def action_enter(self) -> None:
        """To the results."""
        self.post_message(self.Typed(self, self.words, True))

    def action_end(self) -> None:
        """Done."""
        self.post_message(self.Ended(self))
