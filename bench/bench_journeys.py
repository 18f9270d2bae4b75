"""What real processes have shown so far: the totals of bench/journeys.jsonl, where tests/real/journey/soak.py adds a
line for each story that it plays.

Two thousand messages take most of an hour of a core; here nothing is played.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from bench.figure import Figure

LINES = Path(__file__).parent / "journeys.jsonl"
LETTERS = 2000


class JourneyLine(msgspec.Struct, frozen=True):
    """What came of one story."""

    seed: int
    """0: the files of a disk."""
    commit: str
    letters: int
    copies: int
    """Messages accepted, one a recipient."""
    bytes: int
    """Of these copies."""
    counts: dict[str, int]
    """What happened meanwhile: its name, how often."""
    wrong: dict[str, int]
    """What was found, how often; 0 for what wasn't."""
    seconds: int


def lines() -> list[JourneyLine]:
    """Of all stories that were played."""
    try:
        return msgspec.json.Decoder(JourneyLine).decode_lines(LINES.read_bytes())
    except FileNotFoundError:
        return []


def measure() -> list[Figure]:
    """Totals over the stories of the commit that was played last."""
    played = lines()
    latest = [line for line in played if line.commit == played[-1].commit]
    name = "by real processes, with kills"
    kills = sum(number for line in latest for what, number in line.counts.items() if "killed" in what)
    totals = {what: sum(line.wrong[what] for line in latest) for what in ("lost", "doubled", "changed", "untrue")}
    return [
        Figure(f"{name}: letters", sum(line.letters for line in latest), "", LETTERS, "higher", {"kills": kills}),
        *(Figure(f"{name}: {what}", total, "", 0, "lower") for what, total in totals.items()),
    ]
