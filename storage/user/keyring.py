"""The user's keys on disk, under a passphrase: Argon2id (RFC 9106), then AES-256-GCM over one document.

What a key is for, and when it is due, is known to mail/; here are bytes that must be neither lost nor read by others.

Theory of operation
-------------------
Several processes may have the keyring open: the mail reader, and commands beside it. Each keeps the contents in memory
with a version number, and the file has one too. A process compares the file's stat at each look (`contents`) and reads
the file again at each change:

    unchanged      The stat is the one of the last read or write. What is in memory is used.
    newer          Another process wrote. Both versions are merged, and the file's has the last word.
    older          The file was restored from a backup. Both are merged and written again, and `tell` hears of it once.
    gone           Looks use what is in memory; the next change writes the file anew.
    unreadable     Its passphrase was changed, it is damaged, or it is another identity's. What is in memory stays in
                   use, `tell` hears of it once for each state of the file, and every change is refused.

A change is one step under two locks, one among threads (`_lock`), one among processes (flock on NAME.lock, which the
kernel releases when a process dies): read and merge the file, apply the function, write a new file with the next
version number, replace the old file by it. A look that finds something missing in the file makes such a change too.

How two versions are merged is in storage/user/keyring_contents.py.

Invariants:

- When a change returns it is on disk; when it raises, the file is as it was, or holds the change whole (if only the
  last sync, that of the folder, failed).
- The file is replaced by a rename and never changed in place, so a crash leaves the old or the new one whole.
- An encryption key that this process knows is never lost by what another process or a restored backup wrote. It goes
  only when its id is in `destroyed`.
- A file that can't be opened, or that belongs to another address, is never written over.
- While a passphrase is set the contents are written only encrypted. A process that finds the file without protection
  writes it without, too, if the file has a secret of its own: another process has removed the passphrase. Without one
  anybody who can write to the profile may have put it there, to have the keys written in the clear, or to have keys of
  theirs published; it is refused, and nothing is written.
- Each write uses a fresh nonce. The format and the parameters of Argon2id are authenticated with the contents.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from storage import durable
from storage.errors import CONFIGURATION, PERMISSION, TEMPORARY, P2PMailError
from storage.user.keyring_contents import (
    Contents,
    EncryptionKey,
    IdentityKey,
    PendingJoin,
    merged,
    share_a_secret,
    with_identity,
    with_key,
)

__all__ = [
    "Contents",
    "EncryptionKey",
    "IdentityKey",
    "Keyring",
    "KeyringBusy",
    "KeyringDamaged",
    "KeyringError",
    "KeyringExists",
    "KeyringReplaced",
    "NoKeyring",
    "PassphraseChanged",
    "PassphraseNeeded",
    "PendingJoin",
    "WrongPassphrase",
]

log = logging.getLogger(__name__)

MEMORY = 64 * 1024
"""KiB that one guess at the passphrase costs: RFC 9106's second recommendation (64 MiB, 3 passes, 4 lanes)."""
PASSES = 3
LANES = 4

MOST_MEMORY = 1024 * 1024
"""KiB that a keyring file may ask for: a changed file must not be able to stop the computer."""

SIZE_LIMIT = 16 * 1024 * 1024
"""Bytes of a keyring file that are read; a real one has a few thousand."""

LOCK_WAIT = 10.0
"""Seconds to wait for another process's change, which takes some milliseconds."""

_FORMAT = "p2pmail keyring 1"
_KEY, _CHECK, _SALT, _NONCE = 32, 16, 16, 12


class KeyringError(P2PMailError):
    """The keyring can't be used; the message says why, and what to do."""

    exit_code = CONFIGURATION


class NoKeyring(KeyringError):
    """There is none at this place."""


class KeyringExists(KeyringError):
    """There is one already, which is not written over."""


class PassphraseNeeded(KeyringError):
    """It is protected, and no passphrase was given."""

    exit_code = PERMISSION
    advice = "Put it into a file and say --passphrase-file FILE."


class WrongPassphrase(KeyringError):
    """It is protected by another passphrase."""

    exit_code = PERMISSION


class KeyringDamaged(KeyringError):
    """The file isn't a keyring, or was changed. It was left as it is."""

    exit_code = CONFIGURATION


class PassphraseChanged(KeyringError):
    """Another process has changed the passphrase since this one opened the keyring."""


class KeyringReplaced(KeyringError):
    """Somebody else's keyring lies in the place of the one that was opened."""


