"""The order of the checks, and where a message is filed by their verdicts (mail/checks/pipeline.py, standard.py)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mail.checks.clamd import ClamdAddressError
from mail.checks.pipeline import (
    Check,
    Clean,
    Destination,
    IncomingMessage,
    Infected,
    Pipeline,
    Spam,
    Unchecked,
    Verdict,
)
from mail.checks.spam import GTUBE
from mail.checks.standard import standard_pipeline
from tests.mail.sample_messages import EICAR, with_attachment

MESSAGE = IncomingMessage(Path("/nowhere"), "alice@example.org")


@dataclass
class Says:
    """A check with a given verdict, which records the messages it was called with."""

    verdict: Verdict | Exception
    name: str = "fake"
    asked: list[IncomingMessage] = field(default_factory=list)

    def check(self, incoming: IncomingMessage) -> Verdict:
        self.asked.append(incoming)
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict


class NoCounts:
    def tokens(self, wanted: Iterable[str]) -> dict[str, tuple[int, int]]:
        return {}

    def add_tokens(self, changes: Mapping[str, tuple[int, int]]) -> None:
        raise AssertionError("nothing is learned by looking")


def test_a_message_passes_every_check_in_order() -> None:
    checks = [Says(Clean(), "one"), Says(Spam(0.95, "why"), "two"), Says(Clean(), "three")]
    report = Pipeline(checks).run(MESSAGE)
    assert [check.asked for check in checks] == [[MESSAGE]] * 3
    assert report.findings == (("one", Clean()), ("two", Spam(0.95, "why")), ("three", Clean()))
    assert (report.verdict, report.by, report.place) == (Spam(0.95, "why"), "two", Destination.JUNK)
    assert str(report) == "spam: why (two, 95%)"


@pytest.mark.parametrize(
    ("verdict", "place"),
    [
        (Clean(), Destination.INBOX),
        (Spam(0.9, "x"), Destination.JUNK),
        (Unchecked("x"), Destination.QUARANTINE),
        (Infected("x"), Destination.QUARANTINE),
    ],
)
def test_each_verdict_has_its_place(verdict: Verdict, place: Destination) -> None:
    assert Pipeline([Says(verdict)]).run(MESSAGE).place is place


def test_the_heaviest_verdict_counts_in_whatever_order() -> None:
    verdicts: list[Verdict] = [Clean(), Spam(1.0, "s"), Unchecked("u"), Infected("i")]
    for some in itertools.permutations(verdicts, 3):
        expected = max(some, key=verdicts.index)
        assert Pipeline([Says(verdict) for verdict in some]).run(MESSAGE).verdict == expected


@pytest.mark.parametrize("error", [RuntimeError("x"), OSError(5, "x"), RecursionError(), MemoryError(), KeyError(1)])
def test_a_check_that_fails_holds_the_message_back(error: Exception) -> None:
    after = Says(Clean())
    report = Pipeline([Says(error, "broken"), after]).run(MESSAGE)
    assert report.place is Destination.QUARANTINE
    assert str(report) == f"could not be checked: the check failed ({type(error).__name__}) (broken)"
    assert after.asked == [MESSAGE]


def test_after_an_infection_no_other_check_sees_the_message() -> None:
    after = Says(Clean())
    assert Pipeline([Says(Infected("EICAR"), "virus"), after]).run(MESSAGE).by == "virus"
    assert after.asked == []


def test_a_pipeline_without_checks_is_refused() -> None:
    with pytest.raises(ValueError, match="without checks"):
        Pipeline([])


def _standard() -> Pipeline:
    return standard_pipeline(NoCounts(), ("@spam.example",), clamd="/nowhere/clamd.sock")


def test_the_standard_pipeline_looks_for_viruses_first() -> None:
    assert _standard().names == ("virus rules", "known spammers", "spam test line", "learned from your marks")
    with pytest.raises(ClamdAddressError):
        standard_pipeline(NoCounts(), clamd="nonsense")


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"From: alice@example.org\n\nHello.\n", Destination.INBOX),
        (with_attachment(EICAR), Destination.QUARANTINE),
        (b"From: alice@example.org\n\n" + GTUBE.encode() + b"\n", Destination.JUNK),
        (b"From: mallory@spam.example\n\nHello.\n", Destination.JUNK),
        (with_attachment(EICAR, text=GTUBE), Destination.QUARANTINE),
        (b"From::;-\n\n", Destination.INBOX),
        (b"", Destination.INBOX),
    ],
    ids=["clean", "eicar", "gtube", "known spammer", "both", "malformed", "empty"],
)  # fmt: skip
def test_the_standard_pipeline_puts_a_message_where_it_belongs(tmp_path: Path, data: bytes, place: Destination) -> None:
    path = tmp_path / "m.eml"
    path.write_bytes(data)
    assert _standard().run(IncomingMessage(path, "bob@example.net")).place is place


def test_a_message_that_has_gone_could_not_be_checked(tmp_path: Path) -> None:
    assert _standard().run(IncomingMessage(tmp_path / "gone")).place is Destination.QUARANTINE


def test_every_check_fits_the_protocol() -> None:
    checks: list[Check] = [Says(Clean())]
    assert Pipeline(checks).names == ("fake",)
