"""The requests and answers that nodes exchange, as msgpack arrays whose first element is the message's tag.

msgspec decodes straight into these types and refuses everything else: other lengths, other types, other ranges.
docs/protocol.md describes each. Formats only.
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
"""Bytes of padding that a request may have, so that its answer is at most three times as long."""
ADMISSION_PADDING = bytes(700)
"""With it AskAdmission has a third of the longest answer's bytes."""


def bounded(ttl: float) -> float:
    """A time to live as a node may be asked for it: at most RETENTION, whatever the clocks made of it."""
    return min(max(ttl, 0.0), RETENTION)


Key = Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
Digest = Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
OptionalDigest = Annotated[bytes, msgspec.Meta(max_length=DIGEST_BYTES)]
Salt = Annotated[bytes, msgspec.Meta(min_length=SALT_BYTES, max_length=SALT_BYTES)]
Token = Annotated[bytes, msgspec.Meta(min_length=TOKEN_BYTES, max_length=TOKEN_BYTES)]
Signature = Annotated[bytes, msgspec.Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
CertificateBytes = Annotated[bytes, msgspec.Meta(max_length=MAX_PROOF)]
Seconds = float
"""A time to live. What it may be is checked in overlay/primitives/service.py, so that whoever asks for too much hears
of it."""
KindNumber = Annotated[int, msgspec.Meta(ge=1, le=255)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**40)]


