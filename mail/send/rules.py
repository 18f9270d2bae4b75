"""What the overlay is told for one letter: keys, deleter hashes, notifications, proofs. Decisions only.

mail/send/sender.py carries them there; storage/user/outbox.py remembers how far it came.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm

from mail.sealed.erasure_shares import BodyCoding
from mail.sealed.notification import GROUP_SIZE, Notification
from mail.sealed.segments import Segment, segment_identifier
from overlay.errors import Malformed
from overlay.identity.certificates import CertificateError, parse_certificate
from overlay.identity.ownership import decode_delete_proof, proves_delete
from overlay.ids import Kind, body_key, deleter_hash
from overlay.protocol_limits import HOUR, MAX_DELETERS
from storage.user.outbox_entry import OutboxEntry, Recipient

MINUTE = 60.0
MEMBER_SIZE = 8

BACK_OFF = (5.0, 15.0, MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 4 * HOUR)
"""Seconds between attempts; the last one goes on until the letter has expired."""

PROOF_BACK_OFF = (2.0, 5.0, 15.0, MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR)
"""Seconds between questions whether the recipient has collected it."""

AWAY = 60.0
"""Seconds after which it is tried again when nobody answered: asking costs nothing, and the network may be back."""

GIVEN_UP_AFTER = 10
"""Attempts before a letter is given up because 30 days are over: that the clock says so alone proves nothing."""

ASK_AGAIN = 24 * HOUR
"""Seconds between questions for the proof of what the nodes have let go."""

UNKNOWN_AFTER = 3
"""Attempts that were answered, after which an address that nobody knows is a failure: one may have missed the right
nodes."""


UNKNOWN_FOR = 600.0
"""Seconds for which nodes must have said so at least. Time offline doesn't count, nor of the time between two attempts
more than the pause that was planned: a clock may have jumped."""


def back_off(attempts: int, steps: Sequence[float] = BACK_OFF) -> float:
    """Seconds to wait after so many attempts."""
    return steps[min(max(attempts, 1), len(steps)) - 1]


@dataclass(frozen=True, slots=True)
class NotifiedHeaders:
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


def segment_key(message_id: str, index: int, many: bool, group: bytes = b"") -> bytes:
    """Key of one object of a body that has one or `many` of them, stored for this group of recipients."""
    return body_key(segment_identifier(message_id, index, many, group))


def groups_of(secret: bytes, addresses: Sequence[str]) -> dict[str, bytes]:
    """The group of each recipient, for each of which the body is stored once: a node takes MAX_DELETERS deleters.

    Always the same for the same recipients. One group has no name. Several have names (16 bytes) that only their
    members are told, and who is in which doesn't depend on the order of the recipients: a member learns that there
    are more than MAX_DELETERS of them, and nothing of those in Bcc.
    """
    count = -(-len(addresses) // MAX_DELETERS)
    if count <= 1:
        return dict.fromkeys(addresses, b"")
    names = [hmac.digest(secret, b"group\0%d" % number, "sha256")[:GROUP_SIZE] for number in range(count)]
    shuffled = sorted(addresses, key=lambda address: hmac.digest(secret, b"member\0" + address.encode(), "sha256"))
    return {address: names[place % count] for place, address in enumerate(shuffled)}


def in_turn(entries: Sequence[OutboxEntry]) -> list[OutboxEntry]:
    """The order in which to send: the first message to each recipient, the second one to each, and so on.

    Many to one whose inbox is filling up, and asks for stamps, hold up nobody else's.
    """
    before: Counter[str] = Counter()
    turns: list[tuple[int, OutboxEntry]] = []
    for entry in entries:
        addresses = [recipient.address for recipient in entry.recipients]
        turns.append((max(before[address] for address in addresses), entry))
        before.update(addresses)
    return [entry for _, entry in sorted(turns, key=lambda turn: turn[0])]


def groups_of_entry(entry: OutboxEntry) -> dict[str, bytes]:
    """The group of each recipient of a message in the outbox, by address."""
    secret = entry.secrets.group_secret if entry.secrets is not None else b""
    return groups_of(secret, [recipient.address for recipient in entry.recipients])


def kind_of(coding: object) -> Kind:
    """The kind of a body's objects: shares when it is coded (`coding` is anything), else whole copies."""
    return Kind.SHARE if coding else Kind.BODY


def deleters_of(key: bytes, recipients: Iterable[Recipient]) -> list[bytes]:
    """The certificate set of one object (paper, section 2.2): one hash a recipient, none telling whose.

    Of those who have a salt and haven't collected the message yet.
    """
    return sorted(
        deleter_hash(key, recipient.salt, recipient.certificate)
        for recipient in recipients
        if recipient.salt is not None and recipient.certificate is not None and recipient.proof is None
    )


def members(recipients: Iterable[Recipient]) -> set[bytes]:
    """Who they are that may delete a body, 8 bytes each: another salt or certificate is another member."""
    return {
        hashlib.sha256(recipient.salt + recipient.certificate).digest()[:MEMBER_SIZE]
        for recipient in recipients
        if recipient.salt is not None and recipient.certificate is not None and recipient.proof is None
    }


def members_in(begun: bytes) -> set[bytes]:
    """The members that an outbox has noted."""
    return {begun[start : start + MEMBER_SIZE] for start in range(0, len(begun), MEMBER_SIZE)}


def notification_for(
    recipient: str,
    headers: NotifiedHeaders,
    *,
    session_key: bytes,
    segments: Sequence[Segment],
    salt: bytes,
    coding: BodyCoding | None,
    group: bytes,
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
        group=group,
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
