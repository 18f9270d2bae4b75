"""What is kept in the keyring from the moment an invite is pasted until the authority has answered.
 Decisions only: which keys are asked with, and what is still to be done after a crash. The file is
storage/user/keyring.py's, asking is mail/membership/join.py's."""

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
"""Seconds after which a request is left once more: the nodes that had it, or its answer, may be gone."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A join that waits, from the keyring."""

    kept: PendingJoin
    invite: Invite
    key: Ed25519PrivateKey
    pair: KeyPair

    @property
    def request(self) -> Request:
        """What is asked of the authority."""
        public_key = self.key.public_key().public_bytes_raw()
        return Request(self.kept.address, self.invite.code, public_key, self.pair.public)

    @property
    def asked(self) -> bool:
        """Whether nodes have the request."""
        return bool(self.kept.request)

    def must_ask(self, now: float) -> bool:
        """Whether to leave the request (again), at `now` (epoch seconds)."""
        return not self.asked or not 0 <= now - self.kept.created < ASK_AGAIN


def open_keyring(profile: Profile, passphrase: str | None, random: Callable[[int], bytes]) -> Keyring:
    """The profile's keyring, an empty one when there is none. Raises KeyringError, OSError."""
    if profile.keyring_file.exists():
        return Keyring.open(profile.keyring_file, passphrase)
    return Keyring.create(profile.keyring_file, passphrase, random)


def pending_join(keyring: Keyring) -> Pending | None:
    """The join that waits for its answer, None when there is none. Raises InviteError when its invite is damaged."""
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
    """Keep what asking with this invite takes, durably; a join that waits for the same invite goes on as it is.

    For another invite to the same address the keys stay: an answer to them may be on its way, and the address would be
    theirs. `renewed`: whose certificate is asked for anew, with her key. Raises InviteError, OSError.
    """
    invite = read_invite(invite_text)
    before = pending_join(keyring)
    if before is not None and before.invite.fingerprint == invite.fingerprint and before.kept.address == invite.address:
        if before.invite.code != invite.code:
            keyring.set_pending(replace(before.kept, invite=invite_text, request=b"", created=now))
        return
    keyring.set_pending(_fresh(invite.address, invite_text, now, random, renewed))


def give_up(keyring: Keyring, revoked: IdentityKey) -> None:
    """Forget a join that asks with a key which was revoked: it would be refused. Raises KeyringError, OSError."""

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
    """The key for a normalised address that is to be certified without the network, kept durably. Raises OSError.

    `renewed`: whose certificate is asked for anew, with her key.
    """
    kept = keyring.pending
    if kept is None or kept.invite or kept.address != address:
        kept = _fresh(address, "", now, random, renewed)
        keyring.set_pending(kept)
    return Ed25519PrivateKey.from_private_bytes(kept.private_key)


def asked(keyring: Keyring, pending: Pending, sealed: bytes, now: float) -> Pending:
    """Note durably that nodes have the request since `now`."""
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
