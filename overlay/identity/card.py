"""The card: what lies under a person's certificate key (design section 5).

A card is the certificate and, signed with its key, the current encryption key. What lives here makes and checks cards;
the encryption key is opaque bytes here (mail/sealed/keys.py knows how to use it), and the network is not known.
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
"""Bytes of SHA-256 of the encryption key; enough to tell a person's own few keys apart, and not more."""

_PURPOSE = b"p2pmail card\0"


class Signer(Protocol):
    """Who owns a certificate (overlay.identity.ownership.Owner is one)."""

    @property
    def certificate(self) -> bytes:
        """DER."""

    @property
    def sign(self) -> Callable[[bytes], bytes]:
        """Ed25519 with the certificate's key: message in, 64 bytes out."""


@dataclass(frozen=True, slots=True)
class Card:
    """A checked card. `sequence` is in milliseconds; of two valid cards for an address the higher one counts."""

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
    """The short name of an encryption key, 8 bytes."""
    return hashlib.sha256(encryption_key).digest()[:KEY_ID_SIZE]


def make_card(owner: Signer, encryption_key: bytes, sequence: int) -> bytes:
    """The card's bytes, as stored. `sequence`: milliseconds since the epoch, above that of any card before.

    Raises CertificateError when the key has the wrong size or the sequence can't be one.
    """
    if len(encryption_key) != ENCRYPTION_KEY_SIZE:
        raise CertificateError("The encryption key has the wrong size.")
    if not 0 <= sequence < 1 << 63:
        raise CertificateError("The card's sequence must be milliseconds since the epoch.")
    body = msgspec.msgpack.encode(_CardBody(owner.certificate, encryption_key, sequence))
    return msgspec.msgpack.encode(_SignedCard(body, owner.sign(_PURPOSE + body)))


def open_card(data: bytes, trust: TrustStore, now: float) -> Card:
    """Check a card from the network at `now` (epoch seconds): form, chain, revocation, signature.

    A sequence more than a day ahead of `now` is refused: it would lock out every card that comes after, also the
    owner's own. Whether the card lies under the right key is the caller's to check. Raises CertificateError.
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
