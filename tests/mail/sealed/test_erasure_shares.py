"""Shares: any m of n make the segment again; what isn't one of them is known for what it is."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from mail.sealed import erasure_shares as format_of_shares
from mail.sealed.erasure_shares import HEADER, BodyCoding, CodingPlan, GatheredShares, make_shares

KEY = bytes(range(20))
PLAN = CodingPlan(3, 7, bytes(range(32)))
SEGMENT = Random(1).randbytes(10_001)
SHARES = make_shares(SEGMENT, KEY, PLAN)


def gathered(plan: CodingPlan = PLAN, size: int = len(SEGMENT), key: bytes = KEY) -> GatheredShares:
    return GatheredShares(plan.coding, key, size)


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=3000), st.integers(2, 20), st.integers(0, 30), st.randoms())
def test_any_m_of_n_shares_make_the_segment(segment: bytes, m: int, more: int, chance: Random) -> None:
    plan = CodingPlan(m, m + more, bytes(32))
    shares = make_shares(segment, KEY, plan)
    assert len(shares) == plan.n
    some = gathered(plan, len(segment))
    for share in chance.sample(shares, m):
        assert some.missing
        assert some.take(share)
    assert some.segment() == segment


def test_the_same_segment_gives_the_same_shares() -> None:
    assert make_shares(SEGMENT, KEY, PLAN) == SHARES
    assert len(set(SHARES)) == PLAN.n


def test_one_share_twice_is_one_share() -> None:
    some = gathered()
    for _ in range(5):
        assert some.take(SHARES[0])
    assert some.missing == 2


@pytest.mark.parametrize("at", [0, 1, 2, 3, 4, 8, 71, HEADER, len(SHARES[0]) - 1])
def test_a_changed_share_is_none_whichever_byte_it_is(at: int) -> None:
    share = bytearray(SHARES[0])
    share[at] ^= 1
    assert not gathered().take(bytes(share))


@given(st.binary(max_size=200))
def test_any_other_bytes_are_no_share(data: bytes) -> None:
    some = gathered(size=300)
    assert not some.take(data)
    assert some.missing == PLAN.m


def test_attack_shares_of_another_key_letter_or_coding_are_none() -> None:
    others = [
        make_shares(SEGMENT, bytes(20), PLAN)[0],
        make_shares(SEGMENT, KEY, replace(PLAN, seed=bytes(32)))[0],
        make_shares(SEGMENT, KEY, replace(PLAN, n=8))[0],
        make_shares(SEGMENT[:-1], KEY, PLAN)[0],
        SHARES[0][:-1],
        SHARES[0] + b"\0",
        b"",
    ]
    some = gathered()
    assert [some.take(other) for other in others] == [False] * len(others)


def test_a_plan_comes_back_from_the_outbox() -> None:
    assert CodingPlan.decode(PLAN.encode()) == PLAN


@pytest.mark.parametrize(("m", "n", "key"), [(1, 5, bytes(32)), (6, 5, bytes(32)), (2, 256, bytes(32)), (2, 5, b"")])
def test_what_is_no_coding_is_refused(m: int, n: int, key: bytes) -> None:
    with pytest.raises(ValueError, match="no coding"):
        BodyCoding(m, n, key)


def test_a_share_says_its_version_its_number_and_its_coding() -> None:
    assert [share[:8] for share in SHARES[:2]] == [
        b"\x01\x00\x03\x07\x00\x00\x27\x11",
        b"\x01\x01\x03\x07\x00\x00\x27\x11",
    ]


def test_a_share_with_a_number_past_the_last_is_none_though_its_sender_signed_it() -> None:
    more = make_shares(SEGMENT, KEY, replace(PLAN, n=8))[7]
    head = bytes((1, 7, 3, 7)) + more[4:8]
    signature = Ed25519PrivateKey.from_private_bytes(PLAN.seed).sign(format_of_shares._signed(KEY, head, more[HEADER:]))
    assert not gathered().take(head + signature + more[HEADER:])


def test_the_largest_coding_has_255_shares_and_the_smallest_two() -> None:
    assert BodyCoding(255, 255, bytes(32)).n == 255
    assert BodyCoding(2, 2, bytes(32)).m == 2


def test_neither_seed_nor_key_is_shown_when_a_plan_is_printed() -> None:
    secret = bytes(range(100, 132))
    assert repr(secret) not in repr(CodingPlan(2, 3, secret)) + repr(BodyCoding(2, 3, secret))
