"""The overlay's errors; the message of each can be shown to a user."""

from __future__ import annotations

from typing import NoReturn

from storage.errors import SOFTWARE, UNAVAILABLE, P2PMailError


class OverlayError(P2PMailError):
    """An error of the overlay; the message says what happened, what was kept, and what to do."""

    exit_code = UNAVAILABLE


class Unreachable(OverlayError):
    """No node answered: the network is down, or every known node is."""


class Offline(Unreachable):
    """No other node answers at all: this computer is offline, or all others are. It says nothing about any object."""


class NotFound(OverlayError):
    """Nodes answered, but none of them has the object."""


class Refused(OverlayError):
    """A node refused a request, for the reason in `code`. `bits`: of the stamp that would make the node accept it."""

    def __init__(self, code: int, reason: str, bits: int = 0) -> None:
        super().__init__(reason)
        self.code = code
        self.bits = bits


class NoAnswer(OverlayError):
    """One node didn't answer in time."""


class Malformed(OverlayError):
    """Bytes from the network that aren't what they claim to be; the code that catches this drops them."""


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
