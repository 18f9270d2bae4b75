"""Write tokens: a node's proof to itself that an asker's return path works (design: lookup; BEP 5 has the idea).

A token is bound to the asker's key and IP address and is good for 5 to 10 minutes. No table of askers is kept: a
keyed hash tells again what was handed out. Decisions only.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable

from overlay.identity.contact import pack_ip
from overlay.protocol_limits import PUBLIC_KEY_BYTES, TOKEN_BYTES

EPOCH = 300.0
"""Seconds; a token is good in the epoch it was made in and in the next."""

NOBODY = bytes(PUBLIC_KEY_BYTES)
"""The key of an asker that has none: curl, say, at the HTTP door."""


class WriteTokens:
    """Hands out and recognises one node's tokens. `now` gives seconds and never runs backwards."""

    def __init__(self, now: Callable[[], float], random: Callable[[int], bytes] = os.urandom) -> None:
        self._now = now
        self._secret = random(32)

    def issue(self, key: bytes, ip: str) -> bytes:
        """The token of the asker with this key at this address, 16 bytes."""
        return self._make(key, ip, int(self._now() // EPOCH))

    def good(self, token: bytes, key: bytes, ip: str) -> bool:
        """Whether this node gave `token` to that asker in this epoch or the one before."""
        epoch = int(self._now() // EPOCH)
        return any(hmac.compare_digest(token, self._make(key, ip, e)) for e in (epoch, epoch - 1))

    def _make(self, key: bytes, ip: str, epoch: int) -> bytes:
        data = key + pack_ip(ip) + epoch.to_bytes(8, "big", signed=True)  # -1: before the first, just after boot
        return hashlib.blake2b(data, key=self._secret, digest_size=TOKEN_BYTES).digest()
