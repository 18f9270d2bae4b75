"""What a keyring holds, as values, and what two versions of it amount to. No file and no secret operation is here.

Theory of operation
-------------------
An encryption key is in one of these states:

    pending    Named in a join that wasn't answered yet (`PendingJoin.encryption_keys`).
    in use     `retire_after` is None: others seal to it.
    replaced   A newer key is in use. This one still opens mail that nodes hold; `waited` counts the seconds seen to
               pass since.
    destroyed  The secret is gone; its id is remembered in `destroyed`.

`with_identity` makes pending keys keys in use, `with_key` replaces those in use, `without_keys` destroys. When this is
due is decided in mail/sealed/key_rotation.py.

`merged` unites what a process knows with what it finds in the file. The higher version has the last word on the
identity, the pending join and each key that both have. A key that only the older version has is kept, unless it was
destroyed; if it was in use there, and another is in use in the newer version, it counts as replaced.

Invariants:

- The version only grows: each write makes it one more than the writer knew, after a merge.
- Merging gives up a key only when `destroyed` names it. An older copy of the file can't bring it back while its id is
  among the last DESTROYED.
- Merging loses no time that was counted: of `waited` and `latest` the greater value stays, and a key that was replaced
  isn't in use again.
- `earlier` has only certificates of the present private key.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field, replace

EARLIER = 4
"""Renewed certificates that are kept: one is given out for a year, and good for two months beside the next."""

DESTROYED = 200
"""Ids of destroyed keys that are remembered, so that an older copy of the file doesn't bring them back: four years."""


@dataclass(frozen=True, slots=True)
class IdentityKey:
    """Who the user is: the normalised address, the Ed25519 private key (32 bytes) and its certificate (DER)."""

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
    """When, by the clock at its replacement, its time is over; None while it is in use."""
    waited: float = 0.0
    """Seconds that were seen to pass since it was replaced (mail/sealed/key_rotation.py): by these it is destroyed."""


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

    identity: IdentityKey | None = None
    encryption_keys: tuple[EncryptionKey, ...] = ()
    pending: PendingJoin | None = None
    earlier: tuple[bytes, ...] = ()
    """Certificates (DER) of the same key that were renewed, the latest last: mail to them may be on its way."""
    version: int = field(default=0, compare=False)
    """One more at each writing; 0 in a file of before there were versions."""
    destroyed: tuple[bytes, ...] = ()
    """Ids of keys whose time was over, the latest last."""
    seen: float = 0.0
    """The clock when time was last counted for the replaced keys (epoch seconds; 0: never)."""
    latest: float = 0.0
    """The latest that the clock has ever been then."""


def with_identity(before: Contents, identity: IdentityKey) -> Contents:
    """The user is certified: the pending join is over, and its encryption keys become the user's."""
    keys = before.encryption_keys
    if before.pending is not None:
        known = {key.key_id for key in keys}
        keys += tuple(key for key in before.pending.encryption_keys if key.key_id not in known)
    earlier = before.earlier
    if before.identity is not None and before.identity.certificate != identity.certificate:
        same = before.identity.private_key == identity.private_key
        earlier = (*earlier, before.identity.certificate)[-EARLIER:] if same else ()
    return replace(before, identity=identity, encryption_keys=keys, pending=None, earlier=earlier)


def with_key(before: Contents, key: EncryptionKey, retire_others_after: float | None) -> Contents:
    """A key more; those in use so far are replaced by it, when there is a time for them to retire (epoch seconds)."""
    others = (old for old in before.encryption_keys if old.key_id != key.key_id)
    retired = tuple(
        replace(old, retire_after=retire_others_after) if old.retire_after is None else old for old in others
    )
    return replace(before, encryption_keys=(*retired, key))


def without_keys(before: Contents, over: Collection[bytes]) -> Contents:
    """The keys with these ids are destroyed."""
    left = tuple(key for key in before.encryption_keys if key.key_id not in over)
    return replace(before, encryption_keys=left, destroyed=(*before.destroyed, *over)[-DESTROYED:])


def merged(known: Contents, found: Contents) -> Contents:
    """What this process knows and what it finds in the file, together; the higher version has the last word.

    In the usual case, when another process wrote, that is what was found.
    """
    older, newer = (known, found) if found.version >= known.version else (found, known)
    destroyed = tuple(dict.fromkeys((*older.destroyed, *newer.destroyed)))[-DESTROYED:]
    before = {key.key_id: key for key in older.encryption_keys}
    keys = [_merged_key(before.pop(key.key_id), key) if key.key_id in before else key for key in newer.encryption_keys]
    in_use = any(key.retire_after is None for key in keys)
    lacking = [
        replace(key, retire_after=math.inf) if in_use and key.retire_after is None else key for key in before.values()
    ]
    keys = [key for key in (*lacking, *keys) if key.key_id not in destroyed]
    identity, earlier = newer.identity or older.identity, newer.earlier
    if older.identity is not None and identity is not None and older.identity.private_key == identity.private_key:
        names = dict.fromkeys((*older.earlier, older.identity.certificate, *newer.earlier))
        earlier = tuple(name for name in names if name != identity.certificate)[-EARLIER:]
    return Contents(
        identity,
        tuple(keys),
        newer.pending,
        earlier,
        newer.version,
        destroyed,
        newer.seen or older.seen,
        max(newer.latest, older.latest),
    )


def _merged_key(older: EncryptionKey, newer: EncryptionKey) -> EncryptionKey:
    retire_after = older.retire_after if newer.retire_after is None else newer.retire_after
    return replace(newer, retire_after=retire_after, waited=max(older.waited, newer.waited))


def share_a_secret(first: Contents, second: Contents) -> bool:
    """Whether one of the private keys of `first` is in `second` too, or there is none to be had."""
    return not secrets_of(first) or not secrets_of(first).isdisjoint(secrets_of(second))


def secrets_of(contents: Contents) -> frozenset[bytes]:
    """Every private key in it."""
    holders = [holder for holder in (contents.identity, contents.pending) if holder is not None]
    waiting = contents.pending.encryption_keys if contents.pending is not None else ()
    return frozenset((*(h.private_key for h in holders), *(k.secret for k in (*contents.encryption_keys, *waiting))))
