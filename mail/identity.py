"""Who the user is: her keyring turned into what the rest works with, and her card (design, section 5).

Which key is used when is decided here and in mail/keys.py; the file is storage/keyring.py's. Signs, never talks.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mail.keys import KeyPair, due, generate_pair, pair_from_secret, retire_after
from overlay.card import make_card
from overlay.ownership import Owner
from storage.keyring import EncryptionKey, Keyring
from storage.profile import Profile


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
    def address(self) -> str:
        """The user's address, normalised."""
        return self.keyring.keys.address

    @property
    def waiting(self) -> bool:
        """Whether the authority's answer hasn't come yet."""
        return not self.keyring.keys.certificates

    @property
    def owner(self) -> Owner:
        """What proves that the address is hers."""
        keys = self.keyring.keys
        return Owner(keys.certificates[0], Ed25519PrivateKey.from_private_bytes(keys.signing).sign)

    def pairs(self) -> dict[bytes, KeyPair]:
        """Her encryption keys by key id, the retired ones too: mail to an older card still opens."""
        found: dict[bytes, KeyPair] = {}
        known = {pair.secret: pair for pair in self._pairs.values()}
        for kept in self.keyring.keys.encryption:
            pair = known.get(kept.secret) or pair_from_secret(kept.secret, kept.created)
            found[pair.key_id] = pair
        self._pairs = found
        return found

    def rotate(self, now: float) -> bool:
        """Make a new encryption key when one is due, and destroy those past their time; whether there is a new one.

        The new key is on disk before this returns: a card never offers a key that a crash could lose.
        """
        kept = [key for key in self.keyring.keys.encryption if not key.retire_after or key.retire_after > now]
        current = next((key for key in kept if not key.retire_after), None)
        fresh = current is None or due(current.created, now)
        if fresh:
            kept = [
                key if key.retire_after else EncryptionKey(key.secret, key.created, retire_after(now)) for key in kept
            ]
            kept.insert(0, EncryptionKey(generate_pair(now).secret, now))
        if tuple(kept) != self.keyring.keys.encryption:
            self.keyring.change(encryption=tuple(kept))
        return fresh

    def card(self, now: float) -> bytes:
        """Her card with the encryption key in use."""
        current = next(key for key in self.keyring.keys.encryption if not key.retire_after)
        public = pair_from_secret(current.secret, current.created).public
        return make_card(self.owner, public, int(now * 1000))
