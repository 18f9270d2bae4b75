"""The card: a member's certificate and current encryption key, stored under its certificate key (design section 5).

The encryption key is signed with the certificate's key. This module makes and checks cards; the encryption key is
opaque bytes here (mail/sealed/keys.py uses it), and nothing here accesses the network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec
from cryptography.exceptions import InvalidSignature

from overlay.identity.certificates import Certificate, CertificateError, TrustStore
from overlay.protocol_limits import CLOCK_MARGIN, ENCRYPTION_KEY_SIZE, MAX_CARD

KEY_ID_SIZE = 8
"""Bytes of a key id (SHA-256 of the encryption key): enough to tell one member's few keys apart."""

_PURPOSE = b"p2pmail card\0"


class Signer(Protocol):
    """A certificate and what signs with its key; overlay.identity.ownership.Owner is one."""

    @property
    def certificate(self) -> bytes:
        """DER."""

    @property
    def sign(self) -> Callable[[bytes], bytes]:
        """Signs a message with the certificate's Ed25519 key; returns 64 bytes."""


@dataclass(frozen=True, slots=True)
class Card:
    """A checked card. `sequence` is in milliseconds; of two valid cards of an address the higher counts."""

    certificate: Certificate
    encryption_key: bytes
    key_id: bytes
    sequence: int
    raw: bytes


class _CardBody(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    certificate: bytes
    encryption_key: bytes
    sequence: int


class _SignedCard(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    body: bytes
    signature: bytes


_body_decoder = msgspec.msgpack.Decoder(_CardBody)
_signed_decoder = msgspec.msgpack.Decoder(_SignedCard)


def key_id_of(encryption_key: bytes) -> bytes:
    """The id of an encryption key, 8 bytes."""
    return hashlib.sha256(encryption_key).digest()[:KEY_ID_SIZE]


def make_card(owner: Signer, encryption_key: bytes, sequence: int) -> bytes:
    """The bytes of a new card. `sequence`: milliseconds since the epoch, higher than in any earlier card.

    Raises CertificateError when the key has the wrong size or the sequence is out of range.
    """
    if len(encryption_key) != ENCRYPTION_KEY_SIZE:
        raise CertificateError("The encryption key has the wrong size.")
    if not 0 <= sequence < 1 << 63:
        raise CertificateError("The card's sequence must be milliseconds since the epoch.")
    body = msgspec.msgpack.encode(_CardBody(owner.certificate, encryption_key, sequence))
    return msgspec.msgpack.encode(_SignedCard(body, owner.sign(_PURPOSE + body)))


def open_card(data: bytes, trust: TrustStore, now: float) -> Card:
    """Check a card from the network at `now` (epoch seconds): form, chain, revocation, signature.

    A sequence more than a day ahead of `now` is refused: every later card, even the owner's own, would be older than
    that. The caller checks whether the card is stored under the right key. Raises CertificateError.
    """
    if len(data) > MAX_CARD:
        raise CertificateError("The card is too large.")
    try:
        signed = _signed_decoder.decode(data)
        body = _body_decoder.decode(signed.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CertificateError("The card can't be read.") from error
    if msgspec.msgpack.encode(signed) != data or msgspec.msgpack.encode(body) != signed.body:
        raise CertificateError("The card is not encoded as it must be.")
    if len(body.encryption_key) != ENCRYPTION_KEY_SIZE:
        raise CertificateError("The card's encryption key has the wrong size.")
    if not 0 <= body.sequence <= (now + CLOCK_MARGIN) * 1000:
        raise CertificateError("The card is from the future; is the clock right?")
    certificate = trust.verify(body.certificate, now)
    try:
        certificate.public_key.verify(signed.signature, _PURPOSE + signed.body)
    except InvalidSignature:
        raise CertificateError(f"The card of {certificate.address} has a false signature.") from None
    return Card(certificate, body.encryption_key, key_id_of(body.encryption_key), body.sequence, data)
