"""The messages of enrolment: a joiner's request and the authority's answer (design section 5).

Encodes, decodes and verifies them; does no I/O. A request lies in the authority's inbox and looks like any small
notification. The answer lies under ids.enrolment_key in the envelope of overlay/identity/enrolment_answer.py.
mail/membership/join.py and mail/membership/authority_service.py send and fetch them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from mail.membership.invite import MAX_CODE, MIN_CODE
from mail.mime import sanitize
from mail.sealed.keys import SEAL_OVERHEAD, KeyMaterialError, KeyPair, NotOpened, open_sealed, seal
from mail.sealed.notification import BUCKETS
from overlay.identity.address import ADDRESS_LIMIT, AddressError, normalise_address
from overlay.identity.card import KEY_ID_SIZE, Signer, key_id_of
from overlay.identity.certificates import Certificate, CertificateError, TrustStore
from overlay.identity.enrolment_answer import open_answer, sign_answer
from overlay.ids import enrolment_key
from overlay.protocol_limits import ENCRYPTION_KEY_SIZE, MAX_CERTIFICATE, SIGNATURE_BYTES
from storage.errors import DATA, P2PMailError

REQUEST_SIZE = BUCKETS[0]
"""Bytes of every request: the size of the smallest notification, so that nodes can't tell them apart."""

REASON_LIMIT = 400
"""Most characters of a refusal's reason."""

ANSWER_SIZE = 4096
"""Bytes of every answer before it is sealed, so that grants and refusals look the same."""

_LENGTH_BYTES = 4
_VERSION = 1
_RENEWAL = 2
"""Version of a request to renew: an older authority must not take it for a join."""
_REQUEST = b"p2pmail enrolment request 1\0"
_ANSWER = b"p2pmail enrolment answer 1\0"


class EnrolmentError(P2PMailError):
    """Joining failed; the message says what happened, what was kept, and what to do."""

    exit_code = DATA


class BadRequest(EnrolmentError):
    """These bytes are not a valid request to this authority, so no answer is possible."""


class BadAnswer(EnrolmentError):
    """These bytes are not the authority's answer to our request."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request for an address, with the invite's code and the requester's keys: Ed25519 (32 bytes), HPKE (1,216).

    `open_request` has checked that the requester has the private Ed25519 key. A `renewal` is granted by that key
    alone, which holds the address already; its code only determines where the answer lies.
    """

    address: str
    code: bytes = field(repr=False)
    public_key: bytes
    encryption_key: bytes = field(repr=False)
    renewal: bool = False

    @property
    def key(self) -> bytes:
        """The key under which the answer is stored in the overlay."""
        return enrolment_key(self.code, self.public_key)


@dataclass(frozen=True, slots=True)
class Granted:
    """The certificate (DER) and the current revocation list (DER; empty if it is too long for the answer)."""

    certificate: bytes
    revocations: bytes = b""


@dataclass(frozen=True, slots=True)
class Declined:
    """A refusal with its reason, in words for the user."""

    reason: str


Answer = Granted | Declined


