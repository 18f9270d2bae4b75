"""Addresses: one normalised form for each, and AddressError for anything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.identity.address import ADDRESS_LIMIT, AddressError, normalise_address, split_address


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("alice@campus", "alice@campus"),
        ("Alice@Example.ORG", "alice@example.org"),
        ("  alice@example.org ", "alice@example.org"),
        ("a.b+tag@example.org", "a.b+tag@example.org"),
        ("jürgen@müller.de", "jürgen@xn--mller-kva.de"),
        ("ju\u0308rgen@mu\u0308ller.de", "jürgen@xn--mller-kva.de"),
        ("JÜRGEN@xn--mller-kva.de", "jürgen@xn--mller-kva.de"),
        ("a@ＥＸＡＭＰＬＥ。org", "a@example.org"),
        ("用户@例え.jp", "用户@xn--r8jz45g.jp"),
    ],
)
def test_an_address_has_one_form(typed: str, expected: str) -> None:
    assert normalise_address(typed) == expected
    assert "@".join(split_address(typed)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "alice",
        "alice@",
        "@example.org",
        "alice@@example.org",
        "alice@example..org",
        "alice@.example.org",
        "alice@example.org.",
        "alice@exam_ple.org",
        "alice@[127.0.0.1]",
        ".alice@example.org",
        "alice.@example.org",
        "al..ice@example.org",
        "al ice@example.org",
        "alice@exa mple.org",
        "alice@example.org\n",
        "alice\r\nBcc: eve@example.org",
        "al\x1b[31mice@example.org",
        "al\x00ice@example.org",
        "al\u202eice@example.org",
        "al\u200bice@example.org",
        "al\ud800ice@example.org",
        "alice@\ud800.org",
        "alice@-example.org",
        "alice@xn--zzzzzzzzz.org",
        '"alice"@example.org',
        "Alice <alice@example.org>",
        "a" * 65 + "@example.org",
        "ü" * 33 + "@example.org",
        "alice@" + "a" * 64 + ".org",
        "alice@" + ".".join(["a" * 60] * 5),
        "a" * 100_000 + "@example.org",
        "alice@" + "a" * 1_000_000,
    ],
)
def test_what_is_no_address_is_refused_with_a_readable_reason(text: str) -> None:
    with pytest.raises(AddressError) as caught:
        normalise_address(text)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_the_longest_local_part_is_accepted() -> None:
    assert normalise_address("a" * 64 + "@example.org") == "a" * 64 + "@example.org"


@given(st.text() | st.builds(lambda a, b: f"{a}@{b}", st.text(max_size=70), st.text(max_size=70)))
def test_any_text_is_an_address_or_an_address_error(text: str) -> None:
    try:
        address = normalise_address(text)
    except AddressError as error:
        assert str(error).isprintable()
    else:
        assert normalise_address(address) == address
        assert len(address.encode()) <= ADDRESS_LIMIT
        assert address.isprintable()


@given(st.from_regex(r"\A[A-Za-z0-9ÄÖÜäöüßΣİ_+-]{1,20}@[a-zA-ZäöüßΣ]{1,12}\.[a-z]{2,4}\Z"))
def test_normalising_is_idempotent(text: str) -> None:
    address = normalise_address(text)
    assert normalise_address(address) == address
    assert normalise_address(address.upper()) == normalise_address(address.upper().lower())
