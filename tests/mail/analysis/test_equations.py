"""Section 4 of the paper compared with a simulation: what follows from its equations, and what doesn't."""

from __future__ import annotations

import math
from random import Random
from xml.etree import ElementTree

import pytest

from mail.analysis import equations
from mail.analysis.chart import ROWS, Curve, Panel, as_svg, as_text
from mail.analysis.simulation import Measured, actions, losses
from mail.availability.estimate import success
from mail.cli.analyse import panels


def test_equation_1_follows_the_printed_table_except_at_a_half_typed_value() -> None:
    follows = {p: equations.same_order(equations.lost_down(p, 5), equations.PRINTED_1[p]) for p in equations.TABLE_P}
    assert follows == {0.99: True, 0.9: False, 0.5: True, 0.3: True}
    assert equations.lost_down(0.9, 5) == pytest.approx(1e-5)


def test_equation_2_gives_other_orders_of_magnitude_than_the_table() -> None:
    assert equations.lost_returned(0.5, 5, 100) == pytest.approx(math.comb(50, 5) * 0.0025**5, rel=0.05)
    assert not any(
        equations.same_order(equations.lost_returned(p, 5, nodes), printed)
        for (p, nodes), printed in equations.PRINTED_2.items()
        if (p, nodes) != (0.99, 100)
    )


def test_equation_3_gives_the_table_for_five_that_joined() -> None:
    for nodes, printed in equations.PRINTED_3.items():
        assert equations.same_order(equations.lost_joined(5, nodes, 5), printed)


def test_another_nine_takes_what_the_paper_reads_from_its_figure() -> None:
    """ "Roughly" 5 to 7 at p = 0.3, and 1 or 2 above 0.75; the same for long lists, roughly."""
    assert equations.nines(0.3, 2) == (7, 6, 7)
    assert equations.nines(0.75, 2) == (2, 2, 1)
    assert all(6 <= more <= 7 for n in equations.FIGURE_N for more in equations.nines(0.3, n))


@pytest.mark.parametrize("p", [0.3, 0.5, 0.75])
def test_the_simulation_agrees_with_equation_1(p: float) -> None:
    found = losses(p, 5, nodes=1_000, joined=5, trials=4_000, chance=Random(1))
    assert found.down.agrees(equations.lost_down(p, 5))


def test_the_simulation_finds_more_hidden_copies_than_equation_2_says() -> None:
    found = losses(0.5, 5, nodes=1_000, joined=5, trials=4_000, chance=Random(1))
    assert found.hidden.interval[0] > 100 * equations.lost_returned(0.5, 5, 1_000)


def test_newcomers_alone_hide_what_they_stand_before() -> None:
    found = losses(
        1.0, 1, nodes=1, joined=1, trials=4_000, chance=Random(1)
    )  # one node, one newcomer: nearer in half of all cases
    assert found.hidden.agrees(0.5)
    assert found.down.count == 0


@pytest.mark.parametrize(("p", "k", "n"), [(0.3, 5, 2), (0.5, 5, 10), (0.9, 2, 100)])
def test_the_simulation_agrees_with_equation_5(p: float, k: int, n: int) -> None:
    assert actions(p, k, n, 3_000, Random(1)).agrees(success(p, k, n))


def test_a_wrong_equation_would_be_seen() -> None:
    assert not actions(0.5, 5, 2, 3_000, Random(1)).agrees(success(0.5, 6, 2))
    assert not losses(0.5, 5, nodes=1_000, joined=5, trials=4_000, chance=Random(1)).down.agrees(
        equations.lost_down(0.5, 6)
    )


def test_the_same_seed_gives_the_same_figures() -> None:
    assert losses(0.5, 5, nodes=100, joined=5, trials=500, chance=Random(7)) == losses(
        0.5, 5, nodes=100, joined=5, trials=500, chance=Random(7)
    )


def test_nothing_in_many_trials_is_no_proof_of_never() -> None:
    low, high = Measured(0, 1_000).interval
    assert low == 0 and 0.003 < high < 0.005


def test_charts_fit_a_terminal_and_show_every_curve() -> None:
    for panel in panels():
        lines = as_text(panel, "k")
        assert all(len(line) <= 80 for line in lines)
        drawn = "\n".join(lines[2 : 2 + ROWS])
        assert all(drawn.count(mark) == len(panel.places) for mark in "abcde")


def test_the_svg_is_xml_with_a_title_a_description_and_every_curve() -> None:
    root = ElementTree.fromstring(as_svg(panels(), "a < b", "target", "copies"))
    space = "{http://www.w3.org/2000/svg}"
    assert root.findtext(f"{space}title") == "a < b"
    assert "n = 2, p = 0.5: 8 at 0.99, 11 at 0.999" in (root.findtext(f"{space}desc") or "")
    assert len(root.findall(f"{space}polyline")) == 15


def test_two_curves_at_one_point_stand_side_by_side() -> None:
    lines = as_text(Panel("t", ["x"], [Curve("one", [1.0]), Curve("two", [1.0])]), "y")
    assert any("ab" in line for line in lines)
