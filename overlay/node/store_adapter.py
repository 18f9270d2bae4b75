"""Adapts a node's store to the overlay: seconds left instead of expiry dates, refusals as protocol codes."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from overlay.errors import Refused
from overlay.identity.contact import Contact, address_range, routable
from overlay.primitives.placement import NotificationCopy, ObjectCopy
from overlay.primitives.requests import FetchRequest
from overlay.primitives.service import StoredContent, TombstoneCopy
from overlay.protocol_limits import RETENTION
from overlay.wire.messages import Code, bounded
from storage.node.inboxes import InboxFull
from storage.node.objects import Deleted, NoSpace, Origin, Stale, StoreFailed, StoreRefused
from storage.node.store import NodeStore
from storage.store_request import StoreRequest


class StoreAdapter:
    """A NodeStore as StoreBackend (for the service) and as ReplicaStore (for repair). All calls raise Refused."""

    def __init__(
        self,
        store: NodeStore,
        responsible: Callable[[bytes], bool],
        now: Callable[[], float],
        *,
        private_addresses: bool,
    ) -> None:
        self._store = store
        self._private = private_addresses
        self._responsible = responsible
        self._now = now

    async def store(self, request: StoreRequest, asker: Contact | None) -> None:
        with _refusing():
            await self._store.store(request, self._responsible, origin=self._origin(asker))

    async def fetch(self, request: FetchRequest) -> StoredContent | None:
        with _refusing():
            found = await self._store.fetch(request.kind, request.key, request.digest)
        return None if found is None else StoredContent(found[0].digest, found[0].size, found[1])

    async def delete(self, kind: int, key: bytes, deleter: bytes, proof: bytes, ttl: float) -> int:
        with _refusing():
            return await self._store.delete(kind, key, deleter, proof, ttl)

    async def proofs(self, kind: int, key: bytes, deleters: Sequence[bytes]) -> list[bytes]:
        with _refusing():
            return await self._store.proofs(kind, key, deleters)

    async def append(
        self, key: bytes, notification: bytes, ttl: float, asker: Contact | None, admit: Callable[[float], None]
    ) -> bool:
        origin, responsible = self._origin(asker), self._responsible
        with _refusing():
            return await self._store.append(key, notification, ttl, origin=origin, responsible=responsible, admit=admit)

    async def read(self, key: bytes, reader: bytes, limit: int, lease: float) -> tuple[list[bytes], bool]:
        with _refusing():
            return await self._store.read(key, reader, limit=limit, lease=lease)

    async def acknowledge(self, key: bytes, hashes: Iterable[bytes]) -> int:
        with _refusing():
            return await self._store.acknowledge(key, hashes)

    async def digests(self, kind: int, key: bytes) -> list[bytes]:
        with _refusing():
            return [one.digest for one in await self._store.variants(kind, key)]

    async def tombstones(self, kind: int, key: bytes, after: bytes, limit: int) -> list[TombstoneCopy]:
        now = self._now()
        with _refusing():
            found = await self._store.tombstones(kind, key, after, limit)
        return [
            TombstoneCopy(tombstone.deleter, tombstone.proof, bounded(tombstone.expires - now)) for tombstone in found
        ]

    async def deleters(self, kind: int, key: bytes) -> list[bytes]:
        with _refusing():
            return await self._store.deleters(kind, key)

    async def since_delete(self, kind: int, key: bytes) -> float:
        with _refusing():
            expires = await self._store.last_delete(kind, key)
        return math.inf if expires is None else RETENTION - (expires - self._now())

    async def known(self, key: bytes, hashes: Iterable[bytes]) -> list[bool]:
        with _refusing():
            return await self._store.known(key, hashes)

    async def keys(self, after: tuple[bytes, int], limit: int) -> list[tuple[bytes, int]]:
        with _refusing():
            return await self._store.keys(after, limit)

    async def variants(self, kind: int, key: bytes) -> list[ObjectCopy]:
        now = self._now()
        with _refusing():
            found = await self._store.variants(kind, key)
        return [ObjectCopy(one.digest, sorted(one.deleters), one.expires - now) for one in found]

    async def pending_notifications(self, key: bytes, after: int, limit: int) -> list[NotificationCopy]:
        now = self._now()
        with _refusing():
            found = await self._store.pending_notifications(key, after, limit)
        return [NotificationCopy(one.id, one.hash, one.data, one.expires - now) for one in found]

    def spool(self) -> Path:
        return self._store.spool()

    def _origin(self, asker: Contact | None) -> Origin | None:
        """Whose quota share an object counts against; address ranges don't count in a private network."""
        if asker is None:
            return None
        exempt = self._private and not routable(asker.ip, False)
        return Origin(b"p" + asker.id, None if exempt else b"r" + address_range(asker.ip))


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except NoSpace as error:
        raise Refused(Code.NO_SPACE, str(error)) from error
    except Deleted as error:
        raise Refused(Code.DELETED, str(error)) from error
    except Stale as error:
        raise Refused(Code.STALE, str(error)) from error
    except StoreFailed as error:
        raise Refused(Code.BUSY, str(error)) from error
    except (InboxFull, StoreRefused) as error:
        raise Refused(Code.FULL, str(error)) from error
