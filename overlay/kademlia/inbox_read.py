"""What replicas of an inbox returned when it was read, and which of them withheld something. Decisions only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from overlay.kademlia.lookup import Located


@dataclass(frozen=True, slots=True)
class InboxRead:
    """The notifications that one node's replica of an inbox returned, leased until they are acknowledged."""

    node: Located
    notifications: tuple[bytes, ...]
    more: bool


def withholding(readings: Sequence[InboxRead], closest: Collection[bytes]) -> list[InboxRead]:
    """The replicas among the k `closest` (ids) that lack a notification which most of these have."""
    near = [reading for reading in readings if reading.node.contact.id in closest]
    counted = Counter(notification for reading in near for notification in set(reading.notifications))
    expected = {notification for notification, count in counted.items() if 2 * count > len(near)}
    return [reading for reading in near if not reading.more and not expected <= set(reading.notifications)]
