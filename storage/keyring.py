"""The user's keys on disk, under a passphrase: Argon2id (RFC 9106), then AES-256-GCM over one document.

What a key is for, and when it is due, is known to mail/; here are bytes that must be neither lost nor read by others.
"""

from __future__ import annotations

import os
import threading
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from storage import durable

MEMORY = 64 * 1024
"""KiB that one guess at the passphrase costs: RFC 9106's second recommendation (64 MiB, 3 passes, 4 lanes)."""
PASSES = 3
LANES = 4

MOST_MEMORY = 1024 * 1024
"""KiB that a keyring file may ask for: a changed file must not be able to stop the computer."""

SIZE_LIMIT = 16 * 1024 * 1024
"""Bytes of a keyring file; a real one has a few thousand."""

_FORMAT = "p2pmail keyring 1"
_KEY, _CHECK, _SALT, _NONCE = 32, 16, 16, 12


class KeyringError(Exception):
    """The keyring can't be used; the message says why, and what to do."""


class NoKeyring(KeyringError):
    """There is none at this place."""


class KeyringExists(KeyringError):
    """There is one already, which is not written over."""


class PassphraseNeeded(KeyringError):
    """It is protected, and no passphrase was given."""


class WrongPassphrase(KeyringError):
    """It is protected by another passphrase."""


class KeyringDamaged(KeyringError):
    """The file isn't a keyring, or was changed. It was left as it is."""


EARLIER = 4
"""Renewed certificates that are kept: one is given out for a year, and good for two months beside the next."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the user is: her normalised address, her Ed25519 private key (32 bytes) and its certificate (DER)."""

    address: str
    private_key: bytes = field(repr=False)
    certificate: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class EncryptionKey:
    """One encryption key. `secret`: its private seeds; times in seconds since the epoch."""

    key_id: bytes
    secret: bytes = field(repr=False)
    created: float
    retire_after: float | None = None
    """When the private half is to be destroyed; None while it is in use."""


@dataclass(frozen=True, slots=True)
class PendingJoin:
    """A join that was asked for and not answered yet: what to ask again with, and the key that will be certified."""

    address: str
    private_key: bytes = field(repr=False)
    invite: str = field(repr=False)
    request: bytes = field(repr=False)
    """The request as it was sealed, so that it is the same when it is sent again."""
    created: float
    encryption_keys: tuple[EncryptionKey, ...] = ()
    """Those that the request names; they become the user's when it is answered."""


@dataclass(frozen=True, slots=True)
class Contents:
    """All that a keyring holds."""

    identity: Identity | None = None
    encryption_keys: tuple[EncryptionKey, ...] = ()
    pending: PendingJoin | None = None
    earlier: tuple[bytes, ...] = ()
    """Certificates (DER) of the same key that were renewed, the latest last: mail to them may be on its way."""


class _Protection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    salt: Annotated[bytes, msgspec.Meta(min_length=_SALT, max_length=64)]
    memory: Annotated[int, msgspec.Meta(ge=8, le=MOST_MEMORY)]
    passes: Annotated[int, msgspec.Meta(ge=1, le=64)]
    lanes: Annotated[int, msgspec.Meta(ge=1, le=64)]
    check: Annotated[bytes, msgspec.Meta(min_length=_CHECK, max_length=_CHECK)]
    """Tells a wrong passphrase from a damaged file; costs who guesses as much as the whole."""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    protection: _Protection | None
    nonce: bytes
    content: bytes


