"""What the primitives are asked to do, as values that every layer passes on (paper, section 2.2).

The request to store is storage/store_request.py, because a node's store takes it too.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """The object under `key` with this digest (SHA-256), or any object there when `digest` is None."""

    kind: int
    key: bytes
    digest: bytes | None = None


@dataclass(frozen=True, slots=True)
class DeleteRequest:
    """Take the owner's hash off the objects under `key`; `salt` is the owner's deleter salt there (16 bytes)."""

    kind: int
    key: bytes
    salt: bytes


@dataclass(frozen=True, slots=True)
class OwnerProof:
    """What an owner shows: a write token of the node, a certificate (DER) and a signature over the request and both.

    overlay/identity/ownership.py says what is signed.
    """

    token: bytes
    certificate: bytes
    signature: bytes
