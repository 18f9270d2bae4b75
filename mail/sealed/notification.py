"""The notification: what lies in an inbox for each message (paper, section 3.1; design section 5).

Sealed with HPKE to the recipient's card key and signed by the sender, for this recipient alone. What lives here are
its values, its bytes and its checks; sending, collecting and the body itself are elsewhere.

Format: 8 bytes of key id in the clear, then HPKE of: msgpack [payload, signature], 4 bytes of its length before it,
zeros up to a bucket. Ed25519 signs the payload's bytes, and the payload names the recipient, who can open it and
can't pass it on as if it had been sent to somebody else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidSignature

from mail.sealed.body import ORIGINAL_LIMIT, SALT_SIZE, SEALED_LIMIT
from mail.sealed.erasure_shares import KEY_SIZE, BodyCoding
from mail.sealed.header_limits import clean, cut, fit, is_identifier, most_recent
from mail.sealed.keys import SEAL_OVERHEAD, KeyPair, NotOpened, open_sealed, seal
from mail.sealed.segments import MAX_SEGMENTS, Segment, segment_count, segment_size
from overlay.identity.address import AddressError, normalise_address
from overlay.identity.card import KEY_ID_SIZE, Signer, key_id_of
from overlay.identity.certificates import Certificate, CertificateError, TrustStore
from overlay.protocol_limits import (
    DIGEST_BYTES,
    MAX_CERTIFICATE,
    MAX_NOTIFICATION,
    RETENTION,
    SALT_BYTES,
    SIGNATURE_BYTES,
)
from storage.errors import DATA, P2PMailError
from storage.user.outbox_entry import SESSION_KEY_SIZE

BUCKETS = (3 << 10, 4 << 10, 6 << 10, 8 << 10, 12 << 10, 16 << 10, 24 << 10, 32 << 10, 48 << 10, MAX_NOTIFICATION)
"""Bytes that a notification may have: how long the subject is can't be seen."""

MESSAGE_ID_LIMIT = 512
"""Bytes of a Message-ID. It is never cut, the body's key is made of it; real ones have less than 200."""

SUBJECT_LIMIT = 256
NAME_LIMIT = 128
RECIPIENTS_LIMIT = 640
REFERENCES_LIMIT = 384
"""Bytes of what is cut, so that an ordinary notification stays under 4 KiB: the body has the whole headers."""

DATE_LIMIT = 253_402_128_000.0
"""Seconds since the epoch, the end of 9999 less a day: a date beyond is none in any time zone."""

LEFT_OUT_LIMIT = 1_000_000

GROUP_SIZE = 16
"""Bytes of the name of a group of recipients."""

_VERSION = 1
_PURPOSE = b"p2pmail notification 1\0"
_LENGTH_BYTES = 4


class NotificationError(P2PMailError):
    """A notification can't be made or opened; the message says why."""

    exit_code = DATA


class NotForUs(NotificationError):
    """It is sealed to a key that we don't have (any more), or was signed for somebody else."""


class MalformedNotification(NotificationError):
    """It is not what it must be: damaged, or written by a program that doesn't keep the rules."""


class Unreadable(MalformedNotification):
    """It was sealed to us and can't be read; a newer program may have written it. Anybody can make such bytes."""


class Forged(NotificationError):
    """It doesn't come from the sender that it names."""


class Untrusted(Forged):
    """The sender's certificate is not (or no longer) one of this network."""


class Proven(NotificationError):
    """It can't be accepted now, but its signature is that of `sender`, whose address is certified in this network."""

    def __init__(self, words: str, sender: str) -> None:
        super().__init__(words)
        self.sender = sender


class OutOfTime(Proven, Untrusted):
    """The sender's certificate isn't valid yet, has ended or was revoked; or a clock is wrong, here or there."""


class NotUnderstood(Proven, MalformedNotification):
    """Its contents are not what this program knows."""


@dataclass(frozen=True, slots=True)
class Notification:
    """What the sender tells one recipient. Addresses are normalised; texts are cut, and free of control characters.

    session_key    opens the body, 32 bytes
    message_id     the paper's identifier of the body, as in the header, exactly
    segments       the body's objects, in order
    original_size  bytes of the message
    sender         address of From, proven by the certificate
    sender_name    display name of From, proven by nothing
    recipient      the address that this notification is for
    to, cc         addresses or NAME <ADDRESS>, as many as fit; never Bcc
    left_out       how many of To and Cc did not fit
    date           of the Date header, epoch seconds; the sender's word
    references     Message-IDs that this one answers, oldest first, the last ones if they are many
    deleter_salt   this recipient's own (overlay.ids.deleter_hash), 16 bytes, for every segment
    coding         how the segments lie at the nodes: as shares, or None: as whole copies
    group          the recipient's group when there are several, each with a body of its own; 16 bytes or none
    """

    session_key: bytes
    message_id: str
    segments: tuple[Segment, ...]
    original_size: int
    sender: str
    sender_name: str
    recipient: str
    to: tuple[str, ...]
    cc: tuple[str, ...]
    left_out: int
    subject: str
    date: float
    references: tuple[str, ...]
    deleter_salt: bytes
    coding: BodyCoding | None = None
    group: bytes = b""


