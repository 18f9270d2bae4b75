"""A network: its name and rules, as in network.toml and in invites. Formats only."""

from __future__ import annotations

import base64
import tomllib
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import tomli_w

from overlay.identity.contact import parse_join
from overlay.protocol_limits import DEFAULT_K, MAX_COPIES
from storage.errors import CONFIGURATION, P2PMailError

T = TypeVar("T")

NAME_LIMIT = 100
"""Characters of a network's name, which is part of the key derivation of each datagram."""

MAX_PUZZLE_BITS = 40
"""The most zero bits that a network may ask for: finding such a key takes days."""


class NetworkFileError(P2PMailError, ValueError):
    """network.toml isn't valid; the message says where."""

    exit_code = CONFIGURATION


@dataclass(frozen=True, slots=True)
class Network:
    """The rules that all nodes of one network share.

    name                part of the key derivation of datagrams, so networks can't be mixed up
    k                   copies of each object while availability isn't known yet
    admission           "certified": only members' nodes come into routing tables; "open": all do
    puzzle_bits         leading zero bits that SHA-256(node id) must have
    private_addresses   whether nodes may have loopback and private addresses
    authorities         certificates (DER) of those that certify addresses; none: an overlay without mail
    join                HOST:PORT or HOST:PORT/KEY of nodes to join at
    """

    name: str
    k: int = DEFAULT_K
    puzzle_bits: int = 0
    private_addresses: bool = False
    authorities: tuple[bytes, ...] = ()
    join: tuple[str, ...] = ()
    admission: Literal["open", "certified"] = "open"

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= NAME_LIMIT or not self.name.isprintable():
            raise NetworkFileError(f"a network's name has 1 to {NAME_LIMIT} printable characters")
        if not 1 <= self.k <= MAX_COPIES:
            raise NetworkFileError(f"k is {self.k}, not 1 to {MAX_COPIES}")
        if not 0 <= self.puzzle_bits <= MAX_PUZZLE_BITS:
            raise NetworkFileError(f"puzzle_bits is {self.puzzle_bits}, not 0 to {MAX_PUZZLE_BITS}")
        if self.admission not in ("open", "certified"):
            raise NetworkFileError(f'admission is {self.admission!r}, not "open" or "certified"')
        for place in self.join:
            try:
                parse_join(place)
            except ValueError as error:
                raise NetworkFileError(f"join: {error}") from error

    def joined_at(self, *places: str) -> Network:
        """The same network with more places to join at, the new ones first."""
        return replace(self, join=tuple(dict.fromkeys((*places, *self.join))))


def write_network(network: Network) -> bytes:
    """The bytes of network.toml."""
    document = {
        "name": network.name,
        "k": network.k,
        "admission": network.admission,
        "puzzle_bits": network.puzzle_bits,
        "private_addresses": network.private_addresses,
        "join": list(network.join),
        "authorities": [base64.b64encode(der).decode() for der in network.authorities],
    }
    return tomli_w.dumps(document).encode()


def read_network(data: bytes) -> Network:
    """Read network.toml. Raises NetworkFileError."""
    try:
        document = tomllib.loads(data.decode())
        return Network(
            name=_of(document, "name", str),
            k=_of(document, "k", int, DEFAULT_K),
            admission=_of(document, "admission", str, "open"),  # type: ignore[arg-type]  # checked by Network
            puzzle_bits=_of(document, "puzzle_bits", int, 0),
            private_addresses=_of(document, "private_addresses", bool, False),
            authorities=tuple(base64.b64decode(str(x), validate=True) for x in _of(document, "authorities", list, [])),
            join=tuple(str(x) for x in _of(document, "join", list, [])),
        )
    except NetworkFileError:
        raise
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, not base64
        raise NetworkFileError(f"the network file can't be read: {error}") from error


def _of(document: dict[str, object], name: str, type_: type[T], default: T | None = None) -> T:
    value = document.get(name, default)
    if not isinstance(value, type_) or (type_ is int and isinstance(value, bool)):
        raise NetworkFileError(f"the network file's {name!r} is missing or no {type_.__name__}")
    return value
