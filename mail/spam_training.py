"""Trains the spam classifier with the user's marks, and takes a mark back when the user changes it.

Remembers each message's mark, so that no message counts twice. mail/checks/ does the learning.
"""

from __future__ import annotations

from pathlib import Path

from mail.checks.bayes import Classifier
from mail.checks.tokens import tokens
from mail.mime.message import read_message
from storage.user.state import UserState

Mark = bool | None
"""True: spam, False: not spam, None: not marked."""

_MARKS: dict[bytes | None, Mark] = {b"spam": True, b"ham": False}
_FACTS: dict[Mark, bytes] = {True: b"spam", False: b"ham", None: b""}


def train(state: UserState, path: Path, name: str, mark: Mark) -> Mark:
    """Learn the message at `path` as `mark`, and return its mark before; `name` identifies it for good.

    Raises OSError when the message can't be read, and sqlite3.Error; then nothing was learned.
    """
    fact = f"marked {name}"
    before = _MARKS.get(state.fact(fact))
    if before == mark:
        return before
    classifier, found = Classifier(state), tokens(read_message(path))
    if before is not None:
        classifier.unlearn(found, spam=before)
    if mark is not None:
        classifier.learn(found, spam=mark)
    state.keep_fact(fact, _FACTS[mark])
    return before
