"""Checks for spam: known spammers, the test line GTUBE, the score learned from the user's marks.

mail/checks/bayes.py computes the score.
"""

from __future__ import annotations

from collections.abc import Iterable

from mail.checks.bayes import Classifier
from mail.checks.pipeline import Clean, IncomingMessage, Spam, Verdict
from mail.checks.tokens import tokens
from mail.mime.message import read_headers, read_message
from overlay.identity.address import AddressError, normalise_address

SPAM_FROM = 0.9
"""The score from which a message is spam (SpamBayes: 0.9): high, because a real message in Junk costs more than spam
in the Inbox."""

GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*" + "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL" + "*C.34X"
"""The line that every spam filter takes for spam (specified by SpamAssassin); concatenated so that this file isn't
spam itself."""


class KnownSpammers:
    """Finds listed senders: addresses, or whole domains as `@example.org` or `example.org`."""

    name = "known spammers"

    def __init__(self, listed: Iterable[str]) -> None:
        self._listed = frozenset(_key(entry) for entry in listed if entry.strip())

    def check(self, incoming: IncomingMessage) -> Verdict:
        """Spam if the verified sender or From is listed, or its domain or a parent domain. Raises OSError."""
        if not self._listed:
            return Clean()
        for address in (incoming.sender, read_headers(incoming.path).sender.address):
            key = _key(address)
            domain = key.rpartition("@")[2]
            labels = domain.split(".")[-20:]
            names = (key, *(f"@{'.'.join(labels[at:])}" for at in range(len(labels))))
            if address and any(name in self._listed for name in names):
                return Spam(1.0, f"{address} is on the list of known spammers")
        return Clean()


class Gtube:
    """Finds GTUBE, by which a user can test that spam checks run."""

    name = "spam test line"

    def check(self, incoming: IncomingMessage) -> Verdict:
        """Spam if the text contains GTUBE. Raises OSError."""
        return Spam(1.0, "it holds the test line GTUBE") if GTUBE in read_message(incoming.path).text else Clean()


class LearnedSpam:
    """Finds what resembles the messages that the user marked as spam."""

    name = "learned from your marks"

    def __init__(self, classifier: Classifier, spam_from: float = SPAM_FROM) -> None:
        self._classifier = classifier
        self._spam_from = spam_from

    def check(self, incoming: IncomingMessage) -> Verdict:
        """Spam if the score is at least `spam_from`; an untrained classifier has no opinion. Raises OSError."""
        opinion = self._classifier.score(tokens(read_message(incoming.path)))
        if opinion.score < self._spam_from:
            return Clean()
        return Spam(opinion.score, "like what you marked: " + ", ".join(opinion.because))


def _key(entry: str) -> str:
    entry = entry.strip()
    local, _, domain = entry.rpartition("@")
    try:
        if local:
            return normalise_address(entry)
        return "@" + normalise_address(f"x@{domain}").rpartition("@")[2]
    except AddressError:
        return entry.casefold()
