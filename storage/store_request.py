"""A request to store one object, as every layer passes it on: user agent, node client, HTTP, service and store.

It lies at the bottom, because the store takes it and imports nothing from above.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """An object to be kept under `key` (20 bytes) for at most `ttl` seconds, or until all `deleters` deleted it.

    kind        what the object is (overlay/ids.py, Kind)
    content     its bytes, or a closed file that has them
    digest      SHA-256 of the content
    deleters    hash of each recipient that may delete it (32 bytes each)
    sequence    of an object that proves itself: a higher number replaces a lower one under the same key. Only a node's
                service sets it, from the content that it has checked; it is never taken from the network.
    """

    kind: int
    key: bytes
    content: bytes | Path
    digest: bytes
    ttl: float
    deleters: Sequence[bytes] = ()
    sequence: int | None = None

    @classmethod
    def of(cls, kind: int, key: bytes, content: bytes, ttl: float, deleters: Sequence[bytes] = ()) -> StoreRequest:
        """A request for these bytes; their digest is computed here, once for all copies (2 ms for a megabyte)."""
        return cls(kind, key, content, sha256(content).digest(), ttl, deleters)
