"""The sender's look at what she has sent: are its copies still there? (Paper, section 2.3: always at the k closest.)

Nodes see to the copies among themselves (overlay/moving.py); when all that had one are gone at once, only the sender
still has the letter. What is lacking is stored again by mail/sending.py, with the time that it has left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mail.delivery import groups_of_entry, segment_key
from mail.shares import Plan
from overlay.ids import Kind, inbox_key
from overlay.overlay import Outcome, Overlay
from storage.outbox import Entry, State

AFTER = 6
"""Attempts before the first look; questions for proofs are a quarter of an hour apart by then, and an hour later."""

CODED_EVERY = 6
"""Attempts from one look at a coded body to the next: that takes a question to every holder, of whom half may go."""


@dataclass(frozen=True, slots=True)
class Copies:
    """What is left of one letter for each who hasn't collected it, by address: of the rarest segment of the body that
    was stored for her group, and of her notification."""

    bodies: Mapping[str, Outcome]
    notifications: Mapping[str, Outcome]

    def lacking(self, address: str) -> bool:
        """Whether some of the nodes that should have it haven't."""
        return any(found[address].have < found[address].want for found in (self.bodies, self.notifications))


def due(entry: Entry) -> bool:
    """Whether it is time to look: copies are out, uncollected, and have been for a while."""
    if entry.secrets is None or not entry.secrets.segments or entry.attempts < AFTER:
        return False
    stored = any(recipient.state is State.STORED for recipient in entry.recipients)
    return stored and (not entry.secrets.coding or entry.attempts % CODED_EVERY == 0)


async def count_copies(overlay: Overlay, entry: Entry) -> Copies:
    """Ask the k closest nodes for each object. Raises Unreachable."""
    waiting = [r for r in entry.recipients if r.state is State.STORED and r.notification is not None]
    group_of = groups_of_entry(entry)
    groups = {group: await _count_bodies(overlay, entry, group) for group in {group_of[r.address] for r in waiting}}
    notifications = {
        recipient.address: await overlay.held_notification(inbox_key(recipient.address), recipient.notification)
        for recipient in waiting
        if recipient.notification is not None
    }
    return Copies({address: groups[group_of[address]] for address in notifications}, notifications)


async def _count_bodies(overlay: Overlay, entry: Entry, group: bytes) -> Outcome:
    """What is left of the rarest segment that was stored for a group."""
    segments = entry.secrets.segments if entry.secrets is not None else ()
    coding = entry.secrets.coding if entry.secrets is not None else b""
    bodies = []
    for index, (_, digest) in enumerate(segments):
        key = segment_key(entry.message_id, index, len(segments) > 1, group)
        if coding:
            plan = Plan.decode(coding)
            found = await overlay.spread_held(Kind.SHARE, key, plan.n)
            bodies.append(found if found.have >= plan.m else replace(found, have=0))
        else:
            bodies.append(await overlay.held(Kind.BODY, key, digest))
    return min(bodies, key=lambda outcome: outcome.have - outcome.want)
