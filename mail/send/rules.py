"""Decides which keys, deleter hashes, notifications and proofs belong to a message. No I/O.

mail/send/sender.py sends them; storage/user/outbox.py records how far that got.
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
"""Seconds between attempts; the last value repeats until the message has expired."""

PROOF_BACK_OFF = (2.0, 5.0, 15.0, MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR)
"""Seconds between queries for the recipient's proof of collection."""

UNANSWERED_RETRY = 60.0
"""The longest pause in seconds after an attempt that no node answered: asking is cheap, and the network may be back."""

GIVEN_UP_AFTER = 10
"""Attempts before a message is given up after 30 days: the clock alone proves nothing."""

ASK_AGAIN = 24 * HOUR
"""Seconds between queries for the late proof of a copy that has expired at the nodes."""

GONE_FOR = 2 * HOUR
"""Seconds for which nodes must have answered that they have none of a copy before it is called expired: those that have
it may be away just now, and the clock that says its time is over may be wrong. They count as for UNKNOWN_FOR."""

FIRST_ATTEMPTS = 3
"""Attempts at which what some of the nodes lack is stored again at once; later attempts count the copies first."""

UNKNOWN_FOR = 600.0
"""Seconds for which nodes must have answered that the address is unknown. Time offline doesn't count, and between two
attempts at most the planned pause counts, because a clock may jump: five attempts
at least."""


def back_off(attempts: int, steps: Sequence[float] = BACK_OFF) -> float:
    """Seconds to wait after `attempts` attempts."""
    return steps[min(max(attempts, 1), len(steps)) - 1]


def counted_since(entry: OutboxEntry, since: float | None, now: float, steps: Sequence[float] = BACK_OFF) -> float:
    """When nodes first gave an answer that they have given since (epoch seconds), moved forward by time that mustn't
    count; `now` if this is the first time.

    Of the time since the last attempt, at most the planned pause counts: a clock that jumps an hour ahead must not
    turn seconds of looking into an hour. It may jump during an attempt too, so no more counts than the pauses in
    `steps` of all attempts together.
    """
    if since is None:
        return now
    before = max(entry.scheduled - since, 0.0)
    waited = min(max(now - entry.scheduled, 0.0), max(entry.next_attempt - entry.scheduled, 0.0))
    planned = sum(back_off(attempt, steps) for attempt in range(1, entry.attempts + 1))
    return now - min(before + waited, planned)


@dataclass(frozen=True, slots=True)
class NotifiedHeaders:
    """The headers of a message that its notifications carry."""

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
    """Key of segment `index` of a body, stored for `group`; `many` says whether the body has several segments."""
    return body_key(segment_identifier(message_id, index, many, group))


def assign_groups(secret: bytes, addresses: Sequence[str]) -> dict[str, bytes]:
    """Divide the recipients into groups of at most MAX_DELETERS, as many as a node accepts deleters for one object.

    The body is stored once for each group. The same recipients always get the same groups. A single group has no name.
    Several groups have names of 16 bytes that only their members are told, and the division doesn't depend on the
    order of the recipients: a member learns that there are more than MAX_DELETERS recipients, and nothing about those
    in Bcc.
    """
    count = -(-len(addresses) // MAX_DELETERS)
    if count <= 1:
        return dict.fromkeys(addresses, b"")
    names = [hmac.digest(secret, b"group\0%d" % number, "sha256")[:GROUP_SIZE] for number in range(count)]
    shuffled = sorted(addresses, key=lambda address: hmac.digest(secret, b"member\0" + address.encode(), "sha256"))
    return {address: names[place % count] for place, address in enumerate(shuffled)}


def interleave_recipients(entries: Sequence[OutboxEntry]) -> list[OutboxEntry]:
    """The order in which to send: the first message to each recipient, then the second one to each, and so on.

    Many messages to one recipient, whose inbox is filling up and demands stamps, must not delay those to others.
    """
    before: Counter[str] = Counter()
    turns: list[tuple[int, OutboxEntry]] = []
    for entry in entries:
        addresses = [recipient.address for recipient in entry.recipients]
        turns.append((max(before[address] for address in addresses), entry))
        before.update(addresses)
    return [entry for _, entry in sorted(turns, key=lambda turn: turn[0])]


def entry_groups(entry: OutboxEntry) -> dict[str, bytes]:
    """The group of each recipient of a message in the outbox, by address."""
    secret = entry.secrets.group_secret if entry.secrets is not None else b""
    return assign_groups(secret, [recipient.address for recipient in entry.recipients])


def body_kind(coding: object) -> Kind:
    """The kind of a body's objects: shares if it is erasure-coded (`coding` is not empty), else whole copies."""
    return Kind.SHARE if coding else Kind.BODY


def deleter_hashes(key: bytes, recipients: Iterable[Recipient]) -> list[bytes]:
    """The certificate set of one object (paper, section 2.2): one hash for each recipient, which doesn't reveal it.

    Only recipients that have a salt and haven't collected the message yet are included.
    """
    return sorted(
        deleter_hash(key, recipient.salt, recipient.certificate)
        for recipient in recipients
        if recipient.salt is not None and recipient.certificate is not None and recipient.proof is None
    )


def member_ids(recipients: Iterable[Recipient]) -> set[bytes]:
    """Ids, 8 bytes each, of the recipients that may delete a body. A new salt or certificate makes a new id."""
    return {
        hashlib.sha256(recipient.salt + recipient.certificate).digest()[:MEMBER_SIZE]
        for recipient in recipients
        if recipient.salt is not None and recipient.certificate is not None and recipient.proof is None
    }


def decode_member_ids(begun: bytes) -> set[bytes]:
    """The member ids in an outbox's `begun` column."""
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
    """The notification of one recipient (paper, section 3.1, step 5)."""
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
    """Whether a tombstone proves that `recipient` has deleted the object, and so has collected the message.

    The hash names the recipient's certificate and the signature is made with its key, so no node can forge one.
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
