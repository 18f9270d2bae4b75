"""Create a network from the reader: authority, first node and first member in one profile.

Others join at the founder's computer, so its node listens on a fixed port from then on.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mail.identity import Identity
from mail.membership.authority import Authority
from mail.membership.create_network import create_network, network_file, remember_places
from mail.profile_node import node_key, read_network_file
from overlay.identity.address import normalise_address
from overlay.identity.contact import host_port, key_text
from overlay.identity.network import write_network
from overlay.identity.network_scope import decide
from storage import durable
from storage.user.keyring import IdentityKey as CertifiedIdentity
from storage.user.keyring import Keyring, KeyringExists
from storage.user.profile import Profile

AUTHORITY = "authority"
"""The authority's folder inside the founder's profile."""
PORT = 4600
"""UDP and TCP port of a founder's node."""


def create_with_member(
    profile: Profile,
    name: str,
    address: str,
    passphrase: str | None,
    tell: Callable[[str], None] = lambda words: None,
) -> Path:
    """Create the network `name`, certify this profile as `address`, and make it the node at which others join.

    This computer's address decides whether the network is private or public; `tell` gets that in words. Returns the
    authority's folder. Raises AuthorityError, AddressError, KeyringError, OSError.
    """
    address = normalise_address(address)
    profile.create()
    if profile.keyring_file.exists():
        raise KeyringExists(f"{profile.root} has keys already: it belongs to somebody. Nothing was changed.")
    folder = profile.root / AUTHORITY
    here = host_port(own_address(), PORT)
    if network_file(folder).exists():  # continue an interrupted call
        network = read_network_file(network_file(folder))
    else:
        network = create_network(folder, name, passphrase=passphrase, private_addresses=decide([here]).private)
    tell(decide([here], network.private_addresses).words)
    key = node_key(profile.node_folder / "node.key", network)
    place = f"{here}/{key_text(key.public_key().public_bytes_raw())}"
    network = remember_places(folder, network, [place])
    identity_key = Ed25519PrivateKey.generate()
    with closing(Authority(folder, passphrase=passphrase.encode() if passphrase else None)) as authority:
        certificate = authority.issue(address, identity_key.public_key().public_bytes_raw())
    keyring = Keyring.create(profile.keyring_file, passphrase or None)
    keyring.set_identity(CertifiedIdentity(address, identity_key.private_bytes_raw(), certificate.der))
    Identity(keyring).rotate(time.time())
    durable.write(profile.network_file, write_network(network))
    profile.change_config(mode="node", listen=f"*:{PORT}")
    return folder


def own_address() -> str:
    """This computer's address according to its routing table (nothing is sent), else loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1: only selects an interface
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