class _RequestBody(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    version: int
    address: Annotated[str, msgspec.Meta(max_length=ADDRESS_LIMIT)]
    code: Annotated[bytes, msgspec.Meta(min_length=MIN_CODE, max_length=MAX_CODE)]
    public_key: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    encryption_key: Annotated[bytes, msgspec.Meta(min_length=ENCRYPTION_KEY_SIZE, max_length=ENCRYPTION_KEY_SIZE)]


class _SignedRequest(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    body: bytes
    signature: Annotated[bytes, msgspec.Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]


class _Answer(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    version: int
    certificate: Annotated[bytes, msgspec.Meta(max_length=MAX_CERTIFICATE)]
    revocations: bytes
    reason: Annotated[str, msgspec.Meta(max_length=REASON_LIMIT)]


_body_decoder = msgspec.msgpack.Decoder(_RequestBody)
_signed_decoder = msgspec.msgpack.Decoder(_SignedRequest)
_answer_decoder = msgspec.msgpack.Decoder(_Answer)


def check_root(data: bytes, fingerprint: str) -> bytes:
    """Check the authority's certificate (DER) against the invite's fingerprint (SHA-256, hex), and return it.

    Raises BadAnswer.
    """
    if sha256(data).hexdigest() != fingerprint:
        raise BadAnswer("This is not the certificate of the authority that the invite names.")
    try:
        TrustStore([data])
    except CertificateError as error:
        raise BadAnswer(f"The invite names something that is no authority ({error}); ask for a new one.") from error
    return data


def seal_request(request: Request, sign: Callable[[bytes], bytes], fingerprint: str, authority_key: bytes) -> bytes:
    """Seal a request as a notification for the authority's inbox: REQUEST_SIZE bytes, different at each call.

    `sign`: Ed25519 with the private key of `request.public_key`, as proof of possession. `fingerprint` and
    `authority_key` (from its card) identify the authority. Raises KeyMaterialError.
    """
    body = msgspec.msgpack.encode(
        _RequestBody(
            _RENEWAL if request.renewal else _VERSION,
            request.address,
            request.code,
            request.public_key,
            request.encryption_key,
        )
    )
    signed = msgspec.msgpack.encode(_SignedRequest(body, sign(_signed_part(fingerprint, body))))
    padded = _pad(signed, REQUEST_SIZE - KEY_ID_SIZE - SEAL_OVERHEAD)
    return key_id_of(authority_key) + seal(padded, authority_key, _REQUEST + bytes.fromhex(fingerprint))


def open_request(data: bytes, pairs: Mapping[bytes, KeyPair], fingerprint: str) -> Request:
    """Open a notification with one of the authority's key pairs (by key id), and check the requester's signature.

    Raises BadRequest if anything in it is wrong.
    """
    if len(data) != REQUEST_SIZE:
        raise BadRequest("not of a request's size")
    pair = pairs.get(data[:KEY_ID_SIZE])
    if pair is None:
        raise BadRequest("sealed to a key that is not, or no longer, ours")
    try:
        padded = open_sealed(data[KEY_ID_SIZE:], pair, _REQUEST + bytes.fromhex(fingerprint))
        signed = _signed_decoder.decode(_unpad(padded))
        body = _body_decoder.decode(signed.body)
        Ed25519PublicKey.from_public_bytes(body.public_key).verify(
            signed.signature, _signed_part(fingerprint, signed.body)
        )
        normal = normalise_address(body.address)
        seal(b"", body.encryption_key, b"")  # reject a key that can't be sealed to, before the code is used up
    except InvalidSignature as error:
        raise BadRequest("signed with another key than it names") from error
    except (NotOpened, msgspec.DecodeError, AddressError, ValueError) as error:
        raise BadRequest("can't be read") from error
    if body.version not in (_VERSION, _RENEWAL) or normal != body.address:
        raise BadRequest("written by a program that doesn't keep the rules")
    return Request(body.address, body.code, body.public_key, body.encryption_key, body.version == _RENEWAL)


def seal_answer(answer: Answer, request: Request, authority: Signer, sequence: int) -> bytes:
    """Seal an answer as the object to store under `request.key`. The highest `sequence` (ms) replaces the others.

    Raises KeyMaterialError if the requester's encryption key is invalid.
    """
    match answer:
        case Granted():
            written = _Answer(_VERSION, answer.certificate, answer.revocations, "")
        case Declined():
            written = _Answer(_VERSION, b"", b"", answer.reason[:REASON_LIMIT] or "The authority gave no reason.")
    data = msgspec.msgpack.encode(written)
    if len(data) + _LENGTH_BYTES > ANSWER_SIZE:  # the joiner fetches the list from nodes, as everybody does
        data = msgspec.msgpack.encode(msgspec.structs.replace(written, revocations=b""))
    sealed = seal(_pad(data, ANSWER_SIZE), request.encryption_key, _ANSWER + request.key)
    return sign_answer(authority, request.key, sequence, sealed)


def read_answer(data: bytes, request: Request, pair: KeyPair, trust: TrustStore, now: float) -> tuple[int, Answer]:
    """Verify and decode the authority's answer to our request. Returns its sequence and the answer.

    Checks the certificate in it: chain, address and key. Raises BadAnswer if the authority didn't sign the answer, or
    it isn't for our request.
    """
    try:
        envelope = open_answer(data, request.key, trust, now)
        answer = _answer_decoder.decode(_unpad(open_sealed(envelope.sealed, pair, _ANSWER + request.key)))
        if answer.version != _VERSION:
            raise BadAnswer("The authority's answer was made by a newer version of p2pmail; install that one.")
        if not answer.certificate:
            return envelope.sequence, Declined(sanitize.line(answer.reason))
        check_certificate(answer.certificate, request, trust, now)
    except (CertificateError, NotOpened, KeyMaterialError, msgspec.DecodeError, ValueError) as error:
        raise BadAnswer(f"This is not the authority's answer to us ({error}).") from error
    return envelope.sequence, Granted(answer.certificate, answer.revocations)


def check_certificate(der: bytes, request: Request, trust: TrustStore, now: float) -> Certificate:
    """Check that a certificate is trusted and has the request's address and key. Raises CertificateError."""
    certificate = trust.verify(der, now)
    if certificate.address != request.address:
        raise CertificateError(f"The certificate is for {certificate.address}, not for {request.address}.")
    if certificate.public_key.public_bytes_raw() != request.public_key:
        raise CertificateError("The certificate is for another key than ours.")
    return certificate


def best_answer(answers: Iterable[tuple[int, Answer]]) -> Answer | None:
    """Choose among the nodes' answers: a grant wins over a refusal, which may be stale; else the newest wins."""
    ranked = sorted(answers, key=lambda one: (isinstance(one[1], Granted), one[0]))
    return ranked[-1][1] if ranked else None


def _signed_part(fingerprint: str, body: bytes) -> bytes:
    return _REQUEST + bytes.fromhex(fingerprint) + body


def _pad(data: bytes, size: int) -> bytes:
    if len(data) + _LENGTH_BYTES > size:
        raise ValueError("too long")
    return (len(data).to_bytes(_LENGTH_BYTES, "big") + data).ljust(size, b"\0")


def _unpad(data: bytes) -> bytes:
    """What `_pad` padded. Raises ValueError."""
    end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "big")
    if end > len(data) or any(data[end:]):
        raise ValueError("not padded as it must be")
    return data[_LENGTH_BYTES:end]
