"""Decides whether this computer is online, and whose word counts while no other node answers. No I/O.

What this node alone says about objects that others may keep is no answer: that it has no copy means nothing, and its
own copy proves nothing. The exception is a network that consists of this node alone, as far as it can know.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

QUIET = 10.0
"""Seconds without any answer after which several nodes are pinged at once (one is pinged every five seconds)."""
BACK_EVERY = 10.0
"""Seconds between two calls of `back`, so that an unsteady connection doesn't restart everything each time."""


class Presence:
    """Whether other nodes answer. `own`: this node's id; `wall` and `monotonic` return seconds."""

    def __init__(self, own: bytes, wall: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._own, self._wall, self._monotonic = own, wall, monotonic
        self._heard: float | None = None
        self._began = monotonic()
        self._called = float("-inf")
        self.met = False
        """Whether another node of this network has ever answered, in this run or an earlier one."""
        self.online = True
        """Whether other nodes answer, as far as is known: true until some were asked and none did."""
        self.since: float | None = None
        """Since when (seconds since the epoch) no node has answered; None while online."""
        self.back: Callable[[], None] = lambda: None
        """Called when a node answers after none did, or for the first time in this run."""
        self.changed: Callable[[], None] = lambda: None
        """Called when `online` has changed."""

    def heard(self) -> None:
        """Another node has answered."""
        returned = not self.online
        news = returned or self._heard is None
        self._heard = self._monotonic()
        self.met = self.online = True
        self.since = None
        if returned:
            self.changed()
        if news and self._heard - self._called >= BACK_EVERY:
            self._called = self._heard
            self.back()

    def nobody(self) -> None:
        """Several nodes were pinged, or a whole lookup was made, and none answered."""
        if self.online:
            self.online = False
            self.since = self._wall() - self.silence
            self.changed()

    @property
    def silence(self) -> float:
        """Seconds since the last answer, or since the start if there was none."""
        return self._monotonic() - (self._began if self._heard is None else self._heard)

    @property
    def answered(self) -> bool:
        """Whether any node has answered in this run."""
        return self._heard is not None

    @property
    def doubtful(self) -> bool:
        """Whether to ping several nodes now, to learn whether any answers."""
        return self.online and self.silence >= QUIET

    def others(self, said: Collection[bytes], *, lone: bool) -> bool:
        """Whether the word of any of these nodes (ids) counts; this node's own does only in a `lone` network."""
        return any(identifier != self._own for identifier in said) or (lone and bool(said))

    def count(self, yes: Collection[bytes], *, lone: bool) -> int:
        """How many copies count when these nodes (ids) say that they have one: none if no other node does."""
        return len(yes) if self.others(yes, lone=lone) else 0
