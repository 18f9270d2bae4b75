"""Encryption keys: a pair opens what was sealed to it, and the weekly change leaves no mail behind."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mail.sealed.keys import (
    ROTATION,
    SEAL_OVERHEAD,
    SECRET_SIZE,
    KeyMaterialError,
    NotOpened,
    due,
    generate_pair,
    open_sealed,
    pair_from_secret,
    retire_after,
    seal,
)
from overlay.identity.card import key_id_of
from overlay.protocol_limits import DAY, ENCRYPTION_KEY_SIZE, RETENTION

NOW = 1_800_000_000.0
PAIR = generate_pair(NOW, random.Random(1).randbytes)
OTHER = generate_pair(NOW, random.Random(2).randbytes)
SEALED = seal(b"secret", PAIR.public, b"info")


def test_a_pair_opens_what_was_sealed_to_it() -> None:
    assert open_sealed(SEALED, PAIR, b"info") == b"secret"
    assert len(SEALED) == len(b"secret") + SEAL_OVERHEAD


def test_a_pair_comes_back_from_its_secret() -> None:
    assert pair_from_secret(PAIR.secret, NOW) == PAIR
    assert (len(PAIR.public), len(PAIR.secret)) == (ENCRYPTION_KEY_SIZE, SECRET_SIZE)
    assert PAIR.key_id == key_id_of(PAIR.public)
    assert PAIR.key_id != OTHER.key_id


def test_a_pair_s_secret_is_not_printed() -> None:
    assert "secret" not in repr(PAIR)


def test_another_pair_or_purpose_opens_nothing() -> None:
    with pytest.raises(NotOpened):
        open_sealed(SEALED, OTHER, b"info")
    with pytest.raises(NotOpened):
        open_sealed(SEALED, PAIR, b"other info")


@given(st.binary(max_size=1500))
def test_any_bytes_are_not_opened(data: bytes) -> None:
    with pytest.raises(NotOpened):
        open_sealed(data, PAIR, b"info")


@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_a_changed_byte_is_noticed(position: int, change: int) -> None:
    altered = bytearray(SEALED)
    altered[position] ^= change
    with pytest.raises(NotOpened):
        open_sealed(bytes(altered), PAIR, b"info")


@pytest.mark.parametrize("public", [b"", PAIR.public[:-1], PAIR.public + b"\0", b"\xff" * ENCRYPTION_KEY_SIZE])
def test_what_is_no_key_is_sealed_to_with_a_clear_error(public: bytes) -> None:
    with pytest.raises(KeyMaterialError):
        seal(b"secret", public, b"info")


@pytest.mark.parametrize("size", [0, 64, 95, 97])
def test_a_damaged_secret_makes_a_clear_error(size: int) -> None:
    with pytest.raises(KeyMaterialError):
        pair_from_secret(bytes(size), NOW)


def test_a_point_of_small_order_is_refused() -> None:
    hostile = PAIR.public[:-32] + bytes(32)
    with pytest.raises(KeyMaterialError):
        seal(b"secret", hostile, b"info")


@given(st.floats(0, 4e9), st.floats(0, 4e9))
def test_a_key_is_due_after_a_week_whatever_the_clock_does(created: float, now: float) -> None:
    assert due(created, now) == (abs(now - created) >= ROTATION)


def test_a_replaced_key_outlives_everything_that_was_sealed_to_it() -> None:
    assert not due(NOW, NOW + 6 * DAY)
    assert due(NOW, NOW + 7 * DAY)
    assert retire_after(NOW) > NOW + RETENTION