class Keyring:
    """The keyring at `path`, opened. Every change is on disk when its call returns, or not made at all."""

    def __init__(self, path: Path, contents: Contents, protection: _Protection | None, key: bytes | None) -> None:
        """Use `create` or `open`."""
        self.path = path
        self._contents = contents
        self._protection = protection
        self._key = key
        self._lock = threading.Lock()  # one change at a time: none is written over by an older one

    @classmethod
    def create(cls, path: Path, passphrase: str | None, random: Callable[[int], bytes] = os.urandom) -> Keyring:
        """Make an empty keyring, unprotected with `passphrase` None. Raises KeyringExists, OSError."""
        if path.exists():
            raise KeyringExists(f"There is a keyring at {path} already; it was left as it is.")
        keyring = cls(path, Contents(), *_protect(passphrase, random))
        durable.make_folder(path.parent)
        keyring._write(Contents())
        return keyring

    @classmethod
    def open(cls, path: Path, passphrase: str | None) -> Keyring:
        """Open a keyring; takes a tenth of a second and 64 MiB when it is protected. An unneeded passphrase is fine.

        Raises NoKeyring, PassphraseNeeded, WrongPassphrase, KeyringDamaged, KeyringError.
        """
        file = _read(path)
        key = None
        data = file.content
        if file.protection is not None:
            if passphrase is None:
                raise PassphraseNeeded(f"The keyring {path} is protected; its passphrase is needed.")
            key, check = _derive(passphrase, file.protection)
            if check != file.protection.check:
                raise WrongPassphrase("This is not the passphrase of the keyring. Nothing was changed.")
            try:
                data = AESGCM(key).decrypt(file.nonce, data, _bound(file.protection))
            except (InvalidTag, ValueError) as error:
                raise _damaged(path, "it was changed") from error
        try:
            return cls(path, msgspec.msgpack.decode(data, type=Contents), file.protection, key)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _damaged(path, "its contents can't be read") from error

    @staticmethod
    def is_protected(path: Path) -> bool:
        """Whether opening asks for a passphrase. Raises NoKeyring, KeyringDamaged, KeyringError."""
        return _read(path).protection is not None

    @property
    def protected(self) -> bool:
        """Whether a passphrase protects it."""
        return self._protection is not None

    @property
    def identity(self) -> Identity | None:
        """Who the user is, once the authority has said so."""
        return self._contents.identity

    @property
    def encryption_keys(self) -> tuple[EncryptionKey, ...]:
        """The encryption keys, those in use and those kept for mail on its way."""
        return self._contents.encryption_keys

    @property
    def pending(self) -> PendingJoin | None:
        """A join that waits for its answer."""
        return self._contents.pending

    @property
    def contents(self) -> Contents:
        """All of it at one moment."""
        return self._contents

    def change(self, how: Callable[[Contents], Contents]) -> Contents:
        """Replace the contents by `how(contents)`, durably and in one step. Raises OSError; then nothing changed."""
        with self._lock:
            changed = how(self._contents)
            if changed != self._contents:
                self._write(changed)
                self._contents = changed
            return changed

    def set_identity(self, identity: Identity) -> None:
        """Keep who the user is; the pending join is over, and its encryption keys are hers."""

        def settle(before: Contents) -> Contents:
            keys = before.encryption_keys
            if before.pending is not None:
                known = {key.key_id for key in keys}
                keys += tuple(key for key in before.pending.encryption_keys if key.key_id not in known)
            earlier = before.earlier
            if before.identity is not None and before.identity.certificate != identity.certificate:
                same = before.identity.private_key == identity.private_key
                earlier = (*earlier, before.identity.certificate)[-EARLIER:] if same else ()
            return Contents(identity, keys, None, earlier)

        self.change(settle)

    def set_pending(self, pending: PendingJoin | None) -> None:
        """Keep what a join needs to be asked for again; None gives it up."""
        self.change(lambda before: replace(before, pending=pending))

    def add_encryption_key(self, key: EncryptionKey, *, retire_others_after: float | None = None) -> None:
        """Add a key; with `retire_others_after` (epoch seconds) those in use so far retire then."""

        def add(before: Contents) -> Contents:
            others = (old for old in before.encryption_keys if old.key_id != key.key_id)
            retired = tuple(
                replace(old, retire_after=retire_others_after) if old.retire_after is None else old for old in others
            )
            return replace(before, encryption_keys=(*retired, key))

        self.change(add)

    def destroy_retired(self, now: float) -> int:
        """Drop the keys whose time is over (epoch seconds); returns how many. The file is written anew without them."""
        count = len(self.encryption_keys)
        keep = self.change(
            lambda before: replace(
                before,
                encryption_keys=tuple(
                    key for key in before.encryption_keys if key.retire_after is None or key.retire_after > now
                ),
            )
        )
        return count - len(keep.encryption_keys)

    def change_passphrase(self, passphrase: str | None, random: Callable[[int], bytes] = os.urandom) -> None:
        """Protect it by another passphrase, or with None not at all. Raises OSError; then nothing changed."""
        with self._lock:
            before = self._protection, self._key
            self._protection, self._key = _protect(passphrase, random)
            try:
                self._write(self._contents)
            except BaseException:
                self._protection, self._key = before
                raise

    def save(self) -> None:
        """Write it again as it is, under a new nonce. (Every change is saved already.) Raises OSError."""
        with self._lock:
            self._write(self._contents)

    def _write(self, contents: Contents) -> None:
        data, nonce = msgspec.msgpack.encode(contents), b""
        if self._key is not None:
            # A random nonce for each writing: 2^32 of them under one key are far from repeating (NIST SP 800-38D).
            nonce = os.urandom(_NONCE)
            data = AESGCM(self._key).encrypt(nonce, data, _bound(self._protection))
        durable.write(self.path, msgspec.msgpack.encode(_File(_FORMAT, self._protection, nonce, data)), 0o600)


