"""The paper's section 4, in figures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mail.availability import FEWEST, MOST, OBSERVATIONS, Availability, copies, success


def test_equation_5_is_worked_out_as_printed() -> None:
    assert success(0.5, 5, 2) == pytest.approx((1 - 0.5**5) ** 2)


def test_equation_6_gives_the_papers_figure_2a() -> None:
    """n = 2: about 4 copies at p = 0.9 and 15 to 22 at p = 0.3 for 99%."""
    assert copies(0.9, 0.99) == 3
    assert copies(0.5, 0.999) == 11
    assert copies(0.3, 0.99) == 15


@given(st.floats(0.35, 0.99), st.floats(0.9, 0.999))
def test_the_copies_reach_the_target_and_one_less_does_not(p: float, target: float) -> None:
    k = copies(p, target)
    if FEWEST < k < MOST:
        assert success(p, k) >= target - 1e-9
        assert success(p, k - 1) < target


def test_nothing_is_claimed_before_enough_was_seen() -> None:
    known = Availability().observed(OBSERVATIONS - 1, 0)
    assert known.p is None
    assert known.k(10, 0.999) == 10


def test_an_estimate_follows_a_network_that_changes() -> None:
    known = Availability()
    for _ in range(200):
        known = known.observed(10, 0)
    assert known.p is not None and known.p > 0.98
    for _ in range(200):
        known = known.observed(3, 7)
    assert known.p is not None and known.p == pytest.approx(0.3, abs=0.06)
