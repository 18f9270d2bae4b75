"""Chooses the erasure code of a large body: m of n shares instead of k copies, by the same p and target.

m = 1 is the paper's replication. Equation (1) becomes the tail of a binomial distribution, and equation (6) a search
for the m and n that store the fewest bytes. Decisions only: mail/sealed/erasure_shares.py makes the shares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from mail.availability.estimate import OPERATIONS, Availability, implied_p

CODED_FROM = 64 * 1024
"""Bytes of a sealed body above which it is coded; below, headers and requests cost more than copies."""
MOST_SHARES = 60
"""Shares of a segment: the nodes that one lookup finds (MAX_WIDTH), less a few spare ones."""


@dataclass(frozen=True, slots=True)
class ErasureCode:
    """Any `m` of `n` shares rebuild a segment; m = 1: n whole copies."""

    m: int
    n: int

    @property
    def expansion(self) -> float:
        """Bytes stored for each byte of the body."""
        return self.n / self.m


def choose(known: Availability, k: int, target: float, nodes: int) -> ErasureCode:
    """The code with the least expansion that reaches `target` with `nodes` nodes; k copies where no code is cheaper.

    While p isn't known, it assumes the p for which k copies reach the target.
    """
    p = known.p
    if p is None:
        return _choose(0.0, 0.0, p=implied_p(k, target), k=k, target=target, nodes=nodes)
    return _choose(known.found, known.missed, p=None, k=k, target=target, nodes=nodes)


def survives(m: int, n: int, p: float) -> float:
    """The probability that at least m of n nodes are up, each with p (for m = 1 equation (4))."""
    return math.fsum(math.comb(n, up) * p**up * (1 - p) ** (n - up) for up in range(m, n + 1))


def expected_to_survive(m: int, n: int, known: Availability) -> float:
    """The same under the posterior of p: a beta-binomial distribution."""
    a, b = known.posterior
    whole = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) - math.lgamma(a + b + n)
    return math.fsum(
        math.comb(n, up) * math.exp(math.lgamma(a + up) + math.lgamma(b + n - up) + whole) for up in range(m, n + 1)
    )


@lru_cache(maxsize=64)
def _choose(found: float, missed: float, *, p: float | None, k: int, target: float, nodes: int) -> ErasureCode:
    known = Availability(found, missed)
    wanted = target ** (1 / OPERATIONS)
    best = ErasureCode(1, k)
    m = 2
    for n in range(2, min(nodes, MOST_SHARES) + 1):
        # The largest possible m never decreases as n grows.
        while m <= n and (expected_to_survive(m, n, known) if p is None else survives(m, n, p)) >= wanted:
            if ErasureCode(m, n).expansion < best.expansion:
                best = ErasureCode(m, n)
            m += 1
    return best
