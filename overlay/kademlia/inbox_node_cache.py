"""Caches the nodes of the inbox that is read every minute, so that most reads need no lookup. Decisions only.

Appends go to k nodes and reads to a few more, so a cached list may be slightly out of date. It is never used for long,
and never when the lookup found too few nodes: after a partition, mail lies at nodes that couldn't be found before.
"""

from __future__ import annotations

from collections.abc import Sequence

from overlay.identity.contact import Contact
from overlay.ids import distance
from overlay.kademlia.lookup import Located
from overlay.wire.write_tokens import EPOCH

KNOWN_FOR = EPOCH
"""Seconds that the list is used: as long as the write tokens in it are valid."""


class InboxNodeCache:
    """The nodes of one inbox key. `now` is the loop's seconds."""

    def __init__(self) -> None:
        self._key = b""
        self._nodes: list[Located] = []
        self._until = 0.0

    def keep(self, key: bytes, nodes: list[Located], now: float) -> None:
        """Cache the nodes closest to `key`."""
        self._key, self._nodes, self._until = key, nodes, now + KNOWN_FOR

    def forget(self) -> None:
        """Drop the list, because one of its nodes didn't answer or lied."""
        self._nodes = []

    def nodes(self, key: bytes, count: int, table: Sequence[Contact], now: float) -> list[Located]:
        """The `count` closest nodes, or none when they have to be looked up.

        A lookup is needed when the last one found fewer than `count` nodes, when it was KNOWN_FOR seconds ago, and when
        `table` (the nearest live nodes of the routing table) has a node that is nearer than one of them.
        """
        if key != self._key or len(self._nodes) != count or now >= self._until:
            return []
        known = {located.contact.id for located in self._nodes}
        farthest = max(distance(node, key) for node in known)
        if any(contact.id not in known and distance(contact.id, key) < farthest for contact in table):
            return []
        return self._nodes
