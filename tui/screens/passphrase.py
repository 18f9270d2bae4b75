"""Asks for the passphrase of the keys. This module doesn't keep it."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label


class Passphrase(ModalScreen[str | None]):
    """The passphrase, or None: read on without sending and collecting."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "without it", key_display="Esc")]

    def compose(self) -> ComposeResult:
        """Lay out an input that hides what is typed."""
        with Vertical(classes="dialog") as box:
            box.border_title = "Passphrase"
            yield Label("Your keys are protected. The passphrase opens them for sending and collecting.")
            yield Input(password=True, compact=True)
            yield Label("Enter opens · Esc: only read what is here", classes="dim")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Answer with the passphrase."""
        self.dismiss(event.value)

    def action_leave(self) -> None:
        """Go on without it."""
        self.dismiss(None)
