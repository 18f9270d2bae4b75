from __future__ import annotations

import ipaddress
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import Malformed
from overlay.identity import contact
from overlay.identity.contact import Contact, WireContact
from overlay.ids import leading_zero_bits

KEY = bytes(range(32))
PORTS = st.integers(1, 65535)


def received(ip: bytes, port: int = 4000, *, private: bool = False, puzzle: int = 0) -> Contact:
    return Contact.received(WireContact(KEY, ip, port), private_addresses=private, puzzle=puzzle)


def packed(ip: str) -> bytes:
    return ipaddress.ip_address(ip).packed


@given(st.binary(min_size=32, max_size=32), st.ip_addresses(), PORTS)
def test_a_contact_travels_and_comes_back_the_same(key: bytes, ip: ipaddress.IPv4Address, port: int) -> None:
    sent = Contact(key, contact.unpack_ip(ip.packed), port)
    assert Contact(sent.wire.key, contact.unpack_ip(sent.wire.ip), sent.wire.port) == sent


def test_a_contacts_id_follows_from_its_key() -> None:
    assert Contact(KEY, "192.0.2.1", 1).id == contact.node_id(KEY)
    assert Contact(KEY, "192.0.2.1", 1).long_id == int.from_bytes(contact.node_id(KEY), "big")


def test_contacts_are_equal_when_key_and_place_are() -> None:
    assert Contact(KEY, "192.0.2.1", 1) == Contact(KEY, "192.0.2.1", 1)
    others = [Contact(KEY, "192.0.2.1", 2), Contact(KEY, "192.0.2.2", 1), Contact(bytes(32), "192.0.2.1", 1)]
    assert Contact(KEY, "192.0.2.1", 1) not in others


@pytest.mark.parametrize("port", [-1, 0, 65536, 70000])
def test_a_contact_with_an_impossible_port_is_refused(port: int) -> None:
    with pytest.raises(Malformed):
        received(packed("1.1.1.1"), port)


@pytest.mark.parametrize("ip", [b"", b"1", b"localhost", bytes(5), bytes(15), bytes(17)])
def test_an_address_of_another_length_is_refused(ip: bytes) -> None:
    with pytest.raises(Malformed):
        received(ip, private=True)


@pytest.mark.parametrize("ip", ["0.0.0.0", "::", "255.255.255.255", "224.0.0.1", "ff02::1", "::ffff:224.0.0.1"])
def test_nothing_is_sent_to_everybody_or_nobody(ip: str) -> None:
    with pytest.raises(Malformed):
        received(packed(ip), private=True)


@pytest.mark.parametrize("ip", ["127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.1.1", "::1", "fe80::1", "fd00::1"])
def test_private_addresses_count_only_where_the_network_says_so(ip: str) -> None:
    assert received(packed(ip), private=True).ip == ip
    with pytest.raises(Malformed):
        received(packed(ip))


def test_an_ipv4_address_dressed_as_ipv6_is_the_ipv4_address() -> None:
    assert received(packed("::ffff:1.1.1.1")) == received(packed("1.1.1.1"))
    assert contact.pack_ip("::ffff:1.1.1.1") == packed("1.1.1.1")


def test_a_scope_is_no_part_of_an_address() -> None:
    assert contact.pack_ip("fe80::1%eth0") == packed("fe80::1")


@pytest.mark.parametrize("text", ["", "localhost", "example.org", "1.2.3", "1.2.3.4.5", "0x7f.1", "1.2.3.4 "])
def test_a_host_name_is_no_address(text: str) -> None:
    with pytest.raises(Malformed):
        contact.pack_ip(text)


def test_an_unsolved_puzzle_is_refused() -> None:
    solved = contact.puzzle_bits(contact.node_id(KEY))
    assert received(packed("1.1.1.1"), puzzle=solved).key == KEY
    with pytest.raises(Malformed):
        received(packed("1.1.1.1"), puzzle=solved + 1)


def test_the_puzzle_counts_zero_bits() -> None:
    assert contact.puzzle_bits(bytes(20)) == leading_zero_bits(sha256(bytes(20)).digest())


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1.2.3.4", "1.2.3.200", True),
        ("1.2.3.4", "1.2.4.4", False),
        ("2001:db8:0:ff00::1", "2001:db8:0:ff7f::2", True),
        ("2001:db8:0:ff00::1", "2001:db8:0:fe00::1", False),
    ],
)
def test_ranges_are_24_bits_of_ipv4_and_56_of_ipv6(one: str, other: str, same: bool) -> None:
    assert (contact.address_range(one) == contact.address_range(other)) is same


@given(st.binary(min_size=32, max_size=32))
def test_keys_survive_being_written(key: bytes) -> None:
    assert contact.parse_key(contact.key_text(key)) == key
    assert len(contact.key_text(key)) == 43


@pytest.mark.parametrize(
    "text", ["", "AAAA", "!" * 43, "A" * 42, "A" * 44, "A" * 42 + "é", "A" * 43 + " ", "A" * 41 + "!!"]
)
def test_what_is_no_key_is_refused_with_words(text: str) -> None:
    with pytest.raises(ValueError, match="is not a node's key"):
        contact.parse_key(text)


@given(st.ip_addresses(), PORTS)
def test_places_survive_being_written(ip: ipaddress.IPv4Address, port: int) -> None:
    assert contact.parse_host_port(contact.host_port(str(ip), port)) == (str(ip), port)


@pytest.mark.parametrize(
    "text", ["", "host", ":80", "host:", "host:x", "host:-1", "host:65536", "host:" + "9" * 5000, "host:٣", "::1:80"]
)
def test_what_is_no_place_is_refused_with_words(text: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        contact.parse_host_port(text)


def test_a_place_to_join_may_name_the_key() -> None:
    text = contact.key_text(KEY)
    assert contact.parse_join(f"node.example:4000/{text}") == ("node.example", 4000, KEY)
    assert contact.parse_join(f"[::1]:4000/{text}") == ("::1", 4000, KEY)
    assert contact.parse_join("node.example:4000") == ("node.example", 4000, None)


@pytest.mark.parametrize("text", ["node.example:0", "node.example:4000/", "node.example:4000/short", "node.example"])
def test_a_place_that_cant_be_joined_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"port|key|HOST"):
        contact.parse_join(text)
