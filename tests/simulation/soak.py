"""`make soak`: plays the simulated community over many seeds, and prints how to play a failed seed again.

    python -m tests.simulation.soak [--seconds N] [--workers N] [--first SEED] [--seed SEED] [--scale busy|large|small]

With --seed that one alone. What came of each busy story is a line of bench/soak_workload.jsonl, and another run plays
the seeds that have none yet. bench/bench_soak.py adds them up. A delivery is one message to one recipient.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from itertools import count
from multiprocessing import get_context
from pathlib import Path

import msgspec

from bench import bench_soak
from bench.run import table
from tests.simulation.story import Scale, Story, StoryOutcome

SMALL = Scale(
    nodes=6,
    users=3,
    seconds=150.0,
    messages=4,
    churn=24.0,
    k=3,
    partitions=1,
    joins=1,
    largest=300_000,
    happenings=1.0,
    settling=240.0,
    rounds=4,
)
"""The suite plays this 140 times: some minutes of a few nodes, most of which crash or stop in that time."""
LARGE = Scale(
    nodes=200,
    users=24,
    seconds=1200.0,
    messages=1500,
    churn=0.3,
    k=4,
    partitions=2,
    joins=7,
    settling=200.0,
    rounds=3,
)
"""200 nodes for twenty minutes; 30% leave in an hour, 10% of datagrams are lost. Takes 40 minutes of a core."""
BUSY = Scale(
    nodes=12,
    users=24,
    seconds=300.0,
    messages=300,
    churn=1.5,
    loss=0.05,
    k=3,
    partitions=1,
    joins=2,
    happenings=0.3,
    settling=200.0,
    rounds=3,
)
"""Many messages on few nodes: lookups ask a few nodes instead of dozens, so most of the time is spent on mail. Some of
the twelve nodes are full, slow, or have wrong clocks; nodes are cut off, crash and join."""
SCALES = {"small": SMALL, "busy": BUSY, "large": LARGE}
FIRST = 2000
"""Lower seeds were played before the workload existed (bench/soak.jsonl)."""
MEMORY = Path("/dev/shm")


@contextmanager
def small_folder(otherwise: Path | None = None) -> Iterator[Path]:
    """A folder for one story, in memory where the system has such a place."""
    place = MEMORY if os.access(MEMORY, os.W_OK) else otherwise
    with tempfile.TemporaryDirectory(prefix="p2pmail-sim-", dir=place) as folder:
        yield Path(folder) / "world"


def play(seed: int, scale: Scale) -> StoryOutcome:
    """Play one story."""
    gc.set_threshold(100_000, 50, 100)  # a world is large and long-lived: scanning it takes a tenth of the time
    with small_folder() as folder:
        return Story(seed, folder, scale).play()


def main(arguments: list[str] | None = None) -> int:
    """Play until the time is over; 1 when an invariant was broken."""
    parser = argparse.ArgumentParser(prog="make soak", description="The simulated community, at length.")
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--first", type=int, default=FIRST, help="the first seed; those played before are passed over")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--scale", choices=SCALES, default="busy")
    options = parser.parse_args(arguments)
    scale = SCALES[options.scale]
    if options.seed is not None:
        outcome = play(options.seed, scale)
        counts = f"{outcome.messages} messages, {outcome.deliveries} deliveries"
        print(f"seed {options.seed}: {counts}, trace {outcome.trace[:16]}")
        print("\n".join(outcome.broken) or "nothing broken")
        return bool(outcome.broken)
    kept = scale is BUSY
    played = {line.seed for line in bench_soak.lines(bench_soak.LINES)} if kept else set[int]()
    seeds = (seed for seed in count(options.first) if seed not in played)
    return _at_length(options.seconds, options.workers, seeds, options.scale, kept=kept)


def _play(seed: int, scale: Scale) -> tuple[StoryOutcome, str]:
    """Play one story, in a process of its own; the outcome, and the version of the code that played it."""
    git = ("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty")
    version = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return play(seed, scale), version


def _at_length(seconds: float, workers: int, seeds: Iterator[int], name: str, *, kept: bool) -> int:
    end = time.monotonic() + seconds
    broken: list[str] = []
    running: dict[Future[tuple[StoryOutcome, str]], int] = {}
    with ProcessPoolExecutor(workers, max_tasks_per_child=1, mp_context=get_context("spawn")) as pool:
        while running or time.monotonic() < end:
            while len(running) < workers and time.monotonic() < end:
                seed = next(seeds)
                running[pool.submit(_play, seed, SCALES[name])] = seed
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                seed, (outcome, version) = running.pop(done), done.result()
                broken += outcome.broken
                words = ", ".join(outcome.broken) or "all well"
                print(f"seed {seed}: {outcome.deliveries} deliveries, {words}", flush=True)
                if outcome.broken:
                    print(
                        f"  to see it again: python -m tests.simulation.soak --scale {name} --seed {seed}", flush=True
                    )
                if kept:
                    _keep(seed, outcome, version)
    if kept:
        print(table(bench_soak.measure()))
    return bool(broken)


def _keep(seed: int, outcome: StoryOutcome, version: str) -> None:
    line = bench_soak.SoakLine(
        seed, outcome.messages, outcome.deliveries, outcome.datagrams, outcome.broken, outcome.written, version
    )
    with bench_soak.LINES.open("ab") as file:
        file.write(msgspec.json.encode(line) + b"\n")


if __name__ == "__main__":
    sys.exit(main())
