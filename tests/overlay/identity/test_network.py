from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.identity.contact import key_text
from overlay.identity.network import Network, NetworkFileError, read_network, write_network

PLACES = ["node.example:4000", "192.0.2.1:1", "[2001:db8::1]:65535", "node.example:4000/" + key_text(bytes(range(32)))]

NETWORKS = st.builds(
    Network,
    name=st.text(st.characters(codec="utf-8", categories=("L", "N", "P")), min_size=1, max_size=100),
    k=st.integers(1, 20),
    puzzle_bits=st.integers(0, 40),
    private_addresses=st.booleans(),
    authorities=st.lists(st.binary(max_size=50)).map(tuple),
    join=st.lists(st.sampled_from(PLACES)).map(tuple),
)


@given(NETWORKS)
def test_a_network_survives_its_file(network: Network) -> None:
    assert read_network(write_network(network)) == network


def test_a_file_with_a_name_alone_has_defaults() -> None:
    assert read_network(b'name = "example"') == Network("example")


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_with_words(data: bytes) -> None:
    with pytest.raises(NetworkFileError, match="network"):
        read_network(data)


@pytest.mark.parametrize(
    "line",
    [
        'name = ""',
        'name = "a\\nb"',
        f'name = "{"x" * 101}"',
        "name = 7",
        "k = 0",
        "k = 21",
        'k = "10"',
        "k = true",
        "puzzle_bits = -1",
        "puzzle_bits = 41",
        "private_addresses = 1",
        'authorities = "AAAA"',
        'authorities = ["not base64!"]',
        'authorities = ["é"]',
        "authorities = [1]",
        "join = 1",
        'join = ["node.example"]',
        'join = ["node.example:0"]',
        'join = ["node.example:70000"]',
        'join = ["node.example:4000/short"]',
        "join = [1]",
        "a = " + "[" * 100_000,
    ],
    ids=lambda line: line[:30],
)
def test_what_cant_be_is_refused_with_words(line: str) -> None:
    first = "" if line.startswith("name") else 'name = "example"\n'
    with pytest.raises(NetworkFileError):
        read_network((first + line).encode())


def test_more_places_to_join_come_first_and_once() -> None:
    network = Network("example", join=("a:1", "b:2")).joined_at("c:3", "b:2")
    assert network.join == ("c:3", "b:2", "a:1")
