"""Sealed datagrams: authenticated by the sender's key, and readable by the two nodes only (design: sealed datagrams).

    byte 0        version: 1 sealed, 2 key request, 3 key reply
    bytes 1-32    the sender's X25519 public key
    bytes 33-44   nonce
    bytes 45-     AES-256-GCM of the payload, with a 16-byte tag

The key for one direction is HKDF-SHA256 of the X25519 secret, with the network's name and both public keys in its
info. Bytes in, bytes out: no socket, and no state but a bounded cache of pairwise keys.
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
"""Pairwise keys that are cached: for peers that this node sends requests to, and for peers it has only heard from.
Each has two AES contexts, about 1.5 KB, so 12 MB in all. Two separate caches, so that a flood of new keys can't push
out the first kind."""

_ASK_BYTES = 128
COOKIE = 16
"""Bytes of the cookie that a key reply must return."""


class Sealer:
    """Seals datagrams to any peer and opens those of any peer, with one node's key on one network."""

    def __init__(self, private: X25519PrivateKey, network: str, random: Callable[[int], bytes] = os.urandom) -> None:
        self._private = private
        self.public = private.public_key().public_bytes_raw()
        self._header = bytes([SEALED]) + self.public
        self._info = b"p2pmail datagram 1\0" + network.encode() + b"\0"
        self._tag = hashlib.sha256(self._info).digest()[:8]
        self._pairs: OrderedDict[bytes, tuple[AESGCM, AESGCM]] = OrderedDict()
        self._heard: OrderedDict[bytes, tuple[AESGCM, AESGCM]] = OrderedDict()
        # The nonce counts up from a random start: it is unique in this process, and two runs of it use one nonce
        # twice with a probability of about 2**-50 after 2**40 datagrams each.
        self._nonce = int.from_bytes(random(_NONCE), "big")

    def seal(self, peer: bytes, payload: bytes) -> bytes:
        """A datagram for `peer` (32-byte public key). Raises Malformed when the key is not valid."""
        pair = self._known(peer) or self._remember(self._pairs, PAIRS, peer, self._agree(peer))
        self._nonce = (self._nonce + 1) % (1 << 96)
        nonce = self._nonce.to_bytes(_NONCE, "big")
        return self._header + nonce + pair[0].encrypt(nonce, payload, None)

    def open(self, datagram: bytes) -> tuple[bytes, bytes]:
        """The sender's public key, which is proven, and the payload. Raises Malformed for anything else."""
        if not OVERHEAD <= len(datagram) <= MAX_DATAGRAM or datagram[0] != SEALED:
            raise Malformed("not a sealed datagram")
        peer = datagram[1:_HEADER]
        known = self._known(peer)
        pair = known or self._agree(peer)
        try:
            payload = pair[1].decrypt(datagram[_HEADER : _HEADER + _NONCE], datagram[_HEADER + _NONCE :], None)
        except InvalidTag as error:
            raise Malformed("sealed for another node, or changed in transit") from error
        if known is None:
            self._remember(self._heard, HEARD, peer, pair)
        return peer, payload

    def knows(self, datagram: bytes) -> bool:
        """Whether a datagram claims to come from a peer whose key is cached, so that opening it is cheap."""
        peer = datagram[1:_HEADER]
        return peer in self._pairs or peer in self._heard

    def keep(self, peer: bytes) -> None:
        """Move a peer that was only heard from to the cache of peers that this node works with."""
        pair = self._heard.pop(peer, None)
        if pair is not None:
            self._remember(self._pairs, PAIRS, peer, pair)

    def ask_key(self, cookie: bytes) -> bytes:
        """A key request, in the clear. It is longer than its reply, so that it amplifies nothing."""
        return (bytes([ASK_KEY]) + self._tag + cookie).ljust(_ASK_BYTES, b"\0")

    def tell_key(self, request: bytes) -> bytes:
        """The reply to a key request. Raises Malformed when that is of another network, or too short."""
        if len(request) != _ASK_BYTES or request[1:9] != self._tag:
            raise Malformed("not a key request of this network")
        return bytes([TELL_KEY]) + request[1 : 9 + COOKIE] + self.public

    def told_key(self, reply: bytes) -> tuple[bytes, bytes]:
        """The cookie and the public key in a key reply. Raises Malformed."""
        if len(reply) != 9 + COOKIE + PUBLIC_KEY_BYTES or reply[1:9] != self._tag:
            raise Malformed("not a key reply of this network")
        return reply[9 : 9 + COOKIE], reply[9 + COOKIE :]

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
        """The keys for sending to `peer` and for receiving from it."""
        try:
            secret = self._private.exchange(X25519PublicKey.from_public_bytes(peer))
        except ValueError as error:
            raise Malformed("not a valid public key") from error

        def key(sender: bytes, receiver: bytes) -> AESGCM:
            return AESGCM(HKDF(SHA256(), 32, None, self._info + sender + receiver).derive(secret))

        return key(self.public, peer), key(peer, self.public)
