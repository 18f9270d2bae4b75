"""Texts that look alike, and words that mix writings (mail/author.py)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mail.author import mixed_writings, name_key, skeleton


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Alice", "Аlісе"),
        ("alice@village.example", "аliсe@village.example"),
        ("alice@village.example", "a1ice@village.example"),
        ("Bill", "BiIl"),
        ("modern", "rnodern"),
        ("Jose", "José"),
        ("Ann", "Ａｎｎ"),
        ("Ann", "A\u200dnn"),
        ("Olga", "0lga"),
    ],
)
def test_what_looks_alike_has_the_same_skeleton(one: str, other: str) -> None:
    assert skeleton(one) == skeleton(other)


@pytest.mark.parametrize(("one", "other"), [("Ann", "Anna"), ("ben@x.example", "ben@y.example"), ("Иван", "Петр")])
def test_what_looks_different_has_another(one: str, other: str) -> None:
    assert skeleton(one) != skeleton(other)


def test_the_order_of_a_names_words_does_not_count() -> None:
    assert name_key("Lee, Ann") == name_key("ANN LEE") == name_key(' "Ann" (Lee)')


@pytest.mark.parametrize(
    ("text", "writings"),
    [
        ("Аlice Smith", ("Cyrillic", "Latin")),
        ("pаypal@village.example", ("Cyrillic", "Latin")),
        ("Αlpha", ("Greek", "Latin")),
        ("Иван Smith", ()),
        ("José Müller", ()),
        ("東京Tokyo", ()),
        ("さくらサクラ桜", ()),
        ("µTorrent 1ª", ()),
        ("Ann", ()),
        ("", ()),
    ],
)
def test_a_word_in_two_writings_is_noticed(text: str, writings: tuple[str, ...]) -> None:
    assert mixed_writings(text) == writings


@given(st.text(max_size=300))
def test_any_text_is_compared(text: str) -> None:
    skeleton(text)
    name_key(text)
    mixed_writings(text)