_Text = Annotated[str, msgspec.Meta(max_length=SUBJECT_LIMIT)]
_Id = Annotated[str, msgspec.Meta(max_length=MESSAGE_ID_LIMIT)]
_Few = msgspec.Meta(max_length=RECIPIENTS_LIMIT)


class _Payload(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    version: int
    recipient: _Text
    certificate: Annotated[bytes, msgspec.Meta(max_length=MAX_CERTIFICATE)]
    session_key: Annotated[bytes, msgspec.Meta(min_length=SESSION_KEY_SIZE, max_length=SESSION_KEY_SIZE)]
    deleter_salt: Annotated[bytes, msgspec.Meta(min_length=SALT_BYTES, max_length=SALT_BYTES)]
    message_id: _Id
    sealed_size: Annotated[int, msgspec.Meta(gt=SALT_SIZE, le=SEALED_LIMIT)]
    digests: Annotated[bytes, msgspec.Meta(max_length=MAX_SEGMENTS * DIGEST_BYTES)]
    original_size: Annotated[int, msgspec.Meta(ge=0, le=ORIGINAL_LIMIT)]
    sender: _Text
    sender_name: _Text
    to: Annotated[tuple[_Text, ...], _Few]
    cc: Annotated[tuple[_Text, ...], _Few]
    left_out: Annotated[int, msgspec.Meta(ge=0, le=LEFT_OUT_LIMIT)]
    subject: _Text
    date: float
    references: Annotated[tuple[_Id, ...], _Few]
    coding: Annotated[bytes, msgspec.Meta(max_length=2 + KEY_SIZE)] = b""
    group: Annotated[bytes, msgspec.Meta(max_length=GROUP_SIZE)] = b""
    """Only written when it isn't empty: readers of the first version don't know it."""


class _SignedPayload(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    payload: bytes
    signature: Annotated[bytes, msgspec.Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]


_payload_decoder = msgspec.msgpack.Decoder(_Payload)
_signed_decoder = msgspec.msgpack.Decoder(_SignedPayload)


def seal_notification(notification: Notification, owner: Signer, encryption_key: bytes) -> bytes:
    """The bytes for the recipient's inbox, signed by `owner` (the sender) and sealed to the recipient's card key.

    Texts that are too long are cut here. Sealing is random: kept bytes are sent again, not sealed again. Raises
    NotificationError (values that can't be told), mail.sealed.keys.KeyMaterialError (a bad card key).
    """
    payload = _encode(_fitted(notification), owner.certificate)
    signed = msgspec.msgpack.encode(_SignedPayload(payload, owner.sign(_PURPOSE + payload)))
    content = len(signed).to_bytes(_LENGTH_BYTES, "big") + signed
    frame = KEY_ID_SIZE + SEAL_OVERHEAD
    bucket = next((size for size in BUCKETS if size >= frame + len(content)), None)
    if bucket is None:
        raise NotificationError("The message has too many segments for a notification.")
    content += bytes(bucket - frame - len(content))
    return key_id_of(encryption_key) + seal(content, encryption_key, _PURPOSE)


def open_notification(
    data: bytes, pairs: Mapping[bytes, KeyPair], address: str, trust: TrustStore, now: float
) -> tuple[Notification, Certificate]:
    """Open and check what lay in the inbox of `address` (normalised); returns it with the sender's certificate.

    `pairs`: our keys by key id. Proven when it returns: the sender holds the certified address in `sender`, and wrote
    this to `address`. Not proven: that it is new (replays are the caller's to know by Message-ID), and that the
    body's From is `sender` (the caller compares). A certificate that ended while the notification may have lain at
    nodes is good. Raises NotForUs, Malformed, Unreadable, Forged, Untrusted, OutOfTime, NotUnderstood.
    """
    if len(data) not in BUCKETS:
        raise MalformedNotification("The notification has a size that none has.")
    pair = pairs.get(data[:KEY_ID_SIZE])
    if pair is None:
        raise NotForUs("The notification is sealed to a key that is not here (any more).")
    try:
        content = open_sealed(data[KEY_ID_SIZE:], pair, _PURPOSE)
    except NotOpened as error:
        raise MalformedNotification("The notification was changed on the way, or never was one.") from error
    signed, payload = _decode(content)
    if payload.recipient != address:
        raise NotForUs("The notification was written to somebody else.")
    try:
        certificate = trust.issued(payload.certificate)
    except CertificateError as error:
        raise Untrusted(f"The notification's sender is not known: {error}") from error
    try:
        certificate.public_key.verify(signed.signature, _PURPOSE + signed.payload)
    except InvalidSignature:
        raise Forged("The notification has a false signature.") from None
    if payload.sender != certificate.address:
        raise Forged(f"The notification says it is from {payload.sender!r}, and is from {certificate.address}.")
    try:
        trust.verify(payload.certificate, now, lapsed=RETENTION)
    except CertificateError as error:
        raise OutOfTime(str(error), certificate.address) from error
    try:
        return _value(payload), certificate
    except MalformedNotification as error:
        raise NotUnderstood(str(error), certificate.address) from error


def _fitted(notification: Notification) -> Notification:
    """The same with every text within its limit, and what was left out counted."""
    to, room = fit(notification.to, RECIPIENTS_LIMIT, 2 * NAME_LIMIT)
    cc, _ = fit(notification.cc, room, 2 * NAME_LIMIT)
    left_out = notification.left_out + len(notification.to) - len(to) + len(notification.cc) - len(cc)
    return replace(
        notification,
        sender_name=cut(notification.sender_name, NAME_LIMIT),
        to=to,
        cc=cc,
        left_out=min(left_out, LEFT_OUT_LIMIT),
        subject=cut(notification.subject, SUBJECT_LIMIT),
        date=notification.date if 0 <= notification.date <= DATE_LIMIT else 0.0,
        references=most_recent(notification.references, REFERENCES_LIMIT, MESSAGE_ID_LIMIT),
    )


def _encode(notification: Notification, certificate: bytes) -> bytes:
    if len(notification.segments) > MAX_SEGMENTS:
        raise NotificationError(f"The message has more than {MAX_SEGMENTS} segments.")
    sealed_size = sum(segment.size for segment in notification.segments)
    payload = _Payload(
        version=_VERSION,
        recipient=notification.recipient,
        certificate=certificate,
        session_key=notification.session_key,
        deleter_salt=notification.deleter_salt,
        message_id=notification.message_id,
        sealed_size=sealed_size,
        digests=b"".join(segment.digest for segment in notification.segments),
        original_size=notification.original_size,
        sender=notification.sender,
        sender_name=notification.sender_name,
        to=notification.to,
        cc=notification.cc,
        left_out=notification.left_out,
        subject=notification.subject,
        date=notification.date,
        references=notification.references,
        coding=b"" if (c := notification.coding) is None else bytes((c.m, c.n)) + c.public_key,
        group=notification.group,
    )
    # What we would not read we don't write: the same checks as for what is read.
    try:
        elements = payload if payload.group else msgspec.structs.astuple(payload)[:-1]
        data = msgspec.msgpack.encode(elements)
        read = _value(_payload_decoder.decode(data))
    except (MalformedNotification, msgspec.DecodeError, UnicodeEncodeError, OverflowError) as error:
        raise NotificationError(f"The message can't be announced: {error}") from error
    if read != notification:
        raise NotificationError("The message can't be announced: its segments are not those of one body.")
    return data


def _decode(content: bytes) -> tuple[_SignedPayload, _Payload]:
    end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "big")
    if content.count(0, end) != len(content) - end:
        raise Unreadable("The notification has something after its end.")
    try:
        signed = _signed_decoder.decode(content[_LENGTH_BYTES:end])
        return signed, _payload_decoder.decode(signed.payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable("The notification can't be read; a newer p2pmail may have written it.") from error


def _value(payload: _Payload) -> Notification:
    """The payload as a value, checked. Raises Malformed."""
    if payload.version != _VERSION:
        raise MalformedNotification("The notification was written by a newer version of p2pmail.")
    count = segment_count(payload.sealed_size)
    if len(payload.digests) != count * DIGEST_BYTES:
        raise MalformedNotification("The notification's segments don't make up its body.")
    if not is_identifier(payload.message_id, MESSAGE_ID_LIMIT):
        raise MalformedNotification("The notification's Message-ID is none.")
    if not all(is_identifier(identifier, MESSAGE_ID_LIMIT) for identifier in payload.references):
        raise MalformedNotification("The notification's references are none.")
    if not (math.isfinite(payload.date) and 0 <= payload.date <= DATE_LIMIT):
        raise MalformedNotification("The notification's date is none.")
    if len(payload.group) not in (0, GROUP_SIZE):
        raise MalformedNotification("The notification's group is none.")
    return Notification(
        session_key=payload.session_key,
        message_id=payload.message_id,
        segments=tuple(
            Segment(
                index,
                segment_size(index, payload.sealed_size),
                payload.digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES],
            )
            for index in range(count)
        ),
        original_size=payload.original_size,
        sender=_address(payload.sender),
        sender_name=clean(payload.sender_name),
        recipient=_address(payload.recipient),
        to=tuple(clean(person) for person in payload.to),
        cc=tuple(clean(person) for person in payload.cc),
        left_out=payload.left_out,
        subject=clean(payload.subject),
        date=payload.date,
        references=payload.references,
        deleter_salt=payload.deleter_salt,
        coding=_coding(payload.coding),
        group=payload.group,
    )


def _coding(told: bytes) -> BodyCoding | None:
    if not told:
        return None
    try:
        return BodyCoding(told[0], told[1], told[2:])
    except (IndexError, ValueError) as error:
        raise MalformedNotification("The notification's coding is none.") from error


def _address(text: str) -> str:
    try:
        if normalise_address(text) == text:
            return text
    except AddressError as error:
        raise MalformedNotification("The notification names an address that is none.") from error
    raise MalformedNotification("The notification names an address that is not in its normalised form.")
