"""`p2pmail analyse`: computes the paper's analysis, beside its printed figures and a simulation."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from random import Random

from mail.analysis import equations, lookup_growth
from mail.analysis.chart import Curve, Panel, as_svg, as_text
from mail.analysis.measured import Case, Measurements, shipped
from mail.analysis.simulation import Losses, Measured, actions, losses
from mail.availability.estimate import success
from mail.cli.errors import CANT_CREATE, OK, CommandError
from storage import durable
from storage.user.profile import Profile

LEAST = 20
"""Fewest simulated actions for a point."""
RARE = 50
"""Factor on the trials of equation (1), so that an event with probability 1e-5 shows up."""
ROUNDED = 0.2
"""Relative rounding error of the paper's printed values, which have one or two digits."""
CHAINS = {2: 1.0, 100: 0.05, 10_000: 0.0005}
"""Simulated actions for each n, as a share of the trials: long actions cost more and need fewer."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of Table 2."""

    p: float
    nodes: int
    down: float
    returned: float
    joined: float
    found: Losses
    all_down: Measured


@dataclass(frozen=True, slots=True)
class Point:
    """One point of Figure 2."""

    n: int
    p: float
    target: float
    k: int
    promised: float
    found: Measured


def analyse(args: argparse.Namespace, profile: Profile) -> int:
    """`p2pmail analyse [--trials N] [--seed N] [--svg FILE] [--json]`. Doesn't use the profile."""
    chance = Random(args.seed)  # noqa: S311 - a simulation
    down = {p: _all_down(p, equations.TABLE_K, args.trials * RARE, chance) for p in equations.TABLE_P}
    cells = [
        Cell(
            p,
            nodes,
            equations.lost_down(p, equations.TABLE_K),
            equations.lost_returned(p, equations.TABLE_K, nodes),
            equations.lost_joined(equations.TABLE_K, nodes, equations.TABLE_JOINED),
            losses(p, equations.TABLE_K, nodes=nodes, joined=equations.TABLE_JOINED, trials=args.trials, chance=chance),
            down[p],
        )
        for p in equations.TABLE_P
        for nodes in equations.TABLE_NODES
    ]
    points = [
        Point(line.n, line.p, target, k, success(line.p, k, line.n), _chain(line, k, args.trials, chance))
        for line in equations.figure_2()
        for target, k in zip(equations.FIGURE_TARGETS, line.k, strict=True)
    ]
    if args.svg is not None:
        svg = as_svg(panels(), "Figure 2: number of copies needed", "target p_t", "copies k")
        try:
            durable.write(args.svg, svg.encode(), mode=0o644)
        except OSError as error:
            raise CommandError(CANT_CREATE, f"{args.svg} can't be written: {error.strerror}.") from error
    if args.json:
        json.dump(document(cells, points, shipped()), sys.stdout, indent=2)
        print()
    else:
        print("\n".join(report(cells, points, shipped(), args.trials, args.seed)))
    return OK


def _all_down(p: float, k: int, trials: int, chance: Random) -> Measured:
    """How often all k nodes are down."""
    return Measured(trials - actions(p, k, 1, trials, chance).count, trials)


def _chain(line: equations.Line, k: int, trials: int, chance: Random) -> Measured:
    return actions(line.p, k, line.n, _actions(line.n, trials), chance)


def _actions(n: int, trials: int) -> int:
    return max(LEAST, round(trials * CHAINS[n]))


def panels() -> list[Panel]:
    """Figure 2 as charts: one for each n."""
    places = [f"{target:.5g}" for target in equations.FIGURE_TARGETS]
    lines = equations.figure_2()
    return [
        Panel(f"n = {n:,}", places, [Curve(f"p = {line.p}", line.k) for line in lines if line.n == n])
        for n in equations.FIGURE_N
    ]


