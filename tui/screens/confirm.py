"""Questions before a step that can't be undone: yes or no, or a word to type."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, Static


class Confirm(ModalScreen[bool]):
    """Yes or no; Enter alone says no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "yes", "yes", key_display="y"),
        Binding("n,escape,q", "no", "no", key_display="n"),
        Binding("left,right,h,l,tab", "app.focus_next", show=False),
    ]
    AUTO_FOCUS = "#no"

    def __init__(self, title: str, question: str, yes: str) -> None:
        super().__init__()
        self._heading, self._question, self._yes = title, question, yes

    def compose(self) -> ComposeResult:
        """Title, question, two buttons."""
        with Vertical(classes="dialog") as box:
            box.border_title = self._heading
            with VerticalScroll(classes="dialog-text"):
                yield Static(self._question, markup=False)
            with Horizontal(classes="buttons"):
                yield Button("No (n)", id="no", compact=True)
                yield Button(f"{self._yes} (y)", id="yes", variant="error", compact=True)

    @on(Button.Pressed, "#yes")
    def action_yes(self) -> None:
        """Yes."""
        self.dismiss(True)

    @on(Button.Pressed, "#no")
    def action_no(self) -> None:
        """No."""
        self.dismiss(False)


class TypedConfirm(ModalScreen[bool]):
    """Yes only when the word was typed."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "no", "no")]
    AUTO_FOCUS = "#word"

    def __init__(self, title: str, text: str, word: str) -> None:
        super().__init__()
        self._heading, self._text, self._word = title, text, word

    def compose(self) -> ComposeResult:
        """Title, text, a line to type into."""
        with Vertical(classes="dialog danger") as box:
            box.border_title = self._heading
            with VerticalScroll(classes="dialog-text"):
                yield Static(self._text, markup=False)
            yield Label(f'Type "{self._word}" and press Enter to go on; Esc to leave it where it is.', markup=False)
            yield Input(id="word", compact=True)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Accept the word, or say that it was another."""
        if event.value.strip().lower() == self._word:
            self.dismiss(True)
        else:
            event.input.value = ""
            self.notify(f'That was not "{self._word}". Nothing was done.', markup=False)

    def action_no(self) -> None:
        """No."""
        self.dismiss(False)
