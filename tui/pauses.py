"""How long the screen waits before it does things by itself. Tests hand in none at all, so that they never wait."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from textual.message_pump import MessagePump
from textual.timer import Timer


@dataclass(frozen=True, slots=True)
class Pauses:
    """All in seconds; 0: at once."""

    settle: float = 0.05
    """On a message before it is shown beside the list, so that scrolling doesn't read every message passed."""
    typing: float = 0.12
    """Without a key before what was typed is searched for."""
    together: float = 0.8
    """For which arrivals are gathered into one notice."""
    keep: float = 1.0
    """Without a key before a draft is kept: no more than this is lost even when the power goes."""
    keep_at_least: float = 5.0
    """After which a draft is kept though the typing goes on."""
    said: float = 5.0
    """For which the title says what was done."""
    silent: float = 8.0
    """Without news after which progress isn't shown any more."""
    watch: float = 3.0
    """Between looks at whether another program changed a folder (a few stat calls in a thread)."""


def after(node: MessagePump, seconds: float, call: Callable[[], object]) -> Timer | None:
    """Call it after so long; with 0 as soon as what is being done now is done."""
    if seconds > 0:
        return node.set_timer(seconds, call)
    node.call_later(call)
    return None
