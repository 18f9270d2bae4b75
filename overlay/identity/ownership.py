"""Signatures by which the owner of an address authorises an operation at one node (design: write tokens; paper, 2.2).

The signature covers the operation, the key, the node and the write token that the node issued to this sender minutes
ago. So it can't be used at another node, by another sender, or later. Formats only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from overlay.errors import Malformed
from overlay.ids import deleter_hash
from overlay.protocol_limits import KEY_BYTES, MAX_PROOF, SALT_BYTES, SIGNATURE_BYTES

DELETE = b"delete"
READ_INBOX = b"read-inbox"
ACKNOWLEDGE_INBOX = b"acknowledge-inbox"


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of an address: its certificate (DER), and a function that signs with the certificate's key."""

    certificate: bytes
    sign: Callable[[bytes], bytes]


def statement(operation: bytes, key: bytes, node_id: bytes, token: bytes, extra: Sequence[bytes] = ()) -> bytes:
    """The bytes that an owner signs. `extra`: values of fixed length (a salt, hashes), in order."""
    return b"p2pmail " + operation + b"\0" + key + node_id + bytes([len(token)]) + token + b"".join(extra)


class DeleteProof(msgspec.Struct, array_like=True, frozen=True):
    """A signed delete, kept as the object's tombstone; any node that knows the key can verify it."""

    key: Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    node_id: Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    token: Annotated[bytes, msgspec.Meta(max_length=64)]
    salt: Annotated[bytes, msgspec.Meta(min_length=SALT_BYTES, max_length=SALT_BYTES)]
    certificate: Annotated[bytes, msgspec.Meta(max_length=MAX_PROOF)]
    signature: Annotated[bytes, msgspec.Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(DeleteProof)


def encode_delete_proof(proof: DeleteProof) -> bytes:
    """The tombstone's bytes."""
    return _encoder.encode(proof)


def decode_delete_proof(data: bytes) -> DeleteProof:
    """Read a tombstone. Raises Malformed."""
    if len(data) > MAX_PROOF:
        raise Malformed("signed delete is too long")
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Malformed("signed delete can't be read") from error


def deleter_named(proof: bytes, key: bytes) -> bytes:
    """The deleter hash that a tombstone of `key` is kept under; its signature isn't checked. Raises Malformed."""
    signed = decode_delete_proof(proof)
    if signed.key != key:
        raise Malformed("a signed delete of another key")
    return deleter_hash(key, signed.salt, signed.certificate)


def proves_delete(proof: DeleteProof, public_key: Ed25519PublicKey) -> bool:
    """Whether the owner of `public_key` signed this delete."""
    signed = statement(DELETE, proof.key, proof.node_id, proof.token, [proof.salt])
    return valid(public_key, proof.signature, signed)


def valid(public_key: Ed25519PublicKey, signature: bytes, signed: bytes) -> bool:
    """Whether `signature` (Ed25519, 64 bytes) is valid for `signed`."""
    try:
        public_key.verify(signature, signed)
    except InvalidSignature:
        return False
    return True
