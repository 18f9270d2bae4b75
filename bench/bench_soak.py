"""What `make soak` has shown so far: the totals of bench/soak.jsonl, where it adds a line for each seed that it plays.

A million messages take days of a core; here nothing is played.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from bench.figure import Figure

LINES = Path(__file__).parent / "soak.jsonl"
MESSAGES = 1_000_000


class Line(msgspec.Struct, frozen=True):
    """What came of one story. `letters` as they were written, `messages` as they were to arrive: one a recipient."""

    seed: int
    letters: int
    messages: int
    datagrams: int
    broken: list[str]
    """In words, each promise that wasn't kept."""


def lines() -> list[Line]:
    """Of all stories that were ever played."""
    try:
        return msgspec.json.Decoder(Line).decode_lines(LINES.read_bytes())
    except FileNotFoundError:
        return []


def measure() -> list[Figure]:
    """Totals, each seed's once: the last line about it."""
    latest = {line.seed: line for line in lines()}.values()
    broken = [words for line in latest for words in line.broken]
    lost = sum("is lost" in words for words in broken)
    risen = sum("came back" in words or "still there" in words for words in broken)
    name = f"simulated at length, {len(latest)} seeds"
    return [
        Figure(f"{name}: messages", sum(line.messages for line in latest), "", MESSAGES, "higher"),
        Figure(f"{name}: lost", lost, "", 0, "lower"),
        Figure(f"{name}: resurrected", risen, "", 0, "lower"),
        Figure(f"{name}: silent, or another promise broken", len(broken) - lost - risen, "", 0, "lower"),
    ]
