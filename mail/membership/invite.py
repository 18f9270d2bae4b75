"""Write and read invites: one line with places to join, the authority's fingerprint and a one-time code.

The line is `p2pmail:` followed by the base64url of a msgpack document with a checksum. mail/membership/authority.py
makes and redeems the code. An invite is a secret until it is used: anyone who has it can join with it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Annotated

import msgspec

from overlay.identity.address import ADDRESS_LIMIT, DOMAIN_LIMIT, AddressError, normalise_address
from overlay.identity.contact import host_port, key_text, parse_join
from overlay.identity.network import NAME_LIMIT, Network, NetworkFileError
from overlay.protocol_limits import DIGEST_BYTES, PUBLIC_KEY_BYTES
from storage.errors import DATA, P2PMailError

PREFIX = "p2pmail:"

TEXT_LIMIT = 8192
"""Most characters of a pasted invite. Ours have about 300."""

MIN_CODE, MAX_CODE = 8, 64
"""Fewest and most bytes of a one-time code. Ours have 16."""

JOIN_LIMIT = 8
"""Most places to join in an invite. One that answers is enough, and more make the line long."""

_VERSION = 1
_LENGTH_BYTES = 2
_CHECKSUM_BYTES = 4
_CHECKSUM_OF = b"p2pmail invite\0"

_FILLING = re.compile(r"[\s>=\u200b\ufeff]+")
"""What mail programs insert into a long line: line breaks, quote marks, soft breaks of quoted-printable."""

_TOKEN = re.compile(r"p2pmail:([A-Za-z0-9_-]+)", re.IGNORECASE | re.ASCII)
_HOST = re.compile(rf"[A-Za-z0-9.:-]{{1,{DOMAIN_LIMIT}}}")

_Key = Annotated[bytes, msgspec.Meta(max_length=PUBLIC_KEY_BYTES)]
_Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
_Place = tuple[Annotated[str, msgspec.Meta(max_length=DOMAIN_LIMIT)], _Port, _Key]


class InviteError(P2PMailError, ValueError):
    """The text is not a usable invite; the message says what to do."""

    exit_code = DATA


@dataclass(frozen=True, slots=True)
class Invite:
    """The content of an invite.

    network      the network's rules and places to join; without authorities, which `fingerprint` stands for
    fingerprint  SHA-256 (hex) of the authority's certificate, to check a certificate fetched from any node
    address      the invited address, normalised
    code         the one-time code; a secret between the invited user and the authority
    """

    network: Network
    fingerprint: str
    address: str
    code: bytes


class _Document(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    version: int
    name: Annotated[str, msgspec.Meta(max_length=NAME_LIMIT)]
    k: int
    puzzle_bits: int
    private_addresses: bool
    join: Annotated[list[_Place], msgspec.Meta(max_length=JOIN_LIMIT)]
    fingerprint: Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
    address: Annotated[str, msgspec.Meta(max_length=ADDRESS_LIMIT)]
    code: Annotated[bytes, msgspec.Meta(min_length=MIN_CODE, max_length=MAX_CODE)]
    certified: bool = False


_decoder = msgspec.msgpack.Decoder(_Document)


def write_invite(invite: Invite) -> str:
    """Write an invite with the network's first 8 places to join. Raises InviteError if there is none."""
    places = [parse_join(place) for place in invite.network.join[:JOIN_LIMIT]]
    if not places:
        raise InviteError("An invite must say where to join: give the address of a node that runs (--join HOST:PORT).")
    document = _Document(
        version=_VERSION,
        name=invite.network.name,
        k=invite.network.k,
        puzzle_bits=invite.network.puzzle_bits,
        private_addresses=invite.network.private_addresses,
        join=[(host, port, key or b"") for host, port, key in places],
        fingerprint=bytes.fromhex(invite.fingerprint),
        address=invite.address,
        code=invite.code,
        certified=invite.network.admission == "certified",
    )
    data = msgspec.msgpack.encode(document)
    data = len(data).to_bytes(_LENGTH_BYTES, "big") + data
    return PREFIX + base64.urlsafe_b64encode(data + _checksum(data)).rstrip(b"=").decode()


def read_invite(text: str) -> Invite:
    """Read a pasted invite. Tolerates line breaks, quote marks and spaces in it. Raises InviteError."""
    if len(text) > TEXT_LIMIT:
        raise InviteError("This is too long for an invite: paste only the line that begins with p2pmail:")
    found = _TOKEN.findall(_FILLING.sub("", text))
    if not found:
        raise InviteError("This is no invite: it is a line that begins with p2pmail:")
    # The text before the invite may contain the prefix too: the longest match is the invite.
    data = _unwrap(max(found, key=len))
    try:
        document = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # The checksum is right, so pasting lost nothing: another version wrote this.
        raise InviteError("This invite can't be read by this version of p2pmail.") from None
    if document.version != _VERSION:
        raise InviteError("This invite was made by a newer version of p2pmail; install that one.")
    try:
        return Invite(_network(document), document.fingerprint.hex(), _address(document.address), document.code)
    except (NetworkFileError, AddressError) as error:
        raise InviteError(f"This invite has a mistake in it: {error}; ask for a new one.") from None


def _unwrap(text: str) -> bytes:
    """The document's bytes. Ignores what follows: text after the invite is joined to it when spaces are removed."""
    text = text[: len(text) - (len(text) % 4 == 1)]
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "big")
    if len(data) < end + _CHECKSUM_BYTES:
        raise InviteError("The end of this invite is missing: copy the whole line again.")
    if data[end : end + _CHECKSUM_BYTES] != _checksum(data[:end]):
        raise InviteError("A part of this invite is missing or was changed: copy the whole line again.")
    return data[_LENGTH_BYTES:end]


def _checksum(data: bytes) -> bytes:
    return hashlib.sha256(_CHECKSUM_OF + data).digest()[:_CHECKSUM_BYTES]


def _network(document: _Document) -> Network:
    places = []
    for host, port, key in document.join:
        if not _HOST.fullmatch(host) or len(key) not in (0, PUBLIC_KEY_BYTES):
            raise NetworkFileError("a place to join is not a host with a port and a key")
        places.append(host_port(host, port) + ("/" + key_text(key) if key else ""))
    if not places:
        raise NetworkFileError("it doesn't say where to join")
    return Network(
        name=document.name,
        k=document.k,
        puzzle_bits=document.puzzle_bits,
        private_addresses=document.private_addresses,
        join=tuple(places),
        admission="certified" if document.certified else "open",
    )


def _address(text: str) -> str:
    address = normalise_address(text)
    if address != text:
        raise AddressError("the address is not in its normalised form")
    return address
