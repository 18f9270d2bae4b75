"""A person's encryption keys: HPKE MLKEM768_X25519 pairs, and the rule by which they change (design section 5).

What lives here makes, serialises and uses pairs, and says when one is due and when its private half is destroyed;
keeping them is storage/user/keyring.py's. This and mail/sealed/body.py are the only doors to encryption.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from overlay.identity.card import key_id_of
from overlay.protocol_limits import DAY, ENCRYPTION_KEY_SIZE, RETENTION
from storage.errors import DATA, P2PMailError

MLKEM_SEED_SIZE = 64
MLKEM_PUBLIC_SIZE = ENCRYPTION_KEY_SIZE - 32
SECRET_SIZE = MLKEM_SEED_SIZE + 32
"""Bytes of a serialised private half: the seed of ML-KEM-768 (d || z, FIPS 203), then X25519's."""

SEAL_OVERHEAD = KEM.MLKEM768_X25519.enc_length() + 16
"""Bytes that sealing adds: the encapsulated key (ML-KEM 1088, X25519 32) and AES-GCM's tag."""

ROTATION = 7 * DAY
"""Seconds that a key is offered before the next one replaces it."""


MARGIN = 7 * DAY
"""Seconds more that a private half is kept: for a sender who kept the old card, and for a clock that is wrong."""

_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class KeyMaterialError(P2PMailError, ValueError):
    """These bytes are not an encryption key."""

    exit_code = DATA


class NotOpened(P2PMailError):
    """These bytes were not sealed to this key, or were changed on the way."""

    exit_code = DATA


@dataclass(frozen=True, slots=True)
class KeyPair:
    """One encryption key. `public` (1,216 bytes) goes into the card, `secret` (96 bytes) into the keyring alone."""

    key_id: bytes
    public: bytes = field(repr=False)
    secret: bytes = field(repr=False)
    created: float


def generate_pair(now: float, random: Callable[[int], bytes] = os.urandom) -> KeyPair:
    """A new pair, created at `now` (epoch seconds)."""
    return pair_from_secret(random(SECRET_SIZE), now)


def pair_from_secret(secret: bytes, created: float) -> KeyPair:
    """The pair whose private half is these 96 bytes. Raises KeyMaterialError."""
    mlkem, x25519 = _private_halves(secret)
    public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
    return KeyPair(key_id_of(public), public, secret, created)


def seal(plaintext: bytes, public: bytes, info: bytes) -> bytes:
    """HPKE base mode (RFC 9180), one message: encapsulated key, then ciphertext; `info` must be the same to open.

    Raises KeyMaterialError when `public` (of somebody's card) is not a key.
    """
    key = _public_key(public)
    try:
        return _SUITE.encrypt(plaintext, key, info)
    except ValueError as error:  # An X25519 point of small order: its maker wants no secrets.
        raise KeyMaterialError("These bytes are not an encryption key.") from error


def open_sealed(sealed: bytes, pair: KeyPair, info: bytes) -> bytes:
    """The plaintext. Raises NotOpened, and KeyMaterialError when the pair is damaged."""
    key = MLKEM768X25519PrivateKey(*_private_halves(pair.secret))
    try:
        return _SUITE.decrypt(sealed, key, info)
    except (InvalidTag, ValueError) as error:
        raise NotOpened("This was not sealed to this key, or was changed on the way.") from error


def due(created: float, now: float) -> bool:
    """Whether a key created then (epoch seconds) must be replaced now: after a week, or when the clock was wrong."""
    return now - created >= ROTATION or created - now >= ROTATION


def retire_after(replaced: float) -> float:
    """When the private half of a key that was replaced at `replaced` is to be destroyed (epoch seconds).

    Counted from the replacement and not from the creation: while its owner was away the old card stayed valid.
    """
    return replaced + RETENTION + MARGIN


@lru_cache(maxsize=256)
def _public_key(public: bytes) -> MLKEM768X25519PublicKey:
    if len(public) != ENCRYPTION_KEY_SIZE:
        raise KeyMaterialError(f"An encryption key has {ENCRYPTION_KEY_SIZE} bytes, not {len(public)}.")
    try:
        return MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(public[:MLKEM_PUBLIC_SIZE]),
            X25519PublicKey.from_public_bytes(public[MLKEM_PUBLIC_SIZE:]),
        )
    except ValueError as error:
        raise KeyMaterialError("These bytes are not an encryption key.") from error


def _private_halves(secret: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    if len(secret) != SECRET_SIZE:
        raise KeyMaterialError(f"The private half of an encryption key has {SECRET_SIZE} bytes, not {len(secret)}.")
    return (
        MLKEM768PrivateKey.from_seed_bytes(secret[:MLKEM_SEED_SIZE]),
        X25519PrivateKey.from_private_bytes(secret[MLKEM_SEED_SIZE:]),
    )
