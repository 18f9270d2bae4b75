from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.protocol_limits import TOKEN_BYTES
from overlay.wire.write_tokens import EPOCH, NOBODY, WriteTokens
from tests.clock import Clock

KEY, IP = b"k" * 32, "192.0.2.1"


@given(st.floats(0, 1e9), st.floats(0, EPOCH))
def test_a_token_is_good_for_five_minutes_at_least(start: float, later: float) -> None:
    clock = Clock(start)
    tokens = WriteTokens(clock)
    token = tokens.issue(KEY, IP)
    assert len(token) == TOKEN_BYTES
    clock.now = start + later
    assert tokens.good(token, KEY, IP)


@given(st.floats(0, 1e6), st.floats(2 * EPOCH, 1e6))
def test_a_token_is_worth_nothing_after_ten_minutes(start: float, later: float) -> None:
    clock = Clock(start)
    tokens = WriteTokens(clock)
    token = tokens.issue(KEY, IP)
    clock.now = start + later
    assert not tokens.good(token, KEY, IP)


def test_a_token_is_bound_to_the_askers_key_and_address() -> None:
    tokens = WriteTokens(Clock(10_000.0))
    token = tokens.issue(KEY, IP)
    assert not tokens.good(token, b"x" * 32, IP)
    assert not tokens.good(token, NOBODY, IP)
    assert not tokens.good(token, KEY, "192.0.2.2")
    assert tokens.good(token, KEY, "::ffff:192.0.2.1")


def test_another_nodes_token_is_worth_nothing() -> None:
    assert not WriteTokens(Clock(10_000.0)).good(WriteTokens(Clock(10_000.0)).issue(KEY, IP), KEY, IP)


@pytest.mark.parametrize("token", [b"", b"x", bytes(16), bytes(17)])
def test_a_false_token_is_no_error_though_the_machine_has_just_started(token: bytes) -> None:
    assert not WriteTokens(Clock(0.0)).good(token, KEY, IP)
