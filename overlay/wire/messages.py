"""The requests and answers that nodes exchange, as msgpack arrays whose first element is the message's tag.

msgspec decodes straight into these types and refuses everything else: other lengths, other types, other ranges.
docs/protocol.md describes each message. Formats only.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from overlay.errors import Malformed
from overlay.identity.contact import PackedIP, Port, WireContact
from overlay.protocol_limits import (
    DIGEST_BYTES,
    KEY_BYTES,
    MAX_CERTIFICATE,
    MAX_DELETERS,
    MAX_HASHES,
    MAX_K,
    MAX_PROOF,
    RETENTION,
    SALT_BYTES,
    SIGNATURE_BYTES,
    TOKEN_BYTES,
)

MAX_PADDING = 1024
"""Bytes of padding that a request may have, so that its answer can be at most three times as long."""
ADMISSION_PADDING = bytes(700)
"""Makes AskAdmission a third as long as its longest answer."""


def bounded(ttl: float) -> float:
    """A time to live in seconds that a node accepts: 0 to RETENTION, also when clocks disagree."""
    return min(max(ttl, 0.0), RETENTION)


Key = Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
Digest = Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
OptionalDigest = Annotated[bytes, msgspec.Meta(max_length=DIGEST_BYTES)]
Salt = Annotated[bytes, msgspec.Meta(min_length=SALT_BYTES, max_length=SALT_BYTES)]
Token = Annotated[bytes, msgspec.Meta(min_length=TOKEN_BYTES, max_length=TOKEN_BYTES)]
Signature = Annotated[bytes, msgspec.Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
CertificateBytes = Annotated[bytes, msgspec.Meta(max_length=MAX_PROOF)]
Seconds = float
"""A time to live. overlay/primitives/service.py checks its range, so that the sender gets a refusal, not silence."""
KindNumber = Annotated[int, msgspec.Meta(ge=1, le=255)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**40)]


class _Message(msgspec.Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """Base of all messages: arrays of exact length and types."""


def _check_optional(digest: bytes) -> None:
    """Check what msgspec's lengths can't express: a digest or nothing. msgspec reports this ValueError as its own."""
    if len(digest) not in (0, DIGEST_BYTES):
        raise ValueError("a digest has 32 bytes")


# Requests


class Ping(_Message, frozen=True, tag=1):
    """Asks whether the node is up, and at which address it observes the sender."""


class Find(_Message, frozen=True, tag=2):
    """Asks for the k contacts closest to `key`, and a write token. Padded, so that the answer amplifies nothing."""

    key: Key
    k: Annotated[int, msgspec.Meta(ge=0, le=MAX_K)]
    padding: Annotated[bytes, msgspec.Meta(max_length=MAX_PADDING)] = b""


class Store(_Message, frozen=True, tag=3):
    """Asks to keep an object for `ttl` seconds, or until all `deleters` have deleted it (paper: store)."""

    token: Token
    kind: KindNumber
    key: Key
    data: bytes
    deleters: Annotated[list[Digest], msgspec.Meta(max_length=MAX_DELETERS)]
    ttl: Seconds


class Fetch(_Message, frozen=True, tag=4):
    """Asks for the object under `key`, with this digest if one is given (paper: fetch)."""

    token: Token
    kind: KindNumber
    key: Key
    digest: OptionalDigest = b""

    def __post_init__(self) -> None:
        _check_optional(self.digest)


class Delete(_Message, frozen=True, tag=5):
    """Asks to take the sender's hash from the object's certificate set (paper: delete)."""

    token: Token
    kind: KindNumber
    key: Key
    salt: Salt
    certificate: CertificateBytes
    signature: Signature


class AppendInbox(_Message, frozen=True, tag=6):
    """Asks to put a notification into an inbox (paper: append-inbox). `stamp`: a stamp, where one is required."""

    token: Token
    key: Key
    notification: bytes
    ttl: Seconds
    stamp: Annotated[bytes, msgspec.Meta(max_length=64)] = b""


class ReadInbox(_Message, frozen=True, tag=7):
    """Asks for the notifications in the owner's inbox, under a lease (paper: read-inbox)."""

    token: Token
    key: Key
    certificate: CertificateBytes
    signature: Signature


