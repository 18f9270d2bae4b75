"""What can be undone: for each change, where its messages were and which flags it added and took away.

Only facts and their order live here; carrying them out is mail/mailbox.py's.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

DEPTH = 100
"""Changes that can be undone; the older ones stay as they are."""


@dataclass(frozen=True, slots=True)
class ChangedMessage:
    """One message: where it was (`folder`), where the change put it, and which flags the change added and removed.

    Taking it back concerns these flags alone: what other programs set meanwhile stays.
    """

    row: int
    folder: str
    now_folder: str
    now_unique: str
    added: str = ""
    removed: str = ""
    judged: bool | None = None
    """What the user had said of it before: spam, not spam, or nothing."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change, in words ("deleted 3 messages"). `taught`: its messages were judged to be spam or not."""

    what: str
    steps: tuple[ChangedMessage, ...]
    taught: bool = False


class History:
    """The changes that can be undone, the last one first."""

    def __init__(self) -> None:
        self._changes: deque[Change] = deque(maxlen=DEPTH)

    def remember(self, change: Change) -> None:
        """Note a change that was made; one that changed nothing is not worth undoing."""
        if change.steps:
            self._changes.append(change)

    def take(self) -> Change | None:
        """The last change, which is forgotten with this."""
        return self._changes.pop() if self._changes else None

    def __len__(self) -> int:
        return len(self._changes)
