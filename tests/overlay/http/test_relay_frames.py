"""The relay's frames: each value has one encoding, and everything else is refused."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import Malformed
from overlay.http import relay_frames
from overlay.identity.contact import WireContact
from overlay.protocol_limits import MAX_DATAGRAM

IPS = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
PORTS = st.integers(1, 65535)
DATAGRAMS = st.binary(max_size=MAX_DATAGRAM)


@given(st.binary(min_size=32, max_size=32), IPS, PORTS, DATAGRAMS)
def test_a_datagram_survives_the_way_there(key: bytes, ip: bytes, port: int, datagram: bytes) -> None:
    outward = relay_frames.Outward(WireContact(key, ip, port), datagram)
    encoded = relay_frames.encode(outward)
    assert relay_frames.decode_outward(encoded) == outward
    assert len(encoded) <= relay_frames.LONGEST


@given(IPS, PORTS, DATAGRAMS)
def test_a_datagram_survives_the_way_back(ip: bytes, port: int, datagram: bytes) -> None:
    inward = relay_frames.Inward(ip, port, datagram)
    assert relay_frames.decode_inward(relay_frames.encode(inward)) == inward


@given(st.binary(min_size=32, max_size=32), IPS | st.just(b""))
def test_a_welcome_survives_the_way(key: bytes, ip: bytes) -> None:
    welcome = relay_frames.Welcome(key, ip)
    assert relay_frames.decode_welcome(relay_frames.encode(welcome)) == welcome


@pytest.mark.parametrize("ip", [b"1", bytes(5), bytes(17)])
def test_a_welcome_with_half_an_address_is_refused(ip: bytes) -> None:
    with pytest.raises(Malformed):
        relay_frames.decode_welcome(msgspec.msgpack.encode([bytes(32), ip]))


@given(st.binary(max_size=300))
def test_nonsense_is_refused(data: bytes) -> None:
    for decode in (relay_frames.decode_welcome, relay_frames.decode_outward, relay_frames.decode_inward):
        with pytest.raises(Malformed):
            decode(data + b"\xc1")  # which msgpack never uses


@given(st.ip_addresses().map(str), PORTS, st.binary(min_size=32, max_size=32))
def test_the_node_that_is_meant_survives_the_header(ip: str, port: int, fingerprint: bytes) -> None:
    assert relay_frames.parse_to(relay_frames.to_value(ip, port, fingerprint))[1:] == (port, fingerprint)


@given(st.text(max_size=200))
def test_nonsense_in_the_header_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        relay_frames.parse_to(text)
