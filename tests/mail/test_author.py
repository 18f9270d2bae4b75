"""Who wrote a message (mail/author.py)."""

from __future__ import annotations

import pytest

from mail import author
from mail.author import Contacts

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


# -- what is shown

ALICE = "Alice Lee <alice@village.example>"
CONTACTS = Contacts([ALICE, "ben@village.example", "me@village.example"], ["Ben B. <ben@village.example>", "X <x@y.z>"])


@pytest.mark.parametrize(
    ("sender", "in_a_list", "in_full"),
    [
        (ALICE, "Alice Lee", ALICE),
        ("Ben B. <ben@village.example>", "Ben B.", "Ben B. <ben@village.example>"),
        ("carol@village.example", "carol@village.example", "carol@village.example"),
        (
            "alice@village.example <mallory@village.example>",
            "mallory@village.example",
            'mallory@village.example (calls itself "alice@village.example")',
        ),
        ("alice＠village.example <m@village.example>", "m@village.example", None),
        ("Alice <alice@village.example> <m@village.example>", "m@village.example", None),
        ("Lee, Alice <m@village.example>", "m@village.example", None),
        ("ALICE L\u00e9e <m@village.example>", "m@village.example", None),
        ("Ben B <m@village.example>", "m@village.example", None),
        ("\u0410lice Lee <m@village.example>", "!? m@village.example", None),
        ("\u0410nn <m@village.example>", "!? \u0410nn", "\u0410nn <m@village.example>"),
        ("Alicia <a1ice@village.example>", "!? Alicia", "Alicia <a1ice@village.example>"),
        ("X <other@y.z>", "X", "X <other@y.z>"),
        ("Nobody", "Nobody", "Nobody"),
        ("", "", ""),
    ],
)
def test_a_name_that_could_be_taken_for_somebody_else_gives_way_to_the_address(
    sender: str, in_a_list: str, in_full: str | None
) -> None:
    person = author.mailbox(sender)
    assert author.listed(person, CONTACTS) == in_a_list
    address_first = f'{person.address} (calls itself "{person.name}")'
    assert author.described(person, CONTACTS) == (address_first if in_full is None else in_full)


def test_what_is_odd_about_a_sender_is_said() -> None:
    assert author.warnings(author.mailbox(ALICE), CONTACTS) == ()
    assert author.warnings(author.mailbox("\u0410lice Lee <a1ice@village.example>"), CONTACTS) == (
        "the sender's name mixes Cyrillic and Latin letters",
        "the sender's address looks like alice@village.example, and is another one",
        "the sender bears the name of somebody you write to, and has another address",
    )
