"""Computes how Kademlia lookups grow with the network, up to sizes too large to simulate."""

from __future__ import annotations

import math
from dataclasses import dataclass

from overlay.kademlia.lookup import ALPHA
from overlay.kademlia.routing import BUCKET
from overlay.protocol_limits import DEFAULT_K

SIZES = tuple(10**power for power in range(2, 8))


@dataclass(frozen=True, slots=True)
class Growth:
    """A lookup of the k closest nodes in a network of `nodes` nodes."""

    nodes: int

    @property
    def bound(self) -> int:
        """Most hops: each fixes at least one more bit of the key (Kademlia, section 3: about log2 of the nodes)."""
        return math.ceil(math.log2(self.nodes))

    @property
    def hops(self) -> float:
        """Expected hops until the k closest nodes are known.

        Each hop fixes the bit of its bucket, and log2(BUCKET) more because it takes the nearest of the BUCKET contacts
        there. The last log2(k) bits needn't be found.
        """
        return max(1.0, math.log2(self.nodes / DEFAULT_K) / (1 + math.log2(BUCKET)))

    @property
    def requests(self) -> int:
        """Expected requests: ALPHA at each hop, and one to each of the k closest. There are as many answers."""
        return ALPHA * math.ceil(self.hops) + DEFAULT_K
