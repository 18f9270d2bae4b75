"""The sender's look at what she has sent: are its copies still there? (Paper, section 2.3: always at the k closest.)
 Nodes see to the copies among themselves (overlay/replication/repair.py); when all that had one are gone at once, only
the sender still has the letter. What is lacking is stored again by mail/send/sender.py, with the time that it has
left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mail.asyncio_tools import gather_each
from mail.sealed.erasure_shares import CodingPlan
from mail.send.rules import groups_of_entry, segment_key
from overlay.client import Outcome, Overlay
from overlay.ids import Kind, inbox_key
from storage.user.outbox import OutboxEntry, Recipient, State

AFTER = 6
"""Attempts before the first look; questions for proofs are a quarter of an hour apart by then, and an hour later."""

AT_ONCE = 16
"""Inboxes that are asked at the same time."""

CODED_EVERY = 6
"""Attempts from one look at a coded body to the next: that takes a question to every holder, of whom half may go."""


@dataclass(frozen=True, slots=True)
class ReplicaCounts:
    """What is left of one letter for each who hasn't collected it, by address: of the rarest segment of the body that
    was stored for her group, and of her notification."""

    bodies: Mapping[str, Outcome]
    notifications: Mapping[str, Outcome]

    def lacking(self, address: str) -> bool:
        """Whether some of the nodes that should have it haven't."""
        return any(found[address].have < found[address].want for found in (self.bodies, self.notifications))


def due(entry: OutboxEntry) -> bool:
    """Whether it is time to look: copies are out, uncollected, and have been for a while."""
    if entry.secrets is None or not entry.secrets.segments or entry.attempts < AFTER:
        return False
    stored = any(recipient.state is State.STORED for recipient in entry.recipients)
    return stored and (not entry.secrets.coding or entry.attempts % CODED_EVERY == 0)


async def gone(overlay: Overlay, entry: OutboxEntry) -> set[str]:
    """The addresses of those whose mail the nodes have let go: neither the notification nor any of the body is there.

    Copies and shares expire together. While a single share is found, the others are at nodes that are away just now.
    Raises Unreachable.
    """
    if entry.secrets is None or not entry.secrets.segments:
        return set()
    group_of = groups_of_entry(entry)
    out = [r for r in entry.recipients if r.state in (State.STORED, State.EXPIRED) and r.notification is not None]
    groups = {group_of[recipient.address] for recipient in out}
    empty = {group for group in groups if not (await _found(overlay, entry, 0, group)).have}
    left: set[str] = set()

    async def ask(recipient: Recipient) -> None:
        assert recipient.notification is not None
        held = await overlay.held_notification(inbox_key(recipient.address), recipient.notification)
        if not held.have:
            left.add(recipient.address)

    await gather_each((r for r in out if group_of[r.address] in empty), ask, AT_ONCE)
    return left


async def count_copies(overlay: Overlay, entry: OutboxEntry) -> ReplicaCounts:
    """Ask the k closest nodes for each object. Raises Unreachable."""
    waiting = [r for r in entry.recipients if r.state is State.STORED and r.notification is not None]
    group_of = groups_of_entry(entry)
    groups = {group: await _count_bodies(overlay, entry, group) for group in {group_of[r.address] for r in waiting}}
    notifications: dict[str, Outcome] = {}

    async def ask(recipient: Recipient) -> None:
        assert recipient.notification is not None
        held = await overlay.held_notification(inbox_key(recipient.address), recipient.notification)
        notifications[recipient.address] = held

    await gather_each(waiting, ask, AT_ONCE)
    return ReplicaCounts({address: groups[group_of[address]] for address in notifications}, notifications)


async def _count_bodies(overlay: Overlay, entry: OutboxEntry, group: bytes) -> Outcome:
    """What is left of the rarest segment that was stored for a group."""
    segments = entry.secrets.segments if entry.secrets is not None else ()
    bodies = [await _count(overlay, entry, index, group) for index in range(len(segments))]
    return min(bodies, key=lambda outcome: outcome.have - outcome.want)


async def _count(overlay: Overlay, entry: OutboxEntry, index: int, group: bytes) -> Outcome:
    """How many copies of a segment there are, or shares: 0 when they are fewer than make it."""
    found = await _found(overlay, entry, index, group)
    coding = entry.secrets.coding if entry.secrets is not None else b""
    return replace(found, have=0) if coding and found.have < CodingPlan.decode(coding).m else found


async def _found(overlay: Overlay, entry: OutboxEntry, index: int, group: bytes) -> Outcome:
    """How many copies or shares of a segment nodes have."""
    secrets = entry.secrets
    assert secrets is not None
    key = segment_key(entry.message_id, index, len(secrets.segments) > 1, group)
    if not secrets.coding:
        return await overlay.held(Kind.BODY, key, secrets.segments[index][1])
    return await overlay.spread_held(Kind.SHARE, key, CodingPlan.decode(secrets.coding).n)
