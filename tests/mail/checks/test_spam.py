"""Known spammers, GTUBE, and the score learned from marks (mail/checks/spam.py, bayes.py, tokens.py)."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mail.checks.bayes import LEAST_TRAINED, MESSAGES, NO_OPINION, Classifier, TokenCounts
from mail.checks.pipeline import Clean, IncomingMessage, Spam
from mail.checks.spam import GTUBE, Gtube, KnownSpammers, LearnedSpam
from mail.checks.tokens import LONGEST, TOKEN_LIMIT, tokens
from mail.mime.message import read_message
from storage.user.state import UserState
from tests.mail.sample_messages import mutants


class MemoryTokenCounts:
    """A TokenCounts in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[int, int]] = {}

    def tokens(self, wanted: Iterable[str]) -> dict[str, tuple[int, int]]:
        return {token: self.kept[token] for token in wanted if token in self.kept}

    def add_tokens(self, changes: Mapping[str, tuple[int, int]]) -> None:
        for token, (spam, ham) in changes.items():
            before = self.kept.get(token, (0, 0))
            self.kept[token] = (max(before[0] + spam, 0), max(before[1] + ham, 0))
        self.kept = {token: count for token, count in self.kept.items() if count != (0, 0)}


def _incoming(tmp_path: Path, data: str, sender: str = "") -> IncomingMessage:
    path = tmp_path / "m.eml"
    path.write_text(data)
    return IncomingMessage(path, sender)


@pytest.mark.parametrize(
    "listed", ["mallory@spam.example", " MALLORY@Spam.Example", "@spam.example", "spam.example", "example"]
)
def test_a_known_spammer_is_known_by_address_or_domain(tmp_path: Path, listed: str) -> None:
    check = KnownSpammers([listed])
    assert isinstance(check.check(_incoming(tmp_path, "From: Mallory <mallory@spam.EXAMPLE>\n\nx")), Spam)
    assert isinstance(check.check(_incoming(tmp_path, "From: alice@ok.test\n\nx", "mallory@spam.example")), Spam)
    assert isinstance(check.check(_incoming(tmp_path, "From: alice@ok.test\n\nmallory@spam.example")), Clean)
    assert isinstance(check.check(_incoming(tmp_path, "From: x@notspam.test\n\nx")), Clean)


def test_a_subdomain_of_a_listed_domain_is_listed_and_a_longer_name_is_not(tmp_path: Path) -> None:
    check = KnownSpammers(["@spam.example", "", "nonsense@@"])
    assert isinstance(check.check(_incoming(tmp_path, "From: x@mail.spam.example\n\n")), Spam)
    assert isinstance(check.check(_incoming(tmp_path, "From: x@notspam.example\n\n")), Clean)
    assert isinstance(check.check(_incoming(tmp_path, "From::;-\n\n")), Clean)
    assert isinstance(KnownSpammers([]).check(_incoming(tmp_path, "\n\n")), Clean)


@pytest.mark.parametrize(
    ("body", "spam"), [(GTUBE, True), (f"before\n{GTUBE}\nafter", True), (GTUBE[:-1], False), (GTUBE.lower(), False)]
)
def test_gtube_exactly_is_spam(tmp_path: Path, body: str, spam: bool) -> None:
    assert len(GTUBE) == 68
    assert isinstance(Gtube().check(_incoming(tmp_path, f"Subject: x\n\n{body}\n")), Spam if spam else Clean)


def test_gtube_is_found_encoded_too(tmp_path: Path) -> None:
    encoded = GTUBE.replace("*", "=2A")
    data = f"Content-Transfer-Encoding: quoted-printable\n\n{encoded}\n"
    assert isinstance(Gtube().check(_incoming(tmp_path, data)), Spam)


SPAM_WORDS = ["lottery", "winner", "casino", "viagra", "million", "urgent", "transfer", "prize"]
HAM_WORDS = ["meeting", "review", "lunch", "branch", "report", "garden", "thursday", "invoice"]
COMMON = ["hello", "please", "thanks", "today", "with", "from", "your", "have"]


def _corpus(seed: int, spam: bool, count: int) -> list[set[str]]:
    dice = random.Random(seed)
    own = SPAM_WORDS if spam else HAM_WORDS
    return [{*dice.sample(own, 4), *dice.sample(COMMON, 4)} for _ in range(count)]


def _trained(counts: TokenCounts) -> Classifier:
    classifier = Classifier(counts)
    for spam in (True, False):
        for message in _corpus(1, spam, 20):
            classifier.learn(message, spam=spam)
    return classifier


