"""How many copies are enough: the paper's section 4, and the estimate of p that it is worked out from.

p is the probability that a node is up (the paper's text calls it down, its equations treat it as up). Decisions
only: mail/probes.py stores and looks for the probes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

FEWEST, MOST = 3, 20
"""Copies made once p is known, whatever equation (6) says (paper, section 7: "on the order of 10 to 20")."""

OPERATIONS = 2
"""Operations in a row that an action of a user's takes: her inbox and her message (paper, section 4)."""

OBSERVATIONS = 30
"""Probes that must have been looked for before their word counts."""

MEMORY = 500.0
"""Observations that are remembered; older ones fade, so that the estimate follows a network that changes."""


def success(p: float, k: int, n: int = OPERATIONS) -> float:
    """Equation (5): probability that n operations in a row succeed with k copies at nodes that are up with p."""
    return float((1 - (1 - p) ** k) ** n)


def copies(p: float, target: float, n: int = OPERATIONS) -> int:
    """Equation (6): the fewest copies for which `success` reaches `target`, within FEWEST and MOST."""
    if p >= 1:
        return FEWEST
    if p <= 0:
        return MOST
    k = math.log(1 - target ** (1 / n)) / math.log(1 - p)
    return min(max(math.ceil(k - 1e-9), FEWEST), MOST)


@dataclass(frozen=True, slots=True)
class Availability:
    """What probes have shown: copies found and missed (a Beta distribution, from the uniform prior)."""

    found: float = 0.0
    missed: float = 0.0

    def observed(self, found: int, missed: int) -> Availability:
        """With one more probe looked for, of which so many copies were there and so many weren't."""
        fade = min(1.0, MEMORY / max(self.found + self.missed, 1e-9))
        return Availability(self.found * fade + found, self.missed * fade + missed)

    @property
    def p(self) -> float | None:
        """The estimate of p, or None while too little was seen. Cautious: a standard deviation below the mean."""
        seen = self.found + self.missed
        if seen < OBSERVATIONS:
            return None
        a, b = self.found + 1, self.missed + 1
        mean = a / (a + b)
        return max(0.0, mean - math.sqrt(a * b / ((a + b) ** 2 * (a + b + 1))))

    def k(self, default: int, target: float) -> int:
        """Copies to make: `default` until p is known, then equation (6)."""
        return default if self.p is None else copies(self.p, target)
