"""A fifth of 200 simulated nodes is hostile and does all that tests/simulation/hostile_node.py can think of, at random.

The nodes are real, their network is simulated. Counted are lookups among whose k nodes an honest one is, inbox reads
that bring every notification, and fetches that bring the object.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.figure import Figure
from tests.simulation.hostile_network import attack_network

NODES = 200
SHARE = 0.2
SEEDS = (1, 2)
TRIALS = 1500
"""For each seed."""


def measure() -> list[Figure]:
    """Shares of all trials."""
    fared = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory(prefix="p2pmail-bench-") as folder:
            fared.append(attack_network(seed, Path(folder), nodes=NODES, share=SHARE, trials=TRIALS))
    name = f"simulated: {NODES} nodes, {SHARE:.0%} hostile"
    trials = sum(one.lookups for one in fared)
    return [
        Figure(
            f"{name}: lookups that end at an honest replica", sum(one.honest for one in fared) / trials, "", 0.995,
            "higher", {"lookups": trials},
        ),
        Figure(
            f"{name}: inbox reads that return everything", sum(one.complete for one in fared) / trials, "", 0.999,
            "higher", {"reads": trials},
        ),
        Figure(f"{name}: fetches that bring the object", sum(one.right for one in fared) / trials, "", 0.995, "higher"),
    ]  # fmt: skip
