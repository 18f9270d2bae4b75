"""Detects that this computer has slept, so that the node can return to the overlay at once. No I/O.

On Linux the monotonic clock stands still during sleep while the wall clock goes on. Elsewhere both go on, and what was
due every few seconds is late.
"""

from __future__ import annotations

from collections.abc import Callable

SLEPT = 60.0
"""Missing seconds that count as sleep; fewer are a busy machine."""


class SleepDetector:
    """`wall` and `monotonic` return seconds; `slept` must be called about every `every` seconds."""

    def __init__(self, wall: Callable[[], float], monotonic: Callable[[], float], every: float) -> None:
        self._wall, self._monotonic, self._every = wall, monotonic, every
        self._last = wall(), monotonic()

    def slept(self) -> bool:
        """Whether the computer has slept since the last call. A clock set forward counts as sleep, harmlessly."""
        wall, monotonic = self._wall(), self._monotonic()
        before, self._last = self._last, (wall, monotonic)
        passed = monotonic - before[1]
        return wall - before[0] - passed > SLEPT or passed - 2 * self._every > SLEPT
