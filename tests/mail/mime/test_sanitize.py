"""Making text safe for a terminal (mail/mime/sanitize.py)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mail.mime import sanitize
from tests.mail.sample_messages import UNFIT

_HOSTILE = st.lists(
    st.text(max_size=5)
    | st.sampled_from(
        ["\x1b", "\x1b[", "31m", "\x1b]8;;", "\x07", "\x1b\\", "\x9b", "\x9d", "\u202e", "\r", "\t", "\ud800"]
    )
).map("".join)


@given(_HOSTILE)
def test_no_text_gets_a_control_character_or_an_override_through(text: str) -> None:
    for clean in (sanitize.block(text), sanitize.line(text)):
        assert not UNFIT.search(clean)
        assert "\t" not in clean
        clean.encode()
    assert "\n" not in sanitize.line(text)


@given(_HOSTILE)
def test_cleaning_twice_changes_nothing(text: str) -> None:
    assert sanitize.block(sanitize.block(text)) == sanitize.block(text)
    assert sanitize.line(sanitize.line(text)) == sanitize.line(text)


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[2J\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]8;;http://evil.example\x07link\x1b]8;;\x07", "link"),
        ("\x9d8;;http://evil.example\x9clink", "link"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]52;c;cm0gLXJmIH4=\x07text", "text"),
        ("\x1bPq#0\x1b\\text", "text"),
        ("\x1b]unfinished", "unfinished"),
        ("\x1b(0lqk\x1b(B", "lqk"),
        ("a\x08\x7fb\x00c\x85d", "abc\nd"),
        ("gpj\u202eexe", "gpj<U+202E>exe"),
        ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour"),
        ("a\tb", "a       b"),
        ("pay\u200bpal", "paypal"),
        ("\ud83d", "\ufffd"),
        ("👩‍👩‍👧 żółć 漢字", "👩‍👩‍👧 żółć 漢字"),
    ],
)
def test_sequences_go_and_their_text_stays(hostile: str, shown: str) -> None:
    assert sanitize.block(hostile) == shown


def test_a_line_is_one_line() -> None:
    assert sanitize.line(" Re:\r\n\tlong \x1b[31m subject\u2029 end ") == "Re: long subject end"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\u2800\u2800\u2800", ""),
        ("\u3164\uffa0\u115f", ""),
        ("\U000e0041\U000e007f", ""),
        ("\u200d\u200c\ufe0f", ""),
        ("\u00ad\u034f\u2063", ""),
        ("Alice\u2800\u2800\u2800 Lee\u2800", "Alice Lee"),
        ("Alice \u200d\ufe0f \u200b Lee", "Alice Lee"),
        ("invoice\U000e0069\U000e0067", "invoice"),
        ("👩\u200d👧 ❤\ufe0f", "👩\u200d👧 ❤\ufe0f"),
        ("می\u200cخواهم", "می\u200cخواهم"),
    ],
)
def test_characters_that_draw_nothing_are_no_text(text: str, shown: str) -> None:
    assert sanitize.line(text) == shown


@given(st.text(st.sampled_from("a \u2800\u200d\u200c\ufe0f\u3164\u0301\u200b\U000e0041"), max_size=12))
def test_a_line_of_invisible_characters_is_cleaned_once_and_for_all(text: str) -> None:
    clean = sanitize.line(text)
    assert sanitize.line(clean) == clean
    assert clean == "" or "a" in clean or "\u0301" in clean
