"""The clock that tests hand in where the program would ask for the time."""

from __future__ import annotations


class Clock:
    """Seconds since the epoch; `now` is set by the test."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
