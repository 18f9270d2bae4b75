"""The user's identity: address, certificate, encryption keys and card, from the keyring (design, section 5).

This file and mail/sealed/key_rotation.py decide which key is used when. storage/user/keyring.py reads and writes the
file. Nothing here uses the network.
"""

from __future__ import annotations

from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mail.sealed.key_rotation import in_use, rotated
from mail.sealed.keys import KeyPair, generate_pair, pair_from_secret
from overlay.identity.card import make_card
from overlay.identity.certificates import CertificateError, parse_certificate
from overlay.identity.ownership import Owner
from storage.errors import CONFIGURATION
from storage.user import keyring as keys
from storage.user.keyring import Keyring, KeyringError
from storage.user.profile import Profile


class NotJoined(KeyringError):
    """The keyring has no certified address yet."""

    exit_code = CONFIGURATION


class Identity:
    """The user's identity, from an opened keyring."""

    def __init__(self, keyring: Keyring) -> None:
        self.keyring = keyring
        self._pairs: dict[bytes, KeyPair] = {}

    @classmethod
    def open(cls, profile: Profile, passphrase: str | None) -> Identity:
        """Raises storage.user.keyring.KeyringError (wrong passphrase, damaged file), OSError."""
        return cls(Keyring.open(profile.keyring_file, passphrase))

    @property
    def waiting(self) -> bool:
        """Whether the authority's answer hasn't come yet."""
        return self.keyring.identity is None

    @property
    def joining(self) -> bool:
        """Whether the profile can't work before a pending join is answered.

        That is the first join, or one with a new key after a revocation. A pending join with the certified key only
        renews the certificate, which the agent also does by itself.
        """
        contents = self.keyring.contents
        if contents.identity is None:
            return True
        pending = contents.pending
        return bool(pending and pending.invite and pending.private_key != contents.identity.private_key)

    @property
    def address(self) -> str:
        """The user's address, normalised, or the requested one before the authority answered. Raises NotJoined."""
        pending = self.keyring.pending
        return pending.address if self.keyring.identity is None and pending is not None else self.certified.address

    @property
    def owner(self) -> Owner:
        """The newest certificate and its signing function, which prove the address. Raises NotJoined."""
        return _owner(self.certified)

    @property
    def certified(self) -> keys.IdentityKey:
        """The user's address, key and newest certificate. Raises NotJoined."""
        return _certified(self.keyring.contents)

    def earlier(self, now: float) -> list[Owner]:
        """`owner` with each older certificate that hasn't ended yet: mail sealed before the renewal names it."""
        contents = self.keyring.contents
        owner = _owner(_certified(contents))
        return [replace(owner, certificate=der) for der in contents.earlier if _good(der, now)]

    def pairs(self) -> dict[bytes, KeyPair]:
        """The user's encryption keys by key id, with the retired ones, which open mail sent to older cards."""
        known = self._pairs
        self._pairs = {
            key.key_id: known.get(key.key_id) or pair_from_secret(key.secret, key.created)
            for key in self.keyring.encryption_keys
        }
        return self._pairs

    def rotate(self, now: float) -> bool:
        """Make a new encryption key if one is due, and destroy expired ones. Returns whether there is a new one.

        The new key is on disk when this returns, so a card never offers a key that a crash could lose. Raises
        KeyringError, OSError.
        """
        made: list[KeyPair] = []

        def make() -> KeyPair:
            made.append(generate_pair(now))
            return made[-1]

        self.keyring.change(lambda before: rotated(before, now, make))
        return bool(made)

    def card(self, now: float) -> bytes:
        """The user's card with the encryption key in use. Raises NotJoined."""
        contents = self.keyring.contents
        current = in_use(contents)
        if current is None:
            raise NotJoined("The keyring has no encryption key in use.")
        public = pair_from_secret(current.secret, current.created).public
        return make_card(_owner(_certified(contents)), public, int(now * 1000))


def _certified(contents: keys.Contents) -> keys.IdentityKey:
    if contents.identity is None:
        raise NotJoined("This profile has no address yet: paste an invite with `p2pmail join`.")
    return contents.identity


def _owner(who: keys.IdentityKey) -> Owner:
    return Owner(who.certificate, Ed25519PrivateKey.from_private_bytes(who.private_key).sign)


def _good(der: bytes, now: float) -> bool:
    try:
        return parse_certificate(der).not_after > now
    except CertificateError:
        return False
