"""Noticing that this computer has slept, so that it finds its way back at once. Decisions only.

While it sleeps the monotonic clock stands still on Linux, and the wall clock goes on; elsewhere both go on, and what
was to be done every few seconds is late.
"""

from __future__ import annotations

from collections.abc import Callable

SLEPT = 60.0
"""Seconds that are missing, from which on it has slept; less is a busy machine."""


class SleepDetector:
    """`wall` and `monotonic` give seconds; `slept` is to be asked every `every` seconds."""

    def __init__(self, wall: Callable[[], float], monotonic: Callable[[], float], every: float) -> None:
        self._wall, self._monotonic, self._every = wall, monotonic, every
        self._last = wall(), monotonic()

    def slept(self) -> bool:
        """Whether it has slept since it was asked last. A clock that is set forward looks the same, harmlessly."""
        wall, monotonic = self._wall(), self._monotonic()
        before, self._last = self._last, (wall, monotonic)
        passed = monotonic - before[1]
        return wall - before[0] - passed > SLEPT or passed - 2 * self._every > SLEPT
