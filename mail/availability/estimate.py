"""Estimates how likely a node is up, and how many copies are enough (paper, section 4).

p is the probability that a node is up (the paper's text says down, but its equations treat it as up). p is measured by
probes, so it is a distribution here: a Beta posterior over the uniform prior. Decisions only:
mail/availability/probes.py stores the probes and looks for them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from overlay.protocol_limits import MAX_COPIES

FEWEST, MOST = 3, MAX_COPIES
"""Bounds for the copies once p is known, whatever equation (6) gives (paper, section 7: "on the order of 10 to 20")."""

OPERATIONS = 2
"""Operations in a row that a user's action needs: the inbox and the message (paper, section 4)."""

OBSERVATIONS = 30
"""Copies of probes that must have been looked for before p counts as known."""

HALF_LIFE = 2 * 86400.0
"""Seconds after which an observation counts half, so that the estimate follows a changing network."""

WEIGHT = 0.5
"""Independent observations that one copy counts as. The copies of a probe are looked for in the same minute, so an
event that hits many nodes at once shows in all of them: with an assumed correlation of 0.1 among 10 copies the design
effect is 1 + 9 * 0.1, about 2."""

CREDIBLE = 0.9
"""Probability of the credible interval that is shown."""


def success(p: float, k: int, n: int = OPERATIONS) -> float:
    """Equation (5): the probability that n operations in a row succeed with k copies at nodes that are up with p."""
    return float((1 - (1 - p) ** k) ** n)


def copies(p: float, target: float, n: int = OPERATIONS) -> int:
    """Equation (6) for a known p: the fewest copies for which `success` reaches `target`, without bounds.

    Raises ValueError for p = 0, where no number of copies is enough.
    """
    if not 0 < p <= 1:
        raise ValueError("p is a probability above 0")
    if p == 1:
        return 1
    return max(1, math.ceil(math.log(-math.expm1(math.log(target) / n)) / math.log1p(-p) - 1e-9))


def implied_p(k: int, target: float, n: int = OPERATIONS) -> float:
    """The p for which equation (6) gives k: what a network assumes of its nodes when it makes k copies unmeasured."""
    return float(1 - (-math.expm1(math.log(target) / n)) ** (1 / k))


@dataclass(frozen=True, slots=True)
class Availability:
    """The observations of p: copies found and missed, with their weights at `at` (epoch seconds).

    The posterior is Beta(WEIGHT * found + 1, WEIGHT * missed + 1).
    """

    found: float = 0.0
    missed: float = 0.0
    at: float = 0.0

    def faded(self, now: float) -> Availability:
        """The same at `now`, where older observations count less; unchanged if the clock was set back."""
        fade = 0.5 ** (max(0.0, now - self.at) / HALF_LIFE)
        return replace(self, found=self.found * fade, missed=self.missed * fade, at=now)

    def observed(self, found: int, missed: int, now: float) -> Availability:
        """Add the result of one probe at `now`: `found` copies were there, `missed` weren't."""
        then = self.faded(now)
        return replace(then, found=then.found + found, missed=then.missed + missed)

    @property
    def observations(self) -> float:
        """The weighted number of copies looked for."""
        return self.found + self.missed

    @property
    def p(self) -> float | None:
        """The mean of the posterior, or None while there are too few observations."""
        if self.observations < OBSERVATIONS:
            return None
        a, b = self.posterior
        return a / (a + b)

    @property
    def posterior(self) -> tuple[float, float]:
        """a and b of the posterior Beta distribution."""
        return WEIGHT * self.found + 1, WEIGHT * self.missed + 1

    @property
    def interval(self) -> tuple[float, float] | None:
        """The credible interval of p; None while there are too few observations."""
        if self.p is None:
            return None
        tail = (1 - CREDIBLE) / 2
        return self._quantile(tail), self._quantile(1 - tail)

    def reaches(self, k: int, n: int = OPERATIONS) -> float:
        """The estimated probability that n operations in a row succeed with k copies.

        Equation (5) with the posterior's expectation of (1 - p)**k: the fewer observations there are, the more the bad
        cases weigh. (For n above 1 the expectation of (5) itself is a little higher.)
        """
        a, b = self.posterior
        lost = math.exp(math.lgamma(b + k) - math.lgamma(b) + math.lgamma(a + b) - math.lgamma(a + b + k))
        return float((1 - lost) ** n)

    def k(self, default: int, target: float) -> int:
        """The number of copies to make: `default` until p is known, then equation (6) within FEWEST and MOST."""
        if self.p is None:
            return default
        return next((k for k in range(FEWEST, MOST) if self.reaches(k) >= target), MOST)

    def _quantile(self, share: float) -> float:
        """The posterior's quantile at `share`, by bisection."""
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            if beta_below(middle, *self.posterior) < share:
                low = middle
            else:
                high = middle
        return (low + high) / 2


def beta_below(x: float, a: float, b: float) -> float:
    """The distribution function of Beta(a, b) at x (a continued fraction: NIST's DLMF, 8.17.22)."""
    if not 0 < x < 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # the fraction converges slowly here
        return 1 - beta_below(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    fraction = 1.0
    for m in range(200, 0, -1):
        odd = -(a + m - 1) * (a + b + m - 1) * x / ((a + 2 * m - 2) * (a + 2 * m - 1))
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        fraction = 1 + odd / (1 + even / fraction)
    return front / (a * fraction)
