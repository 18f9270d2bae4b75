"""Section 4 of the paper: equations (1) to (3), Table 2 and Figure 2, with the values that the paper prints.

p is the probability that a node is up. (The paper's text says down, but its equations mean up.) Equations (4) to (6)
are in mail/availability/estimate.py, where the program uses them. mail/cli/analyse.py prints the values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from mail.availability.estimate import copies

TABLE_K = 5
TABLE_P = (0.99, 0.9, 0.5, 0.3)
TABLE_NODES = (100, 1_000, 10_000)
TABLE_JOINED = 5
"""N of equation (3). The paper doesn't give it; N = k = 5 yields its printed orders of magnitude."""

PRINTED_1 = {0.99: 1e-10, 0.9: 1e-8, 0.5: 0.03, 0.3: 0.17}
PRINTED_2 = {
    (0.99, 100): 0.0, (0.99, 1_000): 1e-15, (0.99, 10_000): 1e-15,
    (0.9, 100): 1e-8, (0.9, 1_000): 1e-8, (0.9, 10_000): 1e-8,
    (0.5, 100): 1e-4, (0.5, 1_000): 1e-4, (0.5, 10_000): 1e-4,
    (0.3, 100): 1e-3, (0.3, 1_000): 1e-3, (0.3, 10_000): 1e-3,
}  # fmt: skip
PRINTED_3 = {100: 1e-10, 1_000: 1e-15, 10_000: 1e-20}
"""Table 2 as printed in the paper: orders of magnitude."""

FIGURE_N = (2, 100, 10_000)
FIGURE_P = (0.3, 0.5, 0.75, 0.9, 0.99)
FIGURE_TARGETS = (0.99, 0.999, 0.9999, 0.99999)

EQUATIONS = """\
(1) p_l1 = (1 - p)^k                               all k nodes are down
(2) p_l2 = sum C((1-p)I, i) (p(1-p)/I)^i, i >= k   nearer ones have come up
(3) p_l3 = sum C(N, i) / (I + 1)^i, i >= k         nearer ones have joined
(4) p_s  = 1 - (1 - p)^k                           one operation succeeds
(5) p_t  = (1 - (1 - p)^k)^n                       n operations in a row succeed
(6) k    = log(1 - p_t^(1/n)) / log(1 - p)         copies for a target p_t"""


def lost_down(p: float, k: int) -> float:
    """Equation (1): the probability that all k nodes are down."""
    return float((1 - p) ** k)


def lost_returned(p: float, k: int, nodes: int) -> float:
    """Equation (2): that k nodes, down at the time of the store, have come up closer than all holders."""
    down = round((1 - p) * nodes)
    return _tail(down, k, p * (1 - p) / nodes)


def lost_joined(k: int, nodes: int, joined: int) -> float:
    """Equation (3): that k of `joined` new nodes are closer than all holders."""
    return _tail(joined, k, 1 / (nodes + 1))


def _tail(count: int, first: int, each: float) -> float:
    """Sum of C(count, i) each**i for i from `first` to `count`, without negligible terms."""
    total = 0.0
    for i in range(first, count + 1):
        term = math.exp(math.lgamma(count + 1) - math.lgamma(i + 1) - math.lgamma(count - i + 1) + i * math.log(each))
        total += term
        if term < total * 1e-17:
            break
    return total


@dataclass(frozen=True, slots=True)
class Line:
    """One curve of Figure 2: the copies by equation (6) for each target."""

    p: float
    n: int
    k: tuple[int, ...]


def figure_2() -> list[Line]:
    """The curves of Figure 2, panel by panel."""
    return [Line(p, n, tuple(copies(p, target, n) for target in FIGURE_TARGETS)) for n in FIGURE_N for p in FIGURE_P]


PRINTED_NINES = {0.3: (5, 7), 0.75: (1, 2), 0.9: (1, 2)}
"""Copies for another nine of p_t, as the paper reads its Figure 2(a): fewest and most ("roughly")."""


def nines(p: float, n: int) -> tuple[int, ...]:
    """Copies that each further nine takes, along a curve of Figure 2."""
    k = next(line.k for line in figure_2() if (line.p, line.n) == (p, n))
    return tuple(more - fewer for fewer, more in pairwise(k))


def same_order(one: float, other: float) -> bool:
    """Whether two values have the same order of magnitude, as the paper prints; below 1e-16 counts as zero."""
    if max(one, other) < 1e-16:
        return True
    return min(one, other) > 0 and abs(math.log10(one / other)) <= 0.75
