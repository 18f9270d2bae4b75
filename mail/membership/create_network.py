"""Create a network, make invites, revoke addresses: the offline commands of `p2pmail authority`.

Combines mail/membership/authority.py, mail/membership/invite.py and network.toml for the commands and the set-up
screen. mail/membership/authority_service.py answers requests over the network.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from mail.membership.authority import (
    AlreadyFounded,
    Authority,
    AuthorityDamaged,
    AuthorityError,
    Random,
    create_authority,
)
from mail.membership.invite import Invite, write_invite
from mail.profile_node import NoNetwork, read_network_file
from overlay.identity.network import Network, write_network
from overlay.identity.network_scope import Resolve, decide, resolved
from storage import durable

PUZZLE_BITS = 12
"""Leading zero bits that a node id's hash must have in a public network. They cost a quarter of a second for one node,
and an attacker an hour for ten thousand."""

_FOUNDING = frozenset({"authority.key", "authority.sqlite", "authority.sqlite-wal", "authority.sqlite-shm"})
"""Files that an interrupted creation leaves behind. A folder with only these can be used again."""


def network_file(folder: Path) -> Path:
    """The path of the network file of the authority in `folder`."""
    return folder / "network.toml"


def create_network(  # noqa: PLR0913 - the settings of a network, named at each call
    folder: Path,
    name: str,
    join: Sequence[str] = (),
    passphrase: str | None = None,
    *,
    private_addresses: bool | None = None,
    certified: bool = False,
    now: Callable[[], float] = time.time,
    random: Random = os.urandom,
    resolve: Resolve = resolved,
) -> Network:
    """Create the network `name`, with its authority and network.toml, in a new or empty `folder` (`authority init`).

    `join`: HOST:PORT[/KEY] of nodes to start from. `private_addresses`: whether the network allows them; None lets
    overlay/identity/network_scope.py decide from the addresses of `join`. Such a network has no node id puzzle.
    `certified`: only members' nodes store data. Durable when it returns; an interrupted call can be repeated. Raises
    AlreadyFounded, AuthorityError, NetworkFileError (`join`), OSError.
    """
    private = decide(join, resolve=resolve).private if private_addresses is None else private_addresses
    bits = 0 if private else PUZZLE_BITS
    network = Network(name, puzzle_bits=bits, private_addresses=private, join=tuple(dict.fromkeys(join)))
    if certified:
        network = replace(network, admission="certified")
    secret = _secret(passphrase)
    left = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if "authority.pem" in left and "network.toml" not in left:
        with closing(Authority(folder, passphrase=secret, now=now, random=random)) as authority:
            if authority.name != name:
                raise AlreadyFounded(f"There is the authority of {authority.name} in {folder}; nothing was changed.")
            root = authority.certificate
    elif "authority.pem" in left:
        raise AlreadyFounded(f"There is an authority in {folder} already; nothing was changed.")
    elif left - _FOUNDING:
        raise AuthorityError(f"{folder} is not empty; an authority wants a folder of its own. Nothing was changed.")
    else:
        with closing(create_authority(folder, name, passphrase=secret, now=now, random=random)) as authority:
            root = authority.certificate
    network = replace(network, authorities=(root,))
    durable.write(network_file(folder), write_network(network), 0o644)
    return network


def open_authority(
    folder: Path,
    passphrase: str | None = None,
    *,
    now: Callable[[], float] = time.time,
    random: Random = os.urandom,
) -> tuple[Authority, Network]:
    """Open the authority in `folder`, to be closed, and its network. Raises AuthorityError, NetworkFileError."""
    authority = Authority(folder, passphrase=_secret(passphrase), now=now, random=random)
    try:
        network = read_network_file(network_file(folder))
        if authority.certificate not in network.authorities:
            raise AuthorityDamaged(f"{network_file(folder)} is not the network file of the authority in {folder}.")
    except NoNetwork as error:
        authority.close()
        raise AuthorityDamaged(
            f"{folder} has no network.toml; `p2pmail authority init` with the same name writes it again."
        ) from error
    except BaseException:
        authority.close()
        raise
    return authority, network


def make_invite(
    folder: Path, address: str, passphrase: str | None = None, *, now: Callable[[], float] = time.time
) -> str:
    """Make an invite for `address`, one line to paste (`authority invite`). It replaces an unused earlier one.

    Raises AuthorityError (AddressTaken, or no place to join is known), AddressError, NetworkFileError.
    """
    authority, network = open_authority(folder, passphrase, now=now)
    with closing(authority):
        if not network.join:
            raise AuthorityError(
                "An invite must say where to join, and this network has no such place yet. Start a node (`p2pmail-tui"
                f" --node-only --network {network_file(folder)}`), then `p2pmail authority serve {folder} --join"
                " HOST:PORT` with what it listens on: that is remembered for invites. Nothing was made."
            )
        invitation = authority.invite(address)
        return write_invite(Invite(network, authority.fingerprint, invitation.address, invitation.code))


def revoke(folder: Path, address: str, passphrase: str | None = None, *, now: Callable[[], float] = time.time) -> int:
    """Revoke the certificates of `address` (`authority revoke`). Returns how many. A running `serve` publishes this.

    Raises AuthorityError, AddressError.
    """
    authority, _ = open_authority(folder, passphrase, now=now)
    with closing(authority):
        return authority.revoke(address)


def remember_places(folder: Path, network: Network, join: Sequence[str]) -> Network:
    """Add places to join to the network file, for future invites. Raises NetworkFileError, OSError."""
    if set(join) <= set(network.join):
        return network
    network = network.joined_at(*join)
    durable.write(network_file(folder), write_network(network), 0o644)
    return network


def is_protected(folder: Path) -> bool:
    """Whether the authority's key needs a passphrase. Raises AuthorityDamaged."""
    try:
        return b"-----BEGIN ENCRYPTED" in (folder / "authority.key").read_bytes()
    except OSError as error:
        raise AuthorityDamaged(f"There is no authority in {folder} ({error.strerror}).") from error


def _secret(passphrase: str | None) -> bytes | None:
    return passphrase.encode() if passphrase else None
