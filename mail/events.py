"""What the user agent tells whoever watches it: values only, made by mail/agent.py, shown by the screen.

No behaviour lives here, and nothing here is written to disk.
"""

from __future__ import annotations

from dataclasses import dataclass

from storage.user.profile import TARGET


@dataclass(frozen=True, slots=True)
class NewMail:
    """A message was filed; sender and subject are as the message has them (hostile until cleaned for showing)."""

    message_id: str
    sender: str
    subject: str
    folder: str


@dataclass(frozen=True, slots=True)
class OutboxChanged:
    """The state of a sent message became another one; the outbox on disk has it already."""

    message_id: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a piece of work is. `total` 0: not known yet; done == total > 0: finished. Units are the work's own."""

    what: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something went wrong that the user should know: what happened, what was kept, what to do."""

    text: str
    lasting: bool = False
    """Whether it stays before the user until it is seen: mail was lost or refused, a certificate is about to end."""


@dataclass(frozen=True, slots=True)
class Online:
    """Whether other nodes of the network answer, or `since` when (epoch seconds) none has."""

    online: bool
    since: float | None = None


Event = NewMail | OutboxChanged | Progress | Trouble | Online


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """This node and what it sees of the overlay (design.md, section 6: `status`). Sizes in bytes."""

    node_id: str
    listening: str
    mode: str
    contacts: int
    objects: int
    bytes: int
    quota: int
    inboxes: int
    availability: float | None
    k: int
    version: str
    interval: tuple[float, float] | None = None
    """Between what `availability` lies with 90%."""
    observations: int = 0
    """Copies of probes that it rests on."""
    target: float = TARGET
    """What share of actions is to succeed, as the user has set it."""
    reached: float | None = None
    """What share succeeds with k copies, as far as is known."""
    transport: str = "udp"
    """How it reaches the others: udp, or https where nothing else gets out."""
    reachable: bool | None = None
    """Whether others reach it from outside, as they say; None while nobody has been asked, as of a client."""
    online: bool | None = None
    """Whether other nodes answer; None while nothing runs that could know."""
    offline_since: float | None = None
    """Since when (epoch seconds) none has."""
    alone: bool = False
    """Whether the network is this node alone so far: nobody else has been in it."""
    certificate: str | None = None
    """How the user's certificate stands: valid, ending (within 30 days), ended, revoked; None where it isn't known."""
    certificate_ends: str | None = None
    """When it ends, or ended (ISO 8601, UTC)."""
