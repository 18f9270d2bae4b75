"""A contact: a node's public key and its address (an IP literal and a port). Formats only.

A node's id is derived from its key, so no node can claim an id without the key. Each contact that comes from the
network passes `Contact.received` before anything is sent to it: no datagram goes to a contact with an invalid port or
address, or whose id doesn't solve the network's puzzle.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
from functools import lru_cache
from typing import Annotated

import msgspec
from kademlia.node import Node

from overlay.errors import Malformed
from overlay.ids import leading_zero_bits
from overlay.protocol_limits import KEY_BYTES, PUBLIC_KEY_BYTES

PublicKey = Annotated[bytes, msgspec.Meta(min_length=PUBLIC_KEY_BYTES, max_length=PUBLIC_KEY_BYTES)]
PackedIP = Annotated[bytes, msgspec.Meta(min_length=4, max_length=16)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class WireContact(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A contact on the wire: X25519 public key, packed IPv4 or IPv6 address, UDP port."""

    key: PublicKey
    ip: PackedIP
    port: Port


@lru_cache(maxsize=4096)
def node_id(public_key: bytes) -> bytes:
    """A node's id: SHA-256 of its X25519 public key, first 20 bytes."""
    return hashlib.sha256(public_key).digest()[:KEY_BYTES]


def puzzle_bits(identifier: bytes) -> int:
    """The difficulty of the puzzle that this id solves: leading zero bits of SHA-256(id)."""
    return leading_zero_bits(hashlib.sha256(identifier).digest())


@lru_cache(maxsize=4096)
def unpack_ip(packed: bytes) -> str:
    """The text of a packed address; IPv4-mapped IPv6 becomes IPv4. Raises Malformed."""
    try:
        address = ipaddress.ip_address(packed)
    except ValueError as error:
        raise Malformed("an address has 4 or 16 bytes") from error
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address)


@lru_cache(maxsize=4096)
def pack_ip(ip: str) -> bytes:
    """The packed form of an IP literal, without its scope id. Raises Malformed for anything else, as for host names."""
    try:
        address = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError as error:
        raise Malformed(f"{ip!r} is not an IP address") from error
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.packed


@lru_cache(maxsize=4096)
def routable(ip: str, private_addresses: bool) -> bool:
    """Whether a datagram may be sent to this address: not multicast, broadcast or 0.0.0.0; private only if allowed."""
    address = ipaddress.ip_address(ip)
    if address.is_multicast or address.is_unspecified or ip == "255.255.255.255":
        return False
    return private_addresses or address.is_global


@lru_cache(maxsize=4096)
def address_range(ip: str) -> bytes:
    """The range that is assumed to belong to one operator: IPv4 /24, IPv6 /56."""
    packed = pack_ip(ip)
    return packed[:3] if len(packed) == 4 else packed[:7]


class Contact(Node):
    """A kademlia Node with the public key that its id is derived from. Equal when key and address are equal."""

    id: bytes
    ip: str
    port: int
    long_id: int
    key: bytes
    __slots__ = ("_wire", "key")

    def __init__(self, key: bytes, ip: str, port: int) -> None:
        super().__init__(node_id(key), ip, port)  # type: ignore[no-untyped-call]
        self.key = key
        self._wire: WireContact | None = None

    @classmethod
    def received(cls, wire: WireContact, *, private_addresses: bool, puzzle: int) -> Contact:
        """Check a contact that came in an answer. Raises Malformed."""
        if not 1 <= wire.port <= 65535:  # asyncio closes the whole socket when asked to send to such a port
            raise Malformed(f"{wire.port} is not a port")
        ip = unpack_ip(wire.ip)
        if not routable(ip, private_addresses):
            raise Malformed(f"{ip} can't be the address of a node of this network")
        contact = cls(wire.key, ip, wire.port)
        if puzzle and puzzle_bits(contact.id) < puzzle:
            raise Malformed("the node id doesn't solve this network's puzzle")
        return contact

    @property
    def wire(self) -> WireContact:
        """This contact on the wire."""
        if self._wire is None:
            self._wire = WireContact(self.key, pack_ip(self.ip), self.port)
        return self._wire

    @property
    def address(self) -> tuple[str, int]:
        """The IP address and the UDP port."""
        return self.ip, self.port

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Contact) and (self.key, self.ip, self.port) == (other.key, other.ip, other.port)

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"<{self.id.hex()[:8]} at {host_port(self.ip, self.port)}>"


def host_port(ip: str, port: int) -> str:
    """HOST:PORT, with brackets around an IPv6 address."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def key_text(key: bytes) -> str:
    """A public key as text: base64url without padding, 43 characters."""
    return base64.urlsafe_b64encode(key).rstrip(b"=").decode()


def parse_key(text: str) -> bytes:
    """The key in the form of `key_text`. Raises ValueError, whose message can be shown to a user."""
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{text!r} is not a node's key") from error
    if len(key) != PUBLIC_KEY_BYTES:
        raise ValueError(f"{text!r} is not a node's key: it has {len(key)} bytes, not {PUBLIC_KEY_BYTES}")
    return key


def parse_host_port(text: str) -> tuple[str, int]:
    """Parse HOST:PORT or [IPv6]:PORT, port 0 to 65535. Raises ValueError, whose message can be shown to a user."""
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ValueError(f"{text!r} is not HOST:PORT")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r} is not HOST:PORT; an IPv6 address stands in brackets, as in [::1]:4000")
    if not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > 65535:
        raise ValueError(f"{port!r} is not a port (0 to 65535)")
    return host, int(port)


def parse_join(text: str) -> tuple[str, int, bytes | None]:
    """Parse a place to join: HOST:PORT or HOST:PORT/KEY. Raises ValueError, whose message can be shown to a user."""
    place, slash, key = text.partition("/")
    host, port = parse_host_port(place)
    if port == 0:
        raise ValueError(f"{text!r}: port 0 can't be reached")
    return host, port, parse_key(key) if slash else None
