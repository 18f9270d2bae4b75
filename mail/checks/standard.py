"""Builds the pipeline for every received message from the checks that are available.

Only their order is decided here; each check is a module beside this one.
"""

from __future__ import annotations

from collections.abc import Iterable

from mail.checks.bayes import Classifier, TokenCounts
from mail.checks.clamd import find_clamd
from mail.checks.pipeline import Check, Pipeline
from mail.checks.spam import Gtube, KnownSpammers, LearnedSpam
from mail.checks.virus import YaraCheck


def standard_pipeline(counts: TokenCounts, known_spammers: Iterable[str] = (), clamd: str = "") -> Pipeline:
    """Virus rules, ClamAV if its daemon answers, known spammers, GTUBE, the learned score.

    `clamd` is the setting of that name: a socket, or "" for the usual places. Raises RulesError, ClamdAddressError.
    """
    checks: list[Check] = [YaraCheck()]
    daemon = find_clamd(clamd)
    if daemon is not None:
        checks.append(daemon)
    checks += [KnownSpammers(known_spammers), Gtube(), LearnedSpam(Classifier(counts))]
    return Pipeline(checks)
