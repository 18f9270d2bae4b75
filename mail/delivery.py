"""What the overlay is told for one letter: keys, deleter hashes, notifications, proofs. Decisions only.

mail/sending.py carries them there; storage/outbox.py remembers how far it came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm

from mail.notification import Notification
from mail.segments import Segment, segment_identifier
from mail.shares import Coding
from overlay.card import Card
from overlay.certificates import CertificateError, parse_certificate
from overlay.errors import Malformed
from overlay.ids import Kind, body_key, deleter_hash
from overlay.ownership import decode_delete_proof, proves_delete

MINUTE, HOUR = 60.0, 3600.0

BACK_OFF = (5.0, 15.0, MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 4 * HOUR)
"""Seconds between attempts; the last one goes on until the letter has expired."""

PROOF_BACK_OFF = (2.0, 5.0, 15.0, MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR)
"""Seconds between questions whether the recipient has collected it."""

AWAY = 60.0
"""Seconds after which it is tried again when nobody answered: asking costs nothing, and the network may be back."""

UNKNOWN_AFTER = 3
"""Attempts after which an address that nobody knows is a failure: one may just have missed the right nodes."""


UNKNOWN_FOR = 600.0
"""Seconds for which it is looked for at least, while the outbox says that it isn't known."""


def back_off(attempts: int, steps: Sequence[float] = BACK_OFF) -> float:
    """Seconds to wait after so many attempts."""
    return steps[min(max(attempts, 1), len(steps)) - 1]


@dataclass(frozen=True, slots=True)
class Headers:
    """What of a message is told in its notifications."""

    message_id: str
    sender: str
    sender_name: str
    to: tuple[str, ...]
    cc: tuple[str, ...]
    subject: str
    date: float
    references: tuple[str, ...]
    size: int


def segment_key(message_id: str, index: int, many: bool) -> bytes:
    """Key of one object of a body that has one or `many` of them."""
    return body_key(segment_identifier(message_id, index, many))


def kind_of(coding: object) -> Kind:
    """The kind of a body's objects: shares when it is coded (`coding` is anything), else whole copies."""
    return Kind.SHARE if coding else Kind.BODY


def deleters_of(key: bytes, cards: Mapping[str, Card], salts: Mapping[str, bytes]) -> list[bytes]:
    """The certificate set of one object (paper, section 2.2): one hash a recipient, none telling whose."""
    return [deleter_hash(key, salts[address], card.certificate.der) for address, card in sorted(cards.items())]


def notification_for(
    recipient: str,
    headers: Headers,
    session_key: bytes,
    segments: Sequence[Segment],
    salt: bytes,
    coding: Coding | None,
) -> Notification:
    """What one recipient is told (paper, section 3.1, step 5)."""
    return Notification(
        session_key=session_key,
        message_id=headers.message_id,
        segments=tuple(segments),
        original_size=headers.size,
        sender=headers.sender,
        sender_name=headers.sender_name,
        recipient=recipient,
        to=headers.to,
        cc=headers.cc,
        left_out=0,
        subject=headers.subject,
        date=headers.date,
        references=headers.references,
        deleter_salt=salt,
        coding=coding,
    )


def proves_collected(proof: bytes, key: bytes, deleter: bytes, recipient: str) -> bool:
    """Whether a tombstone convinces the sender that `recipient` has deleted the object, and so has the message.

    The hash names her certificate and the signature is made with its key, so no node can invent one.
    """
    try:
        signed = decode_delete_proof(proof)
        certificate = parse_certificate(signed.certificate)
    except (Malformed, CertificateError, UnsupportedAlgorithm):
        return False
    named = deleter_hash(key, signed.salt, signed.certificate) == deleter
    return (
        signed.key == key
        and named
        and certificate.address == recipient
        and proves_delete(signed, certificate.public_key)
    )
