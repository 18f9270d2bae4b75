"""The HTTP format between a node's server and its clients: header names and values, paths, small bodies.

Table 3 of the paper gives the methods; docs/protocol.md describes each header. Both sides use this module. Everything
that is parsed here comes from the network, so exactly one spelling of each value is accepted. Formats only.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

import msgspec

from overlay.errors import Malformed
from overlay.identity.contact import WireContact, pack_ip
from overlay.ids import CARD_SALT, Kind
from overlay.kademlia.lookup import Located
from overlay.limits.stamps import STAMP_BYTES
from overlay.protocol_limits import (
    DEFAULT_K,
    DIGEST_BYTES,
    KEY_BYTES,
    MAX_DELETERS,
    MAX_HTTP_HASHES,
    MAX_HTTP_READ,
    MAX_K,
    MAX_PROOF,
    PUBLIC_KEY_BYTES,
    RETENTION,
    SALT_BYTES,
    SIGNATURE_BYTES,
    TOKEN_BYTES,
)
from overlay.wire.messages import Code, bounded
from overlay.wire.write_tokens import NOBODY
from storage.store_request import StoreRequest

TOKEN = "P2pmail-Token"  # noqa: S105 - a header's name
ASKER = "P2pmail-Key"
KIND = "P2pmail-Kind"
TTL = "P2pmail-TTL"
DELETERS = "P2pmail-Deleters"
SALT = "P2pmail-Salt"
CERTIFICATE = "P2pmail-Certificate"
SIGNATURE = "P2pmail-Signature"
MORE = "P2pmail-More"
COUNT = "P2pmail-Count"
REFUSAL = "P2pmail-Refusal"
STAMP = "P2pmail-Stamp"
STAMP_BITS = "P2pmail-Stamp-Bits"
PRAGMA = "Pragma"
CONTENT_DIGEST = "Content-Digest"
REPR_DIGEST = "Repr-Digest"

APPEND_INBOX = "append-inbox"
READ_INBOX = "read-inbox"
TOMBSTONE = "tombstone"
_PRAGMAS = frozenset({APPEND_INBOX, READ_INBOX, TOMBSTONE})

INBOX_ANSWER_LIMIT = MAX_HTTP_READ + 256 * 1024
"""Bytes of the body of an answer to read-inbox: the limit, one more notification, and framing."""
MAX_HTTP_NOTIFICATIONS = 10_000
CLOSEST_LIMIT = 32 * 1024
"""Bytes of an answer to /closest: MAX_K contacts of some 400 bytes."""

_DELETERS_A_LINE = 150
"""Deleters in one header: 6.6 KB, since servers accept 8 KB. More go into further headers (RFC 9110, 5.3)."""

_HEX = re.compile(r"[0-9a-fA-F]*", re.ASCII)
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)
_SECONDS = re.compile(r"\d{1,12}(\.\d{1,9})?", re.ASCII)
_COUNT = re.compile(r"\d{1,13}", re.ASCII)
_SHA256 = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):", re.ASCII)
_PATH = re.compile(rf"/(closest/)?([0-9a-fA-F]{{{2 * KEY_BYTES}}})", re.ASCII)

STATUS: dict[int, int] = {
    Code.BAD_TOKEN: 403,
    Code.NOT_PERMITTED: 403,
    Code.NO_SPACE: 507,
    Code.TOO_LARGE: 413,
    Code.NOT_FOUND: 404,
    Code.DELETED: 410,
    Code.STALE: 409,
    Code.STAMP_NEEDED: 429,
    Code.BUSY: 503,
    Code.FULL: 507,
    Code.UNKNOWN_KIND: 400,
    Code.BAD_TTL: 400,
}
"""The HTTP status of a refusal; the header P2pmail-Refusal carries the code."""


class Fields(Protocol):
    """Headers or a query: several values under one name (multidict's types fit)."""

    def getall(self, key: str, default: list[str], /) -> list[str]: ...


# Values


def parse_hex(text: str, length: int) -> bytes:
    """Exactly `length` bytes in hexadecimal. Raises Malformed."""
    if len(text) != 2 * length or not _HEX.fullmatch(text):
        raise Malformed(f"not {length} bytes in hexadecimal")
    return bytes.fromhex(text)


def base64url(data: bytes) -> str:
    """base64url without padding (RFC 4648, section 5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def parse_base64url(text: str, most: int, least: int = 0) -> bytes:
    """`least` to `most` bytes in base64url; correct padding is allowed. Raises Malformed."""
    bare = text.rstrip("=")
    if len(text) <= (most + 2) // 3 * 4 and _BASE64URL.fullmatch(bare):
        try:
            data = base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
        except binascii.Error:
            data = b""
        padded = bare + "=" * (-len(bare) % 4)
        if base64url(data) == bare and text in (bare, padded) and least <= len(data) <= most:
            return data
    size = str(most) if least == most else f"{least} to {most}"
    raise Malformed(f"not {size} bytes in base64url")


def digest_field(digest: bytes) -> str:
    """The value of Content-Digest or Repr-Digest (RFC 9530) for a SHA-256."""
    return f"sha-256=:{base64.b64encode(digest).decode()}:"


def parse_digest_field(text: str) -> bytes:
    """The SHA-256 in a Content-Digest. Raises Malformed, also if it has only other digests."""
    for member in text.split(","):
        found = _SHA256.fullmatch(member.strip(" \t"))
        if found:
            return base64.b64decode(found[1])
    raise Malformed(f"{CONTENT_DIGEST} has no sha-256=:...: in it")


# Headers


def one(fields: Fields, name: str) -> str | None:
    """The only value of that name, or None. Raises Malformed if there are several."""
    values = fields.getall(name, [])
    if len(values) > 1:
        raise Malformed(f"{name} is given {len(values)} times")
    return values[0].strip(" \t") if values else None


def needed(fields: Fields, name: str) -> str:
    """The only value of that name. Raises Malformed."""
    value = one(fields, name)
    if value is None:
        raise Malformed(f"{name} is missing")
    return value


def parse_path(path: str) -> tuple[bytes, bool]:
    """The key in /KEY or /closest/KEY, and whether it is the latter. Raises Malformed."""
    found = _PATH.fullmatch(path)
    if not found:
        raise Malformed(f"the path is not /KEY or /closest/KEY with a key of {2 * KEY_BYTES} hexadecimal digits")
    return bytes.fromhex(found[2]), bool(found[1])


def pragma_of(headers: Fields) -> str:
    """Which of the primitives that share a method, or "". Raises Malformed for an unknown one."""
    value = (one(headers, PRAGMA) or "").lower()
    if value in ("", "no-cache"):  # the standard pragma; some clients send it
        return ""
    if value not in _PRAGMAS:
        raise Malformed(f"{PRAGMA} is none of {', '.join(sorted(_PRAGMAS))}")
    return value


def token_of(headers: Fields) -> bytes:
    """The write token. Raises Malformed."""
    return parse_hex(needed(headers, TOKEN), TOKEN_BYTES)


def asker_of(headers: Fields) -> bytes:
    """The public key that the token is bound to; NOBODY if none is given. Raises Malformed."""
    value = one(headers, ASKER)
    return NOBODY if value is None else parse_base64url(value, PUBLIC_KEY_BYTES, PUBLIC_KEY_BYTES)


def kind_of(headers: Fields) -> int:
    """The object's kind; a body if none is given. Raises Malformed."""
    value = one(headers, KIND)
    try:
        return Kind.BODY if value is None else Kind[value.upper()]
    except KeyError:
        raise Malformed(f"{KIND} is none of {', '.join(kind.name.lower() for kind in Kind)}") from None


def stamp_of(headers: Fields) -> bytes:
    """The stamp for an inbox; empty if none is given. Raises Malformed."""
    value = one(headers, STAMP)
    return b"" if value is None else parse_hex(value, STAMP_BYTES)


def ttl_of(headers: Fields) -> float:
    """Seconds to keep it: at most RETENTION, which is also the default. Raises Malformed."""
    value = one(headers, TTL)
    if value is None:
        return RETENTION
    if not _SECONDS.fullmatch(value):
        raise Malformed(f"{TTL} is not a number of seconds")
    return min(float(value), RETENTION)


def deleters_of(headers: Fields) -> list[bytes]:
    """The deleter hashes, from one header or several. Raises Malformed."""
    texts = [text.strip(" \t") for line in headers.getall(DELETERS, []) for text in line.split(",", MAX_DELETERS)]
    if len(texts) > MAX_DELETERS:
        raise Malformed(f"more than {MAX_DELETERS} in {DELETERS}")
    return [parse_base64url(text, DIGEST_BYTES, DIGEST_BYTES) for text in texts if text]


def salt_of(headers: Fields, kind: int) -> bytes:
    """The salt of the deleter hash; for a card the well-known one. Raises Malformed."""
    value = one(headers, SALT)
    if value is None and kind == Kind.CERTIFICATE:
        return CARD_SALT
    return parse_base64url(needed(headers, SALT), SALT_BYTES, SALT_BYTES)


def proof_of(headers: Fields) -> tuple[bytes, bytes]:
    """The owner's certificate (DER) and signature. Raises Malformed."""
    certificate = parse_base64url(needed(headers, CERTIFICATE), MAX_PROOF, 1)
    return certificate, parse_base64url(needed(headers, SIGNATURE), SIGNATURE_BYTES, SIGNATURE_BYTES)


def content_digest_of(headers: Fields) -> bytes | None:
    """The SHA-256 that the content must have, if one is given. Raises Malformed."""
    lines = headers.getall(CONTENT_DIGEST, [])
    return parse_digest_field(",".join(lines)) if lines else None


def count_of(headers: Fields, name: str = COUNT) -> int:
    """A number in an answer. Raises Malformed."""
    value = needed(headers, name)
    if not _COUNT.fullmatch(value):
        raise Malformed(f"{name} is not a number")
    return int(value)


def more_of(headers: Fields) -> bool:
    """Whether more notifications wait. Raises Malformed."""
    value = needed(headers, MORE)
    if value not in ("true", "false"):
        raise Malformed(f"{MORE} is neither true nor false")
    return value == "true"


def k_of(query: Fields) -> int:
    """How many contacts, 0 to MAX_K. Raises Malformed."""
    value = one(query, "k")
    if value is None:
        return DEFAULT_K
    if not _COUNT.fullmatch(value) or int(value) > MAX_K:
        raise Malformed(f"k is not 0 to {MAX_K}")
    return int(value)


def digest_of(query: Fields) -> bytes | None:
    """The digest of the requested variant. Raises Malformed."""
    value = one(query, "digest")
    return None if value is None else parse_hex(value, DIGEST_BYTES)


def deleter_of(query: Fields) -> bytes:
    """The deleter hash whose delete is requested. Raises Malformed."""
    return parse_hex(needed(query, "deleter"), DIGEST_BYTES)


def store_headers(request: StoreRequest) -> list[tuple[str, str]]:
    """The headers of a PUT that stores."""
    deleters = request.deleters
    lines = [deleters[at : at + _DELETERS_A_LINE] for at in range(0, len(deleters), _DELETERS_A_LINE)]
    return [
        kind_header(request.kind),
        ttl_header(request.ttl),
        (CONTENT_DIGEST, digest_field(request.digest)),
        *((DELETERS, ",".join(map(base64url, line))) for line in lines),
    ]


def kind_header(kind: int) -> tuple[str, str]:
    """P2pmail-Kind."""
    return KIND, Kind(kind).name.lower()


def ttl_header(ttl: float) -> tuple[str, str]:
    """P2pmail-TTL; `ttl` in seconds, kept to milliseconds."""
    return TTL, f"{bounded(ttl):.3f}"


def proof_headers(certificate: bytes, signature: bytes) -> list[tuple[str, str]]:
    """The headers that prove the owner."""
    return [(CERTIFICATE, base64url(certificate)), (SIGNATURE, base64url(signature))]


# Bodies

_notifications_encoder = msgspec.msgpack.Encoder()
_notifications_decoder: msgspec.msgpack.Decoder[list[bytes]] = msgspec.msgpack.Decoder(
    Annotated[list[bytes], msgspec.Meta(max_length=MAX_HTTP_NOTIFICATIONS)]
)


def encode_notifications(notifications: Sequence[bytes]) -> bytes:
    """The body of an answer to read-inbox: a msgpack array of bin."""
    return _notifications_encoder.encode(list(notifications))


def decode_notifications(data: bytes) -> list[bytes]:
    """The notifications in that body. Raises Malformed."""
    try:
        return _notifications_decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise Malformed("not an array of notifications") from error


def decode_hashes(data: bytes) -> list[bytes]:
    """The body of an acknowledgement: SHA-256 digests one after the other. Raises Malformed."""
    if not data or len(data) % DIGEST_BYTES or len(data) > MAX_HTTP_HASHES * DIGEST_BYTES:
        raise Malformed(f"not 1 to {MAX_HTTP_HASHES} digests of {DIGEST_BYTES} bytes")
    return [data[at : at + DIGEST_BYTES] for at in range(0, len(data), DIGEST_BYTES)]


class _Listed(msgspec.Struct, frozen=True):
    id: str
    key: str
    host: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    bulk_port: Annotated[int, msgspec.Meta(ge=0, le=65535)]
    fingerprint: str


class _Closest(msgspec.Struct, frozen=True):
    node: str
    token: str
    contacts: Annotated[list[_Listed], msgspec.Meta(max_length=MAX_K)]


@dataclass(frozen=True, slots=True)
class ListedContact:
    """A contact as /closest lists it, not yet checked against the network's rules."""

    id: bytes
    wire: WireContact
    bulk_port: int
    fingerprint: bytes


_closest_decoder = msgspec.json.Decoder(_Closest)


def encode_closest(node_id: bytes, token: bytes, contacts: Sequence[Located]) -> bytes:
    """The answer to /closest, as JSON."""
    listed = [
        _Listed(
            found.contact.id.hex(),
            base64url(found.contact.key),
            found.contact.ip,
            found.contact.port,
            found.bulk_port,
            found.fingerprint.hex(),
        )
        for found in contacts
    ]
    return msgspec.json.encode(_Closest(node_id.hex(), token.hex(), listed)) + b"\n"


def decode_closest(data: bytes) -> tuple[bytes, bytes, list[ListedContact]]:
    """Node id, token and contacts in that answer; unknown fields are ignored. Raises Malformed."""
    try:
        answer = _closest_decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise Malformed("not an answer to /closest") from error
    contacts = [
        ListedContact(
            parse_hex(listed.id, KEY_BYTES),
            WireContact(
                parse_base64url(listed.key, PUBLIC_KEY_BYTES, PUBLIC_KEY_BYTES), pack_ip(listed.host), listed.port
            ),
            listed.bulk_port,
            parse_hex(listed.fingerprint, DIGEST_BYTES) if listed.bulk_port else b"",
        )
        for listed in answer.contacts
    ]
    return parse_hex(answer.node, KEY_BYTES), parse_hex(answer.token, TOKEN_BYTES), contacts
