"""The overlay's errors: one root, each with words that a user can read."""

from __future__ import annotations

from storage.errors import UNAVAILABLE, P2PMailError


class OverlayError(P2PMailError):
    """Something in the overlay didn't work; the message says what, what was kept, and what to do."""

    exit_code = UNAVAILABLE


class Unreachable(OverlayError):
    """No node answered: the network is down, or every node that we know of is."""


class Offline(Unreachable):
    """No other node answers at all: this computer is offline, or every other one is. Nothing is learnt from that."""


class NotFound(OverlayError):
    """Nodes answered, and none of them had the object that was asked for."""


class Refused(OverlayError):
    """A node said no, and why. `bits`: of the stamp that would change that answer."""

    def __init__(self, code: int, reason: str, bits: int = 0) -> None:
        super().__init__(reason)
        self.code = code
        self.bits = bits


class NoAnswer(OverlayError):
    """One node didn't answer in time."""


class Malformed(OverlayError):
    """Bytes from the network that aren't what they claim to be; whoever catches it drops them."""
