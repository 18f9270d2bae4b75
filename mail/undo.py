"""The history for undo: for each change, where its messages were, and which flags it added and removed.

Data only; mail/mailbox.py makes and undoes the changes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

DEPTH = 100
"""Changes that can be undone; older ones are forgotten."""


@dataclass(frozen=True, slots=True)
class ChangedMessage:
    """One message: where it was (`folder`), where the change put it, and which flags the change added and removed.

    Undo restores these flags only: flags that other programs set meanwhile stay.
    """

    row: int
    folder: str
    now_folder: str
    now_unique: str
    added: str = ""
    removed: str = ""
    mark_before: bool | None = None
    """How the user had marked it before: spam (True), not spam (False), or not at all."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change, in words ("deleted 3 messages"). `trained`: it marked its messages as spam or as not spam."""

    what: str
    steps: tuple[ChangedMessage, ...]
    trained: bool = False


class History:
    """The changes that can be undone, the last one first."""

    def __init__(self) -> None:
        self._changes: deque[Change] = deque(maxlen=DEPTH)

    def remember(self, change: Change) -> None:
        """Add a change; one without messages is ignored."""
        if change.steps:
            self._changes.append(change)

    def take(self) -> Change | None:
        """Remove and return the last change, if there is one."""
        return self._changes.pop() if self._changes else None

    def __len__(self) -> int:
        return len(self._changes)
