"""The primitives of a system node (paper, section 2.2), for requests by datagram, over HTTP, and of the node itself.

This is where it is decided who may do what: write tokens, certificates, signatures, kinds. How things are kept is up to
the store (StoreBackend); how requests travel is in overlay/wire/rpc.py and overlay/http/server.py. Each operation
returns after its effect is on disk, or raises Refused.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from overlay.errors import Malformed, Refused
from overlay.identity.address import AddressError
from overlay.identity.card import open_card
from overlay.identity.certificates import Certificate, CertificateError, TrustStore
from overlay.identity.contact import Contact
from overlay.identity.enrolment_answer import open_answer
from overlay.identity.ownership import (
    ACKNOWLEDGE_INBOX,
    DELETE,
    READ_INBOX,
    DeleteProof,
    decode_delete_proof,
    deleter_named,
    encode_delete_proof,
    proves_delete,
    statement,
    valid,
)
from overlay.ids import (
    CARD_SALT,
    Kind,
    certificate_key,
    deleter_hash,
    deleters_digest,
    inbox_key,
    revocations_key,
    root_key,
)
from overlay.limits.stamps import bits_asked, bits_of
from overlay.primitives.requests import DeleteRequest, FetchRequest, OwnerProof
from overlay.protocol_limits import (
    INBOX,
    LEASE,
    MAX_DATAGRAM_OBJECT,
    MAX_DATAGRAM_READ,
    MAX_ENROLMENT_ANSWER,
    MAX_NOTIFICATION,
    MAX_OBJECT,
    MAX_SIGNED_OBJECT,
    RETENTION,
)
from overlay.wire import messages
from overlay.wire.fragments import MAX_MESSAGE
from overlay.wire.messages import WORDS, Code
from overlay.wire.write_tokens import WriteTokens
from storage.store_request import StoreRequest

Handler = Callable[[Contact, Any], Awaitable[messages.Answer]]
"""Answers one message type (the second argument is of that type) for the contact that sent it."""

SIGNED = frozenset({Kind.CERTIFICATE, Kind.REVOCATIONS, Kind.ENROLMENT})
"""The kinds whose content is signed and checked here; a newer object replaces an older one."""
TOMBSTONES_READ = 50
"""Tombstones read for one answer; about eight fit."""


def refusal(code: int) -> Refused:
    """The error for a code of messages.Code."""
    return Refused(code, WORDS[code])


def _lasting(ttl: float) -> float:
    """The requested time to live in seconds, at most RETENTION. Raises Refused.

    More than that is reduced and not refused, because the sender's clock may be wrong.
    """
    if not 0 < ttl < math.inf:  # also not-a-number
        raise refusal(Code.BAD_TTL)
    return messages.bounded(ttl)


def _fitting(notifications: Sequence[bytes]) -> int:
    """How many of them fit into one message; each costs 13 bytes of framing at most."""
    free = MAX_MESSAGE - 16
    for number, notification in enumerate(notifications):
        free -= len(notification) + 13
        if free < 0:
            return number
    return len(notifications)


def _proof_in(request: messages.Delete | messages.ReadInbox | messages.AcknowledgeInbox) -> OwnerProof:
    return OwnerProof(request.token, request.certificate, request.signature)


@dataclass(frozen=True, slots=True)
class StoredContent:
    """A stored object: its bytes, or the file that has them."""

    digest: bytes
    size: int
    content: bytes | Path


@dataclass(frozen=True, slots=True)
class TombstoneCopy:
    """A signed delete in the store: deleter hash, proof, and the seconds for which it is kept."""

    deleter: bytes
    proof: bytes
    ttl: float


class StoreBackend(Protocol):
    """A node's store (overlay/node/store_adapter.py). Calls return when all is on disk, or raise Refused."""

    async def store(self, request: StoreRequest, asker: Contact | None) -> None: ...

    async def fetch(self, request: FetchRequest) -> StoredContent | None: ...

    async def delete(self, kind: int, key: bytes, deleter: bytes, proof: bytes, ttl: float) -> int: ...

    async def proofs(self, kind: int, key: bytes, deleters: Sequence[bytes]) -> list[bytes]: ...

    async def digests(self, kind: int, key: bytes) -> list[bytes]: ...

    async def tombstones(self, kind: int, key: bytes, after: bytes, limit: int) -> list[TombstoneCopy]: ...

    async def deleters(self, kind: int, key: bytes) -> list[bytes]: ...

    async def known(self, key: bytes, hashes: Iterable[bytes]) -> list[bool]: ...

    async def append(
        self, key: bytes, notification: bytes, ttl: float, asker: Contact | None, admit: Callable[[float], None]
    ) -> bool:
        """`admit` gets the inbox's fullness (0 to 1) before a new notification is appended, and may raise Refused."""

    async def read(self, key: bytes, reader: bytes, limit: int, lease: float) -> tuple[list[bytes], bool]: ...

    async def acknowledge(self, key: bytes, hashes: Iterable[bytes]) -> int: ...

    def spool(self) -> Path: ...


