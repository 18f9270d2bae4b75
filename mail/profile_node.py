"""This profile's place in the overlay: its network, its node key, its store, opened and joined.

Puts overlay and storage together from what lies in the profile; used by the user agent and by `--node-only`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from overlay.identity.admission import Proof, sign
from overlay.identity.contact import node_id, parse_host_port, puzzle_bits
from overlay.identity.network import Network, NetworkFileError, read_network
from overlay.identity.network_scope import is_private
from overlay.identity.ownership import Owner
from overlay.identity.tls import IdentityError, TLSIdentity, load_identity, make_identity
from overlay.node.config import NodeConfig
from overlay.node.node import CantListen, Node, new_key
from overlay.reachability.verdict import Reachability
from storage import durable
from storage.errors import CONFIGURATION, P2PMailError
from storage.node.store import open_node_store
from storage.user.profile import Profile

log = logging.getLogger(__name__)


class NoNetwork(P2PMailError):
    """This profile belongs to no network yet, and none was named."""

    exit_code = CONFIGURATION


class NotAdmitted(NoNetwork):
    """The network lets members' nodes in only, and this profile hasn't shown that it is one's."""


def read_network_file(path: Path) -> Network:
    """The network in a network.toml. Raises NoNetwork, NetworkFileError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise NoNetwork(f"There is no network file at {path}. Paste an invite, or name one with --network.") from error
    except OSError as error:
        raise NetworkFileError(f"The network file {path} can't be read: {error.strerror}.") from error
    return read_network(data)


async def open_system_node(
    profile: Profile,
    network: Network,
    *,
    listen: str,
    join: Sequence[str] = (),
    now: Callable[[], float] = time.time,
    if_reached: bool = False,
) -> Node:
    """A system node of this profile, listening and joined as far as anybody answers.

    `listen`: HOST:PORT, the host * for all addresses of both kinds. `if_reached`: it serves only while others reach
    it, which dial-back tells; in a network of private addresses until they say that they don't, else once they do.

    Raises CantListen, DatabaseError, OSError (the profile can't be written), ValueError (bad `listen` or `join`),
    NotAdmitted.
    """
    host, port = parse_host_port(listen)
    if not network.private_addresses and is_private(host):
        log.warning(
            "%s takes public addresses only, and %s is a private one: unless a router passes on what comes for this"
            " node, nobody reaches it",
            network.name,
            host,
        )
    folder = profile.node_folder
    durable.make_folder(folder)
    key = await asyncio.to_thread(node_key, folder / "node.key", network)
    tls = _tls(folder / "tls.pem", now())
    proof = None
    if network.admission == "certified":
        proof = await asyncio.to_thread(_read_admission, folder / "admission")
    store = open_node_store(folder, quota=profile.config.quota, now=now)
    reach = Reachability(server_mode=not if_reached or network.private_addresses, fixed=not if_reached)
    node = Node(NodeConfig(network, key, store=store, tls=tls, now=now, proof=proof, reachability=reach))
    try:
        await (_listen_everywhere(node, port) if host == "*" else node.listen(port, host))
        await node.join(join, folder / "routing.json")
    except BaseException:
        await node.stop()
        raise
    return node


async def open_client(
    profile: Profile, network: Network, *, join: Sequence[str] = (), now: Callable[[], float] = time.time
) -> Node:
    """A client: asks, keeps nothing for others, has a key for this run only, and is in nobody's table."""
    node = Node(NodeConfig(network, new_key(), now=now))
    try:
        await _listen_everywhere(node, 0)
        durable.make_folder(profile.node_folder)
        await node.join(join, profile.node_folder / "routing.json")
    except BaseException:
        await node.stop()
        raise
    return node


def node_key(path: Path, network: Network) -> X25519PrivateKey:
    """The node's key, made at the first start; a new one where the network's puzzle has become harder."""
    try:
        key = X25519PrivateKey.from_private_bytes(path.read_bytes())
    except (FileNotFoundError, ValueError):
        key = None
    if key is None or puzzle_bits(node_id(key.public_key().public_bytes_raw())) < network.puzzle_bits:
        key = new_key(network.puzzle_bits)
        durable.write(path, key.private_bytes_raw())
    return key


async def _listen_everywhere(node: Node, port: int) -> None:
    """One socket for IPv6 and IPv4, or for IPv4 alone where there is nothing else. Raises CantListen."""
    if socket.has_dualstack_ipv6():
        try:
            return await node.listen(port, "::")
        except CantListen:  # the system has IPv6, and it is switched off
            pass
    return await node.listen(port, "0.0.0.0")  # noqa: S104


def renew_admission(profile: Profile, node: Node, owner: Owner) -> None:
    """Have a running system node shown by the owner's renewed certificate, before the old one ends. Raises OSError."""
    shown = node.protocol.proof
    if shown is not None and shown.certificate != owner.certificate:
        node.protocol.proof = write_admission(profile, node.network, owner)


def write_admission(profile: Profile, network: Network, owner: Owner) -> Proof:
    """Have `owner` answer for this profile's node, for when it runs without her keys. Raises OSError."""
    folder = profile.node_folder
    durable.make_folder(folder)
    key = node_key(folder / "node.key", network).public_key().public_bytes_raw()
    proof = sign(owner, network.name, key)
    durable.write(folder / "admission", msgspec.msgpack.encode((proof.certificate, proof.signature)))
    return proof


def _read_admission(path: Path) -> Proof:
    try:
        return Proof(*msgspec.msgpack.decode(path.read_bytes(), type=tuple[bytes, bytes]))
    except (FileNotFoundError, msgspec.MsgspecError) as error:
        raise NotAdmitted(
            "This network lets only its members' nodes in, and this profile hasn't shown yet whose node it is."
            " Join with it, and run `p2pmail sync` or the reader once."
        ) from error


def _tls(path: Path, now: float) -> TLSIdentity:
    try:
        return load_identity(path.read_bytes())
    except (FileNotFoundError, IdentityError):
        identity = make_identity(now)
        durable.write(path, identity.pem)
        return identity


def stored_node_id(folder: Path) -> str:
    """The id (hex) of the node whose state lies in `folder`; empty when there was none yet."""
    try:
        key = X25519PrivateKey.from_private_bytes((folder / "node.key").read_bytes())
    except (OSError, ValueError):
        return ""
    return node_id(key.public_key().public_bytes_raw()).hex()
