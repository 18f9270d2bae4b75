"""Choosing an erasure code: never more bytes than copies, never below the target."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mail.availability.erasure_code import MOST_SHARES, ErasureCode, choose, expected_to_survive, survives
from mail.availability.estimate import OPERATIONS, Availability, copies, success

TARGET = 0.999
many = st.builds(Availability, st.floats(30, 500), st.floats(0, 500))


def certain(p: float) -> Availability:
    """So many observations of p that the posterior has almost no width."""
    return Availability(1e7 * p, 1e7 * (1 - p))


def test_one_of_k_is_the_papers_replication() -> None:
    assert survives(1, 5, 0.3) == pytest.approx(success(0.3, 5, 1))


@pytest.mark.parametrize("p", [0.3, 0.5, 0.75, 0.9])
def test_the_papers_cases_cost_less_than_copies_and_reach_the_target(p: float) -> None:
    code = choose(certain(p), copies(p, TARGET), TARGET, 64)
    assert survives(code.m, code.n, p) ** OPERATIONS >= TARGET
    assert code.expansion < copies(p, TARGET) / 2


def test_half_of_the_nodes_up_costs_less_than_four_bytes_a_byte() -> None:
    assert choose(certain(0.5), 11, TARGET, 64).expansion <= 3.6


@settings(deadline=None)
@given(many, st.integers(3, 20), st.sampled_from([0.99, 0.999, 0.99999]), st.integers(1, 80))
def test_a_code_fits_the_network_reaches_the_target_and_saves_bytes_or_is_copies(
    known: Availability, k: int, target: float, nodes: int
) -> None:
    code = choose(known, k, target, nodes)
    if code != ErasureCode(1, k):
        assert 2 <= code.m <= code.n <= min(nodes, MOST_SHARES)
        assert code.expansion < k
        assert expected_to_survive(code.m, code.n, known) ** OPERATIONS >= target - 1e-9


def test_a_small_network_takes_copies() -> None:
    assert choose(Availability(), 10, TARGET, 9) == ErasureCode(1, 10)
    assert choose(certain(0.5), 11, TARGET, 12) == ErasureCode(1, 11)


def test_the_less_is_known_of_p_the_more_is_stored() -> None:
    assert choose(Availability(20, 20), 11, TARGET, 64).expansion > choose(certain(0.5), 11, TARGET, 64).expansion


def test_what_is_expected_to_survive_is_what_survives_on_average() -> None:
    chance, known, trials = Random(1), Availability(20, 12), 20_000
    alive = 0
    for _ in range(trials):
        p = chance.betavariate(*known.posterior)
        alive += sum(chance.random() < p for _ in range(12)) >= 6
    assert expected_to_survive(6, 12, known) == pytest.approx(alive / trials, abs=0.02)