class RepairObserver(Protocol):
    """Told what other nodes say about copies (overlay/replication/repair.py)."""

    def looked(self, kind: int, key: bytes) -> None: ...

    def hinted(self, kind: int, key: bytes) -> None: ...


class _NoObserver:
    """Ignores it."""

    def looked(self, kind: int, key: bytes) -> None: ...

    def hinted(self, kind: int, key: bytes) -> None: ...


class Service:
    """The primitives of one node. `now`: wall clock in seconds, for certificates.

    Without `trust` (a network without an authority) every request that needs an owner is refused.
    """

    def __init__(
        self,
        node_id: bytes,
        store: StoreBackend,
        trust: TrustStore | None,
        tokens: WriteTokens,
        now: Callable[[], float],
    ) -> None:
        self.observer: RepairObserver = _NoObserver()
        self.node_id = node_id
        self.backend = store
        self._trust = trust
        self._tokens = tokens
        self._now = now
        roots = trust.authorities if trust else ()
        self._roots = {root_key(sha256(der).hexdigest()): der for der in roots}
        """The authorities' certificates, by key. A node answers with these itself, so that nothing else can be stored
        under their keys, and a joining user agent finds them while the authority is offline."""
        self._handlers: dict[type[messages.Request], Handler] = {
            messages.Store: self._on_store,
            messages.Fetch: self._on_fetch,
            messages.Delete: self._on_delete,
            messages.AppendInbox: self._on_append_inbox,
            messages.ReadInbox: self._on_read_inbox,
            messages.AcknowledgeInbox: self._on_acknowledge_inbox,
            messages.AskTombstones: self._on_ask_tombstones,
            messages.HandTombstone: self._on_hand_tombstone,
            messages.Have: self._on_have,
            messages.HaveNotifications: self._on_have_notifications,
            messages.Recheck: self._on_recheck,
        }

    def handle(self, asker: Contact, request: messages.Request) -> Awaitable[messages.Answer] | messages.Answer:
        """Answer a request that came by datagram, except those that the protocol answers itself.

        The write token is checked before anything else. The answer may raise Refused.
        """
        if isinstance(request, messages.Ping | messages.Find | messages.AskAdmission | messages.DialBack):
            raise TypeError("pings and lookups are answered by the protocol")
        if not self._tokens.good(request.token, asker.key, asker.ip):
            return messages.Refusal(Code.BAD_TOKEN)
        return self._handlers[type(request)](asker, request)

    # Requests by datagram, one handler for each message type

    async def _on_store(self, asker: Contact, request: messages.Store) -> messages.Answer:
        if len(request.data) > MAX_DATAGRAM_OBJECT:
            raise refusal(Code.TOO_LARGE)
        await self.store(StoreRequest.of(request.kind, request.key, request.data, request.ttl, request.deleters), asker)
        return messages.Done()

    async def _on_fetch(self, _asker: Contact, request: messages.Fetch) -> messages.Answer:
        kept = await self.fetch(FetchRequest(request.kind, request.key, request.digest or None))
        small = isinstance(kept.content, bytes) and kept.size <= MAX_DATAGRAM_OBJECT
        return messages.Object(kept.content if small and isinstance(kept.content, bytes) else b"", kept.size)

    async def _on_delete(self, _asker: Contact, request: messages.Delete) -> messages.Answer:
        wanted = DeleteRequest(request.kind, request.key, request.salt)
        dropped = await self.delete(wanted, _proof_in(request))
        return messages.Done(dropped)

    async def _on_append_inbox(self, asker: Contact, request: messages.AppendInbox) -> messages.Answer:
        await self.append_inbox(request.key, request.notification, request.ttl, asker, request.stamp)
        return messages.Done()

    async def _on_read_inbox(self, asker: Contact, request: messages.ReadInbox) -> messages.Answer:
        waiting, more = await self.read_inbox(request.key, asker.key, _proof_in(request), MAX_DATAGRAM_READ)
        fitting = _fitting(waiting)
        return messages.Notifications(waiting[:fitting], more or fitting < len(waiting))

    async def _on_acknowledge_inbox(self, _asker: Contact, request: messages.AcknowledgeInbox) -> messages.Answer:
        deleted = await self.acknowledge_inbox(request.key, request.hashes, _proof_in(request))
        return messages.Done(deleted)

    async def _on_ask_tombstones(self, _asker: Contact, request: messages.AskTombstones) -> messages.Answer:
        proofs = await self.proofs(request.kind, request.key, request.deleters)
        return messages.Tombstones(proofs[: _fitting(proofs)])

    async def _on_have(self, _asker: Contact, request: messages.Have) -> messages.Answer:
        # Only another holder that repairs this key sends `known`, and it gives this node what is missing here. Holders
        # of shares only learn deletes, and user agents only ask: neither spares this node its own round.
        if request.known and request.kind != Kind.SHARE:
            self.observer.looked(request.kind, request.key)
        return await self.have(request.kind, request.key, request.after, request.known)

    async def _on_hand_tombstone(self, _asker: Contact, request: messages.HandTombstone) -> messages.Answer:
        return messages.Done(await self.hand_tombstone(request.kind, request.key, request.proof, request.ttl))

    async def _on_have_notifications(self, _asker: Contact, request: messages.HaveNotifications) -> messages.Answer:
        self.observer.looked(INBOX, request.key)
        return messages.Known(await self.backend.known(request.key, request.hashes))

    async def _on_recheck(self, _asker: Contact, request: messages.Recheck) -> messages.Answer:
        self.observer.hinted(request.kind, request.key)
        return messages.Done()

    # The primitives. All raise Refused.

    async def store(self, request: StoreRequest, asker: Contact | None = None) -> None:
        """Store an object. A file (a Path in the spool) belongs to the store from here on.

        `asker`: whose quota share it counts against; None for this node's own requests.
        """
        content, deleters, sequence = request.content, request.deleters, None
        if request.kind in SIGNED:
            signed = content if isinstance(content, bytes) else content.read_bytes()  # bounded by admit()
            sequence, deleters = self._check_signed(request.kind, request.key, signed)
        elif request.kind not in (Kind.BODY, Kind.PROBE, Kind.SHARE):
            raise refusal(Code.UNKNOWN_KIND)
        elif request.key in self._roots:
            raise refusal(Code.NOT_PERMITTED)
        checked = replace(request, deleters=deleters, ttl=_lasting(request.ttl), sequence=sequence)
        await self.backend.store(checked, asker)

    def admit(self, kind: int, size: int) -> None:
        """Refuse an object that is too large, before any of it is received."""
        if size > (
            MAX_ENROLMENT_ANSWER if kind == Kind.ENROLMENT else MAX_SIGNED_OBJECT if kind in SIGNED else MAX_OBJECT
        ):
            raise refusal(Code.TOO_LARGE)

    async def fetch(self, request: FetchRequest) -> StoredContent:
        """The requested object."""
        if request.kind == Kind.BODY and request.key in self._roots:
            der = self._roots[request.key]
            return StoredContent(sha256(der).digest(), len(der), der)
        kept = await self.backend.fetch(request)
        if kept is None:
            raise refusal(Code.NOT_FOUND)
        return kept

    async def delete(self, request: DeleteRequest, proof: OwnerProof) -> int:
        """Take the owner's hash off the objects; the signed delete stays as a tombstone. How many were dropped."""
        key, salt = request.key, request.salt
        self._authenticate(proof, statement(DELETE, key, self.node_id, proof.token, [salt]))
        signed = DeleteProof(key, self.node_id, proof.token, salt, proof.certificate, proof.signature)
        deleter = deleter_hash(key, salt, proof.certificate)
        return await self.backend.delete(request.kind, key, deleter, encode_delete_proof(signed), RETENTION)

    async def proofs(self, kind: int, key: bytes, deleters: Sequence[bytes]) -> list[bytes]:
        """For each deleter hash its signed delete, or b"". Anyone who knows the key and the hashes may ask."""
        return await self.backend.proofs(kind, key, deleters)

    async def have(self, kind: int, key: bytes, after: bytes, known: bytes = b"") -> messages.Held:
        """Digests of the objects here, and as many deletes past the deleter `after` as fit, unless all are `known`."""
        digests = await self.backend.digests(kind, key)
        if known and known == deleters_digest(await self.backend.deleters(kind, key)):
            return messages.Held(digests, [], more=False, same=True)
        kept = await self.tombstones(kind, key, after)
        fitting = _fitting([tombstone.proof for tombstone in kept])
        sent = [messages.WireTombstone(tombstone.proof, tombstone.ttl) for tombstone in kept[:fitting]]
        return messages.Held(digests, sent, len(kept) == TOMBSTONES_READ or fitting < len(kept))

    async def tombstones(self, kind: int, key: bytes, after: bytes) -> list[TombstoneCopy]:
        """Some tombstones of a key, in the order of their deleters, past `after`."""
        return await self.backend.tombstones(kind, key, after, TOMBSTONES_READ)

    async def hand_tombstone(self, kind: int, key: bytes, proof: bytes, ttl: float) -> int:
        """Take over a delete that was signed for another node, which proves itself. How many objects were dropped.

        It can't be abused by the node that hands it on, because it takes off the signer's hash only.
        """
        try:
            signed, deleter = decode_delete_proof(proof), deleter_named(proof, key)
            verified = self._known_trust().verify(signed.certificate, self._now())
        except (Malformed, CertificateError) as error:
            raise refusal(Code.NOT_PERMITTED) from error
        if not proves_delete(signed, verified.public_key):
            raise refusal(Code.NOT_PERMITTED)
        return await self.backend.delete(kind, key, deleter, proof, _lasting(ttl))

    async def contents(self, request: FetchRequest) -> bytes:
        """The bytes of an object in this node's store."""
        kept = await self.fetch(request)
        if not isinstance(kept.content, Path):
            return kept.content
        try:
            return await asyncio.to_thread(kept.content.read_bytes)
        except OSError as error:  # deleted just now, or the disk fails: another node has it
            raise refusal(Code.NOT_FOUND) from error

    async def append_inbox(
        self, key: bytes, notification: bytes, ttl: float, asker: Contact | None = None, stamp: bytes = b""
    ) -> bool:
        """Append to an inbox; False if it is there already. A full inbox asks for a stamp."""
        if not notification or len(notification) > MAX_NOTIFICATION:
            raise refusal(Code.TOO_LARGE)
        lasting, now = _lasting(ttl), self._now()

        def admit(fullness: float) -> None:
            asked = bits_asked(fullness) if asker is not None else 0
            if asked and bits_of(stamp, key, sha256(notification).digest(), now) < asked:
                raise Refused(Code.STAMP_NEEDED, WORDS[Code.STAMP_NEEDED], asked)

        return await self.backend.append(key, notification, lasting, asker, admit)

    async def read_inbox(self, key: bytes, reader: bytes, proof: OwnerProof, limit: int) -> tuple[list[bytes], bool]:
        """Waiting notifications, up to `limit` bytes, leased to `reader`; and whether more wait."""
        self._own_inbox(key, proof, statement(READ_INBOX, key, self.node_id, proof.token))
        return await self.backend.read(key, reader, limit, LEASE)

    async def acknowledge_inbox(self, key: bytes, hashes: Sequence[bytes], proof: OwnerProof) -> int:
        """Delete notifications that the owner has on disk; how many were deleted."""
        self._own_inbox(key, proof, statement(ACKNOWLEDGE_INBOX, key, self.node_id, proof.token, hashes))
        return await self.backend.acknowledge(key, hashes)

    # Who may do what

    def _known_trust(self) -> TrustStore:
        if self._trust is None:
            raise refusal(Code.NOT_PERMITTED)
        return self._trust

    def _authenticate(self, proof: OwnerProof, signed: bytes) -> Certificate:
        """The certificate of the owner that signed the statement `signed`. Raises Refused."""
        try:
            verified = self._known_trust().verify(proof.certificate, self._now())
        except CertificateError as error:
            raise refusal(Code.NOT_PERMITTED) from error
        if not valid(verified.public_key, proof.signature, signed):
            raise refusal(Code.NOT_PERMITTED)
        return verified

    def _own_inbox(self, key: bytes, proof: OwnerProof, signed: bytes) -> None:
        if inbox_key(self._authenticate(proof, signed).address) != key:
            raise refusal(Code.NOT_PERMITTED)

    def _check_signed(self, kind: int, key: bytes, data: bytes) -> tuple[int, list[bytes]]:
        """Check a signed object; its sequence number and its deleters."""
        trust = self._known_trust()
        try:
            if kind == Kind.REVOCATIONS:
                if key != revocations_key(trust.fingerprint):
                    raise refusal(Code.NOT_PERMITTED)
                number = trust.accept_revocations(data, self._now())
                if trust.revocations() != data:
                    raise refusal(Code.STALE)
                return number, []
            if kind == Kind.ENROLMENT:
                return open_answer(data, key, trust, self._now()).sequence, []
            card = open_card(data, trust, self._now())
        except (CertificateError, AddressError) as error:
            raise refusal(Code.NOT_PERMITTED) from error
        if certificate_key(card.certificate.address) != key:
            raise refusal(Code.NOT_PERMITTED)
        return card.sequence, [deleter_hash(key, CARD_SALT, card.certificate.der)]
