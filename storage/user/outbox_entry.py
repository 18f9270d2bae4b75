"""A message in the outbox as values: facts about each recipient's copy, and the state that they amount to.

Keeping the facts is storage/user/outbox.py's work, finding them out is mail/send/sender.py's.

Theory of operation
-------------------
A state is never written down. `state_of` derives it from facts: how many nodes hold the body and the notification,
whether the recipient has signed a delete, whether the sender has given up (`failed`) or found the copies gone
(`expired`).

    facts                                       state
    a proof                                     collected, whatever else is noted
    body and notification at a node             stored
    the same, and `expired`                     expired
    one of the two at no node                   queued
    the same, and `failed` or `expired`         failed

So a copy moves from queued to stored, and from there to collected or expired. It moves from queued to failed when the
sender gives up before it could be collected. Ends aren't all final: an expired copy becomes collected when a
proof comes late, and stored again when nodes turn out to have it. `Outbox.retry` makes a failed or expired copy queued.

Settled means that nothing more is expected (collected, expired, failed). Dormant means that nothing is asked any more:
a proof of a copy that has expired is still asked for, MAX_PROOF_QUERIES times. A message is settled, or
dormant, when all of its copies are.

Invariants:

- No state is better than its facts prove. Stored takes both parts: without its notification a body can't be collected.
- While nodes hold a copy giving up doesn't make it failed, because the recipient may still collect it.
- A proof outweighs every other fact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

GROUP_SECRET_SIZE = 32
SESSION_KEY_SIZE = 32
"""Bytes of the key that a body is sealed under (mail/sealed/body.py)."""


MAX_PROOF_QUERIES = 30
"""Queries for the proof of an expired copy, one a day; after them nothing is asked any more."""


class State(StrEnum):
    """What is true of one recipient's copy."""

    QUEUED = "queued"
    """No node has it yet, or none has its notification: it can't be collected."""
    STORED = "stored"
    """At least one node has the body and one has the notification."""
    COLLECTED = "collected"
    """The recipient has deleted it at a node, and signed that."""
    EXPIRED = "expired"
    """The nodes no longer have it, and there is no proof that it was collected."""
    FAILED = "failed"
    """It is given up: see the reason."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """What is known of one recipient's copy. (have, want) count nodes: said yes durably, and asked for."""

    address: str
    bodies: tuple[int, int] = (0, 0)
    notifications: tuple[int, int] = (0, 0)
    salt: bytes | None = field(default=None, repr=False)
    """16 bytes that the deleter hash is made with."""
    certificate: bytes | None = field(default=None, repr=False)
    """The certificate (DER) that the salt and the notification were made for."""
    notification: bytes | None = field(default=None, repr=False)
    """As it was sealed, so that a retry brings the nodes the same bytes."""
    proof: bytes | None = field(default=None, repr=False)
    """The recipient's signed delete, checked by the caller."""
    failed: bool = False
    """Whether it is given up (unless copies are out already)."""
    expired: int = 0
    """How often its time was over and nodes had said for long enough that they have none of it; 0: never."""
    reason: str = ""
    """Why it isn't better than it is, in words for the user."""
    unknown_since: float | None = None
    """Since when (epoch seconds) each answer has been that nobody holds the address; None while that isn't so."""
    reported: bool = False
    """Whether the user was told that it has failed or expired (only Outbox.mark_reported sets it)."""
    gone_since: float | None = None
    """Since when (epoch seconds) each answer has been that nodes have none of it; None while that isn't so."""

    @property
    def state(self) -> State:
        """What these facts amount to."""
        return state_of(self)

    @property
    def settled(self) -> bool:
        """Whether nothing more can become of it."""
        return self.state in (State.COLLECTED, State.EXPIRED, State.FAILED)

    @property
    def dormant(self) -> bool:
        """Whether nothing is asked about it any more. Of an expired copy a proof may come late, as from nodes that
        were away."""
        return self.settled and (self.state is not State.EXPIRED or self.expired >= MAX_PROOF_QUERIES)


def state_of(facts: Recipient) -> State:
    """The state that the facts prove, never a better one.

    A proof ends it whatever else is said. While nodes have copies the recipient may still collect them, so giving up
    changes nothing; when their time is over they are gone. Without copies an end can only be a failure.
    """
    if facts.proof is not None:
        return State.COLLECTED
    if facts.bodies[0] > 0 and facts.notifications[0] > 0:
        return State.EXPIRED if facts.expired else State.STORED
    return State.FAILED if facts.failed or facts.expired else State.QUEUED


@dataclass(frozen=True, slots=True)
class Secrets:
    """What a retry needs to make the same body: its key (drawn when the message was accepted), what the segments were
    the first time (size, SHA-256), and how they are coded (mail/send/body_upload.py; empty: in whole copies, or not
    decided yet)."""

    session_key: bytes = field(repr=False)
    segments: Sequence[tuple[int, bytes]] = ()
    coding: bytes = field(default=b"", repr=False)
    group_secret: bytes = field(default=b"", repr=False)
    """What decides who is in which group, when there are too many recipients for one object (mail/send/rules.py)."""
    begun: bytes = field(default=b"", repr=False)
    """For which recipients nodes were given the body or a part of it (`member_ids` in mail/send/rules.py)."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What the outbox notes of a message besides its bytes (as IMAP's ENVELOPE, RFC 9051, section 7.5.2).

    `created` in seconds since the epoch; a recipient that is named twice counts once.
    """

    message_id: str
    subject: str
    sender: str
    recipients: Sequence[str]
    created: float


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """A message in the outbox. Times are seconds since the epoch, `size` bytes; `file` holds its original bytes."""

    message_id: str
    subject: str
    sender: str
    created: float
    size: int
    file: Path
    attempts: int
    next_attempt: float
    secrets: Secrets | None
    recipients: tuple[Recipient, ...]
    scheduled: float
    """When the next attempt was put off to its time."""

    def due(self, now: float) -> bool:
        """Whether its next attempt has come, or was put off under a clock that was ahead of `now`."""
        return self.next_attempt <= now or (self.scheduled > now and math.isfinite(self.next_attempt))

    @property
    def notified(self) -> bool:
        """Whether nodes have anybody's notification."""
        return any(recipient.notifications[0] for recipient in self.recipients)

    @property
    def settled(self) -> bool:
        """Whether every recipient's copy has come to its end."""
        return all(recipient.settled for recipient in self.recipients)

    @property
    def dormant(self) -> bool:
        """Whether nothing is asked about it any more."""
        return all(recipient.dormant for recipient in self.recipients)
