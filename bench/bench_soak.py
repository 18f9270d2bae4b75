"""What `make soak` has shown so far: the totals of the files where it adds a line for each seed that it plays.

bench/soak_workload.jsonl is of messages of the workload (tests/workload). bench/soak.jsonl is of those played before
there was one: their messages were small and alike, and they missed a fault that lost one message in ten. Nothing is
played here: that takes hours of a core.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from bench.figure import Figure

LINES = Path(__file__).parent / "soak_workload.jsonl"
BEFORE = Path(__file__).parent / "soak.jsonl"
MESSAGES = 200_000
MESSAGES_BEFORE = 1_000_000


class SoakLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of one story. `letters` as they were written, `messages` as they were to arrive: one a recipient."""

    seed: int
    letters: int
    messages: int
    datagrams: int
    broken: list[str]
    """In words, each promise that wasn't kept."""
    written: int = 0
    """Bytes of all messages' bodies."""
    commit: str = ""
    """The version that played it."""


def lines(path: Path) -> list[SoakLine]:
    """Of all stories that were ever played."""
    try:
        return msgspec.json.Decoder(SoakLine).decode_lines(path.read_bytes())
    except FileNotFoundError:
        return []


def measure() -> list[Figure]:
    """Totals of both."""
    return [*_totals("workload", LINES, MESSAGES), *_totals("small letters, before", BEFORE, MESSAGES_BEFORE)]


def _totals(what: str, path: Path, wanted: int) -> list[Figure]:
    """Each seed's once: the last line about it."""
    latest = {line.seed: line for line in lines(path)}.values()
    broken = [words for line in latest for words in line.broken]
    lost = sum(" is lost" in words for words in broken)
    risen = sum("came back" in words or "still there" in words for words in broken)
    untrue = sum(words.startswith("untrue") for words in broken)
    name = f"simulated at length, {what}, {len(latest)} seeds"
    return [
        Figure(f"{name}: messages", sum(line.messages for line in latest), "", wanted, "higher"),
        Figure(f"{name}: lost", lost, "", 0, "lower"),
        Figure(f"{name}: resurrected", risen, "", 0, "lower"),
        Figure(f"{name}: untrue states", untrue, "", 0, "lower"),
        Figure(f"{name}: silent, or another promise broken", len(broken) - lost - risen - untrue, "", 0, "lower"),
    ]