def _read(path: Path) -> _File:
    try:
        with path.open("rb") as file:
            data = file.read(SIZE_LIMIT + 1)
    except FileNotFoundError as error:
        raise NoKeyring(f"There is no keyring at {path}: join a network first.") from error
    except OSError as error:
        raise KeyringError(f"The keyring {path} can't be read: {error.strerror}.") from error
    try:
        found = msgspec.msgpack.decode(data, type=_File)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(path, "it is no keyring") from error
    if found.format != _FORMAT:
        raise KeyringDamaged(f"{path} has the format {found.format[:40]!r}, which this p2pmail doesn't know.")
    return found


def _protect(passphrase: str | None, random: Callable[[int], bytes]) -> tuple[_Protection | None, bytes | None]:
    if passphrase is None:
        return None, None
    if not passphrase:
        raise KeyringError("An empty passphrase protects nothing; choose one, or none.")
    chosen = _Protection(random(_SALT), MEMORY, PASSES, LANES, bytes(_CHECK))
    key, check = _derive(passphrase, chosen)
    return msgspec.structs.replace(chosen, check=check), key


def _derive(passphrase: str, protection: _Protection) -> tuple[bytes, bytes]:
    """The key, and what is stored to recognise it by."""
    # However it was typed: composed and decomposed letters are the same passphrase (RFC 8265, OpaqueString).
    secret = unicodedata.normalize("NFC", passphrase).encode("utf-8", "surrogatepass")
    try:
        derived = Argon2id(
            salt=protection.salt,
            length=_KEY + _CHECK,
            iterations=protection.passes,
            lanes=protection.lanes,
            memory_cost=max(protection.memory, 8 * protection.lanes),
        ).derive(secret)
    except MemoryError as error:
        raise KeyringError(
            f"Opening the keyring takes {protection.memory // 1024} MiB of memory, too few are free."
        ) from error
    return derived[:_KEY], derived[_KEY:]


def _bound(protection: _Protection | None) -> bytes:
    """What is authenticated with the contents: the format, and how the key was made."""
    return _FORMAT.encode() + b"\0" + msgspec.msgpack.encode(protection)


def _damaged(path: Path, how: str) -> KeyringDamaged:
    return KeyringDamaged(
        f"The keyring {path} is damaged ({how}); it was left as it is. Put a copy of yours in its place."
    )
