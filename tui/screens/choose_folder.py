"""Asks which folder to move to: an existing one, or a new one by its name."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label, OptionList
from textual.widgets.option_list import Option

from mail.mailbox import DRAFTS, QUARANTINE, Mailbox


class ChooseFolder(ModalScreen[str | None]):
    """Answers with the folder's name."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "leave it", key_display="Esc"),
        Binding("down", "app.focus_next", show=False),
    ]

    def __init__(self, mailbox: Mailbox, current: str) -> None:
        super().__init__()
        self._mailbox, self._current = mailbox, current
        self._names: list[str] = []

    def compose(self) -> ComposeResult:
        """Lay out the input and the matching folders."""
        with Vertical(classes="dialog") as box:
            box.border_title = "Move to"
            yield Input(placeholder="the beginning of a folder's name, or a new one", compact=True)
            yield OptionList(id="choices", compact=True, markup=False)
            yield Label("Enter moves · Esc leaves", classes="dim", markup=False)

    def on_mount(self) -> None:
        """Read the names of the folders, without counting their messages."""
        away = (self._current, QUARANTINE, DRAFTS)
        self._names = [name for name in self._mailbox.names() if name not in away]
        self._fill("")

    def on_input_changed(self, event: Input.Changed) -> None:
        """Show the folders that match."""
        self._fill(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Answer with the first match, or with a new name."""
        fitting = self._fitting(event.value)
        if fitting:
            self.dismiss(fitting[0])
        elif event.value.strip():
            self.dismiss(event.value.strip())

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Answer with the chosen folder."""
        self.dismiss(event.option_id)

    def action_leave(self) -> None:
        """Close without an answer."""
        self.dismiss(None)

    def _fitting(self, start: str) -> list[str]:
        return [name for name in self._names if name.casefold().startswith(start.strip().casefold())]

    def _fill(self, start: str) -> None:
        fitting = self._fitting(start)
        choices = self.query_one("#choices", OptionList)
        choices.clear_options()
        choices.add_options(Option(name, id=name) for name in fitting)
        if not fitting:
            choices.add_option(Option(f"a new folder: {start.strip()}", id=start.strip()))
        choices.highlighted = 0
