"""How far a sent message has come, in the words of the list's column. The facts are the outbox's. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

ORDER = ("failed", "expired", "queued", "stored", "collected")
"""What is worth saying first: trouble, then what waits, then what is done."""

SIGNS = {"failed": "✗", "expired": "✗", "queued": "…", "stored": "↑", "collected": "✓"}
"""So that the state isn't told by colour alone, nor only by a word that may be cut."""


def summary(states: Sequence[str]) -> str:
    """One word for all recipients, with a count where they differ: "collected 1/2"."""
    if not states:
        return ""
    counts = Counter(states)
    worst = next((state for state in ORDER if counts[state]), states[0])
    if len(counts) == 1:
        return worst
    if worst in ("queued", "stored") and counts["collected"]:
        return f"collected {counts['collected']}/{len(states)}"
    return f"{worst} {counts[worst]}/{len(states)}"
