"""Shares of a segment: any m of n make it again (zfec: Reed-Solomon over GF(2^8), as in Tahoe-LAFS).

Each share carries the signature of a key that the sender made for this message alone, whose public half stands in the
notification: a reader recognises a false share, and nobody else learns anything from it.

    byte 0      version, 1
    byte 1      its number, 0 to n - 1
    bytes 2, 3  m, n
    bytes 4-7   bytes of the segment, big endian
    bytes 8-71  Ed25519 over "p2pmail share 1" || 0 || key of the object (20) || bytes 0-7 || SHA-256 of the rest
    bytes 72-   the share: a m-th of the segment, filled up with zeros

Formats only; mail/availability/erasure_code.py chooses m and n, overlay/replication/share_placement.py carries shares.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

import zfec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SEED_SIZE = KEY_SIZE = 32
HEADER = 72
_FORMAT = struct.Struct(">BBBBI")
_VERSION = 1
_PURPOSE = b"p2pmail share 1\0"


@dataclass(frozen=True, slots=True)
class BodyCoding:
    """How the segments of one message are coded; its shares are signed with `public_key` (Ed25519, 32 bytes)."""

    m: int
    n: int
    public_key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not 2 <= self.m <= self.n <= 255 or len(self.public_key) != KEY_SIZE:
            raise ValueError("no coding: 2 <= m <= n <= 255, and a key of 32 bytes")


@dataclass(frozen=True, slots=True)
class CodingPlan:
    """The sender's side of a coding: `seed` (32 bytes) is the private half of its key, made for this message."""

    m: int
    n: int
    seed: bytes = field(repr=False)

    @property
    def coding(self) -> BodyCoding:
        """What the recipients are told."""
        public = Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw()
        return BodyCoding(self.m, self.n, public)

    def encode(self) -> bytes:
        """As it stands in the outbox."""
        return bytes((self.m, self.n)) + self.seed

    @classmethod
    def decode(cls, data: bytes) -> CodingPlan:
        """Read what `encode` wrote."""
        return cls(data[0], data[1], data[2:])


def make_shares(segment: bytes, key: bytes, plan: CodingPlan) -> list[bytes]:
    """The n shares of a segment (1 byte to 1 MiB) that lies under `key`. The same input gives the same bytes."""
    m, n = plan.m, plan.n
    size = -(-len(segment) // m)
    filled = segment.ljust(size * m, b"\0")
    blocks = zfec.Encoder(m, n).encode([filled[i * size : (i + 1) * size] for i in range(m)])
    signer = Ed25519PrivateKey.from_private_bytes(plan.seed)
    shares = []
    for number, block in enumerate(blocks):
        head = _FORMAT.pack(_VERSION, number, m, n, len(segment))
        shares.append(head + signer.sign(_signed(key, head, block)) + block)
    return shares


class GatheredShares:
    """Shares of one segment (`size` bytes, under `key`) as they come in, until there are m."""

    def __init__(self, coding: BodyCoding, key: bytes, size: int) -> None:
        self.coding = coding
        self._key = key
        self._size = size
        self._public = Ed25519PublicKey.from_public_bytes(coding.public_key)
        self._blocks: dict[int, bytes] = {}

    @property
    def missing(self) -> int:
        """How many shares are lacking until the segment can be made."""
        return max(0, self.coding.m - len(self._blocks))

    def take(self, share: bytes) -> bool:
        """Whether it is a share of this segment, whatever was here before."""
        number = share_number(share, self._key, self.coding, self._size, self._public)
        if number is None:
            return False
        if self.missing:
            self._blocks.setdefault(number, share[HEADER:])
        return True

    def segment(self) -> bytes:
        """The segment; only when none is `missing`."""
        return join(self._blocks, self.coding, self._size)


def share_number(share: bytes, key: bytes, coding: BodyCoding, size: int, public: Ed25519PublicKey) -> int | None:
    """Which share of the segment this is, or None when it is none."""
    if len(share) != HEADER + -(-size // coding.m):
        return None
    head, signature, block = share[: _FORMAT.size], share[_FORMAT.size : HEADER], share[HEADER:]
    version, number, m, n, of = _FORMAT.unpack(head)
    if (version, m, n, of) != (_VERSION, coding.m, coding.n, size) or number >= n:
        return None
    try:
        public.verify(signature, _signed(key, head, block))
    except InvalidSignature:
        return None
    return int(number)


def join(blocks: Mapping[int, bytes], coding: BodyCoding, size: int) -> bytes:
    """The segment that m blocks, by their numbers, make."""
    numbers = sorted(blocks)[: coding.m]
    made = zfec.Decoder(coding.m, coding.n).decode([blocks[number] for number in numbers], numbers)
    return b"".join(made)[:size]


def _signed(key: bytes, head: bytes, block: bytes) -> bytes:
    return _PURPOSE + key + head + sha256(block).digest()
