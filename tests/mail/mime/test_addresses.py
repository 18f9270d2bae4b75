"""Address fields as people and programs write them (mail/mime/addresses.py)."""

from __future__ import annotations

import ast
import email.utils
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mail.mime import sanitize
from mail.mime.addresses import Address, addresses, field_of, typed, written

if TYPE_CHECKING:
    from _typeshed import TraceFunction

ROOT = Path(__file__).parents[3]


def found(field: str) -> list[tuple[str, str]]:
    return [(address.name, address.address) for address in addresses([field.encode()])]


@pytest.mark.parametrize(
    ("field", "mailboxes"),
    [
        ("ann@x", [("", "ann@x")]),
        ("Ann <ann@x>", [("Ann", "ann@x")]),
        ("ann@x <ann@x>", [("", "ann@x")]),
        ("'ann@x' <ann@x>", [("", "ann@x")]),
        ('"ann@x" <ben@x>', [("ann@x", "ben@x")]),
        ("<<ann@x>>", [("", "ann@x")]),
        ("Ann <ann@x", [("Ann", "ann@x")]),
        ("<ann@x> Ann", [("Ann", "ann@x")]),
        ("Ann ann@x", [("Ann", "ann@x")]),
        ("ann@x (Ann (Lee))", [("Ann (Lee)", "ann@x")]),
        ("Ann (at work) Lee <ann @ x.example>", [("Ann Lee", "ann@x.example")]),
        ("mailto:ann@x", [("", "ann@x")]),
        ("Ann [mailto:ann@x]", [("Ann", "ann@x")]),
        ("Doe, Jane <jane@x>", [("Doe, Jane", "jane@x")]),
        ("Goodwares, Inc. <info@x>, Ben <ben@x>", [("Goodwares, Inc.", "info@x"), ("Ben", "ben@x")]),
        ("ann@x, Doe, Jane <jane@x>", [("", "ann@x"), ("Doe, Jane", "jane@x")]),
        ("Theatre: News <web@x>", [("Theatre: News", "web@x")]),
        ("Friends: ann@x, Ben <ben@x>;, cy@x", [("", "ann@x"), ("Ben", "ben@x"), ("", "cy@x")]),
        ("List: ann@x, ben@x", [("", "ann@x"), ("", "ben@x")]),
        ("undisclosed-recipients:;", [("undisclosed-recipients:;", "")]),
        ("ann@x; ben@x", [("", "ann@x"), ("", "ben@x")]),
        ("ann@x,,ben@x,", [("", "ann@x"), ("", "ben@x")]),
        ("=?utf-8?q?M=C3=BCller=2C_Ann?= <ann@x>", [("Müller, Ann", "ann@x")]),
        ("=?utf-8?q?a,b?= <ann@x>", [("a,b", "ann@x")]),
        ("=?utf-8?b?w6TD?= =?utf-8?b?tg==?= <ann@x>", [("äö", "ann@x")]),
        ('"=?utf-8?q?=C3=A4?=" <ann@x>', [("ä", "ann@x")]),
        ('"ann lee"@x', [("", '"ann lee"@x')]),
        ("<@a,@b:ann@x>", [("", "ann@x")]),
        ("ann@[127.0.0.1]", [("", "ann@[127.0.0.1]")]),
        ("Ann <ann@[IPv6:2001:db8::1]>", [("Ann", "ann@[IPv6:2001:db8::1]")]),
        ("Bob O'Neil <bob@x>", [("Bob O'Neil", "bob@x")]),
        ('"Unclosed <ann@x>', [("Unclosed", "ann@x")]),
        ("(unclosed <ann@x>", [("(unclosed", "ann@x")]),
        ("nobody", [("nobody", "")]),
        ("<>", [("<>", "")]),
        ("Ann <>", [("Ann", "")]),
        ('""', [('""', "")]),
        ("", []),
    ],
)
def test_a_field_is_read_as_it_is_meant(field: str, mailboxes: list[tuple[str, str]]) -> None:
    assert found(field) == mailboxes


