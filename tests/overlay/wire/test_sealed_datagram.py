from __future__ import annotations

import os
import random

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import Malformed
from overlay.protocol_limits import MAX_DATAGRAM
from overlay.wire import sealed_datagram
from overlay.wire.sealed_datagram import MAX_PAYLOAD, OVERHEAD, Sealer


def sealer(number: int, network: str = "test") -> Sealer:
    return Sealer(X25519PrivateKey.from_private_bytes(bytes([number]) * 32), network)


ALICE, BOB, EVE = sealer(1), sealer(2), sealer(3)
ALICE_THERE = sealer(1, "another network")


@given(st.binary(max_size=MAX_PAYLOAD))
def test_a_payload_arrives_with_its_senders_key(payload: bytes) -> None:
    sealed = ALICE.seal(BOB.public, payload)
    assert len(sealed) == OVERHEAD + len(payload) <= MAX_DATAGRAM
    assert BOB.open(sealed) == (ALICE.public, payload)


@given(st.binary(max_size=2000))
def test_random_bytes_are_dropped(data: bytes) -> None:
    with pytest.raises(Malformed):
        BOB.open(data)


@given(st.binary(max_size=1139))
def test_random_bytes_that_look_sealed_are_dropped(data: bytes) -> None:
    with pytest.raises(Malformed):
        BOB.open(b"\x01" + ALICE.public + data)


@given(st.data())
def test_a_changed_byte_is_noticed_wherever_it_is(data: st.DataObject) -> None:
    sealed = bytearray(ALICE.seal(BOB.public, b"payload"))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Malformed):
        BOB.open(bytes(sealed))


@pytest.mark.parametrize("other", [EVE, ALICE, sealer(2, "another network")])
def test_only_the_receiver_on_the_same_network_can_open(other: Sealer) -> None:
    with pytest.raises(Malformed):
        other.open(ALICE.seal(BOB.public, b"secret"))


def test_what_is_sent_back_to_its_sender_doesnt_open() -> None:
    sealed = ALICE.seal(BOB.public, b"x")
    with pytest.raises(Malformed):
        ALICE.open(sealed)
    turned = b"\x01" + BOB.public + sealed[33:]
    with pytest.raises(Malformed):
        ALICE.open(turned)


def test_a_datagram_over_the_limit_is_dropped_though_it_is_sealed_well() -> None:
    assert BOB.open(ALICE.seal(BOB.public, bytes(MAX_PAYLOAD)))[1] == bytes(MAX_PAYLOAD)
    with pytest.raises(Malformed):
        BOB.open(ALICE.seal(BOB.public, bytes(MAX_PAYLOAD + 1)))


LOW_ORDER = [bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f", b"\xed" + b"\xff" * 30 + b"\x7f"]


@pytest.mark.parametrize("key", LOW_ORDER)
def test_a_key_that_agrees_with_everybody_is_refused(key: bytes) -> None:
    with pytest.raises(Malformed):
        ALICE.seal(key, b"x")
    with pytest.raises(Malformed):
        ALICE.open(b"\x01" + key + bytes(60))


def test_no_two_datagrams_share_a_nonce() -> None:
    nonces = {ALICE.seal(BOB.public, b"x")[33:45] for _ in range(1000)}
    assert len(nonces) == 1000


def test_a_nonce_at_its_end_goes_on_at_zero() -> None:
    last = Sealer(X25519PrivateKey.from_private_bytes(bytes([1]) * 32), "test", lambda count: b"\xff" * count)
    assert last.seal(BOB.public, b"x")[33:45] == bytes(12)


def test_the_same_randomness_gives_the_same_datagram() -> None:
    def make() -> bytes:
        chance = random.Random(1)
        return Sealer(X25519PrivateKey.from_private_bytes(bytes([1]) * 32), "test", chance.randbytes).seal(
            BOB.public, b"x"
        )

    assert make() == make()


def test_strangers_cant_make_the_cache_of_keys_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed_datagram, "HEARD", 8)
    target = sealer(9)
    for number in range(100, 120):
        assert target.open(sealer(number).seal(target.public, b"x"))[1] == b"x"
        with pytest.raises(Malformed):
            target.open(b"\x01" + os.urandom(32) + bytes(60))
    assert (len(target._heard), len(target._pairs)) == (8, 0)


def test_a_forged_datagram_leaves_no_key_in_the_cache() -> None:
    target = sealer(9)
    with pytest.raises(Malformed):
        target.open(b"\x01" + EVE.public + bytes(60))
    assert not target._pairs and not target._heard


def test_asking_for_a_key_tells_it_with_the_cookie() -> None:
    cookie = bytes(range(sealed_datagram.COOKIE))
    assert ALICE.told_key(BOB.tell_key(ALICE.ask_key(cookie))) == (cookie, BOB.public)


def test_asking_for_a_key_costs_more_than_the_answer() -> None:
    asked = ALICE.ask_key(bytes(16))
    assert len(BOB.tell_key(asked)) < len(asked)


@given(st.binary(max_size=200))
def test_a_question_for_a_key_that_is_short_or_anothers_isnt_answered(data: bytes) -> None:
    with pytest.raises(Malformed):
        BOB.tell_key(b"\x02" + data)
    with pytest.raises(Malformed):
        BOB.told_key(b"\x03" + data)


def test_another_networks_question_isnt_answered() -> None:
    with pytest.raises(Malformed):
        BOB.tell_key(ALICE_THERE.ask_key(bytes(16)))
    with pytest.raises(Malformed):
        ALICE_THERE.told_key(BOB.tell_key(ALICE.ask_key(bytes(16))))
