"""Learns a spam score from the user's marks: Graham's token counts, Robinson's chi-squared combining.

Arithmetic over the counts that a TokenCounts keeps (storage/user/state.py is one). mail/checks/tokens.py finds a
message's tokens; mail/checks/spam.py decides on the score.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

MESSAGES = ""
"""The token that counts the messages themselves; no message contains it."""
STRENGTH = 0.45
"""How many observations the prior is worth (Robinson's s)."""
PRIOR = 0.5
"""The probability of a token that was never seen (Robinson's x)."""
LEAST_DEVIATION = 0.1
"""Tokens nearer to 0.5 than this are ignored."""
STRONGEST = 150
"""How many tokens are combined: the strongest ones."""
LEAST_TRAINED = 5
"""Marked messages of each kind before there is an opinion: a single mark must not decide about all mail."""


class TokenCounts(Protocol):
    """Durable counts of each token: (times in spam, times in ham). Negative changes reduce them."""

    def tokens(self, wanted: Iterable[str]) -> dict[str, tuple[int, int]]:
        """The counts of those of `wanted` that were ever seen."""
        ...

    def add_tokens(self, changes: Mapping[str, tuple[int, int]]) -> None:
        """Add to the counts, all of them or none; no count falls below 0."""
        ...


@dataclass(frozen=True, slots=True)
class Opinion:
    """A score from 0 (ham) to 1 (spam), 0.5 for no opinion; and the strongest tokens for spam, strongest first."""

    score: float
    because: tuple[str, ...] = ()


NO_OPINION = Opinion(0.5)


class Classifier:
    """Learns from the tokens of marked messages, and scores others."""

    def __init__(self, counts: TokenCounts, least_trained: int = LEAST_TRAINED) -> None:
        self._counts = counts
        self._least_trained = least_trained

    def learn(self, tokens: Iterable[str], *, spam: bool) -> None:
        """Count one message as spam or not. Unlearn it first if it was learned before."""
        self._change(tokens, 1, spam=spam)

    def unlearn(self, tokens: Iterable[str], *, spam: bool) -> None:
        """Take back what `learn` with the same arguments counted."""
        self._change(tokens, -1, spam=spam)

    def _change(self, tokens: Iterable[str], by: int, *, spam: bool) -> None:
        change = (by, 0) if spam else (0, by)
        self._counts.add_tokens(dict.fromkeys((*tokens, MESSAGES), change))

    def score(self, tokens: Iterable[str]) -> Opinion:
        """The score of a message with these tokens."""
        wanted = set(tokens)
        counts = self._counts.tokens([*wanted, MESSAGES])
        spams, hams = counts.pop(MESSAGES, (0, 0))
        if min(spams, hams) < self._least_trained:
            return NO_OPINION
        rated = [(_probability(*counts[token], spams, hams), token) for token in wanted if token in counts]
        # Ties are ordered by the token, so that a score is the same each time.
        rated = sorted(rated, key=lambda item: (-abs(item[0] - 0.5), item[1]))[:STRONGEST]
        rated = [(p, token) for p, token in rated if abs(p - 0.5) >= LEAST_DEVIATION]
        if not rated:
            return NO_OPINION
        return Opinion(_combined([p for p, _ in rated]), tuple(token for p, token in rated if p > 0.5)[:5])


def _probability(spam: int, ham: int, spams: int, hams: int) -> float:
    """How likely a message with this token is spam (Robinson's f(w)); independent of the ratio of spam to ham."""
    in_spam, in_ham = min(spam / spams, 1.0), min(ham / hams, 1.0)
    if in_spam + in_ham == 0:
        return PRIOR
    seen = spam + ham
    return (STRENGTH * PRIOR + seen * in_spam / (in_spam + in_ham)) / (STRENGTH + seen)


def _combined(probabilities: list[float]) -> float:
    """Fisher's method for spam and for ham: near 0.5 when the tokens say nothing, or both equally."""
    freedom = 2 * len(probabilities)
    spam = 1.0 - _chi_squared(-2.0 * sum(math.log(1.0 - p) for p in probabilities), freedom)
    ham = 1.0 - _chi_squared(-2.0 * sum(math.log(p) for p in probabilities), freedom)
    return (1.0 + spam - ham) / 2.0


def _chi_squared(x: float, freedom: int) -> float:
    """The probability of a chi-squared value of at least `x` with `freedom` (even) degrees of freedom."""
    half = x / 2.0
    term = math.exp(-half)
    total = term
    for i in range(1, freedom // 2):
        term *= half / i
        total += term
    return min(total, 1.0)
