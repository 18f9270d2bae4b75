"""Reputation: what nodes have done wrong, by their keys. A node with a bad one is asked last and is in no table.

No single offence is enough, and offences are forgotten with time. One that only a liar commits weighs more than one
that may be an accident. Bounded, and in memory only. Decisions only: the time is handed in.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

KEPT = 4096
"""Nodes whose offences are remembered; the one that offended longest ago is forgotten first."""
HALF_LIFE = 3600.0
"""Seconds after which an offence weighs half."""
DISTRUSTED = 3.0
"""Total weight from which a node isn't trusted."""

WRONG_BYTES = 1.5
"""It sent an object that doesn't match its digest. No honest node does that, but a bad disk may."""
WITHHELD = 0.25
"""It lacks a notification that most replicas have. A node that has just joined may lack it too."""


class Reputation:
    """The offences of nodes, by their keys. `now` gives seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._offences: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._offences)

    def penalise(self, key: bytes, weight: float) -> None:
        """Add an offence of this weight to the node with this key."""
        self._offences[key] = self._weight(key) + weight, self._now()
        self._offences.move_to_end(key)
        if len(self._offences) > KEPT:
            self._offences.popitem(last=False)

    def trusted(self, key: bytes) -> bool:
        """Whether the node with this key is asked as others are."""
        return self._weight(key) < DISTRUSTED

    def _weight(self, key: bytes) -> float:
        weight, since = self._offences.get(key, (0.0, 0.0))
        return weight * 0.5 ** ((self._now() - since) / HALF_LIFE) if weight else 0.0
