"""HTML as text (mail/html.py)."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mail import html

_TAGS = st.sampled_from(
    [
        "<p>",
        "</p>",
        "<a href='http://x.example/'>",
        "</a>",
        "<ul>",
        "<li>",
        "</ul>",
        "<ol start=x>",
        "<table>",
        "<tr>",
        "<td>",
        "</tr>",
        "<pre>",
        "</pre>",
        "<blockquote>",
        "</blockquote>",
        "<img alt=a src=b>",
        "<!--",
        "-->",
        "<![CDATA[",
        "]]>",
        "&#xD800;",
        "&#99999999999;",
        "&nbsp;",
        "&lt",
        "<q>",
        "<h1>",
        "<a href='http://['>",
        "</h1>",
        "<br>",
        "<script>",
        "</script>",
        "<style>",
        "<svg>",
        "</svg>",
        "<dl><dd>",
        "<",
        ">",
        "</",
        "<!",
        "<?",
        "\x00",
        "\x1b",
        "<a href=>",
        "<font\n",
        "<abbr title=x>",
    ]
)


@given(st.lists(_TAGS | st.text(max_size=4)).map("".join))
def test_no_html_makes_it_raise(source: str) -> None:
    text, _ = html.as_text(source)
    assert "<script" not in text or "script" in source
    html.words(source)


def test_a_link_shows_where_it_really_leads() -> None:
    text, _ = html.as_text('Pay at <a href="https://evil.example/login">https://bank.example</a> now.')
    assert text == "Pay at https://bank.example [1] now.\n\n[1] https://evil.example/login\n"


def test_links_are_numbered_and_one_target_has_one_number() -> None:
    text, _ = html.as_text(
        '<a href="http://a.example">one</a> <a href="http://b.example">two</a> <a href="http://a.example">again</a> '
        '<a href="http://c.example">http://c.example</a> <a href="#top">up</a>'
    )
    assert text == "one [1] two [2] again [1] http://c.example up\n\n[1] http://a.example\n[2] http://b.example\n"


def test_an_image_is_its_alternative_text_and_a_tracker_is_nothing() -> None:
    text, _ = html.as_text('<img src="http://t.example/x.png" alt="our logo"><img src="http://t.example/p.gif">hi')
    assert text == "[image: our logo]hi\n"
    assert "t.example" not in text


@pytest.mark.parametrize("name", ["script", "style", "title", "svg", "template", "iframe"])
def test_what_is_not_text_is_dropped_even_unclosed(name: str) -> None:
    text, _ = html.as_text(f"before <{name} x='>'>secret()</{name.upper()}> after")
    assert "secret" not in text
    assert "before" in text
    assert "after" in text
    assert "secret" not in html.words(f"before <{name}>secret()</{name}> after")
    assert "before" in html.as_text(f"before <{name}>secret()")[0]


def test_lists_quotations_and_preformatted_text_keep_their_shape() -> None:
    text, _ = html.as_text("<ul><li>one<li>two</ul><blockquote>said<br>twice</blockquote><pre>a\n  b</pre>1. x * y_z")
    assert text == "  - one\n  - two\n\n> said\n> twice\n\n    a\n      b\n\n1. x * y_z\n"


def test_what_is_cut_says_so() -> None:
    text, cut = html.as_text("word " * html.INPUT_LIMIT)
    assert cut
    assert len(text) <= html.INPUT_LIMIT + 1
    assert html.as_text("word")[1] is False


def test_when_the_time_is_over_the_tags_are_simply_removed() -> None:
    ticks = itertools.count(step=10)
    text, cut = html.as_text("<p>still <b>here</b></p>" * 100, clock=lambda: float(next(ticks)))
    assert cut
    assert text.split() == ["still", "here"] * 100


@pytest.mark.parametrize(
    "pattern", ["<", "<a ", "</", '<a href="', "<blockquote>", "<ul><li>", "<table></tr><td>", "<!--"]
)
def test_hostile_nesting_is_bounded(pattern: str) -> None:
    text, _ = html.as_text((pattern * html.INPUT_LIMIT)[: html.INPUT_LIMIT])
    assert len(text) <= 2 * html.OUTPUT_LIMIT
