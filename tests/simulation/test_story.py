"""The simulated community, seed by seed: nothing is lost or silent, and nothing deleted comes back.

`make soak` plays it for longer and on a larger scale.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.soak import SMALL, small_folder
from tests.simulation.story import Story

SEEDS = 140
GROUP = 10


@pytest.mark.parametrize("first", range(0, SEEDS, GROUP))
def test_whatever_happens_every_message_arrives_once_and_nothing_deleted_comes_back(tmp_path: Path, first: int) -> None:
    deliveries = 0
    for seed in range(first, first + GROUP):
        with small_folder(tmp_path) as folder:
            outcome = Story(seed, folder, SMALL).play()
        assert outcome.broken == [], f"seed {seed}: python -m tests.simulation.soak --scale small --seed {seed}"
        deliveries += outcome.deliveries  # in a single story, all senders may be offline
    assert deliveries > GROUP


def test_the_same_seed_gives_the_same_trace(tmp_path: Path) -> None:
    traces = set()
    for _ in range(2):
        with small_folder(tmp_path) as folder:
            traces.add(Story(7, folder, SMALL).play().trace)
    assert len(traces) == 1
