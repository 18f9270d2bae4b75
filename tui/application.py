"""What screens ask of the application, as a Protocol: screens know this, and the application knows the screens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, cast

from tui.pauses import Pauses
from tui.session import Session

if TYPE_CHECKING:
    from textual.dom import DOMNode

    from mail.events import Event
    from mail.mailbox import Row


class Application(Protocol):
    """The mail reader as its screens see it (tui/app.py's MailApp).

    session   whose mail is on the screen
    now       seconds since the epoch
    pauses    how long to wait before acting on what is still changing
    offline   what the title says of the network, "" while others answer
    """

    session: Session
    now: Callable[[], float]
    pauses: Pauses
    offline: str

    def hold_keys(self) -> None:
        """Let keys wait for what a thread is about to bring, since they may be meant for it (at most a second)."""

    def release_keys(self) -> None:
        """It is there."""

    def first_list(self) -> None:
        """Tell the application that the first list is drawn, so that slow work may begin."""

    def hear(self, event: Event) -> None:
        """Take an event of the agent, from any thread."""

    def write(self) -> None:
        """Begin a new message."""

    def answer(self, row: Row, *, everybody: bool) -> None:
        """Begin a reply."""

    def pass_on(self, row: Row) -> None:
        """Begin forwarding a message."""

    def continue_draft(self, row: Row) -> None:
        """Open a draft."""

    def sync(self) -> None:
        """Send and collect now."""

    def set_up(self) -> None:
        """Show the set-up screen."""

    def try_it(self) -> None:
        """Start the demo."""

    async def enter(self, session: Session) -> None:
        """Show another session's mail."""


def application(node: DOMNode) -> Application:
    """The application that a screen or widget belongs to."""
    return cast(Application, node.app)
