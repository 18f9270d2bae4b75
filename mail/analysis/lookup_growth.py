"""How lookups grow with the network, on paper: the usual reckoning for Kademlia, up to sizes that nobody can run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from overlay.kademlia.lookup import ALPHA
from overlay.kademlia.routing import BUCKET
from overlay.protocol_limits import DEFAULT_K

SIZES = tuple(10**power for power in range(2, 8))


@dataclass(frozen=True, slots=True)
class Growth:
    """A lookup of the k closest in a network of so many nodes."""

    nodes: int

    @property
    def bound(self) -> int:
        """Hops at most: each brings at least one more bit of the key (Kademlia, section 3: about log2 of the nodes)."""
        return math.ceil(math.log2(self.nodes))

    @property
    def hops(self) -> float:
        """Hops expected, until the k closest are known: each brings the bit of its bucket and, since the nearest of the
        BUCKET contacts there is taken, log2(BUCKET) more; the last log2(k) bits needn't be found."""
        return max(1.0, math.log2(self.nodes / DEFAULT_K) / (1 + math.log2(BUCKET)))

    @property
    def requests(self) -> int:
        """Requests expected: ALPHA at each hop, and each of the k closest is asked. As many answers come back."""
        return ALPHA * math.ceil(self.hops) + DEFAULT_K
