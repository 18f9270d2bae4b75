"""The node of a profile: its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from mail.profile_node import NodeKeyDamaged, node_key
from overlay.identity.contact import node_id, puzzle_bits
from overlay.identity.network import Network


def test_the_key_is_made_once_and_again_when_the_puzzle_is_harder(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    key = node_key(path, Network("x")).private_bytes_raw()
    assert node_key(path, Network("x")).private_bytes_raw() == key == path.read_bytes()
    harder = node_key(path, Network("x", puzzle_bits=6)).public_key().public_bytes_raw()
    assert puzzle_bits(node_id(harder)) >= 6
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("data", [b"", b"x" * 31, b"x" * 33, b"-----BEGIN PRIVATE KEY-----"])
def test_a_damaged_key_is_refused_and_left_as_it_is(tmp_path: Path, data: bytes) -> None:
    """A new key would be another node: who has the old one in a join address would never reach it."""
    path = tmp_path / "node.key"
    path.write_bytes(data)
    with pytest.raises(NodeKeyDamaged, match=f"{len(data)} bytes instead of 32. Nothing was changed.") as raised:
        node_key(path, Network("x"))
    assert raised.value.exit_code == 78
    assert path.read_bytes() == data
