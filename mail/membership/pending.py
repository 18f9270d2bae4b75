"""The pending join in the keyring: kept from pasting an invite until the authority answers.

Decides which keys a request uses, and what remains to be done after a crash. storage/user/keyring.py writes the file;
mail/membership/join.py sends the request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mail.membership.invite import Invite, read_invite
from mail.membership.messages import Request
from mail.sealed.keys import KeyPair, generate_pair, pair_from_secret
from storage.user.keyring import Contents, EncryptionKey, IdentityKey, Keyring, PendingJoin
from storage.user.profile import Profile

ASK_AGAIN = 3600.0
"""Seconds after which a request is sent again: the nodes that had it, or its answer, may be gone."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A join that waits for the authority's answer, as the keyring has it."""

    kept: PendingJoin
    invite: Invite
    key: Ed25519PrivateKey
    pair: KeyPair

    @property
    def request(self) -> Request:
        """The request to the authority."""
        public_key = self.key.public_key().public_bytes_raw()
        return Request(self.kept.address, self.invite.code, public_key, self.pair.public)

    @property
    def asked(self) -> bool:
        """Whether the request was sent."""
        return bool(self.kept.request)

    def must_ask(self, now: float) -> bool:
        """Whether to send the request (again) at `now` (epoch seconds)."""
        return not self.asked or not 0 <= now - self.kept.created < ASK_AGAIN


def open_keyring(profile: Profile, passphrase: str | None, random: Callable[[int], bytes]) -> Keyring:
    """Open the profile's keyring, or create an empty one. Raises KeyringError, OSError."""
    if profile.keyring_file.exists():
        return Keyring.open(profile.keyring_file, passphrase)
    return Keyring.create(profile.keyring_file, passphrase, random)


def pending_join(keyring: Keyring) -> Pending | None:
    """The join that waits for its answer, or None. Raises InviteError if the stored invite is damaged."""
    kept = keyring.pending
    if kept is None or not kept.invite or not kept.encryption_keys:
        return None
    secret = kept.encryption_keys[0]
    return Pending(
        kept,
        read_invite(kept.invite),
        Ed25519PrivateKey.from_private_bytes(kept.private_key),
        pair_from_secret(secret.secret, secret.created),
    )


def begin(
    keyring: Keyring,
    invite_text: str,
    now: float,
    random: Callable[[int], bytes],
    *,
    renewed: IdentityKey | None = None,
) -> None:
    """Store durably what a request with this invite needs. A pending join with the same invite stays unchanged.

    Another invite to the same address keeps the keys: an answer to them may be on its way, and would bind the address
    to them. `renewed`: the identity whose key asks for its next certificate. Raises InviteError, OSError.
    """
    invite = read_invite(invite_text)
    before = pending_join(keyring)
    if before is not None and before.invite.fingerprint == invite.fingerprint and before.kept.address == invite.address:
        if before.invite.code != invite.code:
            keyring.set_pending(replace(before.kept, invite=invite_text, request=b"", created=now))
        return
    keyring.set_pending(_fresh(invite.address, invite_text, now, random, renewed))


def give_up(keyring: Keyring, revoked: IdentityKey) -> None:
    """Delete a pending join that uses a revoked key: it would be refused. Raises KeyringError, OSError."""

    def without(before: Contents) -> Contents:
        theirs = before.pending is not None and before.pending.private_key == revoked.private_key
        return replace(before, pending=None) if theirs else before

    keyring.change(without)


def begin_offline(
    keyring: Keyring,
    address: str,
    now: float,
    random: Callable[[int], bytes],
    *,
    renewed: IdentityKey | None = None,
) -> Ed25519PrivateKey:
    """The key to be certified offline for a normalised address, stored durably. Raises OSError.

    `renewed`: the identity whose key asks for its next certificate.
    """
    kept = keyring.pending
    if kept is None or kept.invite or kept.address != address:
        kept = _fresh(address, "", now, random, renewed)
        keyring.set_pending(kept)
    return Ed25519PrivateKey.from_private_bytes(kept.private_key)


def asked(keyring: Keyring, pending: Pending, sealed: bytes, now: float) -> Pending:
    """Store durably that the request was sent at `now`."""
    kept = replace(pending.kept, request=sealed, created=now)
    keyring.set_pending(kept)
    return replace(pending, kept=kept)


def _fresh(
    address: str, invite_text: str, now: float, random: Callable[[int], bytes], renewed: IdentityKey | None
) -> PendingJoin:
    pair = generate_pair(now, random)
    key = EncryptionKey(pair.key_id, pair.secret, now)
    private_key = renewed.private_key if renewed is not None else random(32)
    return PendingJoin(address, private_key, invite_text, b"", now, (key,))
