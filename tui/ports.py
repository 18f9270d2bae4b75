"""What the reader needs from the user agent, as Protocols: the agent, the demo, and where both come from.

    Services    opens an agent or a demo               tui/services.py `RealServices`
    AgentPort   sends, collects, joins, reports        mail/agent_thread.py `AgentThread`
    DemoPort    a private overlay and its profile      mail/demo/journey.py

tui knows these Protocols and never the overlay. The agent runs in a thread with an event loop of its own. Its plain
methods don't block. Its coroutines are awaited in the screen's loop, which goes on meanwhile. Its events arrive in the
agent's thread: the callback must post a message (`MailApp.hear`) and not touch a widget. Mail that was stored is not
read through the agent but from disk, with mail/mailbox.py; so reading works without an agent.

What screens may ask of the application is another Protocol, tui/application.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mail.events import Event, NewMail, NodeStatus, Online, OutboxChanged, Progress, Trouble

if TYPE_CHECKING:
    from mail.write.compose import Draft

__all__ = [
    "AgentPort",
    "DemoPort",
    "Event",
    "NewMail",
    "NodeStatus",
    "Online",
    "Options",
    "OutboxChanged",
    "Progress",
    "Services",
    "Trouble",
]


@dataclass(frozen=True, slots=True)
class Options:
    """The command line's options. `profile` None: the folder that P2PMAIL_PROFILE or platformdirs names."""

    profile: Path | None = None
    passphrase_file: Path | None = None
    listen: str | None = None
    join: tuple[str, ...] = field(default=())
    network: Path | None = None


class AgentPort(Protocol):
    """The user agent of one profile: sends what waits, collects what has come, keeps its node running."""

    def joined(self) -> bool:
        """Whether this profile has an address (a keyring with a certificate, or a join that waits for one)."""

    def locked(self) -> bool:
        """Whether the keyring asks for a passphrase that hasn't been given."""

    def address(self) -> str | None:
        """The user's own address, or None while it isn't known (not joined, or locked)."""

    async def start(self, passphrase: str | None) -> None:
        """Open the keyring, and begin to send and collect. Raises an error a user can read."""

    async def stop(self) -> None:
        """Stop sending, collecting and the node; the outbox stays on disk."""

    async def submit(self, draft: Draft) -> str:
        """Put a finished message in the durable outbox; return its Message-ID. Raises an error a user can read."""

    async def sync(self) -> None:
        """Send what waits and collect what has come, now."""

    async def status(self) -> NodeStatus:
        """This node and what it sees of the overlay."""

    def subscribe(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """Call `callback` with each event, in the agent's thread; calling what is returned ends the subscription."""

    async def join(self, invite: str, passphrase: str | None) -> str:
        """Join the network of `invite`; return the address. Raises an error a user can read."""

    def founder(self) -> bool:
        """Whether this profile founded its network, and so can invite others."""

    async def invite(self, address: str) -> str:
        """Make an invite for `address`, as one line. Raises an error a user can read."""

    async def found(self, name: str, address: str, passphrase: str | None) -> str:
        """Found the network `name` with `address` as its first member; return a sentence for the user."""


class DemoPort(Protocol):
    """A private overlay on loopback, with a temporary profile."""

    @property
    def profile(self) -> Path:
        """The folder of the profile that the screen should show."""

    @property
    def agent(self) -> AgentPort:
        """The agent of that profile, not started yet."""

    def close(self) -> None:
        """Stop the nodes and remove everything."""


class Services(Protocol):
    """Opens the slow parts. Called in threads, after the first paint."""

    def open_agent(self, profile: Path, options: Options) -> AgentPort:
        """The agent of `profile`, not started yet."""

    def open_demo(self, progress: Callable[[str], None]) -> DemoPort:
        """Start a private overlay; `progress` is told each step in words."""