def report(cells: list[Cell], points: list[Point], real: Measurements, trials: int, seed: int) -> list[str]:
    """The report, in lines of at most 80 columns."""
    k, joined = equations.TABLE_K, equations.TABLE_JOINED
    lines = [
        "Secure and Resilient Peer-to-Peer E-Mail, section 4. p: a node is up (its text",
        "says down, its equations mean up). I nodes, N joined since, k copies, n",
        "operations in a row.",
        "",
        equations.EQUATIONS,
        "",
        f"Table 2, probability of loss, k = {k}, N = {joined} (the paper doesn't give N).",
        f"paper: as printed. simulated: {trials:,} reads, seed {seed}, 95% interval.",
        "",
        "(1) all k nodes are down",
        f"({trials * RARE:,} reads)                         the simulation agrees with",
        "    p       equation  paper     follows  simulated           equation  paper",
    ]
    for cell in [cell for cell in cells if cell.nodes == equations.TABLE_NODES[-1]]:
        printed = equations.PRINTED_1[cell.p]
        lines.append(
            f"    {cell.p:<6}  {cell.down:8.1e}  {printed:8.1e}  {_follows(cell.down, printed):<7}"
            f"  {_share(cell.all_down):<18}  {agreement(cell.all_down, cell.down):<8}"
            f"  {agreement(cell.all_down, printed, ROUNDED)}"
        )
    lines += [
        "",
        "(2) and (3): nodes that came up, or joined, stand before all that have it, so",
        "that asking the k closest finds nothing and asking further would; simulated",
        "is either, held against the sum of both",
        "                                                  simulated           agrees",
        "p     I      (2)    paper  follows  (3)    paper  (2) or (3)          eq.  paper",
    ]
    for cell in cells:
        two, three = equations.PRINTED_2[cell.p, cell.nodes], equations.PRINTED_3[cell.nodes]
        lines.append(
            f"{cell.p:<4}  {cell.nodes:<5}  {cell.returned:5.0e}  {two:5.0e}  {_follows(cell.returned, two):<7}"
            f"  {cell.joined:5.0e}  {three:5.0e}  {_share(cell.found.hidden):<18}"
            f"  {agreement(cell.found.hidden, cell.returned + cell.joined):<4}"
            f" {agreement(cell.found.hidden, two + three, ROUNDED)}"
        )
    lines += ["", "Figure 2, number of copies needed (6), and whether n operations then succeed (5)", ""]
    for panel in panels():
        lines += [*as_text(panel, "k"), ""]
    lines += ["Copies for another nine at n = 2, by (6)", "    p     copies   paper   follows"]
    for p, (low, high) in equations.PRINTED_NINES.items():
        more = equations.nines(p, equations.FIGURE_N[0])
        follows = "yes" if low <= sum(more) / len(more) <= high else "no"
        lines.append(f"    {p:<4}  {', '.join(map(str, more)):<7}  {low} to {high}  {follows}")
    lines.append("")
    lines.append("    n      p     target   k   (5) promises  simulated             agrees")
    for point in points:
        lines.append(
            f"    {point.n:<5}  {point.p:<4}  {point.target:<7}  {point.k:<3} {point.promised:.7f}"
            f"     {_share(point.found):<20}  {agreement(point.found, point.promised)}"
        )
    away = [point for point in points if not point.found.agrees(point.promised)]
    lines += [
        "",
        "Actions simulated: " + "; ".join(f"{_actions(n, trials):,} for n = {n:,}" for n in equations.FIGURE_N) + ".",
        f"Of {len(points)} points the simulation disagrees with {len(away)}; by chance 1 in 20 would.",
        "",
        "What Table 2 prints for (1) at p = 0.9, and for (2), doesn't follow from the",
        "equations. And (2) itself is too small: it takes a node that comes up to stand",
        "nearer with 1/I, as if one place counted. Where nodes are often down, asking",
        "only the k closest loses nearly as much as (1). This program asks up to 4 k.",
        *_real(real),
        "",
        "Growth of a lookup, on paper: hops at most (log2 of the nodes), expected, and",
        "requests, for buckets of 20, 3 at a time, the 10 closest wanted",
        "    nodes        at most  expected  requests",
    ]
    for growth in map(lookup_growth.Growth, lookup_growth.SIZES):
        lines.append(f"    {growth.nodes:<11,}  {growth.bound:<7}  {growth.hops:<8.1f}  {growth.requests}")
    return lines