def test_the_result_depends_on_no_version_of_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Since 3.11.10 the standard library gives nobody for what it takes for an attack."""

    def strict(*_: object, **__: object) -> list[tuple[str, str]]:
        return [("", "")]

    monkeypatch.setattr(email.utils, "getaddresses", strict)
    monkeypatch.setattr(email.utils, "parseaddr", lambda *_: ("", ""))
    assert found("ann@x <ann@x>, Doe, Jane <jane@x>") == [("", "ann@x"), ("Doe, Jane", "jane@x")]


WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]), min_size=1, max_size=20
)
NAMES = WORDS.filter(lambda word: not set("\"\\'=?<>") & set(word) and "@" not in word)
LOCAL = st.from_regex(r"[a-z0-9.+-]{1,20}", fullmatch=True)


@given(st.lists(st.tuples(NAMES, LOCAL), min_size=1, max_size=5))
def test_what_is_quoted_as_the_rfc_has_it_comes_back(people: list[tuple[str, str]]) -> None:
    field = ", ".join(f'"{name}" <{local}@x.example>' for name, local in people)
    assert found(field) == [(name.strip(), f"{local}@x.example") for name, local in people]


@given(st.text(alphabet="ab@.,:;<>()\"\\'[]=? \t\n-", max_size=60) | st.text(max_size=60))
def test_any_field_is_read_and_something_of_it_is_shown(field: str) -> None:
    read = addresses([field.encode("utf-8", "replace")])
    assert all(isinstance(address, Address) for address in read)
    assert bool(read) >= any("@" in word for word in field.split() if word.strip("@").isalnum())


@pytest.mark.parametrize(
    "piece", ["(", "<", '"', '\\"', ", ", ":", "a:", "=?a?q?", "a@", '"a', '<"', "(a", "[", "@[", "a@x ", ";", "'", " "]
)
def test_attack_a_long_field_takes_as_many_steps_as_it_is_long(piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every token is at least one character, and each is looked at a fixed number of times."""
    from mail.mime import addresses as module

    made = 0
    real = module._tokens

    def counted(source: str) -> list[module._Token]:
        nonlocal made
        tokens = real(source)
        made += len(tokens)
        return tokens

    monkeypatch.setattr(module, "_tokens", counted)
    field = piece * (60_000 // len(piece))
    addresses([field.encode()])
    assert made <= len(field)


def test_where_a_recipient_could_be_lost_in_a_name_every_comma_separates() -> None:
    read = addresses([b"bob, Ann <ann@x.example>"], commas_in_names=False)
    assert [str(person) for person in read] == ["bob", "Ann <ann@x.example>"]


def test_nothing_parses_addresses_with_the_standard_library() -> None:
    banned = {"getaddresses", "parseaddr", "formataddr", "headerregistry"}
    for room in ("tui", "mail", "overlay", "storage"):
        for file in (ROOT / room).rglob("*.py"):
            tree = ast.parse(file.read_text("utf-8"))
            names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom):
                    names |= {*(node.module or "").split("."), *(alias.name for alias in node.names)}
            assert not names & banned, file


def _lines_run(work: Callable[[], object]) -> int:
    """How many lines of Python `work` runs."""
    count = 0

    def trace(_frame: FrameType, event: str, _value: object) -> TraceFunction:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(
    "piece",
    [
        "(",
        "<",
        '"',
        "\\",
        ",",
        ";",
        ":",
        "'",
        "=",
        "[",
        "a,",
        "a:",
        "a@",
        "<a,",
        "<<>",
        "(\\",
        '"" ',
        "@[",
        "=?a?q?",
        "a@b,",
        "a@b ",
        "<a@b>",
        "a;:",
        "a<",
        '<"',
        '"<',
        "<a@b> a ",
    ],
)
def test_attack_twice_the_length_takes_twice_the_steps(piece: str) -> None:
    once, twice = ((piece * (size // len(piece))).encode() for size in (2000, 4000))
    assert _lines_run(lambda: addresses([twice])) <= 2.2 * _lines_run(lambda: addresses([once])) + 200


# -- writing

LINES = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp", "Cf", "Co", "Cn"]), max_size=300)
DOMAIN = st.from_regex(r"[a-z\u00e9]{1,9}(\.[a-z]{2,9}){1,2}", fullmatch=True)
PEOPLE = st.builds(
    Address,
    LINES.map(sanitize.line),
    st.builds("{}@{}".format, st.from_regex(r"[a-z0-9.!#é+-]{1,20}", fullmatch=True), DOMAIN),
)


@given(st.lists(PEOPLE, min_size=1, max_size=8))
def test_what_is_written_is_read_back(people: list[Address]) -> None:
    field = field_of("To", people)
    assert all(len(line.strip()) > 0 and len(line) <= 998 for line in field.split("\r\n"))
    read = addresses([field.partition(":")[2].replace("\r\n", "").encode()], limit=1 << 20)
    assert [person.address for person in read] == [person.address for person in people]
    for person, again in zip(people, read, strict=True):
        if "'" not in person.name and "=?" not in person.name and "@" not in person.name:
            assert again.name == person.name


@given(PEOPLE)
def test_what_is_shown_as_typed_has_the_same_address(person: Address) -> None:
    (read,) = addresses([typed(person).encode()])
    assert read.address == person.address


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("Ann Lee", "Ann Lee <a@x.example>"),
        ("Doe, Jane", '"Doe, Jane" <a@x.example>'),
        ('A "B" \\', '"A \\"B\\" \\\\" <a@x.example>'),
        ("Jé", "=?utf-8?b?SsOp?= <a@x.example>"),
        ("=?utf-8?q?x?=", "=?utf-8?b?PT91dGYtOD9xP3g/PQ==?= <a@x.example>"),
        ("", "a@x.example"),
    ],
)
def test_a_name_is_written_so_that_every_program_reads_it(name: str, field: str) -> None:
    assert written(Address(name, "a@x.example")) == field