class _Message(msgspec.Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """Base of all messages: strict arrays."""


def _check_optional(digest: bytes) -> None:
    """There is one, or there is none: msgspec's lengths can't say that, but hand on this ValueError."""
    if len(digest) not in (0, DIGEST_BYTES):
        raise ValueError("a digest has 32 bytes")


# Requests


class Ping(_Message, frozen=True, tag=1):
    """Are you there, and where do you see me?"""


class Find(_Message, frozen=True, tag=2):
    """The k contacts closest to `key`, and a token. Padded, so that the answer is no amplification."""

    key: Key
    k: Annotated[int, msgspec.Meta(ge=0, le=MAX_K)]
    padding: Annotated[bytes, msgspec.Meta(max_length=MAX_PADDING)] = b""


class Store(_Message, frozen=True, tag=3):
    """Keep this object for `ttl` seconds, or until all `deleters` have deleted it (paper: store)."""

    token: Token
    kind: KindNumber
    key: Key
    data: bytes
    deleters: Annotated[list[Digest], msgspec.Meta(max_length=MAX_DELETERS)]
    ttl: Seconds


class Fetch(_Message, frozen=True, tag=4):
    """The object under `key`, that with this digest if one is given (paper: fetch)."""

    token: Token
    kind: KindNumber
    key: Key
    digest: OptionalDigest = b""

    def __post_init__(self) -> None:
        _check_optional(self.digest)


class Delete(_Message, frozen=True, tag=5):
    """Take my hash from the object's certificate set (paper: delete)."""

    token: Token
    kind: KindNumber
    key: Key
    salt: Salt
    certificate: CertificateBytes
    signature: Signature


class AppendInbox(_Message, frozen=True, tag=6):
    """Put a notification into this inbox (paper: append-inbox). `stamp` is a hashcash stamp where one is asked."""

    token: Token
    key: Key
    notification: bytes
    ttl: Seconds
    stamp: Annotated[bytes, msgspec.Meta(max_length=64)] = b""


class ReadInbox(_Message, frozen=True, tag=7):
    """What waits in my inbox, under a lease (paper: read-inbox)."""

    token: Token
    key: Key
    certificate: CertificateBytes
    signature: Signature


class AcknowledgeInbox(_Message, frozen=True, tag=8):
    """I have these on disk, delete them: SHA-256 of each notification."""

    token: Token
    key: Key
    hashes: Annotated[list[Digest], msgspec.Meta(max_length=MAX_HASHES)]
    certificate: CertificateBytes
    signature: Signature


class AskTombstones(_Message, frozen=True, tag=9):
    """Which of the recipients behind these hashes have deleted the object?"""

    token: Token
    kind: KindNumber
    key: Key
    deleters: Annotated[list[Digest], msgspec.Meta(max_length=MAX_HASHES)]


class HandTombstone(_Message, frozen=True, tag=10):
    """A signed delete (overlay/identity/ownership.py) that another node took, to be kept for `ttl` seconds here too."""

    token: Token
    kind: KindNumber
    key: Key
    proof: CertificateBytes
    ttl: Seconds


class Have(_Message, frozen=True, tag=11):
    """What do you keep under this key, and which deletes of it do you know, past this deleter's?

    `known` (overlay/ids.py, deleters_digest) says which the asker knows: they needn't travel when they are the same.
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
    """Which of these (SHA-256) wait in the inbox at yours, or were acknowledged there?"""

    token: Token
    key: Key
    hashes: Annotated[list[Digest], msgspec.Meta(max_length=MAX_HASHES)]


class Recheck(_Message, frozen=True, tag=13):
    """Others lack what you keep under this key: look after its copies. Kind INBOX: the inbox's."""

    token: Token
    kind: Annotated[int, msgspec.Meta(ge=0, le=255)]
    key: Key


class AskAdmission(_Message, frozen=True, tag=14):
    """Whose node are you? Padded, so that the answer is no amplification."""

    padding: Annotated[bytes, msgspec.Meta(max_length=MAX_PADDING)] = b""


class DialBack(_Message, frozen=True, tag=15):
    """Do strangers reach me, by UDP and at my HTTP door, whose fingerprint this is?"""

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
    """I am here, and saw your datagram come from there."""

    ip: PackedIP
    port: Port


class Found(_Message, frozen=True, tag=102):
    """The closest contacts that this node knows, a write token, and the door for large bodies (0: none)."""

    contacts: Annotated[list[WireContact], msgspec.Meta(max_length=MAX_K)]
    token: Token
    bulk_port: Annotated[int, msgspec.Meta(ge=0, le=65535)]
    fingerprint: OptionalDigest

    def __post_init__(self) -> None:
        _check_optional(self.fingerprint)


class Done(_Message, frozen=True, tag=103):
    """It is on disk. `count`: objects dropped or notifications deleted, where that says something."""

    count: Count = 0


class Object(_Message, frozen=True, tag=104):
    """The object that was asked for; `size` alone (no data) when it must be fetched over HTTP."""

    data: bytes
    size: Count


class Notifications(_Message, frozen=True, tag=105):
    """Leased notifications, and whether more wait."""

    notifications: list[bytes]
    more: bool


class Tombstones(_Message, frozen=True, tag=106):
    """Of the first that were asked for, in their order, each one's signed delete (overlay/identity/ownership.py) or
    b""."""

    proofs: Annotated[list[CertificateBytes], msgspec.Meta(max_length=MAX_HASHES)]


class Refusal(_Message, frozen=True, tag=107):
    """No, and why. `bits`: the hashcash stamp that would change that answer."""

    code: Annotated[int, msgspec.Meta(ge=1, le=255)]
    bits: Annotated[int, msgspec.Meta(ge=0, le=255)] = 0


class WireTombstone(msgspec.Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """A signed delete, and the seconds for which it is still to be kept."""

    proof: CertificateBytes
    ttl: Seconds


class Held(_Message, frozen=True, tag=108):
    """The digests of what is there, the deletes of the key by their deleters' hashes, and whether more wait.

    `same`: the deletes are those that the asker knows, and aren't told again.
    """

    digests: Annotated[list[Digest], msgspec.Meta(max_length=MAX_HASHES)]
    tombstones: list[WireTombstone]
    more: bool
    same: bool = False


class Known(_Message, frozen=True, tag=109):
    """Of each notification that was asked for, in that order, whether it waits here or was acknowledged here."""

    known: Annotated[list[bool], msgspec.Meta(max_length=MAX_HASHES)]


class Admitted(_Message, frozen=True, tag=110):
    """A member's: her certificate, and her signature for this node (overlay/identity/admission.py)."""

    certificate: Annotated[bytes, msgspec.Meta(max_length=MAX_CERTIFICATE)]
    signature: Signature


class Dialled(_Message, frozen=True, tag=111):
    """Whether they do."""

    udp: bool
    tcp: bool


Answer: TypeAlias = (
    Pong | Found | Done | Object | Notifications | Tombstones | Refusal | Held | Known | Admitted | Dialled
)


class Code:
    """Why a node refuses; `WORDS` says it to a user."""

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
"""Whoever has no token yet is sent at most so many times the bytes of the request."""


def encode(message: Request | Answer) -> bytes:
    """A message's bytes."""
    return _encoder.encode(message)


def decode_request(data: bytes) -> Request:
    """Raises Malformed for anything that isn't exactly a request."""
    try:
        return _request_decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise Malformed("not a request") from error


def decode_answer(data: bytes) -> Answer:
    """Raises Malformed for anything that isn't exactly an answer."""
    try:
        return _answer_decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise Malformed("not an answer") from error


def find_padding(k: int) -> bytes:
    """Padding that lets the answer to a Find for k contacts be complete (the inverse of `affordable`)."""
    return bytes(max(0, -(-(_FOUND_BYTES + _CONTACT_BYTES * k) // PADDED) - _FIND_BYTES))


def affordable(received: int) -> int:
    """How many contacts the answer to a Find of so many bytes may hold, with all that it makes the node send."""
    return max(0, (PADDED * received - _FOUND_BYTES) // _CONTACT_BYTES)


_FIND_BYTES = 99
"""Bytes of UDP of a Find without padding."""
_FOUND_BYTES = 210
"""The same of a Found without contacts (136 with its share of the overhead), and of a ping to a new node (74)."""
_CONTACT_BYTES = 60
"""Of a contact with an IPv6 address (56), and its share of the datagrams' overhead (72 in 1,128)."""
