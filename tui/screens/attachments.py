"""The attachments of a message: open one with the desktop's program, or save them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Label, OptionList
from textual.widgets.option_list import Option

from mail.mailbox import Mailbox, Row
from mail.mime.attachments import Attachment
from tui.background import Failed, in_background
from tui.columns import fit
from tui.reading import size
from tui.screens.prompt import Prompt


class Attachments(ModalScreen[None]):
    """Lists name, size and type of each attachment."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,v", "dismiss", "close", key_display="Esc"),
        Binding("s", "save", "save"),
        Binding("S", "save_all", "save all"),
        Binding("o", "open", "open"),
        Binding("j", "down", show=False),
        Binding("k", "up", show=False),
    ]

    class Saved(Message):
        """Files were written."""

        def __init__(self, places: Sequence[Path]) -> None:
            super().__init__()
            self.places = places

    def __init__(self, mailbox: Mailbox, row: Row, attachments: Sequence[Attachment]) -> None:
        super().__init__()
        self._mailbox, self._row, self._attachments = mailbox, row, attachments

    def compose(self) -> ComposeResult:
        """Name, size, type."""
        with Vertical(classes="dialog wide") as box:
            box.border_title = "Attachments"
            yield OptionList(
                *(
                    Option(f"{fit(item.name, 40)} {size(item.size):>8}  {item.content_type}", id=str(number))
                    for number, item in enumerate(self._attachments)
                ),
                markup=False,
                compact=True,
            )
            yield Label("o open · s save · S save all · Esc close", classes="dim")

    def _current(self) -> Attachment | None:
        number = self.query_one(OptionList).highlighted
        return None if number is None else self._attachments[number]

    def on_option_list_option_selected(self) -> None:
        """Enter."""
        self.action_open()

    def action_down(self) -> None:
        """The next."""
        self.query_one(OptionList).action_cursor_down()

    def action_up(self) -> None:
        """The one before."""
        self.query_one(OptionList).action_cursor_up()

    def action_save(self) -> None:
        """Ask where, and save."""
        current = self._current()
        if current is not None:
            self._ask([current], str(_downloads() / current.name))

    def action_save_all(self) -> None:
        """Ask where, and save all."""
        self._ask(self._attachments, f"{_downloads()}/")

    def _ask(self, chosen: Sequence[Attachment], place: str) -> None:
        mailbox, row = self._mailbox, self._row

        def save(typed: str | None) -> None:
            if not typed:
                return
            target = Path(typed).expanduser()

            def work() -> Message:
                if typed.endswith("/"):
                    target.mkdir(parents=True, exist_ok=True)
                return self.Saved([mailbox.save_attachment(row, item.index, target) for item in chosen])

            in_background(self, "save the attachment", work)

        self.app.push_screen(Prompt("Save", "Where to? (a folder ends with /)", place, path=True), save)

    def action_open(self) -> None:
        """Open a private copy with the desktop's program."""
        current = self._current()
        if current is None:
            return
        program = desktop_opener()
        if program is None:
            self.notify("There is no desktop to open it with. Press s to save it.", severity="warning")
            return
        mailbox, row = self._mailbox, self._row

        def work() -> None:
            folder = mailbox.profile.spool / "opened"
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            place = mailbox.save_attachment(row, current.index, folder)
            subprocess.Popen(  # noqa: S603 - the user asked for it; the name was made safe
                [program, str(place)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

        in_background(self, "open the attachment", work)

    def on_attachments_saved(self, event: Saved) -> None:
        """Tell the user where the files are."""
        text = (
            str(event.places[0]) if len(event.places) == 1 else f"{len(event.places)} files in {event.places[0].parent}"
        )
        self.notify(text, title="Saved", markup=False)

    def on_failed(self, event: Failed) -> None:
        """Show the error."""
        self.notify(event.text, severity="error", markup=False)


def desktop_opener() -> str | None:
    """The program that opens a file as the desktop would; None without a desktop."""
    if shutil.which("open") and os.uname().sysname == "Darwin":
        return "open"
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        return shutil.which("xdg-open")
    return None


def _downloads() -> Path:
    folder = Path.home() / "Downloads"
    return folder if folder.is_dir() else Path.cwd()