def _real(real: Measurements) -> list[str]:
    """The shipped measurements of real nodes."""
    lines = [
        "",
        f"Measured, not now: {real.nodes} nodes with this program's own code in a simulated",
        f"world ({real.date}, {real.command}). {real.operations} objects are",
        "stored, nodes die, nobody repairs, and both are fetched; success, 95% interval",
        "    p     k   equation (5)  measured              actions  agrees",
    ]
    for case in real.cases:
        promised = success(case.p, case.k, real.operations)
        lines.append(
            f"    {case.p:<4}  {case.k:<2}  {promised:<12.5f}  {_share(case.measured):<20}  {case.trials:<7}"
            f"  {agreement(case.measured, promised)}"
        )
    half, promised = real.half, success(real.half.p, real.half.k, real.operations)
    lines.append(
        f"    half of all killed at once, k = {half.k}: {half.measured.share:.5f} of {half.trials:,};"
        f" equation (5) {promised:.5f}"
    )
    return lines


def document(cells: list[Cell], points: list[Point], real: Measurements) -> dict[str, object]:
    """The document that `--json` prints (docs/commands.md)."""
    return {
        "table_2": [
            {
                "p": cell.p, "nodes": cell.nodes, "k": equations.TABLE_K, "joined": equations.TABLE_JOINED,
                "equation_1": cell.down, "paper_1": equations.PRINTED_1[cell.p], "simulated_1": cell.all_down.share,
                "equation_2": cell.returned, "paper_2": equations.PRINTED_2[cell.p, cell.nodes],
                "equation_3": cell.joined, "paper_3": equations.PRINTED_3[cell.nodes],
                "simulated_2_and_3": cell.found.hidden.share, "trials": cell.found.down.trials,
                "agrees_1": cell.all_down.agrees(cell.down),
                "agrees_2_and_3": cell.found.hidden.agrees(cell.returned + cell.joined),
            }
            for cell in cells
        ],
        "figure_2": [
            {
                "n": point.n, "p": point.p, "target": point.target, "k": point.k, "equation_5": point.promised,
                "simulated": point.found.share, "interval": point.found.interval, "trials": point.found.trials,
                "agrees": point.found.agrees(point.promised),
            }
            for point in points
        ],
        "measured": {
            "date": real.date, "command": real.command, "nodes": real.nodes,
            "cases": [_case(case, real.operations) for case in real.cases],
            "half_killed": _case(real.half, real.operations),
        },
        "growth": [
            {"nodes": each.nodes, "hops_at_most": each.bound, "hops": each.hops, "requests": each.requests}
            for each in map(lookup_growth.Growth, lookup_growth.SIZES)
        ],
    }  # fmt: skip


def _case(case: Case, n: int) -> dict[str, object]:
    promised = success(case.p, case.k, n)
    return {
        "p": case.p, "k": case.k, "n": n, "equation_5": promised, "measured": case.measured.share,
        "interval": case.measured.interval, "trials": case.trials, "agrees": case.measured.agrees(promised),
    }  # fmt: skip


def _share(found: Measured) -> str:
    low, high = found.interval
    return f"{low:.1e} to {high:.1e}" if found.share < 0.5 else f"{low:.5f} to {high:.5f}"


def _follows(equation: float, printed: float) -> str:
    return "yes" if equations.same_order(equation, printed) else "no"


def agreement(found: Measured, value: float, slack: float = 0.0) -> str:
    """Whether `value` (with relative error `slack`) agrees with a simulation; "rare" if there are too few trials."""
    low, high = found.interval
    if not found.count and value <= high:
        return "rare"
    return "yes" if low <= value * (1 + slack) and value * (1 - slack) <= high else "no"
