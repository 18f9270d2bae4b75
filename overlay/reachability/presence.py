"""Whether any other node answers this one, and whose word counts while none does. Decisions only.

What only this node says of things that others may keep is no answer: that it lacks them means nothing, and its own
copy proves nothing. The exception is a network that is this node alone, as far as it can know.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

QUIET = 10.0
"""Seconds without any answer after which several nodes are asked at once: one is pinged every five."""
BACK_EVERY = 10.0
"""Seconds between two calls of `back`: nodes that answer now and then don't set everything going each time."""


class Presence:
    """What is known of the others. `own`: this node's id; `wall` and `monotonic` give seconds."""

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
        """Since when (epoch seconds) nobody has answered; None while somebody does."""
        self.back: Callable[[], None] = lambda: None
        """Called when somebody answers after nobody did, or for the first time in this run."""
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
        """Several nodes were asked, or a whole lookup was made, and nobody answered."""
        if self.online:
            self.online = False
            self.since = self._wall() - self.silence
            self.changed()

    @property
    def silence(self) -> float:
        """Seconds since anybody answered, or since the beginning."""
        return self._monotonic() - (self._began if self._heard is None else self._heard)

    @property
    def answered(self) -> bool:
        """Whether anybody has answered in this run."""
        return self._heard is not None

    @property
    def doubtful(self) -> bool:
        """Whether to ask several nodes now, so that it is known whether anybody answers."""
        return self.online and self.silence >= QUIET

    def others(self, said: Collection[bytes], *, lone: bool) -> bool:
        """Whether anybody's word counts among nodes that `said` something (ids); in a `lone` network its own does."""
        return any(identifier != self._own for identifier in said) or (lone and bool(said))

    def count(self, yes: Collection[bytes], *, lone: bool) -> int:
        """How many copies there are when these nodes (ids) say that they have one: none when nobody else says so."""
        return len(yes) if self.others(yes, lone=lone) else 0