class AcknowledgeInbox(_Message, frozen=True, tag=8):
    """Asks to delete notifications that the owner has on disk: SHA-256 of each."""

    token: Token
    key: Key
    hashes: Annotated[list[Digest], msgspec.Meta(max_length=MAX_HASHES)]
    certificate: CertificateBytes
    signature: Signature


class AskTombstones(_Message, frozen=True, tag=9):
    """Asks which of the recipients behind these hashes have deleted the object."""

    token: Token
    kind: KindNumber
    key: Key
    deleters: Annotated[list[Digest], msgspec.Meta(max_length=MAX_HASHES)]


class HandTombstone(_Message, frozen=True, tag=10):
    """Hands over a tombstone (overlay/identity/ownership.py) that another node has, to be kept for `ttl` seconds."""

    token: Token
    kind: KindNumber
    key: Key
    proof: CertificateBytes
    ttl: Seconds


class Have(_Message, frozen=True, tag=11):
    """Asks what the node keeps under a key, and for its tombstones past the deleter hash `after`.

    `known` (overlay/ids.py, deleters_digest) names those that the sender has: if the node has the same, it sends none.
    """

    token: Token
    kind: KindNumber
    key: Key
    after: OptionalDigest = b""
    known: OptionalDigest = b""

    def __post_init__(self) -> None:
        _check_optional(self.after)
        _check_optional(self.known)


class HaveNotifications(_Message, frozen=True, tag=12):
    """Asks which of these notifications (SHA-256) are in the inbox, or were acknowledged there."""

    token: Token
    key: Key
    hashes: Annotated[list[Digest], msgspec.Meta(max_length=MAX_HASHES)]


class Recheck(_Message, frozen=True, tag=13):
    """Asks to check the copies of a key, because other nodes lack what this one keeps. Kind INBOX: of an inbox."""

    token: Token
    kind: Annotated[int, msgspec.Meta(ge=0, le=255)]
    key: Key


class AskAdmission(_Message, frozen=True, tag=14):
    """Asks for the proof of admission. Padded, so that the answer amplifies nothing."""

    padding: Annotated[bytes, msgspec.Meta(max_length=MAX_PADDING)] = b""


class DialBack(_Message, frozen=True, tag=15):
    """Asks whether the sender can be reached by UDP and at its HTTP server, whose TLS fingerprint this is."""

    token: Token
    fingerprint: Digest


Request: TypeAlias = (
    Ping
    | AskAdmission
    | DialBack
    | Find
    | Store
    | Fetch
    | Delete
    | AppendInbox
    | ReadInbox
    | AcknowledgeInbox
    | AskTombstones
    | HandTombstone
    | Have
    | HaveNotifications
    | Recheck
)

# Answers


class Pong(_Message, frozen=True, tag=101):
    """Answers Ping with the observed address of its sender."""

    ip: PackedIP
    port: Port


class Found(_Message, frozen=True, tag=102):
    """Answers Find: the closest contacts that the node knows, a write token, and its HTTP server's port (0: none)."""

    contacts: Annotated[list[WireContact], msgspec.Meta(max_length=MAX_K)]
    token: Token
    bulk_port: Annotated[int, msgspec.Meta(ge=0, le=65535)]
    fingerprint: OptionalDigest

    def __post_init__(self) -> None:
        _check_optional(self.fingerprint)


class Done(_Message, frozen=True, tag=103):
    """Done, and on disk. `count`: objects dropped or notifications deleted, where that applies."""

    count: Count = 0


class Object(_Message, frozen=True, tag=104):
    """Answers Fetch with the object, or with its `size` and no data when it must be fetched over HTTP."""

    data: bytes
    size: Count


class Notifications(_Message, frozen=True, tag=105):
    """Answers ReadInbox with leased notifications, and whether there are more."""

    notifications: list[bytes]
    more: bool


class Tombstones(_Message, frozen=True, tag=106):
    """Answers AskTombstones: for the first deleters, in order, the tombstone (overlay/identity/ownership.py) or b""."""

    proofs: Annotated[list[CertificateBytes], msgspec.Meta(max_length=MAX_HASHES)]


class Refusal(_Message, frozen=True, tag=107):
    """Refuses a request, with a Code. `bits`: the stamp that would make the node accept it."""

    code: Annotated[int, msgspec.Meta(ge=1, le=255)]
    bits: Annotated[int, msgspec.Meta(ge=0, le=255)] = 0


