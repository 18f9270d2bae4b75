"""A node's store in memory, for tests of the layers above. The real one is storage/node/store.py."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from overlay.errors import Refused
from overlay.identity.contact import Contact
from overlay.primitives.requests import FetchRequest
from overlay.primitives.service import StoredContent, TombstoneCopy
from overlay.wire.messages import WORDS
from storage.store_request import StoreRequest


@dataclass
class _Object:
    content: bytes | Path
    size: int
    deleters: set[bytes]
    ttl: float


class MemoryStore:
    """A StoreBackend (overlay/primitives/service.py) in memory; large bodies stay files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.objects: dict[tuple[int, bytes], dict[bytes, _Object]] = {}
        self.tombstone_proofs: dict[tuple[int, bytes, bytes], bytes] = {}
        self.inboxes: dict[bytes, list[bytes]] = {}
        self.full_inboxes = 0.0
        self.refuse_with: int | Exception | None = None
        self._numbers = itertools.count()

    async def store(self, request: StoreRequest, asker: Contact | None) -> None:
        if isinstance(self.refuse_with, Exception):
            raise self.refuse_with
        if self.refuse_with is not None:
            raise Refused(self.refuse_with, WORDS[self.refuse_with])
        content = request.content
        if isinstance(content, Path):
            size = content.stat().st_size
            content = content.rename(self.folder / f"kept-{next(self._numbers)}")
        else:
            size = len(content)
        held = self.objects.setdefault((request.kind, request.key), {})
        held[request.digest] = _Object(content, size, set(request.deleters), request.ttl)

    async def fetch(self, request: FetchRequest) -> StoredContent | None:
        for each, found in self.objects.get((request.kind, request.key), {}).items():
            if request.digest in (None, each):
                return StoredContent(each, found.size, found.content)
        return None

    async def delete(self, kind: int, key: bytes, deleter: bytes, proof: bytes, ttl: float) -> int:
        self.tombstone_proofs[kind, key, deleter] = proof
        variants = self.objects.get((kind, key), {})
        gone = [digest for digest, found in variants.items() if found.deleters == {deleter}]
        for found in variants.values():
            found.deleters.discard(deleter)
        for digest in gone:
            del variants[digest]
        return len(gone)

    async def proofs(self, kind: int, key: bytes, deleters: Sequence[bytes]) -> list[bytes]:
        return [self.tombstone_proofs.get((kind, key, deleter), b"") for deleter in deleters]

    async def digests(self, kind: int, key: bytes) -> list[bytes]:
        return list(self.objects.get((kind, key), {}))

    async def tombstones(self, kind: int, key: bytes, after: bytes, limit: int) -> list[TombstoneCopy]:
        found = sorted(
            (d, proof) for (k, at, d), proof in self.tombstone_proofs.items() if (k, at) == (kind, key) and d > after
        )
        return [TombstoneCopy(deleter, proof, 60.0) for deleter, proof in found[:limit]]

    async def deleters(self, kind: int, key: bytes) -> list[bytes]:
        return sorted(deleter for k, at, deleter in self.tombstone_proofs if (k, at) == (kind, key))

    async def known(self, key: bytes, hashes: Iterable[bytes]) -> list[bool]:
        return [digest in map(_hash, self.inboxes.get(key, [])) for digest in hashes]

    async def append(
        self, key: bytes, notification: bytes, ttl: float, asker: Contact | None, admit: Callable[[float], None]
    ) -> bool:
        inbox = self.inboxes.setdefault(key, [])
        if notification in inbox:
            return False
        admit(self.full_inboxes)
        inbox.append(notification)
        return True

    async def read(self, key: bytes, reader: bytes, limit: int, lease: float) -> tuple[list[bytes], bool]:
        inbox = self.inboxes.get(key, [])
        sizes = itertools.accumulate(map(len, inbox))
        some = [notification for notification, size in zip(inbox, sizes, strict=True) if size <= limit]
        return some, len(some) < len(inbox)

    async def acknowledge(self, key: bytes, hashes: Iterable[bytes]) -> int:
        gone = set(hashes)
        inbox = self.inboxes.get(key, [])
        self.inboxes[key] = [one for one in inbox if sha256(one).digest() not in gone]
        return len(inbox) - len(self.inboxes[key])

    def spool(self) -> Path:
        return self.folder / f"spooled-{next(self._numbers)}"

    @property
    def spooled(self) -> list[Path]:
        """Files that uploads have left in the spool."""
        return list(self.folder.glob("spooled-*"))


def _hash(notification: bytes) -> bytes:
    return sha256(notification).digest()
