"""What replicas of an inbox held when they were read, and which of them withheld something. Decisions only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from overlay.kademlia.lookup import Located


@dataclass(frozen=True, slots=True)
class InboxRead:
    """What one node's replica of an inbox held, under a lease until it is acknowledged."""

    node: Located
    notifications: tuple[bytes, ...]
    more: bool


def withholding(readings: Sequence[InboxRead], closest: Collection[bytes]) -> list[InboxRead]:
    """Replicas among the k `closest` (ids) that lack something which most of these have."""
    near = [reading for reading in readings if reading.node.contact.id in closest]
    counted = Counter(notification for reading in near for notification in set(reading.notifications))
    expected = {notification for notification, count in counted.items() if 2 * count > len(near)}
    return [reading for reading in near if not reading.more and not expected <= set(reading.notifications)]
