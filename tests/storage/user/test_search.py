"""The search line: any text is a query, or an error that says what is wrong."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.user import index_schema
from storage.user.search import MAX_TERMS, Query, SearchError, parse


def match(text: str) -> str:
    return parse(text).match


def test_words_must_all_be_there() -> None:
    assert match("river stone") == '("river") AND ("stone")'


def test_phrases_prefixes_and_fields() -> None:
    assert match('"river stone" bud*') == '("river stone") AND ("bud" *)'
    assert match('From:alice@example.org subject:"the plan"') == (
        '({sender} : "alice@example.org") AND ({subject} : "the plan")'
    )


def test_operators_of_the_database_are_only_words() -> None:
    assert match("river OR NOT stone") == '("river") AND ("OR") AND ("NOT") AND ("stone")'
    assert match("NEAR(a b) ^c {d}") == '("NEAR(a") AND ("b)") AND ("^c") AND ("{d}")'


def test_an_unknown_field_is_text() -> None:
    assert match("http://example.org 12:30") == '("http //example.org") AND ("12:30")'


def test_without_is_a_minus() -> None:
    query = parse("-stone -is:unread")
    assert query.match == ""
    assert query.conditions == ("NOT (id IN (SELECT rowid FROM text WHERE text MATCH ?))", "NOT (unread = 1)")
    assert query.parameters == ('"stone"',)


def test_days_months_and_years_are_dates() -> None:
    query = parse("after:2024-02 before:2024-03-01 after:2023", zone=UTC)
    days = [datetime(2024, 2, 1, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC), datetime(2023, 1, 1, tzinfo=UTC)]
    assert query.parameters == tuple(day.timestamp() for day in days)
    assert query.conditions == ("date >= ?", "date < ?", "date >= ?")


def test_a_folder_can_be_named() -> None:
    assert parse('in:"Plans 2024" x').folder == "Plans 2024"


@pytest.mark.parametrize("text", ["is:green", "has:wings", "before:soon", "after:2024-13", "before:99999999"])
def test_a_condition_that_means_nothing_is_an_error_that_says_what_would_do(text: str) -> None:
    with pytest.raises(SearchError, match=text.partition(":")[0]):
        parse(text)


def test_while_typing_the_last_word_may_be_unfinished() -> None:
    assert parse("river sto", typing=True).match == '("river") AND ("sto" *)'
    assert parse("river ", typing=True).match == '("river")'
    assert parse('"river stone"', typing=True).match == '("river stone")'
    assert parse("river is:unr", typing=True) == Query('("river")')
    assert parse("before:20", typing=True).empty
    with pytest.raises(SearchError):
        parse("is:unr river", typing=True)


@pytest.mark.parametrize("text", ["", "   ", "-", '"', "...", '""', "*", "-*", "from:..."])
def test_nothing_asked_is_an_empty_query(text: str) -> None:
    assert parse(text).empty


def test_a_query_of_thousands_of_words_is_cut() -> None:
    assert match("x " * 10_000).count("AND") == MAX_TERMS - 1


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    opened = index_schema.open_index(tmp_path_factory.mktemp("search") / "index.sqlite")
    yield opened
    opened.close()


_TYPED = st.text() | st.text('"*-:()^{}+ \0abOR', max_size=40)


@given(text=_TYPED, typing=st.booleans())
def test_the_database_takes_whatever_is_typed(connection: sqlite3.Connection, text: str, typing: bool) -> None:
    try:
        query = parse(text, typing=typing)
    except SearchError:
        return
    if query.match:
        connection.execute("SELECT rowid FROM text WHERE text MATCH ?", (query.match,)).fetchall()
    for condition in query.conditions:
        connection.execute(f"SELECT id FROM message WHERE {condition}", query.parameters[: condition.count("?")])
