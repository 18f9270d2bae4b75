"""The search line: any text is a query, or an error that says what is wrong."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.user import index_schema
from storage.user.search import MAX_TERMS, Query, SearchError, indexed, parse


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
    assert match("river or not stone AND") == '("river") AND ("or") AND ("not") AND ("stone") AND ("AND")'
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


def test_or_and_not_stand_between_words() -> None:
    assert match("river OR stone bud") == '(("river") OR ("stone")) AND ("bud")'
    assert match("from:ann OR subject:x OR y") == '((({sender} : "ann") OR ({subject} : "x")) OR ("y"))'
    assert parse("river NOT stone").parameters == ('"stone"',)
    assert match("OR") == '("OR")'


@pytest.mark.parametrize("text", ["OR river", "river OR -stone", "river OR is:read", "is:read OR river", "a OR OR b"])
def test_an_or_between_something_else_is_an_error(text: str) -> None:
    with pytest.raises(SearchError, match="OR stands between two words"):
        parse(text)


def test_a_space_after_a_field_changes_nothing() -> None:
    assert match("from: zoe subject:  plan at 12: x") == match("from:zoe subject:plan at 12: x")
    assert parse("is: unread -is: flagged").conditions == ("unread = 1", "NOT (instr(flags, 'F') > 0)")


@pytest.mark.parametrize(
    ("text", "begin", "end"),
    [
        ("2024", "2024-01-01", "2025-01-01"),
        ("2024-12", "2024-12-01", "2025-01-01"),
        ("2024-02-29", "2024-02-29", "2024-03-01"),
        ("today", "2026-09-21", "2026-09-22"),
        ("yesterday", "2026-09-20", "2026-09-21"),
    ],
)
def test_a_date_is_the_whole_of_it(text: str, begin: str, end: str) -> None:
    query = parse(f"date:{text}", zone=UTC, now=lambda: 1_790_000_000.0)
    moments = tuple(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() for day in (begin, end))
    assert (query.conditions, query.parameters) == (("date >= ? AND date < ?",), moments)


@pytest.mark.parametrize(("text", "days"), [("7d", 7), ("2w", 14), ("1m", 30), ("1y", 365)])
def test_a_date_may_be_so_long_ago(text: str, days: int) -> None:
    now = 1_790_000_000.0
    assert parse(f"after:{text}", now=lambda: now).parameters == (now - days * 86400,)
    assert parse(f"before:{text}", now=lambda: now).parameters == (now - days * 86400,)


def test_an_id_is_looked_up_as_it_is() -> None:
    query = parse("id:<1@x.example>")
    assert (query.match, query.conditions, query.parameters) == ("", ("message_id = ?",), ("1@x.example",))


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("会議は来週の月曜日です", "来週"), ("会議は来週の月曜日です", "月曜日"), ("会議は来週の月曜日です", "す"),
        ("会議は来週の月曜日です", "議"), ("ｶﾞｲﾄﾞ", "ガイド"), ("我们明天下午开会", "下午开会"),
        ("รายงานการประชุม", "ประชุม"),
        ("회의록입니다", "의록"), ("Łódź", "lodz"), ("Grüße, große", "grosse"), ("smørrebrød", "smorrebrod"),
        ("æon", "aeon"), ("plan日本語plan", "日本語"), ("file2026日本", "日本"),
    ],
)  # fmt: skip
def test_words_are_found_in_any_writing(text: str, query: str) -> None:
    connection = sqlite3.connect(":memory:")
    connection.executescript(index_schema.SCHEMA)
    connection.execute("INSERT INTO text(rowid, body) VALUES(1, ?)", (indexed(text),))
    connection.execute("INSERT INTO text(rowid, body) VALUES(2, ?)", (indexed("来月の週 下開 lod"),))
    found = connection.execute("SELECT rowid FROM text WHERE text MATCH ?", (parse(query).match,)).fetchall()
    assert found == [(1,)]
