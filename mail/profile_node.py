"""Opens a profile's node: reads its network, key and store, listens and joins the overlay.

Connects overlay and storage for the user agent and for `p2pmail-tui --node-only`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
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
    """The profile has no network file, and none was named."""

    exit_code = CONFIGURATION


class NotAdmitted(NoNetwork):
    """The network admits only members' nodes, and this profile has no admission proof yet."""


class NodeKeyDamaged(P2PMailError):
    """The file with the node's key isn't a key; the message says what to do."""

    exit_code = CONFIGURATION


def read_network_file(path: Path) -> Network:
    """Read a network.toml. Raises NoNetwork, NetworkFileError."""
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
    """Open the profile's system node: it listens, and has joined if other nodes answer.

    `listen`: HOST:PORT; the host * means all IPv6 and IPv4 addresses. `if_reached`: server mode depends on whether
    other nodes reach this one by dial-back. Until they report, it is on in a network of private addresses, and off
    elsewhere.

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
    """Open a client: it stores nothing for others, isn't in any routing table, and has a key for this run only."""
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
    """The node's key, made at the first start, and again if the network's puzzle has become harder.

    Raises NodeKeyDamaged, OSError. A damaged key isn't replaced: other nodes know this one by it, and nobody who has
    the key in a join address would reach the new node.
    """
    key = None
    with suppress(FileNotFoundError):
        data = path.read_bytes()
        try:
            key = X25519PrivateKey.from_private_bytes(data)
        except ValueError as error:
            raise NodeKeyDamaged(
                f"The key of this node, {path}, is damaged: it has {len(data)} bytes instead of 32."
                " Nothing was changed. Put it back from a backup. Without one, remove it: the node gets another key,"
                " and those who join at this computer by the old one need the new address, which the node prints when"
                " it starts."
            ) from error
    if key is None or puzzle_bits(node_id(key.public_key().public_bytes_raw())) < network.puzzle_bits:
        key = new_key(network.puzzle_bits)
        durable.write(path, key.private_bytes_raw())
    return key


async def _listen_everywhere(node: Node, port: int) -> None:
    """Listen at one socket for IPv6 and IPv4, or for IPv4 alone if IPv6 is missing. Raises CantListen."""
    if socket.has_dualstack_ipv6():
        try:
            return await node.listen(port, "::")
        except CantListen:  # IPv6 is supported but switched off
            pass
    return await node.listen(port, "0.0.0.0")  # noqa: S104


def renew_admission(profile: Profile, node: Node, owner: Owner) -> None:
    """Replace a running node's admission proof after its owner's certificate was renewed. Raises OSError."""
    shown = node.protocol.proof
    if shown is not None and shown.certificate != owner.certificate:
        node.protocol.proof = write_admission(profile, node.network, owner)


def write_admission(profile: Profile, network: Network, owner: Owner) -> Proof:
    """Sign and store the admission proof of the profile's node, for runs without the keyring. Raises OSError."""
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
    """The id (hex) of the node whose state is in `folder`; empty if there is none yet."""
    try:
        key = X25519PrivateKey.from_private_bytes((folder / "node.key").read_bytes())
    except (OSError, ValueError):
        return ""
    return node_id(key.public_key().public_bytes_raw()).hex()
