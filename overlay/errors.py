"""The overlay's errors: one root, each with words that a user can read."""

from __future__ import annotations

from typing import NoReturn

from storage.errors import SOFTWARE, UNAVAILABLE, P2PMailError


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


class NotSupported(OverlayError):
    """Something that a library's class offers has no meaning on this overlay; the message says what to use instead."""

    exit_code = SOFTWARE


class Unsupported:
    """Replaces an inherited method or attribute that has no meaning here: using it raises NotSupported.

    `instead` completes the sentence "use ...".
    """

    def __init__(self, instead: str) -> None:
        self._instead = instead
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"{owner.__name__}.{name}"

    def __get__(self, instance: object, owner: type | None = None) -> Unsupported:
        """Raises NotSupported when asked of an instance; of the class, so that it can be inspected, this itself."""
        return self if instance is None else self()

    def __call__(self, *_args: object, **_options: object) -> NoReturn:
        """Raises NotSupported."""
        raise NotSupported(f"{self._name} isn't supported on this overlay; use {self._instead}.")
