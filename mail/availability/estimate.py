"""How likely nodes are up, and how many copies are enough: the paper's section 4, under what is known of p.

p is the probability that a node is up (the paper's text calls it down, its equations treat it as up). It isn't given
but measured, so it is a distribution here: what probes showed, a Beta posterior over the uniform prior. Decisions
only: mail/availability/probes.py stores and looks for the probes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

FEWEST, MOST = 3, 20
"""Copies made once p is known, whatever equation (6) says (paper, section 7: "on the order of 10 to 20")."""

OPERATIONS = 2
"""Operations in a row that an action of a user's takes: her inbox and her message (paper, section 4)."""

OBSERVATIONS = 30
"""Copies of probes that must have been looked for before their word counts."""

HALF_LIFE = 2 * 86400.0
"""Seconds after which an observation counts half, so that the estimate follows a network that changes."""

WEIGHT = 0.5
"""Independent observations that one copy counts as. The copies of a probe are looked for in the same minute, and what
befalls many nodes at once shows in all of them: with a correlation of 0.1 (assumed) among 10 copies the design effect
is 1 + 9 * 0.1, about 2."""

CREDIBLE = 0.9
"""Share of the posterior within the interval that is shown."""


def success(p: float, k: int, n: int = OPERATIONS) -> float:
    """Equation (5): probability that n operations in a row succeed with k copies at nodes that are up with p."""
    return float((1 - (1 - p) ** k) ** n)


def copies(p: float, target: float, n: int = OPERATIONS) -> int:
    """Equation (6) for a p that is known: the fewest copies with which `success` reaches `target`, uncapped.

    Raises ValueError for p = 0: no number of copies is enough.
    """
    if not 0 < p <= 1:
        raise ValueError("p is a probability above 0")
    if p == 1:
        return 1
    return max(1, math.ceil(math.log(-math.expm1(math.log(target) / n)) / math.log1p(-p) - 1e-9))


def implied_p(k: int, target: float, n: int = OPERATIONS) -> float:
    """The p for which equation (6) gives k: what a network believes of its nodes when it makes k copies unmeasured."""
    return float(1 - (-math.expm1(math.log(target) / n)) ** (1 / k))


@dataclass(frozen=True, slots=True)
class Availability:
    """What probes have shown of p: copies found and missed, faded as of `at` (epoch seconds).

    The posterior is Beta(WEIGHT * found + 1, WEIGHT * missed + 1).
    """

    found: float = 0.0
    missed: float = 0.0
    at: float = 0.0

    def faded(self, now: float) -> Availability:
        """The same as seen at `now`: older observations count less. A clock that was set back fades nothing."""
        fade = 0.5 ** (max(0.0, now - self.at) / HALF_LIFE)
        return replace(self, found=self.found * fade, missed=self.missed * fade, at=now)

    def observed(self, found: int, missed: int, now: float) -> Availability:
        """With one more probe looked for at `now`, of which so many copies were there and so many weren't."""
        then = self.faded(now)
        return replace(then, found=then.found + found, missed=then.missed + missed)

    @property
    def observations(self) -> float:
        """Copies looked for, as far as they are remembered."""
        return self.found + self.missed

    @property
    def p(self) -> float | None:
        """The mean of the posterior, or None while too little was seen."""
        if self.observations < OBSERVATIONS:
            return None
        a, b = self.posterior
        return a / (a + b)

    @property
    def posterior(self) -> tuple[float, float]:
        """a and b of the Beta distribution that p has after all this."""
        return WEIGHT * self.found + 1, WEIGHT * self.missed + 1

    @property
    def interval(self) -> tuple[float, float] | None:
        """Between what p lies, with the probability CREDIBLE; None while too little was seen."""
        if self.p is None:
            return None
        tail = (1 - CREDIBLE) / 2
        return self._quantile(tail), self._quantile(1 - tail)

    def reaches(self, k: int, n: int = OPERATIONS) -> float:
        """The probability, as far as is known, that n operations in a row succeed with k copies.

        Equation (5) with the posterior's expectation of (1 - p)**k in the place of a p that nobody knows: the less
        was seen, the more the bad cases weigh. (For n above 1 the expectation of (5) itself is a little higher.)
        """
        a, b = self.posterior
        lost = math.exp(math.lgamma(b + k) - math.lgamma(b) + math.lgamma(a + b) - math.lgamma(a + b + k))
        return float((1 - lost) ** n)

    def k(self, default: int, target: float) -> int:
        """Copies to make: `default` until p is known, then equation (6) under the posterior, FEWEST to MOST."""
        if self.p is None:
            return default
        return next((k for k in range(FEWEST, MOST) if self.reaches(k) >= target), MOST)

    def _quantile(self, share: float) -> float:
        """Where the posterior's distribution function is `share`, by bisection."""
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
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly
        return 1 - beta_below(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    fraction = 1.0
    for m in range(200, 0, -1):
        odd = -(a + m - 1) * (a + b + m - 1) * x / ((a + 2 * m - 2) * (a + 2 * m - 1))
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        fraction = 1 + odd / (1 + even / fraction)
    return front / (a * fraction)
