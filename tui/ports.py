"""What the screen needs from the user agent, as Protocols: the agent that speaks to the overlay, and the demo.

The agent runs in a thread and an event loop of its own; each coroutine here may be awaited from the screen's loop
and returns at once there. Nothing of the network is known on this side.
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
    """What the command line said. `profile` None: where platformdirs or P2PMAIL_PROFILE says."""

    profile: Path | None = None
    passphrase_file: Path | None = None
    listen: str | None = None
    join: tuple[str, ...] = field(default=())
    network: Path | None = None


class AgentPort(Protocol):
    """The user agent at work: sends what waits, collects what has come, keeps its node running."""

    def joined(self) -> bool:
        """Whether this profile has an address (a keyring with a certificate, or a join that waits for one)."""

    def locked(self) -> bool:
        """Whether the keyring asks for a passphrase that hasn't been given."""

    def address(self) -> str | None:
        """The user's own address, or None while it isn't known (not joined, or locked)."""

    async def start(self, passphrase: str | None) -> None:
        """Open the keyring and go to work. Raises an error a user can read (WrongPassphrase, KeyringDamaged)."""

    async def stop(self) -> None:
        """Stop in good order; what is in the outbox stays there."""

    async def submit(self, draft: Draft) -> str:
        """Put a finished message in the durable outbox; return its Message-ID. Raises an error a user can read."""

    async def sync(self) -> None:
        """Send what waits and collect what has come, now."""

    async def status(self) -> NodeStatus:
        """This node and what it sees of the overlay."""

    def subscribe(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """Call `callback` with each event, from the agent's thread; the answer ends the subscription."""

    async def join(self, invite: str, passphrase: str | None) -> str:
        """Join the network of `invite`; return the address. Raises an error a user can read."""

    def founder(self) -> bool:
        """Whether this profile founded its network, and so can invite others."""

    async def invite(self, address: str) -> str:
        """A line for `address` to join with. Raises an error a user can read."""

    async def found(self, name: str, address: str, passphrase: str | None) -> str:
        """Found a network called `name` and become its first member, `address`; return what came of it."""


class DemoPort(Protocol):
    """A private overlay on loopback with a profile that is thrown away."""

    @property
    def profile(self) -> Path:
        """The folder of the profile that the screen should show."""

    @property
    def agent(self) -> AgentPort:
        """The agent of that profile, not started yet."""

    def close(self) -> None:
        """Stop the nodes and remove everything."""


class Services(Protocol):
    """Where the screen gets the slow parts from, all called in worker threads after the first paint."""

    def open_agent(self, profile: Path, options: Options) -> AgentPort:
        """The agent of `profile`, not started yet."""

    def open_demo(self, progress: Callable[[str], None]) -> DemoPort:
        """Start a private overlay; `progress` is told each step in words."""
