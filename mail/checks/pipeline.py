"""The checks that a message passes after it is opened and before anything of it is shown (paper, section 3.4).

What lives here is the order, the verdicts and what follows of them. The checks are beside it, one a file; a new kind
(archives, confirmation by others) is one more Check. Nothing is filed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Clean:
    """The check found nothing."""


@dataclass(frozen=True, slots=True)
class Infected:
    """The check found something harmful; `name` is what its finder calls it."""

    name: str


@dataclass(frozen=True, slots=True)
class Spam:
    """The check takes it for spam: `score` from 0 to 1, `why` for a reader's eyes."""

    score: float
    why: str


@dataclass(frozen=True, slots=True)
class Unchecked:
    """The check could not come to a verdict; `reason` for a reader's eyes."""

    reason: str


Verdict = Clean | Infected | Spam | Unchecked


@dataclass(frozen=True, slots=True)
class IncomingMessage:
    """A message to be checked: its file, and the address whose signature was verified ("" when none was)."""

    path: Path
    sender: str = ""


class Check(Protocol):
    """One look at a message. It may raise: that counts as Unchecked."""

    @property
    def name(self) -> str:
        """What a reader is told about who looked."""
        ...

    def check(self, letter: IncomingMessage) -> Verdict:
        """Look at `letter`; called from worker threads, several at once."""
        ...


class Destination(StrEnum):
    """Where a message is filed after its checks."""

    INBOX = "Inbox"
    JUNK = "Junk"
    QUARANTINE = "Quarantine"


@dataclass(frozen=True, slots=True)
class Report:
    """What the checks said: the verdict that counts, whose it is, and all of them in order."""

    verdict: Verdict
    by: str
    findings: tuple[tuple[str, Verdict], ...]

    @property
    def place(self) -> Destination:
        """Where the message belongs: what is harmful or could not be checked is never among what is read."""
        match self.verdict:
            case Infected() | Unchecked():
                return Destination.QUARANTINE
            case Spam():
                return Destination.JUNK
            case Clean():
                return Destination.INBOX

    def __str__(self) -> str:
        match self.verdict:
            case Infected(name):
                return f"infected: {name} (found by {self.by})"
            case Unchecked(reason):
                return f"could not be checked: {reason} ({self.by})"
            case Spam(score, why):
                return f"spam: {why} ({self.by}, {score:.0%})"
            case Clean():
                return "clean"


class Pipeline:
    """Checks in order, virus first."""

    def __init__(self, checks: Sequence[Check]) -> None:
        if not checks:
            raise ValueError("A pipeline without checks would call everything clean.")
        self._checks = tuple(checks)

    @property
    def names(self) -> tuple[str, ...]:
        """Who looks, in order."""
        return tuple(check.name for check in self._checks)

    def run(self, letter: IncomingMessage) -> Report:
        """Pass `letter` through every check (after an infection no other matters). Never raises."""
        findings: list[tuple[str, Verdict]] = []
        for check in self._checks:
            try:
                verdict = check.check(letter)
            except Exception as error:  # a check that fails must hold the message back, never let it through
                verdict = Unchecked(f"the check failed ({type(error).__name__})")
            findings.append((check.name, verdict))
            if isinstance(verdict, Infected):
                break
        by, verdict = max(findings, key=lambda finding: _WEIGHT[type(finding[1])])
        return Report(verdict, by, tuple(findings))


_WEIGHT: dict[type, int] = {Clean: 0, Spam: 1, Unchecked: 2, Infected: 3}
"""Of several verdicts the heaviest counts; of equal ones the first."""
