"""How long the screen waits before it acts by itself. Tests set every pause to 0, so that they never wait."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from textual.message_pump import MessagePump
from textual.timer import Timer


@dataclass(frozen=True, slots=True)
class Pauses:
    """All in seconds; 0: at once."""

    settle: float = 0.05
    """The cursor rests on a message before it is shown beside the list, so that scrolling doesn't open each one."""
    typing: float = 0.12
    """Without a key before the search runs."""
    together: float = 0.8
    """Arrivals within this time share one notification."""
    keep: float = 1.0
    """Without a key before a draft is saved."""
    keep_at_least: float = 5.0
    """From the first unsaved change to the save, if the user types without a pause. A power cut loses no more."""
    said: float = 5.0
    """The title shows what was done."""
    silent: float = 8.0
    """Without news before progress is no longer shown."""
    watch: float = 3.0
    """Between looks at whether another program changed a folder (a few stat calls in a thread)."""


def after(node: MessagePump, seconds: float, call: Callable[[], object]) -> Timer | None:
    """Call `call` after `seconds`; with 0, once the current message is handled."""
    if seconds > 0:
        return node.set_timer(seconds, call)
    node.call_later(call)
    return None
