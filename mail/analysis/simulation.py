"""Simulates the model of the paper's analysis: nodes up with probability p, k copies, and a reader.

The simulation draws the events that the equations are about (which nodes are up, and where they are in the key space),
not their results, so it can check them. The same seed gives the same figures. tests/simulation simulates the overlay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

SURE = 1.96
"""Standard deviations of a 95% interval."""


@dataclass(frozen=True, slots=True)
class Measured:
    """`count` of `trials` trials."""

    count: int
    trials: int

    @property
    def share(self) -> float:
        """count / trials."""
        return self.count / self.trials

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% confidence interval of the share (Wilson's)."""
        z, n = SURE, self.trials
        middle = (self.share + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(self.share * (1 - self.share) / n + z * z / (4 * n * n))
        return max(0.0, middle - half) if self.count else 0.0, min(1.0, middle + half) if self.count < n else 1.0

    def agrees(self, value: float) -> bool:
        """Whether the interval contains `value`."""
        low, high = self.interval
        return low <= value <= high


@dataclass(frozen=True, slots=True)
class Losses:
    """Reads that found nothing, by cause.

    down    all holders were down
    hidden  a holder was up, but k other nodes were closer; a search beyond the k closest would have found it
    """

    down: Measured
    hidden: Measured


def losses(p: float, k: int, *, nodes: int, joined: int, trials: int, chance: Random) -> Losses:
    """Store at the k closest nodes that are up, let `joined` nodes join, then read from the k closest that are up."""
    down = hidden = 0
    for _ in range(trials):
        newcomers = sorted(chance.randrange(nodes + 1) for _ in range(joined))  # number of old nodes that are closer
        copies = alive = seen = rank = 0
        found = False
        while rank < nodes and (copies < k or seen < k):
            while newcomers and newcomers[0] <= rank:
                newcomers.pop(0)
                seen += chance.random() < p
            holds = copies < k and chance.random() < p
            up = chance.random() < p
            found = found or (holds and up and seen < k)
            copies += holds
            alive += holds and up
            seen += up
            rank += 1
        down += not alive
        hidden += bool(alive) and not found
    return Losses(Measured(down, trials), Measured(hidden, trials))


def actions(p: float, k: int, n: int, trials: int, chance: Random) -> Measured:
    """Actions of n operations that succeed, if each operation needs one of k nodes to be up (equation (5))."""
    draw = chance.random
    nodes = range(k)
    failed = 0
    for _ in range(trials):
        for _ in range(n):
            for _ in nodes:  # plain loops, since any() and all() take three times as long
                if draw() < p:
                    break
            else:
                failed += 1
                break
    return Measured(trials - failed, trials)
