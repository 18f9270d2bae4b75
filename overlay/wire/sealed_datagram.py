"""Sealed datagrams: who sent it, and bytes that only the two nodes can read (design: sealed datagrams).

    byte 0        version: 1 sealed, 2 asks for a key, 3 tells it
    bytes 1-32    the sender's X25519 public key
    bytes 33-44   nonce
    bytes 45-     AES-256-GCM of the payload, with a 16-byte tag

The key of a direction is HKDF-SHA256 of the X25519 secret, with the network's name and both public keys in its
info. Bytes in, bytes out: no socket, no state but a bounded cache of the keys of pairs.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from overlay.errors import Malformed
from overlay.protocol_limits import MAX_DATAGRAM, PUBLIC_KEY_BYTES

SEALED = 1
ASK_KEY = 2
TELL_KEY = 3


_HEADER = 1 + PUBLIC_KEY_BYTES
_NONCE = 12
_TAG = 16
OVERHEAD = _HEADER + _NONCE + _TAG
MAX_PAYLOAD = MAX_DATAGRAM - OVERHEAD

PAIRS = 4096
HEARD = 4096
"""Cached keys of pairs: of peers that we turned to, and of those that turned to us. Two AES contexts each, about
1.5 KB, so 12 MB in all. Apart, so that no flood of new keys makes a node forget those that it works with."""

_ASK_BYTES = 128
COOKIE = 16
"""Bytes that an answer to `ask_key` must bring back."""


class Sealer:
    """Seals to and opens from any peer, with one node's key on one network. `random` gives so many bytes."""

    def __init__(self, private: X25519PrivateKey, network: str, random: Callable[[int], bytes] = os.urandom) -> None:
        self._private = private
        self.public = private.public_key().public_bytes_raw()
        self._header = bytes([SEALED]) + self.public
        self._info = b"p2pmail datagram 1\0" + network.encode() + b"\0"
        self._tag = hashlib.sha256(self._info).digest()[:8]
        self._pairs: OrderedDict[bytes, tuple[AESGCM, AESGCM]] = OrderedDict()
        self._heard: OrderedDict[bytes, tuple[AESGCM, AESGCM]] = OrderedDict()
        # A nonce counts up from a random start: no two datagrams of this process share one, and two runs of it
        # meet with a chance of about 2**-50 after 2**40 datagrams each.
        self._nonce = int.from_bytes(random(_NONCE), "big")

    def seal(self, peer: bytes, payload: bytes) -> bytes:
        """A datagram for `peer` (32-byte public key). Raises Malformed when the key is no point to agree with."""
        pair = self._known(peer) or self._remember(self._pairs, PAIRS, peer, self._agree(peer))
        self._nonce = (self._nonce + 1) % (1 << 96)
        nonce = self._nonce.to_bytes(_NONCE, "big")
        return self._header + nonce + pair[0].encrypt(nonce, payload, None)

    def open(self, datagram: bytes) -> tuple[bytes, bytes]:
        """The sender's public key, proven, and the payload. Raises Malformed for anything else."""
        if not OVERHEAD <= len(datagram) <= MAX_DATAGRAM or datagram[0] != SEALED:
            raise Malformed("not a sealed datagram")
        peer = datagram[1:_HEADER]
        known = self._known(peer)
        pair = known or self._agree(peer)
        try:
            payload = pair[1].decrypt(datagram[_HEADER : _HEADER + _NONCE], datagram[_HEADER + _NONCE :], None)
        except InvalidTag as error:
            raise Malformed("sealed for somebody else, or changed on its way") from error
        if known is None:
            self._remember(self._heard, HEARD, peer, pair)
        return peer, payload

    def knows(self, datagram: bytes) -> bool:
        """Whether a datagram says that it comes from a peer that was heard before, so that it is cheap to open."""
        peer = datagram[1:_HEADER]
        return peer in self._pairs or peer in self._heard

    def keep(self, peer: bytes) -> None:
        """Count a peer that turned to us among those that we work with."""
        pair = self._heard.pop(peer, None)
        if pair is not None:
            self._remember(self._pairs, PAIRS, peer, pair)

    def ask_key(self, cookie: bytes) -> bytes:
        """The one datagram in the clear: who are you? Padded beyond its answer, so that it amplifies nothing."""
        return (bytes([ASK_KEY]) + self._tag + cookie).ljust(_ASK_BYTES, b"\0")

    def tell_key(self, asked: bytes) -> bytes:
        """The answer to `ask_key`. Raises Malformed for another network's question, or a short one."""
        if len(asked) != _ASK_BYTES or asked[1:9] != self._tag:
            raise Malformed("not a question of this network")
        return bytes([TELL_KEY]) + asked[1 : 9 + COOKIE] + self.public

    def told_key(self, told: bytes) -> tuple[bytes, bytes]:
        """(cookie, public key) of an answer to `ask_key`. Raises Malformed."""
        if len(told) != 9 + COOKIE + PUBLIC_KEY_BYTES or told[1:9] != self._tag:
            raise Malformed("not an answer of this network")
        return told[9 : 9 + COOKIE], told[9 + COOKIE :]

    def _known(self, peer: bytes) -> tuple[AESGCM, AESGCM] | None:
        for cache in (self._pairs, self._heard):
            pair = cache.get(peer)
            if pair is not None:
                cache.move_to_end(peer)
                return pair
        return None

    @staticmethod
    def _remember(
        cache: OrderedDict[bytes, tuple[AESGCM, AESGCM]], most: int, peer: bytes, pair: tuple[AESGCM, AESGCM]
    ) -> tuple[AESGCM, AESGCM]:
        cache[peer] = pair
        if len(cache) > most:
            cache.popitem(last=False)
        return pair

    def _agree(self, peer: bytes) -> tuple[AESGCM, AESGCM]:
        """Keys for sending to, and hearing from, `peer`."""
        try:
            secret = self._private.exchange(X25519PublicKey.from_public_bytes(peer))
        except ValueError as error:
            raise Malformed("not a public key to agree with") from error

        def key(sender: bytes, receiver: bytes) -> AESGCM:
            return AESGCM(HKDF(SHA256(), 32, None, self._info + sender + receiver).derive(secret))

        return key(self.public, peer), key(peer, self.public)
