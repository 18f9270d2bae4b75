"""The figures of the paper's section 4, and the estimate of p from probes (mail/availability/estimate.py)."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mail.availability.estimate import (
    FEWEST,
    HALF_LIFE,
    MOST,
    OBSERVATIONS,
    WEIGHT,
    Availability,
    beta_below,
    copies,
    implied_p,
    success,
)

probabilities = st.floats(0.05, 0.99)
targets = st.floats(0.99, 0.99999)
seen = st.builds(Availability, st.floats(0, 500), st.floats(0, 500))


def test_equation_5_is_worked_out_as_printed() -> None:
    assert success(0.5, 5, 2) == pytest.approx((1 - 0.5**5) ** 2)


def test_equation_6_gives_the_papers_figure_2() -> None:
    """The paper's text: one or two more copies for each nine where p > 0.75, five to seven where p = 0.3."""
    assert [copies(0.9, target) for target in (0.99, 0.999, 0.9999, 0.99999)] == [3, 4, 5, 6]
    assert [copies(0.3, target) for target in (0.99, 0.999, 0.9999, 0.99999)] == [15, 22, 28, 35]
    assert copies(0.5, 0.999) == 11


@given(probabilities, targets, st.sampled_from([1, 2, 100, 10_000]))
def test_the_copies_reach_the_target_and_one_less_does_not(p: float, target: float, n: int) -> None:
    k = copies(p, target, n)
    assert success(p, k, n) >= target - 1e-9
    assert k == 1 or success(p, k - 1, n) < target + 1e-9


@given(probabilities, probabilities, targets)
def test_nodes_that_are_up_more_often_need_no_more_copies(one: float, other: float, target: float) -> None:
    assert copies(max(one, other), target) <= copies(min(one, other), target)


def test_where_no_node_is_ever_up_no_number_of_copies_is_enough() -> None:
    with pytest.raises(ValueError, match="above 0"):
        copies(0.0, 0.99)
    assert copies(1.0, 0.99999) == 1


@given(st.integers(1, 60), targets)
def test_the_p_that_a_number_of_copies_implies_gives_that_number(k: int, target: float) -> None:
    assert copies(implied_p(k, target), target) == k


def test_nothing_is_claimed_before_enough_was_seen() -> None:
    known = Availability().observed(OBSERVATIONS - 1, 0, 0.0)
    assert known.p is None and known.interval is None
    assert known.k(10, 0.999) == 10


def test_an_estimate_follows_a_network_that_changes() -> None:
    known, now = Availability(), 0.0
    for found in (10, 3):
        for _ in range(10 * 48):  # ten days with a probe every half hour
            now += 1800
            known = known.observed(found, 10 - found, now)
        assert known.p is not None and known.p == pytest.approx(found / 10, abs=0.04)


def test_what_was_seen_long_ago_is_forgotten() -> None:
    known = Availability().observed(90, 10, 0.0)
    assert known.faded(HALF_LIFE).found == pytest.approx(45)
    assert known.faded(10 * HALF_LIFE).p is None


def test_a_clock_that_was_set_back_forgets_nothing() -> None:
    assert Availability().observed(30, 10, 1000.0).faded(10.0).observations == 40


@given(seen, targets)
def test_the_copies_reach_the_target_under_what_is_known_or_are_the_most(known: Availability, target: float) -> None:
    k = known.k(10, target)
    if known.p is None:
        assert k == 10
    else:
        assert FEWEST <= k <= MOST
        assert k == MOST or known.reaches(k) >= target
        assert k == FEWEST or known.reaches(k - 1) < target


def test_the_less_was_seen_the_more_copies_are_made() -> None:
    assert Availability(16, 16).k(10, 0.999) > Availability(250, 250).k(10, 0.999) >= copies(0.5, 0.999)


def test_what_k_reaches_is_the_mean_over_all_that_p_may_be() -> None:
    known, steps = Availability(20 / WEIGHT, 12 / WEIGHT), 20_000
    points = [(i + 0.5) / steps for i in range(steps)]
    weights = [x**20 * (1 - x) ** 12 for x in points]
    lost = sum(w * (1 - x) ** 7 for w, x in zip(weights, points, strict=True)) / sum(weights)
    assert known.reaches(7, 1) == pytest.approx(1 - lost, rel=1e-6)


@given(seen)
def test_the_interval_holds_nine_tenths_of_what_p_may_be(known: Availability) -> None:
    if known.interval is not None:
        low, high = known.interval
        a, b = known.posterior
        assert 0 <= low < high <= 1
        assert beta_below(high, a, b) - beta_below(low, a, b) == pytest.approx(0.9, abs=1e-6)


@pytest.mark.parametrize(("x", "a", "b"), [(0.3, 2, 5), (0.7, 10, 3), (0.999, 40, 1), (0.5, 250, 251), (0.02, 1, 60)])
def test_the_beta_distribution_is_that_of_coin_throws(x: float, a: int, b: int) -> None:
    """For integers it is a tail of the binomial distribution (DLMF 8.17.5)."""
    n = a + b - 1
    tail = sum(math.comb(n, j) * x**j * (1 - x) ** (n - j) for j in range(a, n + 1))
    assert beta_below(x, a, b) == pytest.approx(tail, rel=1e-9, abs=1e-12)


def test_the_beta_distribution_ends_where_probabilities_end() -> None:
    assert (beta_below(0.0, 2, 3), beta_below(1.0, 2, 3)) == (0.0, 1.0)
