"""A program that tests need is found, skipped for, or insisted on: never passed over in silence."""

from __future__ import annotations

import pytest

from tests.programs import need_program

ABSENT = "p2pmail-no-such-program"


def test_a_program_that_is_here_is_given_by_its_path() -> None:
    assert need_program("sh").endswith("/sh")


def test_an_absent_program_skips_its_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("P2PMAIL_REQUIRE_PROGRAMS", raising=False)
    with pytest.raises(pytest.skip.Exception, match=ABSENT):
        need_program(ABSENT)


def test_an_absent_program_fails_its_test_where_ci_insists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PMAIL_REQUIRE_PROGRAMS", "1")
    with pytest.raises(pytest.fail.Exception, match=ABSENT):
        need_program(ABSENT)
