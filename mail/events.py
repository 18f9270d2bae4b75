"""The events and figures that the user agent reports to a screen or a command. Values only.

mail/notices.py stores the lasting ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from storage.user.profile import TARGET


@dataclass(frozen=True, slots=True)
class NewMail:
    """A message was filed. Sender and subject come from the message: sanitize them before showing them."""

    message_id: str
    sender: str
    subject: str
    folder: str


@dataclass(frozen=True, slots=True)
class OutboxChanged:
    """The state of a sent message changed; the outbox on disk already has the new one."""

    message_id: str


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of some work, in units of its own. `total` 0: not known yet; done == total > 0: finished."""

    what: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """A problem that the user should know of: what happened, what was kept, what to do."""

    text: str
    lasting: bool = False
    """Whether it is kept until the user has seen it, as when mail was lost or a certificate is about to end."""


@dataclass(frozen=True, slots=True)
class Online:
    """Whether other nodes answer; `since`: when the last one did (epoch seconds), while none does."""

    online: bool
    since: float | None = None


Event = NewMail | OutboxChanged | Progress | Trouble | Online


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """This node's figures, and what it knows of the overlay (design, section 6: `status`). Sizes in bytes."""

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
    """The 90% interval of `availability`."""
    observations: int = 0
    """Number of probed copies behind the estimate."""
    target: float = TARGET
    """The configured probability with which an action should succeed."""
    reached: float | None = None
    """The estimated probability with k copies."""
    transport: str = "udp"
    """How it reaches other nodes: udp, or https behind a firewall that blocks UDP."""
    reachable: bool | None = None
    """Whether other nodes reach it by dial-back; None if none was asked, as with a client."""
    online: bool | None = None
    """Whether other nodes answer; None if no node is running."""
    offline_since: float | None = None
    """Epoch seconds since which none answers."""
    alone: bool = False
    """Whether this node has never met another one: it is alone in its network."""
    certificate: str | None = None
    """The certificate's status: valid, ending (within 30 days), ended or revoked; None if it isn't known."""
    certificate_ends: str | None = None
    """When the certificate ends or ended (ISO 8601, UTC)."""