class KeyringBusy(KeyringError):
    """Another process is changing it, and doesn't come to an end."""

    exit_code = TEMPORARY


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


_FileStat = tuple[int, ...]
"""What changes when the file is written: each writing makes a new one."""


class Keyring:
    """The keyring at `path`, opened. Every change is on disk when its call returns, or not made at all.

    What another process has written since is taken over at each look. When the file can't be opened any more (its
    passphrase was changed, it is damaged) what is known stays in use, `tell` hears of it once, and changes are refused.
    """

    def __init__(
        self,
        path: Path,
        contents: Contents,
        protection: _Protection | None,
        key: bytes | None,
        stat: _FileStat | None,
    ) -> None:
        """Use `create` or `open`."""
        self.path = path
        self.tell: Callable[[str], None] = log.warning
        """Hears what the user must know: the file was restored from a backup, or can't be opened any more."""
        self._contents = contents
        self._protection = protection
        self._key = key
        self._file_stat = stat
        self._reported_older: _FileStat | None = None  # the older copy that the user has heard of
        self._lock = threading.RLock()  # one look or change at a time in this process

    @classmethod
    def create(cls, path: Path, passphrase: str | None, random: Callable[[int], bytes] = os.urandom) -> Keyring:
        """Make an empty keyring, unprotected with `passphrase` None. Raises KeyringExists, KeyringBusy, OSError."""
        keyring = cls(path, Contents(), *_protect(passphrase, random), None)
        durable.make_folder(path.parent)
        with keyring._exclusive():
            if path.exists():
                raise KeyringExists(f"There is a keyring at {path} already; it was left as it is.")
            keyring._write(Contents())
        return keyring

    @classmethod
    def open(cls, path: Path, passphrase: str | None) -> Keyring:
        """Open a keyring; takes a tenth of a second and 64 MiB when it is protected. An unneeded passphrase is fine.

        Raises NoKeyring, PassphraseNeeded, WrongPassphrase, KeyringDamaged, KeyringError.
        """
        stat = _stat(path)
        file = _read(path)
        key = None
        if file.protection is not None:
            if passphrase is None:
                raise PassphraseNeeded(f"The keyring {path} is protected; its passphrase is needed.")
            key, check = _derive(passphrase, file.protection)
            if check != file.protection.check:
                raise WrongPassphrase("This is not the passphrase of the keyring. Nothing was changed.")
        return cls(path, _opened(path, file, key), file.protection, key, stat)

    @staticmethod
    def is_protected(path: Path) -> bool:
        """Whether opening asks for a passphrase. Raises NoKeyring, KeyringDamaged, KeyringError."""
        return _read(path).protection is not None

    @property
    def protected(self) -> bool:
        """Whether a passphrase protects it."""
        return self._protection is not None

    @property
    def identity(self) -> IdentityKey | None:
        """Who the user is, once the authority has said so."""
        return self.contents.identity

    @property
    def encryption_keys(self) -> tuple[EncryptionKey, ...]:
        """The encryption keys, those in use and those kept for mail on its way."""
        return self.contents.encryption_keys

    @property
    def pending(self) -> PendingJoin | None:
        """A join that waits for its answer."""
        return self.contents.pending

    @property
    def contents(self) -> Contents:
        """All of it at one moment, with what other processes have written."""
        with self._lock:
            stat = _stat(self.path)
            if stat is not None and stat != self._file_stat:
                self._file_stat = stat
                try:
                    if self._merge_from_file():
                        self.change(lambda contents: contents)
                except KeyringError as error:
                    self.tell(str(error))
                except OSError as error:  # another try is made at the next change
                    log.warning("what the keyring's file lacks isn't saved yet: %s", error)
            return self._contents

    def change(self, how: Callable[[Contents], Contents]) -> Contents:
        """Replace the contents, as they are on disk now, by `how(contents)`, durably and in one step.

        Raises OSError, KeyringBusy, PassphraseChanged, KeyringDamaged, KeyringReplaced; then nothing changed.
        """
        with self._lock, self._exclusive():
            try:
                lacking = self._merge_from_file()
            except NoKeyring:
                lacking = True
            changed = how(self._contents)
            if changed != self._contents or lacking:
                self._write(changed)
            return self._contents

    def set_identity(self, identity: IdentityKey) -> None:
        """Keep who the user is; the pending join is over, and its encryption keys become the user's."""
        self.change(lambda before: with_identity(before, identity))

    def set_pending(self, pending: PendingJoin | None) -> None:
        """Keep what a join needs to be asked for again; None gives it up."""
        self.change(lambda before: replace(before, pending=pending))

    def add_encryption_key(self, key: EncryptionKey, *, retire_others_after: float | None = None) -> None:
        """Add a key; with `retire_others_after` (epoch seconds) those in use so far are replaced by it."""
        self.change(lambda before: with_key(before, key, retire_others_after))

    def change_passphrase(self, passphrase: str | None, random: Callable[[int], bytes] = os.urandom) -> None:
        """Protect it by another passphrase, or with None not at all. Raises as `change`; then nothing changed."""
        protection, key = _protect(passphrase, random)
        with self._lock, self._exclusive():
            self._merge_from_file()
            before = self._protection, self._key
            self._protection, self._key = protection, key
            try:
                self._write(self._contents)
            except BaseException:
                self._protection, self._key = before
                raise

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Be the only process that changes the file, until it ends or dies. Raises KeyringBusy, OSError."""
        path = self.path.with_name(f"{self.path.name}.lock")
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            deadline = time.monotonic() + LOCK_WAIT
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() > deadline:
                        raise KeyringBusy(
                            f"Another p2pmail has been changing the keyring {self.path} for {LOCK_WAIT:.0f} seconds;"
                            " nothing was changed. Stop that one, or try again."
                        ) from error
                    time.sleep(0.01)
            yield
        finally:
            os.close(handle)

    def _merge_from_file(self) -> bool:
        """Unite what is known with what the file has now; whether the file lacks something of it.

        Raises KeyringError; then what is known stays.
        """
        stat = _stat(self.path)
        file = _read(self.path)
        if file.protection is not None and file.protection != self._protection:
            raise PassphraseChanged(
                f"The passphrase of the keyring {self.path} was changed meanwhile. Nothing was lost; start p2pmail"
                " again with the new one."
            )
        found = _opened(self.path, file, self._key if file.protection is not None else None)
        known = self._contents
        if (
            known.identity is not None
            and found.identity is not None
            and known.identity.address != found.identity.address
        ):
            raise KeyringReplaced(
                f"The keyring {self.path} is now that of {found.identity.address}, and was that of"
                f" {known.identity.address} when this p2pmail started. Both were left as they are; start it again."
            )
        if file.protection is None and self._protection is not None and not share_a_secret(known, found):
            raise KeyringReplaced(
                f"The keyring {self.path} was replaced by one without a passphrase that has none of its keys. Nothing"
                " of it was used, and it was left as it is. Put the right one back from a backup and start p2pmail"
                " again; ask who else can write to this profile."
            )
        self._contents = merged(known, found)
        self._file_stat = stat
        if file.protection is None:
            self._protection = self._key = None
        if found.version < known.version and stat != self._reported_older:
            self._reported_older = stat
            self.tell(
                f"The keyring {self.path} was replaced by an older copy of it. What this process knows was put together"
                " with it: no key was lost."
            )
        return self._contents != found or found.version < known.version

    def _write(self, contents: Contents) -> None:
        contents = replace(contents, version=self._contents.version + 1)
        data, nonce = msgspec.msgpack.encode(contents), b""
        if self._key is not None:
            # A random nonce for each writing: 2^32 of them under one key are far from repeating (NIST SP 800-38D).
            nonce = os.urandom(_NONCE)
            data = AESGCM(self._key).encrypt(nonce, data, _bound(self._protection))
        durable.write(self.path, msgspec.msgpack.encode(_File(_FORMAT, self._protection, nonce, data)), 0o600)
        self._contents = contents
        self._file_stat = _stat(self.path)


def _stat(path: Path) -> _FileStat | None:
    """None when there is no file, or it can't be looked at."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_size


def _opened(path: Path, file: _File, key: bytes | None) -> Contents:
    """What the file holds. Raises KeyringDamaged."""
    data = file.content
    if key is not None:
        try:
            data = AESGCM(key).decrypt(file.nonce, data, _bound(file.protection))
        except (InvalidTag, ValueError) as error:
            raise _damaged(path, "it was changed") from error
    try:
        return msgspec.msgpack.decode(data, type=Contents)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _damaged(path, "its contents can't be read") from error


def _read(path: Path) -> _File:
    try:
        with path.open("rb") as file:
            data = file.read(SIZE_LIMIT)  # what is cut off is damaged
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
