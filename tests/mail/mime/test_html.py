"""Rendering HTML as text (mail/mime/html.py)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mail.mime import html

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


@pytest.mark.parametrize(
    ("link", "text"),
    [
        ("<div>Buy</div>", "Buy [1]\n"),
        ("<table><tr><td>Buy</td></tr></table>", "Buy [1]\n"),
        ("one<br>two", "one\ntwo [1]\n"),
        ("<p>one</p><p>two</p>", "one\n\ntwo [1]\n"),
        ("one<br>", "one [1]\n"),
    ],
)
def test_a_link_around_blocks_shows_where_it_really_leads(link: str, text: str) -> None:
    shown, _ = html.as_text(f'<a href="https://evil.example">{link}</a>')
    assert shown == f"{text}\n[1] https://evil.example\n"


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


def test_what_is_nested_too_deeply_to_be_parsed_is_shown_without_its_tags() -> None:
    text, cut = html.as_text("<div>" * 4001 + "still <b>here</b>" + "</div>" * 4001)
    assert cut
    assert text.split() == ["still", "here"]
    text, cut = html.as_text("<div>" * 1999 + "still here" + "</div>" * 1999)
    assert (text, cut) == ("still here\n", False)


@pytest.mark.parametrize(
    "pattern", ["<", "<a ", "</", '<a href="', "<blockquote>", "<ul><li>", "<table></tr><td>", "<!--"]
)
def test_hostile_nesting_is_bounded(pattern: str) -> None:
    text, _ = html.as_text((pattern * html.INPUT_LIMIT)[: html.INPUT_LIMIT])
    assert len(text) <= 2 * html.OUTPUT_LIMIT


def test_a_table_of_data_stands_in_columns_and_figures_to_the_right() -> None:
    text, _ = html.as_text(
        "<p>Dear Bob,<table><tr><th>Item<th>Qty<th>Price<tr><td>Apple<td>3<td>1.20 €"
        "<tr><td><a href='http://x.example'>Pear</a><td>12<td>10.00 €</table>Bye"
    )
    assert text.splitlines() == [
        "Dear Bob,",
        "",
        "Item      Qty    Price",
        "--------  ---  -------",
        "Apple       3   1.20 €",
        "Pear [1]   12  10.00 €",
        "",
        "Bye",
        "",
        "[1] http://x.example",
    ]


def test_a_table_for_the_layout_is_read_in_order() -> None:
    cell = "<td><p>a long paragraph of a newsletter that is no figure in any table</p><p>and more</p></td>"
    text, _ = html.as_text(f"<table><tr>{cell}{cell}</tr><tr>{cell}{cell}</tr></table>")
    assert text.count("a long paragraph") == 4
    assert "\n\nand more\n" in text


def test_wide_letters_are_counted_as_the_terminal_draws_them() -> None:
    text, _ = html.as_text("<table><tr><td>日本<td>x<tr><td>abcd<td>y</table>")
    assert text == "日本  x\nabcd  y\n"


def test_headings_are_underlined_and_lists_within_lists_are_indented() -> None:
    text, _ = html.as_text("<h1>One</h1><h2>Two</h2><ol start=3><li>a<ul><li>b</ul><li>c</ol>")
    assert text == "One\n===\n\nTwo\n---\n\n  3. a\n       - b\n  4. c\n"


def test_quotations_within_quotations_and_breaks_keep_their_levels() -> None:
    text, _ = html.as_text("<blockquote>a<blockquote>b</blockquote></blockquote>c<br><br>d<hr>e")
    assert text == "> a\n>\n> > b\n\nc\n\nd\n\n--------------------\n\ne\n"


def test_a_deep_quotation_is_not_indented_without_end() -> None:
    text, _ = html.as_text("<blockquote>" * 100 + "deep")
    assert text == "> " * 12 + "deep\n"


def test_the_words_for_searching_are_those_that_are_shown() -> None:
    assert html.words("<p>caf&eacute; <b>bold</b><script>no()</script><td>cell").split() == ["café", "bold", "cell"]
