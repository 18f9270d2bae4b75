"""The computed growth of lookups."""

from __future__ import annotations

from itertools import pairwise

from mail.analysis.lookup_growth import SIZES, Growth


def test_ten_times_the_nodes_cost_two_thirds_of_a_hop_more() -> None:
    hops = [Growth(nodes).hops for nodes in SIZES[1:]]
    for fewer, more in pairwise(hops):
        assert 0.6 < more - fewer < 0.65


def test_lookups_stay_below_the_bound_up_to_ten_million_nodes() -> None:
    assert SIZES[-1] == 10_000_000
    assert all(growth.hops < growth.bound for growth in map(Growth, SIZES))
    assert Growth(10_000).hops <= 4
    assert Growth(10_000).requests <= 25
    assert Growth(10_000_000).bound == 24
