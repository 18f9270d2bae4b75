"""Finding the definition of each limit of docs/protocol.md, and changing it alone."""

from __future__ import annotations

import pytest

from tests.mutants.limits import definition
from tests.test_limits import LIMITS


@pytest.mark.parametrize("constant", LIMITS)
def test_each_limit_has_a_change(constant: str) -> None:
    assert definition(constant).mutants()


@pytest.mark.parametrize(
    ("constant", "expected"),
    [
        ("overlay.protocol_limits.MAX_HTTP_HASHES", {"(MAX_INBOX_NOTIFICATIONS + 1)"}),
        ("storage.limits.RETENTION", {"(31)", "(30 // DAY)"}),
        ("overlay.limits.rate_limits.STRANGERS_OF_ADDRESS.at_once", {"(61)"}),
        ("overlay.http.server_limits.ServerLimits.idle", {"(16.0)"}),
        ("overlay.limits.stamps.MOST", {"(23)"}),
    ],
)
def test_a_limit_is_changed_and_nothing_beside_it(constant: str, expected: set[str]) -> None:
    assert {mutant.after for mutant in definition(constant).mutants()} == expected


def test_a_name_that_is_no_limit_is_an_error() -> None:
    with pytest.raises(LookupError):
        definition("storage.limits.NOTHING")


def test_a_definition_of_several_lines_is_changed_in_its_own_text() -> None:
    mutants = definition("mail.sealed.notification.BUCKETS").mutants()
    assert len(mutants) > 10
