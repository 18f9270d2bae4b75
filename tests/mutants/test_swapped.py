"""A mutant in the place of its module: the functions that were imported before do what it does."""

from __future__ import annotations

from mail.sealed.padding import padded_length
from tests.mutants.run import ROOT
from tests.mutants.swapped import Swapped

SOURCE = (ROOT / "mail/sealed/padding.py").read_text("utf-8")
LINE = next(n for n, text in enumerate(SOURCE.splitlines(), 1) if text.strip() == "return MINIMUM")


def test_a_function_that_was_imported_before_does_what_the_mutant_does() -> None:
    swapped = Swapped.of("mail.sealed.padding", SOURCE.replace("return MINIMUM", "return 7"), LINE)
    assert swapped is not None
    (function,) = swapped.functions
    assert function is padded_length
    before = function.__code__
    try:
        swapped.swap()
        assert padded_length(1) == 7
    finally:
        function.__code__ = before
    assert padded_length(1) == 1024


def test_what_is_not_inside_a_function_is_not_swapped() -> None:
    constant = next(n for n, text in enumerate(SOURCE.splitlines(), 1) if text.startswith("MINIMUM = "))
    assert Swapped.of("mail.sealed.padding", SOURCE, constant) is None
