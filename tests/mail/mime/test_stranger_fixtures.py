"""Messages that were misread once, each a file in tests/mail/fixtures/strangers, and what must come out of it."""

from __future__ import annotations

import pytest

from mail.mime.message import read_message, summarise
from tests.mail.sample_messages import FIXTURES, assert_fit_for_a_terminal

STRANGERS = FIXTURES / "strangers"
ANN = "Ann <ann@village.example>"

READ_AS = {
    "called-base64-and-is-not": (ANN, "a", "This text is not base64 at all, the sender lied.\n\n(not base64)\n"),
    "colon-in-a-name": ("HowlCentre: A Centre for Theatre <web@howl.example>", "a", "x\n"),
    "comma-in-a-name": ("Goodwares, Inc. <support@goodwares.example>", "a", "x\n"),
    "encoded-word-gb2312-on-gbk": (ANN, "朱镕基", "x\n"),
    "encoded-word-with-question-mark": (ANN, "What are you working on? übung", "x\n"),
    "from-somebody-else-with-own-address-as-name": ("ann@village.example <boss@bank.example>", "spoof1", "x\n"),
    "html-charset-in-its-head": (ANN, "meta", "Привет, мир\n"),
    "iso-2022-jp-with-row-13": (ANN, "x", "①㈱ 株式会社\n"),
    "label-gb2312-on-gbk": (ANN, "charset gb2312", "朱镕基 堃 中文\n"),
    "label-iso-8859-8-i": (ANN, "charset ISO-8859-8-I", "שלום עולם\n"),
    "label-of-ascii-on-utf-8": (ANN, "charset ANSI_X3.4-1968", "Grüße\n"),
    "label-of-latin-1-on-windows-1252": (ANN, "charset ISO8859-1", "He said “hi” – €5\n"),
    "label-shift-jis-on-windows-31j": (ANN, "charset Shift_JIS", "①㈱髙橋 テスト\n"),
    "label-windows-31j": (ANN, "charset windows-31j", "日本語の本文\n"),
    "label-with-comment": (ANN, "charset iso-8859-2 (Czech)", "Příliš žluťoučký\n"),
    "label-x-sjis": (ANN, "charset x-sjis", "日本語の本文\n"),
    "name-is-another-address": ("alice@village.example <mallory@village.example>", "please pay the invoice", "x\n"),
    "name-padded-with-empty-braille": (
        "Alice <alice@village.example> <mallory@village.example>",
        "invoice two",
        "x\n",
    ),
    "name-repeats-the-address": ("ann@village.example", "a", "x\n"),
    "name-repeats-the-address-in-quotes": ("ann@village.example", "a", "x\n"),
    "subject-in-raw-iso-2022-jp": (ANN, "日本語", "本文\n"),
    "subject-in-the-charset-of-the-body": (ANN, "Привет", "Текст\n"),
}


@pytest.mark.parametrize("name", sorted(path.stem for path in STRANGERS.glob("*.eml")))
def test_it_is_read_as_its_writer_meant_it(name: str) -> None:
    message = read_message(STRANGERS / f"{name}.eml")
    assert (str(message.sender), message.subject, message.text) == READ_AS[name]
    assert message.defects == ()
    assert_fit_for_a_terminal(message)
    summary = summarise(STRANGERS / f"{name}.eml")
    assert (summary.sender, summary.subject) == READ_AS[name][:2]


def test_names_of_recipients_are_read_too() -> None:
    message = read_message(STRANGERS / "name-repeats-the-address.eml")
    assert [str(person) for person in message.to] == [
        "ben@village.example",
        "Cy via list@x.example <cy@village.example>",
    ]
    (ben,) = read_message(STRANGERS / "name-repeats-the-address-in-quotes.eml").to
    assert str(ben) == "Ben <ben@village.example>"
