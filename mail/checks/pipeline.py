"""Runs the checks on a message after it is opened and before it is shown (paper, section 3.4).

Defines verdicts, their order and what follows from them. Each check is a module beside this one; a new kind of check
implements Check. Nothing is filed here.
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
    """The check found something harmful; `name` is what the check calls it."""

    name: str


@dataclass(frozen=True, slots=True)
class Spam:
    """The check takes the message for spam: `score` from 0 to 1, `why` in words for the user."""

    score: float
    why: str


@dataclass(frozen=True, slots=True)
class Unchecked:
    """The check could not decide; `reason` in words for the user."""

    reason: str


Verdict = Clean | Infected | Spam | Unchecked


@dataclass(frozen=True, slots=True)
class IncomingMessage:
    """A message to be checked: its file, and the address whose signature was verified ("" when none was)."""

    path: Path
    sender: str = ""


class Check(Protocol):
    """One check. If it raises, the verdict is Unchecked."""

    @property
    def name(self) -> str:
        """The check's name for the user."""
        ...

    def check(self, incoming: IncomingMessage) -> Verdict:
        """Check the message; called from worker threads, several at once."""
        ...


class Destination(StrEnum):
    """Where a message is filed after its checks."""

    INBOX = "Inbox"
    JUNK = "Junk"
    QUARANTINE = "Quarantine"


@dataclass(frozen=True, slots=True)
class Report:
    """The result of all checks: the verdict that counts, the check that gave it, and all verdicts in order."""

    verdict: Verdict
    by: str
    findings: tuple[tuple[str, Verdict], ...]

    @property
    def place(self) -> Destination:
        """Where the message is filed: a harmful or unchecked one goes to Quarantine."""
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
    """Runs checks in order, viruses first."""

    def __init__(self, checks: Sequence[Check]) -> None:
        if not checks:
            raise ValueError("A pipeline without checks would call everything clean.")
        self._checks = tuple(checks)

    @property
    def names(self) -> tuple[str, ...]:
        """The checks' names, in order."""
        return tuple(check.name for check in self._checks)

    def run(self, incoming: IncomingMessage) -> Report:
        """Run every check on the message, until one finds an infection. Never raises."""
        findings: list[tuple[str, Verdict]] = []
        for check in self._checks:
            try:
                verdict = check.check(incoming)
            except Exception as error:  # a check that fails must hold the message back, not let it through
                verdict = Unchecked(f"the check failed ({type(error).__name__})")
            findings.append((check.name, verdict))
            if isinstance(verdict, Infected):
                break
        by, verdict = max(findings, key=lambda finding: _WEIGHT[type(finding[1])])
        return Report(verdict, by, tuple(findings))


_WEIGHT: dict[type, int] = {Clean: 0, Spam: 1, Unchecked: 2, Infected: 3}
"""The heaviest verdict counts; of equal ones the first."""
