"""The authority's answer to a joiner, as a node stores it (design section 5).

It is sealed to the joiner and signed by the authority. Nodes keep such objects only from the authority, and of two the
newer. mail/membership/messages.py defines the sealed contents; overlay/primitives/service.py stores the object.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated

import msgspec

from overlay.identity.card import Signer
from overlay.identity.certificates import CertificateError, TrustStore
from overlay.identity.ownership import valid
from overlay.protocol_limits import CLOCK_MARGIN, KEY_BYTES, MAX_CERTIFICATE, MAX_ENROLMENT_ANSWER, SIGNATURE_BYTES

_VERSION = 1
_PURPOSE = b"p2pmail enrolment answer\0"


@dataclass(frozen=True, slots=True)
class SealedAnswer:
    """A checked answer; only the joiner can open `sealed`. Of two under one key, the higher `sequence` counts."""

    sequence: int
    sealed: bytes


class _SignedAnswer(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    version: int
    certificate: Annotated[bytes, msgspec.Meta(max_length=MAX_CERTIFICATE)]
    sequence: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
    sealed: bytes
    signature: Annotated[bytes, msgspec.Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]


_decoder = msgspec.msgpack.Decoder(_SignedAnswer)


def authority_address(fingerprint: str) -> str:
    """The address of an authority's inbox and card; `fingerprint` is that of its root certificate, hex."""
    return f"authority@{fingerprint[:40]}.invalid"


def sign_answer(authority: Signer, key: bytes, sequence: int, sealed: bytes) -> bytes:
    """The object to store under `key` (ids.enrolment_key). `sequence`: milliseconds since the epoch."""
    signature = authority.sign(_signed_part(key, sequence, sealed))
    return msgspec.msgpack.encode(_SignedAnswer(_VERSION, authority.certificate, sequence, sealed, signature))


def open_answer(data: bytes, key: bytes, trust: TrustStore, now: float) -> SealedAnswer:
    """Check that an authority of the network made this answer for this key; `now` in epoch seconds.

    Raises CertificateError.
    """
    if len(data) > MAX_ENROLMENT_ANSWER:
        raise CertificateError("The authority's answer is too large.")
    try:
        signed = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CertificateError("The authority's answer can't be read.") from error
    if signed.version != _VERSION or msgspec.msgpack.encode(signed) != data:
        raise CertificateError("The authority's answer is not encoded as it must be.")
    if signed.sequence > (now + CLOCK_MARGIN) * 1000:
        raise CertificateError("The authority's answer is from the future; is the clock right?")
    certificate = trust.verify(signed.certificate, now)
    if certificate.address not in [authority_address(sha256(root).hexdigest()) for root in trust.authorities]:
        raise CertificateError(f"{certificate.address} is no authority of this network.")
    if not valid(certificate.public_key, signed.signature, _signed_part(key, signed.sequence, signed.sealed)):
        raise CertificateError("The authority's answer has a false signature.")
    return SealedAnswer(signed.sequence, signed.sealed)


def _signed_part(key: bytes, sequence: int, sealed: bytes) -> bytes:
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes")
    return _PURPOSE + key + sequence.to_bytes(8, "big") + sealed
