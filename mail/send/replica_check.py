"""Checks whether nodes still have the copies of a sent message (paper, section 2.3: always at the k closest nodes).

Theory of operation
-------------------
Nodes keep up the number of copies among themselves (overlay/replication/repair.py). When all nodes that had a copy
leave at once, only the sender still has the message, so the sender checks too. Nothing is stored here: the answers go
to the outbox through mail/send/collection_check.py, and every check starts anew from the outbox's facts.

Two questions are asked, at different times:

    count_copies    before the 30 days are over: is a copy missing anywhere?
    find_expired    after them: have the nodes removed everything?

`is_due` says when to count. The first six attempts at a stored message come within half an hour and ask for proofs
only. From then on every attempt counts a body in whole copies, and every sixth attempt a coded one. A count lowers the
numbers in the outbox when copies are missing, and the state follows: a message whose last copy is gone is `queued`
again. mail/send/sender.py then stores what is missing, with the lifetime that is left.

Invariants:

- A body counts by its rarest segment, and a coded segment with fewer than m shares counts as none: nobody can restore
  it.
- A copy has expired only when the nodes have neither the notification nor any copy or share of the body's first
  segment. Copies and shares expire together, so a single share that is found means that the others are at nodes that
  are away.
- Silence proves nothing. If no node answers, Unreachable is raised and nothing is recorded.
- A recipient that has collected the message has removed its hash from the body. Its copies aren't counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mail.asyncio_tools import gather_each
from mail.sealed.erasure_shares import CodingPlan
from mail.send.rules import entry_groups, segment_key
from overlay.client import Outcome, Overlay
from overlay.ids import Kind, inbox_key
from storage.user.outbox import OutboxEntry, Recipient, State

FIRST_CHECK_AFTER = 6
"""Attempts before the first count. Attempts are a quarter of an hour apart by then, and later an hour."""

AT_ONCE = 16
"""Inboxes queried at the same time."""

CODED_EVERY = 6
"""Attempts from one count of a coded body to the next. A count queries every holder, and half of them may be lost."""


@dataclass(frozen=True, slots=True)
class ReplicaCounts:
    """The copies left of one message for each recipient that hasn't collected it, by address.

    `bodies` counts the rarest segment of the body stored for the recipient's group.
    """

    bodies: Mapping[str, Outcome]
    notifications: Mapping[str, Outcome]

    def lacking(self, address: str) -> bool:
        """Whether some of the nodes that should have a copy lack it."""
        return any(found[address].have < found[address].want for found in (self.bodies, self.notifications))


def is_due(entry: OutboxEntry) -> bool:
    """Whether to count the copies now: some were stored a while ago and aren't collected."""
    if entry.secrets is None or not entry.secrets.segments or entry.attempts < FIRST_CHECK_AFTER:
        return False
    stored = any(recipient.state is State.STORED for recipient in entry.recipients)
    return stored and (not entry.secrets.coding or entry.attempts % CODED_EVERY == 0)


async def find_expired(overlay: Overlay, entry: OutboxEntry) -> set[str]:
    """The addresses whose copies have expired: nodes have neither the notification nor any of the body.

    Raises Unreachable.
    """
    if entry.secrets is None or not entry.secrets.segments:
        return set()
    group_of = entry_groups(entry)
    out = [r for r in entry.recipients if r.state in (State.STORED, State.EXPIRED) and r.notification is not None]
    groups = {group_of[recipient.address] for recipient in out}
    empty = {group for group in groups if not (await _query(overlay, entry, 0, group)).have}
    expired: set[str] = set()

    async def ask(recipient: Recipient) -> None:
        assert recipient.notification is not None
        held = await overlay.held_notification(inbox_key(recipient.address), recipient.notification)
        if not held.have:
            expired.add(recipient.address)

    await gather_each((r for r in out if group_of[r.address] in empty), ask, AT_ONCE)
    return expired


async def count_copies(overlay: Overlay, entry: OutboxEntry) -> ReplicaCounts:
    """Ask the k closest nodes for each object. Raises Unreachable."""
    waiting = [r for r in entry.recipients if r.state is State.STORED and r.notification is not None]
    group_of = entry_groups(entry)
    groups = {group: await _count_rarest(overlay, entry, group) for group in {group_of[r.address] for r in waiting}}
    notifications: dict[str, Outcome] = {}

    async def ask(recipient: Recipient) -> None:
        assert recipient.notification is not None
        held = await overlay.held_notification(inbox_key(recipient.address), recipient.notification)
        notifications[recipient.address] = held

    await gather_each(waiting, ask, AT_ONCE)
    return ReplicaCounts({address: groups[group_of[address]] for address in notifications}, notifications)


async def _count_rarest(overlay: Overlay, entry: OutboxEntry, group: bytes) -> Outcome:
    """The copies left of the rarest segment stored for a group."""
    segments = entry.secrets.segments if entry.secrets is not None else ()
    bodies = [await _count(overlay, entry, index, group) for index in range(len(segments))]
    return min(bodies, key=lambda outcome: outcome.have - outcome.want)


async def _count(overlay: Overlay, entry: OutboxEntry, index: int, group: bytes) -> Outcome:
    """The number of copies or shares of a segment; 0 if there are too few shares to restore it."""
    found = await _query(overlay, entry, index, group)
    coding = entry.secrets.coding if entry.secrets is not None else b""
    return replace(found, have=0) if coding and found.have < CodingPlan.decode(coding).m else found


async def _query(overlay: Overlay, entry: OutboxEntry, index: int, group: bytes) -> Outcome:
    """The number of copies or shares of a segment that nodes have."""
    secrets = entry.secrets
    assert secrets is not None
    key = segment_key(entry.message_id, index, len(secrets.segments) > 1, group)
    if not secrets.coding:
        return await overlay.held(Kind.BODY, key, secrets.segments[index][1])
    return await overlay.spread_held(Kind.SHARE, key, CodingPlan.decode(secrets.coding).n)
