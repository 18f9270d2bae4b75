"""The notices: what failed, what was lost, what ends soon. Notices shown here count as seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Static

from mail.mime import sanitize
from tui.background import Failed, in_background
from tui.columns import when
from tui.session import Session

if TYPE_CHECKING:
    from storage.user.notices import Notice

SHOWN = 100
"""Notices that are shown; `p2pmail notices --all` has the others."""


class NoticesScreen(ModalScreen[int]):
    """A scrolling list, unseen notices first and in bold. Answers with the ID of the newest one shown."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,w", "close", "close", key_display="Esc"),
        Binding("j,down", "down", show=False),
        Binding("k,up", "up", show=False),
        Binding("space,pagedown", "page", show=False),
    ]

    class NoticesRead(Message):
        """The notices were read."""

        def __init__(self, notices: Sequence[Notice]) -> None:
            super().__init__()
            self.notices = notices

    def __init__(self, session: Session, now: float) -> None:
        super().__init__()
        self._session, self._now = session, now
        self._newest = 0

    def compose(self) -> ComposeResult:
        """One text."""
        with Vertical(classes="dialog wide") as box:
            box.border_title = "Notices"
            box.border_subtitle = "Esc closes"
            with VerticalScroll(id="notices"):
                yield Static("reading ...", markup=False)

    def on_mount(self) -> None:
        """Read them."""
        mailbox = self._session.mailbox

        def work() -> Message:
            unseen = mailbox.notices()
            shown = unseen + [notice for notice in mailbox.notices(seen=True) if notice.seen is not None]
            return NoticesScreen.NoticesRead(shown[: max(SHOWN, len(unseen))])

        in_background(self, "read the notices", work)

    @on(NoticesRead)
    def _loaded(self, event: NoticesRead) -> None:
        self.query_one(Static).update(notices_text(event.notices, self._now))
        self._newest = max((notice.id for notice in event.notices), default=0)

    @on(Failed)
    def _failed(self, event: Failed) -> None:
        self.query_one(Static).update(event.text)

    def action_close(self) -> None:
        """Close, and answer with the newest ID, so that all up to it count as seen."""
        self.dismiss(self._newest)

    def action_down(self) -> None:
        """A line."""
        self.query_one("#notices").scroll_down(animate=False)

    def action_up(self) -> None:
        """A line."""
        self.query_one("#notices").scroll_up(animate=False)

    def action_page(self) -> None:
        """A page."""
        self.query_one("#notices").scroll_page_down(animate=False)


def notices_text(notices: Sequence[Notice], now: float) -> Text:
    """Each notice with its date; unseen ones in bold."""
    text = Text()
    for notice in notices:
        text.append(f"{when(notice.at, now, 12)}\n", "dim")
        text.append(f"{sanitize.line(notice.text)}\n\n", "" if notice.seen else "bold")
    return text if notices else Text("There are no notices.")