def test_a_trained_classifier_tells_spam_from_ham() -> None:
    classifier = _trained(MemoryTokenCounts())
    assert all(classifier.score(message).score > 0.95 for message in _corpus(2, True, 50))
    assert all(classifier.score(message).score < 0.05 for message in _corpus(2, False, 50))
    opinion = classifier.score({"casino", "hello"})
    assert opinion.because[0] == "casino"
    assert classifier.score({"never", "seen"}) == NO_OPINION


def test_an_untrained_classifier_has_no_opinion() -> None:
    classifier = Classifier(MemoryTokenCounts())
    assert classifier.score({"casino"}) == NO_OPINION
    for message in _corpus(1, True, 100):
        classifier.learn(message, spam=True)
    for message in _corpus(1, False, LEAST_TRAINED - 1):
        classifier.learn(message, spam=False)
    assert classifier.score({"casino"}) == NO_OPINION


def test_a_message_that_speaks_both_ways_is_undecided() -> None:
    classifier = _trained(MemoryTokenCounts())
    assert 0.2 < classifier.score({*SPAM_WORDS, *HAM_WORDS}).score < 0.8


_TOKENS = st.frozensets(st.text(min_size=1, max_size=3), max_size=6)


@given(st.lists(st.tuples(_TOKENS, st.booleans()), max_size=8))
def test_what_is_unlearned_leaves_no_trace(learned: list[tuple[frozenset[str], bool]]) -> None:
    counts = MemoryTokenCounts()
    classifier = _trained(counts)
    before = dict(counts.kept)
    for message, spam in learned:
        classifier.learn(message, spam=spam)
    for message, spam in reversed(learned):
        classifier.unlearn(message, spam=spam)
    assert counts.kept == before


@given(
    st.dictionaries(st.sampled_from(COMMON), st.tuples(st.integers(0, 10**9), st.integers(0, 10**9))),
    st.integers(0, 10**9), st.integers(0, 10**9),
)  # fmt: skip
def test_a_score_is_between_0_and_1_whatever_the_counts(
    kept: dict[str, tuple[int, int]], spams: int, hams: int
) -> None:
    counts = MemoryTokenCounts()
    counts.kept = {**kept, MESSAGES: (spams, hams)}
    assert 0.0 <= Classifier(counts).score(COMMON).score <= 1.0


def test_many_strong_tokens_neither_overflow_nor_turn_the_score() -> None:
    counts = MemoryTokenCounts()
    counts.kept = {MESSAGES: (10**6, 10**6), **{f"w{n}": (10**6, 0) for n in range(2000)}}
    assert Classifier(counts).score(f"w{n}" for n in range(2000)).score > 0.999


@given(data=mutants() | st.binary(max_size=400))
def test_tokens_are_bounded_and_the_same_each_time(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "tokens.eml"
    path.write_bytes(data)
    message = read_message(path)
    found = tokens(message)
    assert found == tokens(read_message(path))
    assert len(found) <= TOKEN_LIMIT
    assert all(0 < len(token) <= 260 for token in found)


def test_a_flood_of_words_is_bounded_and_leaves_sender_and_subject(tmp_path: Path) -> None:
    words = " ".join(f"word{number}" for number in range(20_000))
    incoming = _incoming(
        tmp_path, f"From: Eve <eve@spam.example>\nSubject: Win now\n\nhttp://Evil.example/x {'x' * 95} {words}\n"
    )
    found = tokens(read_message(incoming.path))
    assert len(found) == TOKEN_LIMIT
    assert {"from:eve@spam.example", "domain:spam.example", "name:eve", "subject:win", "link:evil.example"} <= found
    assert f"long:x{95 // 10}" in found
    assert not any(len(token) > LONGEST for token in found if ":" not in token)


def test_what_was_marked_leads_to_junk(tmp_path: Path) -> None:
    state = UserState(tmp_path / "state.sqlite")
    try:
        classifier = Classifier(state)
        for number in range(6):
            spam = f"From: eve{number}@spam.example\nSubject: lottery\n\nYou won the casino prize {number}\n"
            classifier.learn(tokens(read_message(_incoming(tmp_path, spam).path)), spam=True)
            ham = f"From: bob{number}@example.net\nSubject: lunch\n\nMeeting in the garden on thursday\n"
            classifier.learn(tokens(read_message(_incoming(tmp_path, ham).path)), spam=False)
        assert state.tokens(["casino", MESSAGES]) == {"casino": (6, 0), MESSAGES: (6, 6)}
        check = LearnedSpam(classifier)
        verdict = check.check(
            _incoming(tmp_path, "From: z@spam.example\nSubject: lottery\n\nThe casino has your prize\n")
        )
        assert isinstance(verdict, Spam)
        assert verdict.why.startswith("like what you marked: ")
        assert isinstance(check.check(_incoming(tmp_path, "Subject: lunch\n\nThe meeting in the garden\n")), Clean)
    finally:
        state.close()
