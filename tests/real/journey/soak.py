"""`make soak`: the journey at length; a story that fails keeps its folder and says how to play it again.

    python -m tests.real.journey.soak [--letters N] [--seed SEED] [--users N] [--nodes N] [--largest BYTES]
    python -m tests.real.journey.soak --files DIR...

Each story adds a line to bench/journeys.jsonl; bench/bench_journeys.py adds them up. With --files, what lies in these
folders is sent instead, as text and as attachments (files.py).
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import msgspec

from bench import bench_journeys
from tests.real.journey.claims import Finding
from tests.real.journey.files import send_files
from tests.real.journey.story import JourneyOutcome, JourneyScale, JourneyStory

USUAL = JourneyScale(messages=200)


def main(arguments: list[str] | None = None) -> int:
    """Play; 1 when something was lost, doubled, changed, untrue or failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.real.journey.soak", description=__doc__.partition(";")[0])
    parser.add_argument("--letters", type=int, default=USUAL.messages)
    parser.add_argument("--seed", type=int, help="without it the first that hasn't been played")
    parser.add_argument("--users", type=int, default=USUAL.users)
    parser.add_argument("--nodes", type=int, default=USUAL.nodes)
    parser.add_argument("--largest", type=int, default=USUAL.largest, help="bytes of a body")
    parser.add_argument("--files", type=Path, nargs="+", metavar="DIR", help="send what lies there")
    options = parser.parse_args(arguments)
    scale = JourneyScale(options.letters, users=options.users, nodes=options.nodes, largest=options.largest)
    seed = options.seed or 1 + max((line.seed for line in bench_journeys.lines()), default=0)
    folder = Path(tempfile.mkdtemp(prefix="journey-"))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # in good order: nothing goes on or stays mounted
    net = folder / "net"
    outcome = send_files(net, options.files) if options.files else JourneyStory(seed, net, scale).play()
    print("\n".join(outcome.lines()), flush=True)
    keep(outcome)
    if outcome.wrong and options.files:
        print(f"everything lies in {folder}")
    elif outcome.wrong:
        command = f"python -m tests.real.journey.soak --letters {options.letters} --seed {seed}"
        more = f" --users {options.users} --nodes {options.nodes} --largest {options.largest}"
        print(f"to play it again: {command}{more}\neverything lies in {folder}")
    else:
        shutil.rmtree(folder)
    return bool(outcome.wrong)


def keep(outcome: JourneyOutcome) -> None:
    """Add the line about it."""
    found = Counter(wrong.found for wrong in outcome.wrong)
    line = bench_journeys.JourneyLine(
        seed=outcome.seed,
        commit=_commit(),
        letters=outcome.messages,
        copies=outcome.copies,
        bytes=outcome.bytes,
        counts=dict(sorted(outcome.counts.items())),
        wrong={kind.value: found[kind] for kind in Finding},
        seconds=round(outcome.seconds),
    )
    with bench_journeys.LINES.open("ab") as file:
        file.write(msgspec.json.encode(line) + b"\n")


def _commit() -> str:
    """What was played; "-dirty" where more than the lines differs from it."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        folder = bench_journeys.LINES.parent
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder).stdout.strip()

    changed = git("diff", "--name-only", "HEAD", "--", ":/", f":!{bench_journeys.LINES.name}")
    return git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")


if __name__ == "__main__":
    sys.exit(main())
