"""Who the user is: her keyring turned into what the rest works with, and her card (design, section 5).

Which key is used when is decided here and in mail/keys.py; the file is storage/keyring.py's. Signs, never talks.
"""

from __future__ import annotations

from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mail.keys import KeyPair, due, generate_pair, pair_from_secret, retire_after
from overlay.card import make_card
from overlay.certificates import CertificateError, parse_certificate
from overlay.ownership import Owner
from storage import keyring as keys
from storage.keyring import Keyring, KeyringError
from storage.profile import Profile


class NotJoined(KeyringError):
    """The keyring has no certified address yet."""


class Identity:
    """The user behind an opened keyring."""

    def __init__(self, keyring: Keyring) -> None:
        self.keyring = keyring
        self._pairs: dict[bytes, KeyPair] = {}

    @classmethod
    def open(cls, profile: Profile, passphrase: str | None) -> Identity:
        """Raises storage.keyring.KeyringError (wrong passphrase, damaged file), OSError."""
        return cls(Keyring.open(profile.keyring_file, passphrase))

    @property
    def waiting(self) -> bool:
        """Whether the authority's answer hasn't come yet."""
        return self.keyring.identity is None

    @property
    def address(self) -> str:
        """The user's address, normalised; also while the authority's answer hasn't come. Raises NotJoined."""
        pending = self.keyring.pending
        return pending.address if self.keyring.identity is None and pending is not None else self._certified.address

    @property
    def owner(self) -> Owner:
        """What proves that the address is hers. Raises NotJoined."""
        who = self._certified
        return Owner(who.certificate, Ed25519PrivateKey.from_private_bytes(who.private_key).sign)

    def earlier(self, now: float) -> list[Owner]:
        """The same with each renewed certificate that hasn't ended yet: letters that were written to it name it."""
        return [replace(self.owner, certificate=der) for der in self.keyring.contents.earlier if _good(der, now)]

    def pairs(self) -> dict[bytes, KeyPair]:
        """Her encryption keys by key id, the retired ones too: mail to an older card still opens."""
        kept = {key.key_id: key for key in self.keyring.encryption_keys}
        self._pairs = {
            key_id: self._pairs.get(key_id) or pair_from_secret(key.secret, key.created) for key_id, key in kept.items()
        }
        return self._pairs

    def rotate(self, now: float) -> bool:
        """Make a new encryption key when one is due, and destroy those past their time; whether there is a new one.

        The new key is on disk before this returns: a card never offers a key that a crash could lose.
        """
        self.keyring.destroy_retired(now)
        current = self._current()
        if current is not None and not due(current.created, now):
            return False
        pair = generate_pair(now)
        self.keyring.add_encryption_key(
            keys.EncryptionKey(pair.key_id, pair.secret, now), retire_others_after=retire_after(now)
        )
        return True

    def card(self, now: float) -> bytes:
        """Her card with the encryption key in use. Raises NotJoined."""
        current = self._current()
        if current is None:
            raise NotJoined("The keyring has no encryption key in use.")
        return make_card(self.owner, self.pairs()[current.key_id].public, int(now * 1000))

    def _current(self) -> keys.EncryptionKey | None:
        in_use = [key for key in self.keyring.encryption_keys if key.retire_after is None]
        return max(in_use, key=lambda key: key.created, default=None)

    @property
    def _certified(self) -> keys.Identity:
        if self.keyring.identity is None:
            raise NotJoined("This profile has no address yet: paste an invite with `p2pmail join`.")
        return self.keyring.identity


def _good(der: bytes, now: float) -> bool:
    try:
        return parse_certificate(der).not_after > now
    except CertificateError:
        return False
