"""Identifiers, and the keys derived from them (paper, section 2.1 and Table 1). Formats only: no I/O, no state.

A key is a point in the id space of the DHT: 160 bits, as the kademlia package fixes them. The kind is part of the hash,
so that nobody can choose a Message-ID whose key is that of another member's inbox or card.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import IntEnum

from overlay.protocol_limits import KEY_BYTES, SALT_BYTES

CARD_SALT = bytes(SALT_BYTES)
"""The salt of a card's deleter hash. A card names its owner, so there is nothing to hide."""


class Kind(IntEnum):
    """The kind of an object; a node checks some kinds before it keeps them (overlay/primitives/service.py)."""

    BODY = 1
    CERTIFICATE = 2
    STATE = 3
    REVOCATIONS = 4
    DEFINITIONS = 5
    PROBE = 6
    ENROLMENT = 7
    SHARE = 8


def object_key(name: str, identifier: str) -> bytes:
    """First 20 bytes of SHA-256(name || 0 || identifier)."""
    return hashlib.sha256(name.encode() + b"\0" + identifier.encode()).digest()[:KEY_BYTES]


def inbox_key(address: str) -> bytes:
    """The key of the inbox of a normalised address."""
    return object_key("inbox", address)


def certificate_key(address: str) -> bytes:
    """The key of the card of a normalised address."""
    return object_key("certificate", address + "-certificate")


def body_key(message_id: str) -> bytes:
    """The key of a message body; that of its segment i is the key of MESSAGE-ID#i."""
    return object_key("body", message_id)


def revocations_key(fingerprint: str) -> bytes:
    """The key of the revocation list of the authority with this fingerprint (hex SHA-256 of its certificate)."""
    return object_key("revocations", fingerprint + "-revocations")


def root_key(fingerprint: str) -> bytes:
    """The key of the authority's own certificate, a body whose digest is the fingerprint."""
    return object_key("body", fingerprint + "-authority")


def enrolment_key(code: bytes, public_key: bytes) -> bytes:
    """The key of the authority's answer to the joiner with this one-time code and this Ed25519 key (32 bytes).

    Both are secret until then, so no other party can compute the key.
    """
    secret = hashlib.sha256(b"p2pmail enrolment\0" + code + public_key).hexdigest()
    return object_key("enrolment", secret)


def probe_key(network: str, random: bytes) -> bytes:
    """The key of a probe that measures how many nodes are up (paper, section 4)."""
    return object_key("probe", f"{network}-probe-{random.hex()}")


def deleter_hash(key: bytes, salt: bytes, certificate: bytes) -> bytes:
    """The entry of a recipient in an object's certificate set, 32 bytes: it may delete the object.

    Only that recipient learns the salt. So a node that knows all certificates of the network can't tell which members
    a message is for, and one recipient can't test whether another one is in the set.
    """
    return hashlib.sha256(key + salt + certificate).digest()


def deleters_digest(deleters: Sequence[bytes]) -> bytes:
    """What two nodes compare before they exchange the tombstones of a key; `deleters` in ascending order."""
    return hashlib.sha256(b"".join(deleters)).digest()


def distance(one: bytes, other: bytes) -> int:
    """The distance of two ids or keys: Kademlia's XOR metric, 0 to 2**160 - 1."""
    return int.from_bytes(one, "big") ^ int.from_bytes(other, "big")


def leading_zero_bits(data: bytes) -> int:
    """The number of leading zero bits of `data`, which measures puzzles and stamps."""
    value = int.from_bytes(data, "big")
    return len(data) * 8 - value.bit_length()
