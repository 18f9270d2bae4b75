from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import Malformed
from overlay.wire import fragments
from overlay.wire.fragments import ANSWER, FRAGMENT, MAX_FRAGMENTS, MAX_MESSAGE, SERVER_MODE, Reassembly

PEER, OTHER = b"a" * 32, b"b" * 32
ID = b"12345678"


def parts(message: bytes, message_id: bytes = ID, flags: int = 0) -> list[fragments.Fragment]:
    return [fragments.read(payload) for payload in fragments.cut(flags, message_id, message)]


def feed(reassembly: Reassembly, pieces: list[fragments.Fragment], peer: bytes = PEER, now: float = 0.0) -> list[bytes]:
    return [whole for piece in pieces if (whole := reassembly.add(peer, piece, now)) is not None]


@given(
    st.integers(0, MAX_MESSAGE), st.randoms(use_true_random=False), st.sampled_from([0, ANSWER, ANSWER | SERVER_MODE])
)
def test_a_message_is_whole_again_whatever_order_its_fragments_come_in(
    size: int, chance: random.Random, flags: int
) -> None:
    message = chance.randbytes(size)
    payloads = fragments.cut(flags, ID, message)
    assert all(len(payload) <= fragments.HEADER + FRAGMENT for payload in payloads)
    chance.shuffle(payloads)
    reassembly = Reassembly()
    assert feed(reassembly, [fragments.read(payload) for payload in payloads]) == [message]
    assert len(reassembly) == 0


def test_a_message_over_the_limit_isnt_cut() -> None:
    assert MAX_MESSAGE >= 8192 + 1024
    assert len(fragments.cut(0, ID, bytes(MAX_MESSAGE))) == MAX_FRAGMENTS
    with pytest.raises(Malformed):
        fragments.cut(0, ID, bytes(MAX_MESSAGE + 1))


@given(st.binary(max_size=40))
def test_random_payloads_are_a_fragment_or_are_dropped(payload: bytes) -> None:
    try:
        piece = fragments.read(payload)
    except Malformed:
        return
    assert 0 <= piece.index < piece.count <= MAX_FRAGMENTS


@pytest.mark.parametrize(("index", "count"), [(0, 0), (1, 1), (0, MAX_FRAGMENTS + 1), (255, 255), (9, 9)])
def test_a_lying_fragment_count_is_dropped(index: int, count: int) -> None:
    with pytest.raises(Malformed):
        fragments.read(b"\0" + ID + bytes((index, count)) + b"x")


def test_fragments_that_disagree_on_their_number_are_dropped() -> None:
    reassembly = Reassembly()
    reassembly.add(PEER, fragments.Fragment(0, ID, 0, 2, bytes(FRAGMENT)), 0.0)
    with pytest.raises(Malformed):
        reassembly.add(PEER, fragments.Fragment(0, ID, 1, 3, bytes(FRAGMENT)), 0.0)


@pytest.mark.parametrize("size", [0, 1, FRAGMENT - 1, FRAGMENT + 1])
def test_a_middle_fragment_of_a_lying_length_is_dropped(size: int) -> None:
    with pytest.raises(Malformed):
        Reassembly().add(PEER, fragments.Fragment(0, ID, 0, 2, bytes(size)), 0.0)


def test_a_fragment_that_comes_twice_counts_once() -> None:
    one, two = parts(bytes(FRAGMENT) + b"end")
    assert feed(Reassembly(), [one, one, two]) == [bytes(FRAGMENT) + b"end"]


def test_messages_of_two_peers_with_one_id_stay_apart() -> None:
    reassembly = Reassembly()
    mine, yours = parts(b"a" * FRAGMENT + b"a"), parts(b"b" * FRAGMENT + b"b")
    assert feed(reassembly, [mine[0]], PEER) == []
    assert feed(reassembly, [yours[0]], OTHER) == []
    assert feed(reassembly, [yours[1]], OTHER) == [b"b" * FRAGMENT + b"b"]
    assert feed(reassembly, [mine[1]], PEER) == [b"a" * FRAGMENT + b"a"]


def test_a_request_and_an_answer_with_one_id_stay_apart() -> None:
    reassembly = Reassembly()
    asked, told = parts(b"a" * (FRAGMENT + 1)), parts(b"b" * (FRAGMENT + 1), flags=ANSWER)
    assert feed(reassembly, [asked[0], told[0], told[1], asked[1]]) == [b"b" * (FRAGMENT + 1), b"a" * (FRAGMENT + 1)]


def test_one_peer_holds_no_more_than_its_share() -> None:
    reassembly = Reassembly()
    feed(reassembly, [parts(bytes(FRAGMENT + 1), b"another!")[0]], OTHER)
    for number in range(100):
        feed(reassembly, [parts(bytes(FRAGMENT + 1), number.to_bytes(8, "big"))[0]])
    assert len(reassembly) == fragments.PARTIAL_PER_PEER + 1
    assert feed(reassembly, [parts(bytes(FRAGMENT + 1), b"another!")[1]], OTHER) == [bytes(FRAGMENT + 1)]


def test_all_peers_together_hold_no_more_than_the_limit() -> None:
    reassembly = Reassembly()
    piece = parts(bytes(FRAGMENT + 1))[0]
    for number in range(fragments.PARTIAL_IN_ALL + 100):
        reassembly.add(number.to_bytes(32, "big"), piece, 0.0)
    assert len(reassembly) == fragments.PARTIAL_IN_ALL
    assert len(reassembly._of_peer) == fragments.PARTIAL_IN_ALL


def test_what_isnt_whole_after_some_seconds_is_forgotten() -> None:
    reassembly = Reassembly()
    one, two = parts(bytes(FRAGMENT + 1))
    reassembly.add(PEER, one, 0.0)
    reassembly.add(OTHER, one, fragments.PARTIAL_SECONDS)
    assert len(reassembly) == 1
    assert reassembly.add(PEER, two, fragments.PARTIAL_SECONDS) is None


@given(st.lists(st.tuples(st.sampled_from([PEER, OTHER]), st.integers(0, 5), st.integers(1, 4), st.integers(0, 3))))
def test_no_order_of_fragments_breaks_the_counting(steps: list[tuple[bytes, int, int, int]]) -> None:
    reassembly = Reassembly()
    for now, (peer, number, count, index) in enumerate(steps):
        piece = fragments.Fragment(0, bytes([number]) * 8, index % count, count, bytes(FRAGMENT))
        try:
            reassembly.add(peer, piece, now * 0.5)
        except Malformed:
            continue
    assert sum(reassembly._of_peer.values()) == len(reassembly)
    assert all(0 < held <= fragments.PARTIAL_PER_PEER for held in reassembly._of_peer.values())
