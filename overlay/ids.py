"""Identifiers and the keys made of them (paper, section 2.1 and Table 1). Formats only: no I/O, no state.

A key is a point in the space of the DHT: 160 bits, as the kademlia package fixes them. Kinds are hashed in, so that
nobody can choose a Message-ID that falls on somebody's inbox or certificate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import IntEnum

from overlay.protocol_limits import KEY_BYTES, SALT_BYTES

CARD_SALT = bytes(SALT_BYTES)
"""The salt of a card's own deleter hash: a card names its owner anyway, so there is nothing to hide."""


class Kind(IntEnum):
    """What an object is; a node checks some kinds before it keeps them (overlay/primitives/service.py)."""

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
    """Key of the inbox of a normalised address."""
    return object_key("inbox", address)


def certificate_key(address: str) -> bytes:
    """Key of the card of a normalised address."""
    return object_key("certificate", address + "-certificate")


def body_key(message_id: str) -> bytes:
    """Key of a message body, or of segment i of one as MESSAGE-ID#i."""
    return object_key("body", message_id)


def revocations_key(fingerprint: str) -> bytes:
    """Key of the revocation list of the authority with this fingerprint (hex SHA-256 of its certificate)."""
    return object_key("revocations", fingerprint + "-revocations")


def root_key(fingerprint: str) -> bytes:
    """Key of the authority's own certificate, a body whose digest is the fingerprint."""
    return object_key("body", fingerprint + "-authority")


def enrolment_key(code: bytes, public_key: bytes) -> bytes:
    """Key of the authority's answer to whoever asked with this one-time code and this Ed25519 key (32 bytes).

    Both are secret until then, so nobody else knows where the answer will lie.
    """
    secret = hashlib.sha256(b"p2pmail enrolment\0" + code + public_key).hexdigest()
    return object_key("enrolment", secret)


def probe_key(network: str, random: bytes) -> bytes:
    """Key of a probe that measures how many nodes are up (paper, section 4)."""
    return object_key("probe", f"{network}-probe-{random.hex()}")


def deleter_hash(key: bytes, salt: bytes, certificate: bytes) -> bytes:
    """How an object's certificate set names somebody who may delete it, 32 bytes.

    The salt is told to that recipient alone: a node that knows every certificate of the community still can't tell
    whose message it keeps, and one recipient can't test whether another is on the list.
    """
    return hashlib.sha256(key + salt + certificate).digest()


def deleters_digest(deleters: Sequence[bytes]) -> bytes:
    """What two holders of a key compare before they exchange their deletes of it; `deleters` in ascending order."""
    return hashlib.sha256(b"".join(deleters)).digest()


def distance(one: bytes, other: bytes) -> int:
    """XOR metric of Kademlia, 0 to 2**160 - 1."""
    return int.from_bytes(one, "big") ^ int.from_bytes(other, "big")


def leading_zero_bits(data: bytes) -> int:
    """How many of the first bits of `data` are 0: the measure of puzzles and stamps."""
    value = int.from_bytes(data, "big")
    return len(data) * 8 - value.bit_length()
