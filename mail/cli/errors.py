"""The exit code and the message of an error."""

from __future__ import annotations

from storage.errors import (
    CANT_CREATE,
    CONFIGURATION,
    DATA,
    OK,
    PERMISSION,
    SOFTWARE,
    TEMPORARY,
    UNAVAILABLE,
    USAGE,
    P2PMailError,
)

__all__ = [
    "CANT_CREATE",
    "CONFIGURATION",
    "DATA",
    "OK",
    "PERMISSION",
    "SOFTWARE",
    "TEMPORARY",
    "UNAVAILABLE",
    "USAGE",
    "CommandError",
    "exit_code",
    "words",
]


class CommandError(P2PMailError):
    """A command can't continue; `code` is its exit code."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.exit_code = code


def exit_code(error: Exception) -> int | None:
    """The exit code of an error that a user can read; None for a bug in this program."""
    import sqlite3

    if isinstance(error, P2PMailError):
        return error.exit_code
    return TEMPORARY if isinstance(error, sqlite3.Error | OSError) else None


def words(error: Exception) -> str:
    """The message for the user: what happened, then advice if there is any."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    advice = f"\n{error.advice}" if isinstance(error, P2PMailError) and error.advice else ""
    return (str(error) or type(error).__name__) + advice
