"""Figures are judged in the right direction, and one bench that can't measure doesn't hide the others."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bench import run
from bench.figure import Figure, quantile


@pytest.mark.parametrize(
    ("value", "bar", "better", "reached"),
    [(1.0, 2.0, "lower", True), (3.0, 2.0, "lower", False), (3.0, 2.0, "higher", True), (1.0, 2.0, "higher", False)],
)
def test_a_bar_is_reached_from_the_better_side(value: float, bar: float, better: str, reached: bool) -> None:
    figure = Figure("lookup", value, "s", bar, "lower" if better == "lower" else "higher")
    assert figure.reached is reached


def test_a_figure_without_a_bar_is_only_watched() -> None:
    assert Figure("lookup", 1.0, "s", None, "lower").reached is None


def test_a_quantile_is_one_of_the_values() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert (quantile(values, 0.0), quantile(values, 0.5), quantile(values, 1.0)) == (1.0, 3.0, 5.0)


def test_a_bench_that_fails_leaves_the_others_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = {"good": [Figure("calls", 9000.0, "/s", 8000.0, "higher", {"rpcudp": 4660.0})], "broken": None}
    monkeypatch.setattr(run, "FOLDER", tmp_path / "bench")
    monkeypatch.setattr(run, "LATEST", tmp_path / "bench" / "latest.json")
    monkeypatch.setattr(run, "measure_apart", measured.__getitem__)
    (tmp_path / "bench").mkdir()

    assert run.run(["broken", "good"]) == 1

    written = msgspec.json.decode(run.LATEST.read_bytes())
    assert [set(figure) for figure in written] == [{"name", "value", "unit", "bar", "better", "peer", "machine"}]
    assert written[0]["machine"] == run.describe_machine()
    printed = capsys.readouterr()
    assert "reached" in printed.out and "rpcudp 4,660" in printed.out
    assert "bench_broken could not measure" in printed.err
