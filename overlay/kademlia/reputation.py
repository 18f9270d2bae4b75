"""What nodes have done wrong, remembered against their keys: whoever lies is asked last, and no table keeps it.

One slip cuts nobody off, and all is forgiven with time; what can only be a lie weighs more than what may be an
accident. Bounded; in memory only. Decisions only, the time is handed in.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

KEPT = 4096
HALF_LIFE = 3600.0
"""Seconds after which half of it is forgotten."""
DISTRUSTED = 3.0
"""Weight from which a node isn't trusted."""

WRONG_BYTES = 1.5
"""An object under a digest that isn't its own: no honest node does that, but a disk may."""
WITHHELD = 0.25
"""A notification that most replicas have and this one hasn't: a newcomer's fate as well as a liar's."""


class Reputation:
    """The offences of nodes, by their keys. `now` gives seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._offences: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._offences)

    def penalise(self, key: bytes, weight: float) -> None:
        """The node with this key has done something wrong."""
        self._offences[key] = self._weight(key) + weight, self._now()
        self._offences.move_to_end(key)
        if len(self._offences) > KEPT:
            self._offences.popitem(last=False)

    def trusted(self, key: bytes) -> bool:
        """Whether it is to be asked like others."""
        return self._weight(key) < DISTRUSTED

    def _weight(self, key: bytes) -> float:
        weight, since = self._offences.get(key, (0.0, 0.0))
        return weight * 0.5 ** ((self._now() - since) / HALF_LIFE) if weight else 0.0
