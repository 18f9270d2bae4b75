"""Write tokens: proof that the sender of a request receives at its address (design: lookup; as in BEP 5).

A token is bound to the sender's key and IP address and is valid for 5 to 10 minutes. The node keeps no table of tokens:
a keyed hash recomputes what was handed out. Decisions only.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable

from overlay.identity.contact import pack_ip
from overlay.protocol_limits import PUBLIC_KEY_BYTES, TOKEN_BYTES

EPOCH = 300.0
"""Seconds; a token is valid in the epoch it was made in and in the next."""

NOBODY = bytes(PUBLIC_KEY_BYTES)
"""Stands for the key of an HTTP client that has none, for example curl."""


class WriteTokens:
    """Issues and checks one node's tokens. `now` gives seconds and never runs backwards."""

    def __init__(self, now: Callable[[], float], random: Callable[[int], bytes] = os.urandom) -> None:
        self._now = now
        self._secret = random(32)

    def issue(self, key: bytes, ip: str) -> bytes:
        """The token for the sender with this key at this address, 16 bytes."""
        return self._make(key, ip, int(self._now() // EPOCH))

    def good(self, token: bytes, key: bytes, ip: str) -> bool:
        """Whether this node issued `token` to that sender in this epoch or the one before."""
        epoch = int(self._now() // EPOCH)
        return any(hmac.compare_digest(token, self._make(key, ip, e)) for e in (epoch, epoch - 1))

    def _make(self, key: bytes, ip: str, epoch: int) -> bytes:
        data = (
            key + pack_ip(ip) + epoch.to_bytes(8, "big", signed=True)
        )  # -1: the epoch before the first, just after boot
        return hashlib.blake2b(data, key=self._secret, digest_size=TOKEN_BYTES).digest()
