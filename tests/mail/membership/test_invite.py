"""Invites are read back however a mail program wrapped them; everything else gets a clear error."""

from __future__ import annotations

import base64
import hashlib
import textwrap
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mail.membership.invite import Invite, InviteError, read_invite, write_invite
from overlay.identity.contact import key_text
from overlay.identity.network import Network

PLACES = (
    "192.0.2.1:4000/" + key_text(bytes(range(32))),
    "[2001:db8::1]:4001/" + key_text(bytes(32)),
    "node.example.org:7",
)
INVITE = Invite(
    network=Network("campus", k=7, puzzle_bits=12, private_addresses=True, join=PLACES),
    fingerprint="ab" * 32,
    address="jürgen@example.org",
    code=bytes(range(16)),
)
LINE = write_invite(INVITE)


def wrap(document: object) -> str:
    data = msgspec.msgpack.encode(document)
    data = len(data).to_bytes(2, "big") + data
    checksum = hashlib.sha256(b"p2pmail invite\0" + data).digest()[:4]
    return "p2pmail:" + base64.urlsafe_b64encode(data + checksum).rstrip(b"=").decode()


def fields() -> list[object]:
    data = base64.urlsafe_b64decode(LINE.removeprefix("p2pmail:") + "===")
    decoded = msgspec.msgpack.decode(data[2:-4], type=list[object])
    assert wrap(decoded) == LINE
    return decoded


def test_what_was_written_is_read() -> None:
    assert read_invite(LINE) == INVITE
    assert "\n" not in LINE
    assert len(LINE) < 400


@pytest.mark.parametrize(
    "pasted",
    [
        f"  {LINE}\n",
        "\r\n".join(textwrap.wrap(LINE, 60)),
        "> " + "\n> ".join(textwrap.wrap(LINE, 60)),
        "=\r\n".join(textwrap.wrap(LINE, 76)),
        "Paste this:\n\n" + "\n  ".join(textwrap.wrap(LINE, 40)),
        f"<{LINE}>",
        f'"{LINE}".',
        "\ufeff" + LINE,
        f"The line that begins with p2pmail: is yours:\n{LINE}\nRegards, Bob",
        LINE + "\n" + "A" * 1001,
        LINE.replace("p2pmail:", "P2PMAIL:"),
    ],
)
def test_what_mail_programs_do_to_a_long_line_is_tolerated(pasted: str) -> None:
    assert read_invite(pasted) == INVITE


@given(st.lists(st.integers(0, len(LINE)), max_size=10), st.sampled_from(["\n", " ", "\r\n> ", "=\n", "\t"]))
def test_breaks_anywhere_are_tolerated(places: list[int], filling: str) -> None:
    text = LINE
    for place in sorted(places, reverse=True):
        text = text[:place] + filling + text[place:]
    assert read_invite(text) == INVITE


@given(st.integers(0, len(LINE) - 1))
def test_a_truncated_invite_says_so(length: int) -> None:
    with pytest.raises(InviteError, match=r"missing|no invite"):
        read_invite(LINE[:length])


@given(st.integers(0, len(LINE) - 1), st.characters(codec="ascii"))
def test_a_changed_character_is_noticed_or_does_not_matter(position: int, character: str) -> None:
    try:
        assert read_invite(LINE[:position] + character + LINE[position + 1 :]) == INVITE
    except InviteError as error:
        assert str(error).isprintable()


@given(st.text())
def test_any_text_is_an_invite_error(text: str) -> None:
    for candidate in (text, "p2pmail:" + text):
        with pytest.raises(InviteError):
            read_invite(candidate)


@pytest.mark.parametrize("letter", ["\u017f", "\u212a"], ids=["long s", "kelvin"])
def test_letters_that_only_become_ascii_in_another_case_end_the_line(letter: str) -> None:
    """Found by a fuzzer: they matched the pattern of the line, and base64 raised an unexpected error."""
    with pytest.raises(InviteError):
        read_invite(f"p2pmail:AAC{letter}C")


def test_a_very_long_paste_is_refused() -> None:
    with pytest.raises(InviteError, match="too long"):
        read_invite(LINE * 100)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (0, 2),
        (0, "1"),
        (1, ""),
        (1, "\x1b[2J"),
        (1, "a" * 1000),
        (2, 0),
        (2, 1000),
        (3, 255),
        (4, 1),
        (5, []),
        (5, [["h", 70000, b""]]),
        (5, [["h", 0, b""]]),
        (5, [["h", 1, b"short"]]),
        (5, [["h h", 1, b""]]),
        (5, [["", 1, b""]]),
        (5, [["h", 1]]),
        (5, [["h", 1, b""]] * 9),
        (6, b"short"),
        (7, "alice"),
        (7, "Alice@example.org"),
        (7, "a\nb@example.org"),
        (8, b""),
        (8, b"x" * 100),
    ],
)
def test_a_well_formed_line_with_nonsense_inside_is_refused(field: int, value: object) -> None:
    document = fields()
    document[field] = value
    with pytest.raises(InviteError) as caught:
        read_invite(wrap(document))
    assert str(caught.value).isprintable()


def test_missing_and_further_fields_are_refused() -> None:
    documents: list[object] = [fields()[:-2], [*fields(), 1], {}, [], None]  # the last one has a default
    for document in documents:
        with pytest.raises(InviteError):
            read_invite(wrap(document))


def test_an_invite_says_that_nodes_are_certified() -> None:
    certified = replace(INVITE, network=replace(INVITE.network, admission="certified"))
    assert read_invite(write_invite(certified)).network.admission == "certified"
    assert read_invite(write_invite(INVITE)).network.admission == "open"


def test_an_invite_must_say_where_to_join() -> None:
    with pytest.raises(InviteError, match="where to join"):
        write_invite(replace(INVITE, network=replace(INVITE.network, join=())))


def test_only_the_first_places_are_named() -> None:
    many = tuple(f"192.0.2.{number}:4000" for number in range(1, 20))
    read = read_invite(write_invite(replace(INVITE, network=replace(INVITE.network, join=many))))
    assert read.network.join == many[:8]
