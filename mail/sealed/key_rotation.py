"""When an encryption key is replaced, and when its private half is destroyed. Decisions only, on a keyring's contents.

No clock is believed on its own: time counts for a replaced key as it is seen to pass. Between two looks a day counts at
most, whatever the clock says, and of a jump ahead only what lies beyond the latest that it has ever been. So one wrong
clock costs a day of the margin, and never the key; a user who is away keeps the keys for longer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mail.sealed.keys import MARGIN, KeyPair, due, retire_after
from overlay.protocol_limits import DAY, HOUR, RETENTION
from storage.user.keyring_contents import Contents, EncryptionKey, with_key, without_keys

"""Seconds between two countings: less isn't worth writing the file."""


def rotated(before: Contents, now: float, make: Callable[[], KeyPair]) -> Contents:
    """The contents at `now` (epoch seconds), with a new key from `make` when one is due.

    Keys are gone that were replaced 37 days of counted time ago: retention, and the margin.
    """
    current = in_use(before)
    new = current is None or due(current.created, now)
    counted = _counted(before, now, 0.0 if new else HOUR)
    over = [
        key.key_id
        for key in counted.encryption_keys
        if key.retire_after is not None and key.waited >= RETENTION + MARGIN
    ]
    left = without_keys(counted, over) if over else counted
    if not new:
        return left
    pair = make()
    return with_key(left, EncryptionKey(pair.key_id, pair.secret, now), retire_after(now))


def in_use(contents: Contents) -> EncryptionKey | None:
    """The key that a card offers."""
    keys = [key for key in contents.encryption_keys if key.retire_after is None]
    return max(keys, key=lambda key: key.created, default=None)


def _counted(before: Contents, now: float, least: float) -> Contents:
    step = now - before.seen
    if before.seen and 0 <= step <= least:
        return before
    passed = step if 0 <= step <= DAY else min(max(now - before.latest, 0.0), DAY)
    keys = tuple(
        key if key.retire_after is None else replace(key, waited=key.waited + (passed if before.seen else 0.0))
        for key in before.encryption_keys
    )
    return replace(before, encryption_keys=keys, seen=now, latest=max(before.latest, now))
