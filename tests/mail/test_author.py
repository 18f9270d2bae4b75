"""Who wrote a message (mail/author.py)."""

from __future__ import annotations

import pytest

from mail import author

ANN = "ann@village.example"


@pytest.mark.parametrize(
    "field",
    [
        "ann@village.example",
        "Ann <ann@village.example>",
        "Ann@Village.Example <ANN@village.example>",
        '"boss@bank.example" <ann@village.example>',
        "Lee, Ann <ann@village.example>",
        "Office: Ann <ann@village.example>",
        "=?utf-8?q?Lee=2C_Ann?= <ann@village.example>",
        "=?utf-8?q?Lee, Ann?= <ann@village.example>",
        "ann@village.example (boss@bank.example)",
    ],
)
def test_a_message_from_its_certified_sender_is_taken(field: str) -> None:
    assert author.objection([field.encode()], ANN) == ""


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ([], "says it is from nobody"),
        ([""], "says it is from nobody"),
        (["ann@village.example <boss@bank.example>"], "says it is from boss@bank.example"),
        (["ann@village.example, boss@bank.example"], "says it is from several"),
        (["Team: ann@village.example, boss@bank.example;"], "says it is from several"),
        (["ann@village.example", "ann@village.example"], "has several From fields"),
        (["<>"], "says it is from <>"),
        (["Ann"], "says it is from Ann"),
    ],
)
def test_any_other_from_is_said_in_words(fields: list[str], words: str) -> None:
    assert author.objection([field.encode() for field in fields], ANN) == words


@pytest.mark.parametrize(
    "field",
    [
        "=?utf-8?q?x,boss@bank.example,?= <ann@village.example>",
        "=?utf-8?q?x <boss@bank.example>?= <ann@village.example>",
        "=?utf-8?q?x?= boss@bank.example, ann@village.example",
    ],
)
def test_attack_an_author_that_only_some_programs_see_is_refused(field: str) -> None:
    """A program that knows no encoded words takes the From apart at what stands in them."""
    assert author.objection([field.encode()], ANN) == "says it is from several"
