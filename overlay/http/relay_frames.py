"""The frames between a relay and the nodes that use it, on a WebSocket (RFC 6455), and the header that names a target.

Each message of the WebSocket is a msgpack array that holds one sealed datagram. The relay can't read it: it is sealed
for the node that it goes to. Formats only.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from overlay.errors import Malformed
from overlay.identity.contact import PackedIP, Port, PublicKey, WireContact, host_port, pack_ip, parse_host_port
from overlay.protocol_limits import DIGEST_BYTES, MAX_DATAGRAM

PATH = "/relay"
TO = "P2pmail-To"
"""The node that a request over HTTP is for: HOST:PORT/FINGERPRINT, the last in hexadecimal."""
LONGEST = MAX_DATAGRAM + 128
"""Bytes of one message on the WebSocket."""
HEARTBEAT = 20.0
"""Seconds between pings on the WebSocket; without an answer it is closed."""
WAITING = 256
"""Datagrams that may wait for the connection; further ones are dropped."""

_TO = re.compile(rf"([0-9a-fA-F.:\[\]]{{1,64}})/([0-9a-fA-F]{{{2 * DIGEST_BYTES}}})", re.ASCII)


class Welcome(msgspec.Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """A relay's first message: its public key (not proven yet), and its IP address, empty if it doesn't know it."""

    key: PublicKey
    ip: Annotated[bytes, msgspec.Meta(max_length=16)]

    def __post_init__(self) -> None:
        if len(self.ip) not in (0, 4, 16):
            raise ValueError("an address has 4 or 16 bytes")


class Outward(msgspec.Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """A datagram from the relay's user for the node `to`."""

    to: WireContact
    datagram: Annotated[bytes, msgspec.Meta(max_length=MAX_DATAGRAM)]


class Inward(msgspec.Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """A datagram that came from this address, for the relay's user."""

    ip: PackedIP
    port: Port
    datagram: Annotated[bytes, msgspec.Meta(max_length=MAX_DATAGRAM)]


_encoder = msgspec.msgpack.Encoder()
_welcome: msgspec.msgpack.Decoder[Welcome] = msgspec.msgpack.Decoder(Welcome)
_outward: msgspec.msgpack.Decoder[Outward] = msgspec.msgpack.Decoder(Outward)
_inward: msgspec.msgpack.Decoder[Inward] = msgspec.msgpack.Decoder(Inward)


def encode(message: Welcome | Outward | Inward) -> bytes:
    """A message's bytes."""
    return _encoder.encode(message)


def decode_outward(data: bytes) -> Outward:
    """Raises Malformed."""
    try:
        return _outward.decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise Malformed("not a datagram for a relay") from error


def decode_inward(data: bytes) -> Inward:
    """Raises Malformed."""
    try:
        return _inward.decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise Malformed("not a datagram from a relay") from error


def decode_welcome(data: bytes) -> Welcome:
    """Raises Malformed."""
    try:
        return _welcome.decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise Malformed("not a relay's welcome") from error


def to_value(ip: str, port: int, fingerprint: bytes) -> str:
    """The value of P2pmail-To."""
    return f"{host_port(ip, port)}/{fingerprint.hex()}"


def parse_to(text: str) -> tuple[str, int, bytes]:
    """IP address, port and TLS fingerprint of the target node. Raises Malformed."""
    found = _TO.fullmatch(text)
    if not found:
        raise Malformed(f"{TO} is not HOST:PORT/FINGERPRINT")
    try:
        ip, port = parse_host_port(found[1])
    except ValueError as error:
        raise Malformed(str(error)) from error
    pack_ip(ip)
    return ip, port, bytes.fromhex(found[2])
