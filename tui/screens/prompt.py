"""Asks for one line of text, such as a path. Tab completes paths; folders are read in a thread."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.suggester import Suggester
from textual.widgets import Input, Label


class PathSuggester(Suggester):
    """Suggests the first file or folder that begins with the typed text."""

    def __init__(self) -> None:
        super().__init__(use_cache=False, case_sensitive=True)

    async def get_suggestion(self, value: str) -> str | None:
        """What `value` could become."""
        return await asyncio.to_thread(completed, value)


def completed(typed: str) -> str | None:
    """`typed` completed to the first matching name, with a slash after a folder; None if none matches."""
    folder, slash, start = typed.rpartition("/")
    if not start:
        return None
    try:
        with os.scandir(Path(folder + slash or ".").expanduser()) as items:
            fitting = sorted(
                f"{item.name}/" if item.is_dir() else item.name for item in items if item.name.startswith(start)
            )
    except (OSError, RuntimeError):
        return None
    return f"{folder}{slash}{fitting[0]}" if fitting else None


class Prompt(ModalScreen[str | None]):
    """Asks for one line; None when the user leaves."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "leave it", key_display="Esc"),
        Binding("tab", "complete", "complete", priority=True),
    ]

    def __init__(self, title: str, label: str, value: str = "", *, path: bool = False) -> None:
        super().__init__()
        self._heading, self._label, self._value, self._path = title, label, value, path

    def compose(self) -> ComposeResult:
        """Title and line."""
        with Vertical(classes="dialog") as box:
            box.border_title = self._heading
            yield Label(self._label, markup=False)
            suggester = PathSuggester() if self._path else None
            yield Input(self._value, suggester=suggester, compact=True, select_on_focus=False)
            if self._path:
                yield Label("Tab completes · Enter takes it · Esc leaves", classes="dim", markup=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Answer with the line."""
        if event.value.strip():
            self.dismiss(event.value.strip())

    def action_leave(self) -> None:
        """Close without an answer."""
        self.dismiss(None)

    def action_complete(self) -> None:
        """Take the suggestion."""
        line = self.query_one(Input)
        line.action_end()
        line.action_cursor_right()
