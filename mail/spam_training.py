"""What the user said of a message, spam or not, told to the classifier once, and taken back when she thinks again.

Remembers each message's mark, so that none counts twice. What is learned of a message is mail/checks/'s.
"""

from __future__ import annotations

from pathlib import Path

from mail.checks.bayes import Classifier
from mail.checks.tokens import tokens
from mail.mime.message import read_message
from storage.user.state import UserState

Mark = bool | None
"""True: spam, False: not spam, None: nothing was said."""

_MARKS: dict[bytes | None, Mark] = {b"spam": True, b"ham": False}
_FACTS: dict[Mark, bytes] = {True: b"spam", False: b"ham", None: b""}


def teach(state: UserState, path: Path, name: str, mark: Mark) -> Mark:
    """Learn the message at `path` as `mark`; `name` tells it from others for good. Returns what was said before.

    Raises OSError when the message can't be read, sqlite3.Error; nothing was learned then.
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