class WireTombstone(msgspec.Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """A tombstone, and the seconds for which it is still to be kept."""

    proof: CertificateBytes
    ttl: Seconds


class Held(_Message, frozen=True, tag=108):
    """Answers Have: the digests of the objects, the key's tombstones by deleter hash, and whether there are more.

    `same`: the node has the tombstones that the sender has, so none are sent.
    """

    digests: Annotated[list[Digest], msgspec.Meta(max_length=MAX_HASHES)]
    tombstones: list[WireTombstone]
    more: bool
    same: bool = False


class Known(_Message, frozen=True, tag=109):
    """Answers HaveNotifications: for each notification, in order, whether it is or was in the inbox."""

    known: Annotated[list[bool], msgspec.Meta(max_length=MAX_HASHES)]


class Admitted(_Message, frozen=True, tag=110):
    """Answers AskAdmission: a member's certificate and its signature for the node (overlay/identity/admission.py)."""

    certificate: Annotated[bytes, msgspec.Meta(max_length=MAX_CERTIFICATE)]
    signature: Signature


class Dialled(_Message, frozen=True, tag=111):
    """Answers DialBack: whether the sender was reached by UDP and by TCP."""

    udp: bool
    tcp: bool


Answer: TypeAlias = (
    Pong | Found | Done | Object | Notifications | Tombstones | Refusal | Held | Known | Admitted | Dialled
)


class Code:
    """Why a node refuses; WORDS has the text for a user."""

    BAD_TOKEN = 1
    NOT_PERMITTED = 2
    NO_SPACE = 3
    TOO_LARGE = 4
    NOT_FOUND = 5
    DELETED = 6
    STALE = 7
    STAMP_NEEDED = 8
    BUSY = 9
    FULL = 10
    UNKNOWN_KIND = 11
    BAD_TTL = 12


WORDS: dict[int, str] = {
    Code.BAD_TOKEN: "the write token is not, or no longer, valid",
    Code.NOT_PERMITTED: "the certificate or signature doesn't permit it",
    Code.NO_SPACE: "no space left on that node",
    Code.TOO_LARGE: "too large",
    Code.NOT_FOUND: "nothing there",
    Code.DELETED: "its recipients have deleted it already",
    Code.STALE: "the node has a newer one",
    Code.STAMP_NEEDED: "the inbox is filling up and asks for a stamp",
    Code.BUSY: "the node is too busy",
    Code.FULL: "full: no more are kept under this key",
    Code.UNKNOWN_KIND: "an unknown kind of object",
    Code.BAD_TTL: "its time is over, or is no time",
}

_encoder = msgspec.msgpack.Encoder()
_request_decoder: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_answer_decoder: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)

PADDED: Literal[3] = 3
"""A sender without a token is sent at most this many times the bytes of its request (RFC 9000, section 8.1, too)."""


def encode(message: Request | Answer) -> bytes:
    """The bytes of a message."""
    return _encoder.encode(message)


def decode_request(data: bytes) -> Request:
    """Decode a request. Raises Malformed for anything else."""
    try:
        return _request_decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise Malformed("not a request") from error


def decode_answer(data: bytes) -> Answer:
    """Decode an answer. Raises Malformed for anything else."""
    try:
        return _answer_decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise Malformed("not an answer") from error


def find_padding(k: int) -> bytes:
    """The padding with which the answer to a Find may hold k contacts (the inverse of `affordable`)."""
    return bytes(max(0, -(-(_FOUND_BYTES + _CONTACT_BYTES * k) // PADDED) - _FIND_BYTES))


def affordable(received: int) -> int:
    """How many contacts the answer to a Find of `received` bytes may hold, within PADDED times its size."""
    return max(0, (PADDED * received - _FOUND_BYTES) // _CONTACT_BYTES)


_FIND_BYTES = 99
"""Bytes of UDP of a Find without padding."""
_FOUND_BYTES = 210
"""Bytes of UDP of a Found without contacts (136 with its overhead), and of a ping to a new node (74)."""
_CONTACT_BYTES = 60
"""Bytes of a contact with an IPv6 address (56) and its share of the datagrams' overhead (72 in 1,128)."""
