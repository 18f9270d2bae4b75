"""Calls the primitives of single nodes: by datagram, over HTTP, or directly if it is this node itself.

The transport is chosen here, by size. An expired write token is renewed once. Replication is in overlay/client.py.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from typing import TypeVar

from overlay.errors import Malformed, NoAnswer, Refused
from overlay.http.client import HTTPClient
from overlay.identity.contact import Contact
from overlay.identity.ownership import ACKNOWLEDGE_INBOX, DELETE, READ_INBOX, Owner, statement
from overlay.kademlia.lookup import Located
from overlay.limits.stamp_payer import StampPayer
from overlay.primitives.requests import DeleteRequest, FetchRequest, OwnerProof
from overlay.primitives.service import Service
from overlay.protocol import OverlayProtocol
from overlay.protocol_limits import MAX_DATAGRAM_OBJECT, MAX_HASHES, MAX_HTTP_READ, MAX_OBJECT
from overlay.reachability.dial_back import ANSWERED_WITHIN
from overlay.wire import messages
from overlay.wire.fragments import MAX_MESSAGE
from overlay.wire.messages import Code, bounded
from storage.store_request import StoreRequest

T = TypeVar("T")

PATIENCE = 5.0
"""Seconds to wait for an operation that the node writes to disk before it answers."""
FETCH_PATIENCE = 2.0
"""Seconds to wait for an answer that needs no write."""
HASHES_AT_ONCE = 150
"""Acknowledged notifications in one request."""
PAST_ALL = b"\xff" * 32
"""The highest deleter hash: asking for deletes past it asks for none."""
_FIELDS = 256
"""Bytes of a message besides content and deleters, at most."""


class NodeClient:
    """Calls single nodes for the node behind `protocol`. `service`: that node's own primitives, None for a client."""

    def __init__(
        self,
        protocol: OverlayProtocol,
        service: Service | None,
        http: HTTPClient,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._protocol = protocol
        self._service = service
        self._http = http
        self._stamp_payer = StampPayer(now)

    async def store(self, at: Located, request: StoreRequest) -> None:
        """Store an object whose content is in memory. Raises NoAnswer, Refused."""
        kind, key, data, deleters = request.kind, request.key, request.content, request.deleters
        assert isinstance(data, bytes), "files are streamed by HTTPClient"
        if service := self._own(at):
            service.admit(kind, len(data))
            return await service.store(request)

        async def over_udp(at: Located) -> None:
            await self._call(at, messages.Store(at.token, kind, key, data, list(deleters), bounded(request.ttl)))

        async def over_http(at: Located) -> None:
            await self._http.store(at, request)
            if self._http.via and request.digest not in await self.digests(at, kind, key):
                raise NoAnswer("the relay says that it was stored, the node doesn't")

        fits = len(data) <= MAX_DATAGRAM_OBJECT and len(data) + 34 * len(deleters) + _FIELDS <= MAX_MESSAGE
        return await self._renewing(at, over_udp if fits else over_http)

    async def fetch(self, at: Located, request: FetchRequest) -> bytes:
        """The object's bytes; the digest isn't checked. Raises NoAnswer, Refused."""
        if service := self._own(at):
            return await service.contents(request)

        async def fetch(at: Located) -> bytes:
            fetch = messages.Fetch(at.token, request.kind, request.key, request.digest or b"")
            answer = _expect(messages.Object, await self._call(at, fetch, FETCH_PATIENCE))
            if answer.data or not answer.size:
                return answer.data
            return await self._http.fetch(at, request, min(answer.size, MAX_OBJECT))

        return await self._renewing(at, fetch)

    async def delete(self, at: Located, request: DeleteRequest, owner: Owner) -> int:
        """Delete as `owner`; how many objects the node dropped. Raises NoAnswer, Refused."""

        async def delete(at: Located) -> int:
            kind, key, salt = request.kind, request.key, request.salt
            signature = owner.sign(statement(DELETE, key, at.contact.id, at.token, [salt]))
            if service := self._own(at):
                return await service.delete(request, OwnerProof(at.token, owner.certificate, signature))
            delete = messages.Delete(at.token, kind, key, salt, owner.certificate, signature)
            return _expect(messages.Done, await self._call(at, delete)).count

        return await self._renewing(at, delete)

    async def append_inbox(self, at: Located, key: bytes, notification: bytes, ttl: float) -> None:
        """Append to an inbox, with a stamp if the node asks for one. Raises NoAnswer, Refused."""
        if service := self._own(at):
            await service.append_inbox(key, notification, ttl)
            return None

        digest = sha256(notification).digest()

        async def append(at: Located) -> None:
            stamp = self._stamp_payer.stamp(key, digest)
            if len(notification) + _FIELDS > MAX_MESSAGE:
                await self._http.append_inbox(at, key, notification, ttl=ttl, stamp=stamp)
                if self._http.via and await self.have_notifications(at, key, [digest]) != [True]:
                    raise NoAnswer("the relay says that it was appended, the node doesn't")
            else:
                await self._call(at, messages.AppendInbox(at.token, key, notification, bounded(ttl), stamp))

        try:
            return await self._renewing(at, append)
        except Refused as refused:
            if refused.code != Code.STAMP_NEEDED or await self._stamp_payer.pay(key, digest, refused.bits) is None:
                raise
        return await self._renewing(at, append)

    async def read_inbox(self, at: Located, key: bytes, owner: Owner) -> tuple[list[bytes], bool]:
        """Leased notifications, and whether more wait. Raises NoAnswer, Refused."""

        async def read(at: Located) -> tuple[list[bytes], bool]:
            signature = owner.sign(statement(READ_INBOX, key, at.contact.id, at.token))
            if service := self._own(at):
                me = self._protocol.sealer.public
                proof = OwnerProof(at.token, owner.certificate, signature)
                return await service.read_inbox(key, me, proof, MAX_HTTP_READ)
            request = messages.ReadInbox(at.token, key, owner.certificate, signature)
            answer = _expect(messages.Notifications, await self._call(at, request))
            # The same reader gets the same again, and the rest. Not through a relay: it could leave some of it out.
            if answer.more and at.bulk_port and not self._http.via:
                return await self._http.read_inbox(at, key, owner)
            return answer.notifications, answer.more

        return await self._renewing(at, read)

    async def acknowledge_inbox(self, at: Located, key: bytes, owner: Owner, hashes: Sequence[bytes]) -> int:
        """Acknowledge notifications; how many the node deleted. Raises NoAnswer, Refused."""
        deleted = 0
        for start in range(0, len(hashes), HASHES_AT_ONCE):
            some = list(hashes[start : start + HASHES_AT_ONCE])

            async def acknowledge(at: Located, some: list[bytes] = some) -> int:
                signature = owner.sign(statement(ACKNOWLEDGE_INBOX, key, at.contact.id, at.token, some))
                if service := self._own(at):
                    proof = OwnerProof(at.token, owner.certificate, signature)
                    return await service.acknowledge_inbox(key, some, proof)
                request = messages.AcknowledgeInbox(at.token, key, some, owner.certificate, signature)
                return _expect(messages.Done, await self._call(at, request)).count

            deleted += await self._renewing(at, acknowledge)
        return deleted

    async def proofs(self, at: Located, kind: int, key: bytes, deleters: Sequence[bytes]) -> list[bytes]:
        """Each deleter's signed delete, or b"", in their order; may be fewer. Raises NoAnswer, Refused."""
        if service := self._own(at):
            return await service.proofs(kind, key, deleters)
        found: list[bytes] = []
        width = MAX_HASHES

        async def ask(at: Located) -> list[bytes]:
            some = list(deleters[len(found) : len(found) + width])
            request = messages.AskTombstones(at.token, kind, key, some)
            return _expect(messages.Tombstones, await self._call(at, request, FETCH_PATIENCE)).proofs[: len(some)]

        while len(found) < len(deleters) and (more := await self._renewing(at, ask)):
            found += more
            width = min(2 * len(more), MAX_HASHES)  # an answer holds many hashes but few proofs
        return found

    async def have(
        self, at: Located, kind: int, key: bytes, *, after: bytes = b"", known: bytes = b""
    ) -> messages.Held:
        """What the node has under the key, and its deletes past the deleter `after`, unless those are `known`.

        Raises NoAnswer, Refused.
        """
        if service := self._own(at):
            return await service.have(kind, key, after, known)

        async def ask(at: Located) -> messages.Held:
            request = messages.Have(at.token, kind, key, after, known)
            return _expect(messages.Held, await self._call(at, request, FETCH_PATIENCE))

        return await self._renewing(at, ask)

    async def digests(self, at: Located, kind: int, key: bytes) -> Sequence[bytes]:
        """The digests of the objects that the node has under the key. Raises NoAnswer, Refused."""
        return (await self.have(at, kind, key, after=PAST_ALL)).digests

    async def hand_tombstone(self, at: Located, kind: int, key: bytes, proof: bytes, ttl: float) -> None:
        """Give the node a delete that was signed for another one. Raises NoAnswer, Refused."""

        async def hand(at: Located) -> None:
            await self._call(at, messages.HandTombstone(at.token, kind, key, proof, bounded(ttl)))

        await self._renewing(at, hand)

    async def have_notifications(self, at: Located, key: bytes, hashes: Sequence[bytes]) -> list[bool]:
        """Of each notification, whether it waits there or was acknowledged there. Raises NoAnswer, Refused."""
        if service := self._own(at):
            return await service.backend.known(key, hashes)

        async def ask(at: Located) -> list[bool]:
            request = messages.HaveNotifications(at.token, key, list(hashes))
            known = _expect(messages.Known, await self._call(at, request, FETCH_PATIENCE)).known
            if len(known) != len(hashes):
                raise NoAnswer("a node answered something else than was asked")
            return known

        return await self._renewing(at, ask)

    def hint(self, at: Located, kind: int, key: bytes) -> None:
        """Tell a node that other holders lack the object, without waiting for an answer."""
        if not self._own(at):
            request = messages.Recheck(at.token, kind, key)
            self._protocol.start_call(at.contact, request, lambda _: None, tries=1)

    async def dial_back(self, contact: Contact, fingerprint: bytes) -> bool:
        """Whether that node can reach this one by UDP and TCP from a new socket. Raises NoAnswer, Refused."""

        async def ask(at: Located) -> bool:
            request = messages.DialBack(at.token, fingerprint)
            dialled = _expect(messages.Dialled, await self._call(at, request, ANSWERED_WITHIN))
            return dialled.udp and dialled.tcp

        return await self._renewing(await self.locate(contact), ask)

    async def locate(self, contact: Contact) -> Located:
        """Ask a contact for a write token and its HTTP port. Raises NoAnswer, Refused."""
        found = _expect(messages.Found, await self._protocol.call(contact, messages.Find(bytes(20), 0)))
        return Located(contact, found.token, found.bulk_port, found.fingerprint)

    def _own(self, at: Located) -> Service | None:
        return self._service if at.contact.id == self._protocol.own_id else None

    async def _call(self, at: Located, request: messages.Request, patience: float = PATIENCE) -> messages.Answer:
        try:
            return await self._protocol.call(at.contact, request, patience=patience)
        except Malformed as error:
            raise Refused(Code.TOO_LARGE, str(error)) from error

    async def _renewing(self, at: Located, operation: Callable[[Located], Awaitable[T]]) -> T:
        """Run the operation; if the token has expired, get a new one and run it once more."""
        try:
            return await operation(at)
        except Refused as refused:
            if refused.code != Code.BAD_TOKEN or self._own(at):
                raise
        return await operation(await self.locate(at.contact))


M = TypeVar("M", bound=messages.Answer)


def _expect(kind: type[M], answer: messages.Answer) -> M:
    if not isinstance(answer, kind):
        raise NoAnswer("a node answered something else than was asked")
    return answer
