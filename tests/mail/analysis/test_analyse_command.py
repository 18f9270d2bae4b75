"""`p2pmail analyse` as users and scripts run it."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mail.analysis.measured import Case, Measurements, decode, encode, shipped
from mail.analysis.simulation import Measured
from mail.availability.estimate import success
from mail.cli import analyse
from mail.cli.main import main

FEW = ["analyse", "--trials", "100"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too few long chains for a statement."""
    monkeypatch.setattr(analyse, "LEAST", 1)


def test_it_needs_no_profile_and_fits_a_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([*FEW, "--profile", str(tmp_path / "none")]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    for number in range(1, 7):
        assert f"({number}) " in said
    assert "Measured, not now" in said and shipped().date in said and shipped().command in said
    assert "10,000,000" in said
    assert not (tmp_path / "none").exists()


def test_json_is_one_document_with_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FEW, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document) == ["table_2", "figure_2", "measured", "growth"]
    assert len(document["table_2"]) == 12
    assert {(cell["equation_1"] > 9e-6, cell["paper_1"]) for cell in document["table_2"] if cell["p"] == 0.9} == {
        (True, 1e-8)
    }
    agrees = {cell["p"]: cell["agrees_2_and_3"] for cell in document["table_2"]}
    assert agrees[0.99] and not agrees[0.3]  # (2) is too small where nodes are often down
    assert document["growth"][-1]["nodes"] == 10_000_000
    assert document["measured"]["half_killed"]["trials"] == shipped().half.trials


def test_the_same_seed_gives_the_same_output(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = []
    for seed in ("1", "1", "2"):
        assert main([*FEW, "--json", "--seed", seed]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != outputs[2]


def test_figure_2_is_written_as_svg(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([*FEW, "--svg", str(tmp_path / "figure.svg")]) == 0
    assert ElementTree.parse(tmp_path / "figure.svg").getroot().tag.endswith("svg")
    assert main([*FEW, "--svg", str(tmp_path / "no" / "such" / "folder.svg")]) == 73
    assert "can't be written" in capsys.readouterr().err


@pytest.mark.parametrize("trials", ["99", "many", "100000000"])
def test_trials_that_say_nothing_or_never_end_are_refused(trials: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["analyse", "--trials", trials])
    assert ended.value.code == 64
    assert "trials" in capsys.readouterr().err


def test_a_million_reads_tell_equation_1_from_the_printed_value() -> None:
    """p = 0.9, k = 5: equation (1) gives 1e-5, Table 2 prints 1e-8."""
    assert analyse.agreement(Measured(10, 1_000_000), 1e-5) == "yes"
    assert analyse.agreement(Measured(10, 1_000_000), 1e-8, analyse.ROUNDED) == "no"
    assert analyse.agreement(Measured(0, 1_000_000), 1e-10) == "rare"
    assert analyse.agreement(Measured(0, 1_000_000), 0.1) == "no"


def test_what_is_shipped_was_measured_for_the_papers_cases() -> None:
    kept = shipped()
    assert {0.3, 0.5, 0.75, 0.9} <= {case.p for case in kept.cases}
    assert all(case.trials >= 500 for case in kept.cases)
    assert kept.half.p == 0.5 and kept.half.measured.share > success(0.5, kept.half.k) - 0.005


def test_measurements_come_back_from_their_file_as_they_were() -> None:
    kept = Measurements("2026-01-02", "make bench", 9, 2, [Case(0.3, 5, 7, 10)], Case(0.5, 10, 10, 10))
    assert decode(encode(kept).decode()) == kept
