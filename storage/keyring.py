"""The keyring: a user's secret keys in one file, under a passphrase if she wants (Argon2id, RFC 9106; AES-256-GCM).

What lives here is the file: how it is protected, read and written durably. Which keys there are, and when they
change, is decided in mail/identity.py and mail/keys.py.
"""

# Note to helpers S2 and E1: the lead wrote this file, because both of you need it; S2: please review and test it.

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from storage import durable

MEMORY_KIB = 64 * 1024
PASSES = 3
LANES = 4
"""RFC 9106, section 4, the second recommended choice: 64 MiB, 3 passes, 4 lanes. Kept in the file, so that they can
grow."""

MOST_MEMORY_KIB = 1024 * 1024
MOST_PASSES = 64
"""What a file may ask for: one that asks for more is damaged, and isn't allowed to stop the machine."""

_PLAIN, _PROTECTED = 0, 1
_VERSION = 1


class KeyringError(Exception):
    """The keyring can't be used; the message says why, and nothing was changed."""


class WrongPassphrase(KeyringError):
    """The passphrase doesn't open the keyring."""


class PassphraseNeeded(WrongPassphrase):
    """The keyring is protected, and no passphrase was given."""


class KeyringDamaged(KeyringError):
    """The file isn't a keyring, or was cut off or changed."""


class EncryptionKey(msgspec.Struct, array_like=True, frozen=True):
    """The private half of an encryption key (mail/keys.py), when it was made and when it must be gone (0: in use)."""

    secret: bytes
    created: float
    retire_after: float = 0.0


class Keys(msgspec.Struct, array_like=True, frozen=True):
    """All that the keyring keeps. `signing`: Ed25519 private key, 32 bytes; `certificates`: DER, the newest first.

    While an enrolment waits for its answer `certificates` is empty and `pending` holds what resuming it takes.
    """

    address: str
    signing: bytes
    certificates: tuple[bytes, ...] = ()
    encryption: tuple[EncryptionKey, ...] = ()
    pending: bytes = b""


class _File(msgspec.Struct, array_like=True, frozen=True):
    version: int
    protection: int
    memory_kib: int
    passes: int
    lanes: int
    salt: bytes
    nonce: bytes
    content: bytes


_file_decoder = msgspec.msgpack.Decoder(_File)
_keys_decoder = msgspec.msgpack.Decoder(Keys)


@dataclass(frozen=True, slots=True)
class _Protection:
    """A passphrase turned into a key, so that saving doesn't stretch it again."""

    key: bytes
    salt: bytes


class Keyring:
    """An opened keyring. `keys` are replaced as a whole by `save`."""

    def __init__(self, path: Path, keys: Keys, protection: _Protection | None, random: Callable[[int], bytes]) -> None:
        self.path = path
        self.keys = keys
        self._protection = protection
        self._random = random

    @classmethod
    def create(
        cls, path: Path, keys: Keys, passphrase: str | None, random: Callable[[int], bytes] = os.urandom
    ) -> Keyring:
        """Write a new keyring, durably, mode 0600. Raises KeyringError where there is one already, OSError."""
        if path.exists():
            raise KeyringError(f"There are keys in {path} already; they are never overwritten.")
        keyring = cls(path, keys, _protect(passphrase, random(16)) if passphrase else None, random)
        keyring.save(keys)
        return keyring

    @classmethod
    def open(cls, path: Path, passphrase: str | None, random: Callable[[int], bytes] = os.urandom) -> Keyring:
        """Open a keyring. Raises WrongPassphrase, PassphraseNeeded, KeyringDamaged, OSError."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        file = _read(path)
        if file.protection == _PLAIN:
            return cls(path, _keys(path, file.content), None, random)
        if not passphrase:
            raise PassphraseNeeded("The keys are protected by a passphrase, and none was given.")
        key = _stretch(passphrase, file.salt, file.memory_kib, file.passes, file.lanes)
        try:
            content = AESGCM(key).decrypt(file.nonce, file.content, b"p2pmail keyring 1")
        except InvalidTag:
            raise WrongPassphrase("The passphrase is wrong (or the keyring was changed).") from None
        return cls(path, _keys(path, content), _Protection(key, file.salt), random)

    def save(self, keys: Keys) -> None:
        """Replace the keys, durably. Raises OSError; then the file is as it was."""
        content, nonce = msgspec.msgpack.encode(keys), b""
        if self._protection is not None:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            nonce = self._random(12)
            content = AESGCM(self._protection.key).encrypt(nonce, content, b"p2pmail keyring 1")
        salt = self._protection.salt if self._protection else b""
        protection = _PROTECTED if self._protection else _PLAIN
        file = _File(_VERSION, protection, MEMORY_KIB, PASSES, LANES, salt, nonce, content)
        durable.make_folder(self.path.parent)
        durable.write(self.path, msgspec.msgpack.encode(file), 0o600)
        self.keys = keys

    def change_passphrase(self, passphrase: str | None) -> None:
        """Protect the keys with another passphrase, or none. Raises OSError."""
        self._protection = _protect(passphrase, self._random(16)) if passphrase else None
        self.save(self.keys)

    def change(self, **changes: object) -> None:
        """Save with some fields of `keys` replaced."""
        self.save(msgspec.structs.replace(self.keys, **changes))


def protected(path: Path) -> bool:
    """Whether opening this keyring takes a passphrase. Raises KeyringDamaged, OSError."""
    return _read(path).protection == _PROTECTED


def _read(path: Path) -> _File:
    try:
        file = _file_decoder.decode(path.read_bytes())
    except (msgspec.MsgspecError, RecursionError) as error:
        raise KeyringDamaged(f"{path} isn't a keyring, or was damaged; restore it from a backup.") from error
    sane = (
        file.version == _VERSION
        and file.protection in (_PLAIN, _PROTECTED)
        and 8 * file.lanes <= file.memory_kib <= MOST_MEMORY_KIB
        and 1 <= file.passes <= MOST_PASSES
        and 1 <= file.lanes <= 64
    )
    if not sane or (file.protection == _PROTECTED and (len(file.salt) < 8 or len(file.nonce) != 12)):
        raise KeyringDamaged(f"{path} was damaged, or written by a newer version; restore it from a backup.")
    return file


def _keys(path: Path, content: bytes) -> Keys:
    try:
        return _keys_decoder.decode(content)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise KeyringDamaged(f"{path} was damaged; restore it from a backup.") from error


def _protect(passphrase: str, salt: bytes) -> _Protection:
    return _Protection(_stretch(passphrase, salt, MEMORY_KIB, PASSES, LANES), salt)


def _stretch(passphrase: str, salt: bytes, memory_kib: int, passes: int, lanes: int) -> bytes:
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    kdf = Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory_kib)
    return kdf.derive(passphrase.encode())
