"""The mutants that a module gets: one small change each, and none of mere wording."""

from __future__ import annotations

import ast

import pytest

from tests.mutants.mutate import mutants_of
from tests.mutants.run import ROOT, explained
from tests.mutants.targets import TARGETS


def names(source: str) -> set[str]:
    return {mutant.name.partition("  in  ")[0] for mutant in mutants_of(source)}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("LIMIT = 10\n", {"10  ->  (11)"}),
        ("def f(a, b):\n    return a < b\n", {"a < b  ->  (a <= b)", "return a < b  ->  return None"}),
        ("def f(a):\n    if not a:\n        g(a)\n", {"not a  ->  (a)", "g(a)  ->  pass"}),
        ("def f(a):\n    a.b = a.c\n", {"a.b = a.c  ->  pass"}),
        ("def f(a, b):\n    a += b\n", {"a += b  ->  pass", "a += b  ->  a -= b"}),
        (
            "def f(a, b):\n    g(a and b, c=a)\n",
            {"g(a and b, c=a)  ->  pass", "g(a and b, c=a)  ->  (g(a and b))", "a and b  ->  (a or b)"},
        ),
        ("def f(a):\n    if a:\n        raise KeyError\n", {"a  ->  (not a)", "raise KeyError  ->  pass"}),
    ],
)
def test_each_small_change_is_made(source: str, expected: set[str]) -> None:
    assert names(source) == expected


def test_wording_is_not_mutated() -> None:
    source = '''"""What lives here: 3 things."""
import logging
log = logging.getLogger(__name__)
def f(a: "int" = None) -> None:
    """Do 1 thing."""
    log.info("%d of %d", 1, 2)
    raise ValueError(f"at most {a + 1} allowed")
'''
    assert {name for name in names(source) if "pass" not in name} == set()


def test_every_mutant_is_a_module_and_no_two_are_the_same() -> None:
    source = (ROOT / "mail/sealed/body.py").read_text("utf-8")
    mutants = mutants_of(source)
    assert len({mutant.source for mutant in mutants}) == len(mutants) > 100
    for mutant in mutants:
        ast.parse(mutant.source)
        assert mutant.source != source


def test_changes_to_a_line_that_look_the_same_have_names_of_their_own() -> None:
    assert names("def f():\n    g(1, 1)\n    g(1, 1)\n") == {"g(1, 1)  ->  pass", "1  ->  (2)"}
    whole = {mutant.name for mutant in mutants_of("def f():\n    g(1, 1)\n")}
    assert whole == {"g(1, 1)  ->  pass", "1  ->  (2)  in  g(1, 1)", "1  ->  (2)  in  g(1, 1)  (number 2)"}


def test_what_is_explained_is_a_mutant_that_exists() -> None:
    for module, reasons in explained().items():
        assert module in TARGETS
        made = {mutant.name for mutant in mutants_of((ROOT / (module.replace(".", "/") + ".py")).read_text("utf-8"))}
        assert set(reasons) <= made, f"{module}: {set(reasons) - made}"


def test_the_tests_that_answer_for_a_module_are_there() -> None:
    for module, selection in TARGETS.items():
        assert (ROOT / (module.replace(".", "/") + ".py")).is_file()
        for path in selection:
            assert (ROOT / path).exists(), path
