"""A simulator of the analysis: nodes that are up with p, an object at the k closest, a reader that looks for it.

What is drawn is what the equations speak of (who is up when, who stands where), not what they say; so it can tell
whether they hold. The same seed gives the same figures. The overlay itself is simulated in tests/simulation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

SURE = 1.96
"""Standard deviations of the intervals: 95%."""


@dataclass(frozen=True, slots=True)
class Measured:
    """So many of so many trials."""

    count: int
    trials: int

    @property
    def share(self) -> float:
        """The share of trials."""
        return self.count / self.trials

    @property
    def interval(self) -> tuple[float, float]:
        """What the true share lies in with 95% (Wilson's interval)."""
        z, n = SURE, self.trials
        middle = (self.share + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(self.share * (1 - self.share) / n + z * z / (4 * n * n))
        return max(0.0, middle - half) if self.count else 0.0, min(1.0, middle + half) if self.count < n else 1.0

    def agrees(self, value: float) -> bool:
        """Whether `value` is a share that these trials don't speak against."""
        low, high = self.interval
        return low <= value <= high


@dataclass(frozen=True, slots=True)
class Losses:
    """Why a read found nothing: all holders were down; others stood before those that were up, which a search beyond
    k would have found."""

    down: Measured
    hidden: Measured


def losses(p: float, k: int, *, nodes: int, joined: int, trials: int, chance: Random) -> Losses:
    """Store at the k closest that are up, let time pass, join so many nodes, read at the k closest that are up."""
    down = hidden = 0
    for _ in range(trials):
        newcomers = sorted(chance.randrange(nodes + 1) for _ in range(joined))  # how many old ones are nearer
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
    """How many actions of n operations succeed, each of which needs one of k nodes to be up (equation (5))."""
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
