"""Where the inbox that is read every minute lies, as the last lookup found it: most readings need no other one.

Decisions only. Appends go to k nodes and readings to a few more, so what is remembered may be a little out of date, but
never for long, and never when it was too little: after a partition mail lies at nodes that weren't to be found before.
"""

from __future__ import annotations

from collections.abc import Sequence

from overlay.identity.contact import Contact
from overlay.ids import distance
from overlay.kademlia.lookup import Located
from overlay.wire.write_tokens import EPOCH

KNOWN_FOR = EPOCH
"""Seconds; the nodes' tokens are good for as long."""


class InboxNodeCache:
    """The nodes of one key. `now` is the loop's seconds."""

    def __init__(self) -> None:
        self._key = b""
        self._nodes: list[Located] = []
        self._until = 0.0

    def keep(self, key: bytes, nodes: list[Located], now: float) -> None:
        """These are the nodes closest to `key`."""
        self._key, self._nodes, self._until = key, nodes, now + KNOWN_FOR

    def forget(self) -> None:
        """One of them didn't answer, or lied: look again."""
        self._nodes = []

    def nodes(self, key: bytes, count: int, table: Sequence[Contact], now: float) -> list[Located]:
        """The `count` closest nodes, or none when they have to be looked up.

        That is when there weren't so many, when it is long ago, and when a node of the `table` (the nearest that
        answer) is nearer than one of them.
        """
        if key != self._key or len(self._nodes) != count or now >= self._until:
            return []
        known = {at.contact.id for at in self._nodes}
        farthest = max(distance(node, key) for node in known)
        if any(one.id not in known and distance(one.id, key) < farthest for one in table):
            return []
        return self._nodes
