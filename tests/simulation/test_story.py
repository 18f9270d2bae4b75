"""The simulated community, seed by seed: nothing lost, nothing silent, nothing risen again.

`make soak` plays it at length, and larger.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.soak import SMALL, small_folder
from tests.simulation.story import Story

SEEDS = 140
GROUP = 10


@pytest.mark.parametrize("first", range(0, SEEDS, GROUP))
def test_whatever_happens_every_letter_arrives_once_and_nothing_rises_again(tmp_path: Path, first: int) -> None:
    copies = 0
    for seed in range(first, first + GROUP):
        with small_folder(tmp_path) as folder:
            outcome = Story(seed, folder, SMALL).play()
        assert outcome.broken == [], f"seed {seed}: python -m tests.simulation.soak --scale small --seed {seed}"
        copies += outcome.copies  # in one story all who would have written may be away
    assert copies > GROUP


def test_the_same_seed_gives_the_same_trace(tmp_path: Path) -> None:
    traces = set()
    for _ in range(2):
        with small_folder(tmp_path) as folder:
            traces.add(Story(7, folder, SMALL).play().trace)
    assert len(traces) == 1
