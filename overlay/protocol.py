"""What a node says to nodes: pings, lookups, and who gets into the routing table. Extends kademlia's protocol.

Requests come as typed messages (overlay/wire/messages.py). Those that store or read go to the service
(overlay/primitives/service.py). kademlia's open `rpc_store` and `rpc_find_value` can't be reached from the network.

Theory of operation
-------------------
A node comes into the routing table only after it has answered a request of this node, which proves its key and its
address. The states of another node, as this one sees it:

    unknown     Not in the table.
    verifying   A request came from it in server mode, so it was sent one ping, at the address where it is known, else
                where the request came from. At most VERIFYING nodes at once; more are ignored, they will write again.
    proving     It answered, but the network admits certified nodes only: it was asked for its proof
                (overlay/identity/admission.py).
    in table    It answered in server mode, solves the network's puzzle, is admitted, and isn't distrusted
                (overlay/kademlia/reputation.py). overlay/kademlia/routing.py decides whether there is room for it.
    suspect     It didn't answer in the last SUSPECTED seconds: lookups ask it, but don't wait for it. A suspect may be
                in the table; the table counts its failures.

    unknown -> verifying    a request in server mode, if the table has use for it
    any -> proving, in table    an answer in server mode, to whatever request
    in table -> unknown     an answer in client mode, a lost reputation, a refused proof, or failures (routing.py)
    any -> suspect          a request stayed unanswered
    suspect -> not suspect  an answer from the same key and address

Invariants: no contact from another node's list is put into the table untested. A node that is known and answers can't
be moved to another address by datagrams sent from there. A client is never in the table.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from overlay.errors import Malformed, NoAnswer, Refused, Unsupported
from overlay.identity.admission import Admission, Proof
from overlay.identity.contact import Contact, WireContact, pack_ip, puzzle_bits, routable, unpack_ip
from overlay.identity.network import Network
from overlay.kademlia.disjoint_lookup import disjoint_lookup
from overlay.kademlia.lookup import Located, Lookup
from overlay.kademlia.reputation import Reputation
from overlay.kademlia.routing import BUCKET, Table
from overlay.primitives.service import Service
from overlay.reachability.dial_back import Dialler
from overlay.reachability.presence import Presence
from overlay.wire import messages
from overlay.wire.messages import Code, Refusal
from overlay.wire.rpc import Handled, RemotePeer, SealedRPC
from overlay.wire.sealed_datagram import Sealer
from overlay.wire.write_tokens import WriteTokens

if TYPE_CHECKING:  # see overlay/wire/rpc.py
    from asyncio import DatagramProtocol as KademliaProtocol
else:
    from kademlia.protocol import KademliaProtocol

SUSPECTED = 30.0
"""Seconds for which a contact that stayed silent is a suspect: lookups ask it, but don't wait for it."""
SUSPECTS = 2048
"""Suspects remembered; the oldest is forgotten first."""
OPINIONS = 16
"""Nodes whose report of our observed address counts: those that were pinged last, one vote each. So a changed address
is learned within a minute or two, and one liar has one vote."""
VERIFYING = 64
"""Unknown nodes pinged at once to learn whether they answer; more are ignored, they will write again."""

Handler = Callable[[RemotePeer, Any], Handled]
"""Answers the requests of one message type."""


class OverlayProtocol(SealedRPC, KademliaProtocol):  # type: ignore[misc, unused-ignore]
    """One node's side of the overlay: its routing table, the requests that it answers and those that it sends."""

    router: Table

    def __init__(
        self,
        sealer: Sealer,
        network: Network,
        own_id: bytes,
        tokens: WriteTokens,
        service: Service | None,
        *,
        server_mode: bool,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        SealedRPC.__init__(
            self, sealer, server_mode=server_mode, loopback_free=network.private_addresses, random=random
        )
        self.network = network
        self.tokens = tokens
        self.service = service
        self.own_id = own_id
        self.router = Table(own_id, self._loop.time, private_addresses=network.private_addresses)
        self.bulk_port = 0
        self.fingerprint = b""
        self.on_contact_added: Callable[[Contact], None] = lambda contact: None
        """Called with each contact that has come into the table, or has answered again after a failure."""
        self._suspects: OrderedDict[Contact, float] = OrderedDict()
        self._verifying: set[bytes] = set()
        self.reputation = Reputation(self._loop.time)
        self.presence = Presence(own_id, time.time, self._loop.time)
        """Whether other nodes answer, and since when none does."""
        self.proof: Proof | None = None
        """Proof of the member that this node belongs to, where the network asks for one."""
        self.admission: Admission | None = None
        """The nodes that have proved which member they belong to, where the network asks for that."""
        self.dialler: Dialler | None = None
        """Tests for other nodes whether they can be reached; None at a client."""
        self._proof_callbacks: dict[bytes, list[Callable[[bool], None]]] = {}
        self._observed_addresses: OrderedDict[bytes, str] = OrderedDict()
        self._handlers: dict[type[messages.Request], Handler] = {
            messages.Ping: self._on_ping,
            messages.Find: self._on_find,
            messages.AskAdmission: self._on_ask_admission,
            messages.DialBack: self._on_dial_back,
        }
        """The requests that need no service; the service has the handlers of the rest."""

    # Answering

    def handle(self, sender: RemotePeer, request: messages.Request) -> Handled:
        """Answer a request; an unknown node in server mode is pinged, to learn whether it can come into the table."""
        if sender.server_mode:
            self._verify(sender.contact)
        handler = self._handlers.get(type(request))
        if handler is not None:
            return handler(sender, request)
        if self.service is None:
            return Refusal(Code.UNKNOWN_KIND)
        return self.service.handle(sender.contact, request)

    @staticmethod
    def _on_ping(sender: RemotePeer, _request: messages.Ping) -> messages.Pong:
        return messages.Pong(pack_ip(sender.contact.ip), sender.contact.port)

    def _on_ask_admission(self, _sender: RemotePeer, request: messages.AskAdmission) -> messages.Answer:
        if self.proof is None or len(request.padding) < len(messages.ADMISSION_PADDING):
            return Refusal(Code.NOT_PERMITTED)
        return messages.Admitted(self.proof.certificate, self.proof.signature)

    def _on_dial_back(self, sender: RemotePeer, request: messages.DialBack) -> Handled:
        if self.dialler is None:
            return Refusal(Code.UNKNOWN_KIND)
        if not self.tokens.good(request.token, sender.contact.key, sender.contact.ip):
            return Refusal(Code.BAD_TOKEN)
        return self.dialler.dial(sender.contact, request.fingerprint)

    def _on_find(self, sender: RemotePeer, request: messages.Find) -> messages.Found:
        """The k closest contacts known here, as many as fit into three times the request's size, and a write token."""
        count = min(request.k, messages.affordable(sender.received))
        closest = self.router.closest(request.key, count + 1, healthy=True)
        sender_id = sender.contact.id
        contacts = [contact.wire for contact in closest if contact.id != sender_id][:count]
        token = self.tokens.issue(sender.contact.key, sender.contact.ip)
        return messages.Found(contacts, token, self.bulk_port, self.fingerprint)

    def _verify(self, contact: Contact) -> None:
        """Ping a node that sent a request and is unknown: only a node that answers comes into the table.

        If the request came from another address than the node is known at, the known address is pinged: a third party
        that forwards its datagrams can't redirect traffic while the node answers there. The ping is sent once, since
        the address may be forged.
        """
        if len(self._verifying) >= VERIFYING or contact.key in self._verifying:
            return
        known = self.router.get(contact.id)
        if known is not None:
            if known.contact == contact:
                return
            if known.failures == 0:
                contact = known.contact
        elif not self.router.wants(contact):
            return
        try:
            self.checked(contact.wire)
        except Malformed:
            return
        self._verifying.add(contact.key)
        self.start_call(contact, messages.Ping(), lambda _: self._verifying.discard(contact.key), tries=1)

    def answered(self, contact: Contact, server_mode: bool) -> None:
        """Put a node that answered into the table; a client is never put there, and leaves it if it was a node."""
        self._suspects.pop(contact, None)
        if server_mode and contact.id != self.own_id:
            self.presence.heard()
        if not server_mode or not self.reputation.trusted(contact.key):
            self.router.drop(contact.id)
        elif not self.network.puzzle_bits or puzzle_bits(contact.id) >= self.network.puzzle_bits:
            self._when_admitted(
                contact, lambda admitted: self._admit(contact) if admitted else self.router.drop(contact.id)
            )

    def _admit(self, contact: Contact) -> None:
        back = (entry := self.router.get(contact.id)) is not None and entry.failures > 0
        if self.router.answered(contact) or back:
            self.sealer.keep(contact.key)
            self.on_contact_added(contact)

    def _when_admitted(self, contact: Contact, then: Callable[[bool], None]) -> None:
        """Call `then` with whether the network admits this node, asking the node for its proof if necessary."""
        admission = self.admission
        if admission is None or admission.admitted(contact.key):
            then(True)
            return
        callbacks = self._proof_callbacks.setdefault(contact.key, [])
        callbacks.append(then)
        if len(callbacks) > 1:
            return

        def on_answer(answer: messages.Answer | None) -> None:
            admitted = isinstance(answer, messages.Admitted) and admission.show(
                contact.key, Proof(answer.certificate, answer.signature)
            )
            for callback in self._proof_callbacks.pop(contact.key, ()):
                callback(admitted)

        self.start_call(contact, messages.AskAdmission(messages.ADMISSION_PADDING), on_answer)

    def silent(self, contact: Contact) -> None:
        """Make `contact` a suspect; ping the contact from the replacement cache that may take its slot."""
        self._suspects[contact] = self._loop.time() + SUSPECTED
        self._suspects.move_to_end(contact)
        if len(self._suspects) > SUSPECTS:
            self._suspects.popitem(last=False)
        replacement = self.router.failed(contact)
        if replacement is not None:
            self.start_call(replacement, messages.Ping(), lambda _: None)

    # Sending requests (overlay/kademlia/lookup.py's LookupRPC)

    def send_find(
        self,
        contact: Contact,
        key: bytes,
        k: int,
        on_done: Callable[[messages.Found | None], None],
        on_slow: Callable[[], None],
    ) -> Callable[[], None]:
        """Send a Find; returns a function that cancels it."""

        def on_answer(answer: messages.Answer | None) -> None:
            if not isinstance(answer, messages.Found):
                on_done(None)
                return
            self._when_admitted(contact, lambda admitted: on_done(answer if admitted else None))

        request = messages.Find(key, k, messages.find_padding(k))
        try:
            call = self.start_call(contact, request, on_answer, on_slow=on_slow)
        except Malformed:  # another node named a contact whose key isn't valid
            return self._loop.call_soon(on_done, None).cancel
        return lambda: self.cancel_call(call)

    def checked(self, wire: WireContact) -> Contact:
        """Check a contact that came from the network before anything is sent to it. Raises Malformed."""
        return Contact.received(wire, private_addresses=self.network.private_addresses, puzzle=self.network.puzzle_bits)

    def suspected(self, contact: Contact) -> bool:
        """Whether `contact` failed to answer in the last SUSPECTED seconds."""
        return self._suspects.get(contact, 0.0) > self._loop.time()

    async def lookup(
        self, key: bytes, k: int, seeds: Iterable[Contact] = (), *, disjoint: bool = False
    ) -> list[Located]:
        """The k closest other nodes that answer (paper, section 2.1), by one path or by `disjoint` paths.

        Returns an empty list, and raises nothing, when no node answers.
        """
        known = [*self.router.closest(key, max(k, BUCKET)), *seeds]
        if disjoint:
            found, _ = await disjoint_lookup(self, key, k, seeds=known, own_id=self.own_id)
        else:
            found = await Lookup(self, key, k, seeds=known, own_id=self.own_id).run()
        self.router.bucket_of(key).refreshed = self._loop.time()
        return found

    async def ping(self, contact: Contact) -> tuple[str, int] | None:
        """The address of this node that `contact` observed, or None when it stays silent."""
        try:
            answer = await self.call(contact, messages.Ping())
        except (NoAnswer, Refused, Malformed):
            return None
        if not isinstance(answer, messages.Pong):
            return None
        observed = _observed(answer)
        if observed is not None:
            self._observed_addresses[contact.key] = observed[0]
            self._observed_addresses.move_to_end(contact.key)
            if len(self._observed_addresses) > OPINIONS:
                self._observed_addresses.popitem(last=False)
        return observed

    async def answers_by_udp(self, contact: Contact) -> bool:
        """Whether `contact` answers by UDP, while all other requests go through the tunnel."""
        answered: asyncio.Future[bool] = self._loop.create_future()

        def on_done(answer: messages.Answer | None) -> None:
            if not answered.done():
                answered.set_result(answer is not None)

        call = self.start_call(contact, messages.Ping(), on_done, direct=True)
        try:
            return await answered
        finally:
            self.cancel_call(call)

    @property
    def observed_address(self) -> str | None:
        """The IP address that other nodes observe for this one, when at least two agree (one can lie)."""
        (ip, votes), *_ = Counter(self._observed_addresses.values()).most_common(1) or [("", 0)]
        return ip if votes >= 2 else None

    def resumed(self) -> None:
        """This computer has slept, and may be elsewhere now: forget the suspects and the observed addresses."""
        self._suspects.clear()
        self._observed_addresses.clear()

    async def ping_least_recently_seen(self) -> None:
        """Ping the contact that answered longest ago."""
        entry = self.router.least_recently_seen()
        if entry is not None:
            await self.ping(entry.contact)

    # The rest of what kademlia's KademliaProtocol offers (docs/architecture.md says what is used of it)

    source_node = Unsupported("own_id and sealer.public")
    storage = Unsupported("service")
    get_refresh_ids = Unsupported("router.stale_buckets, as overlay.node.membership.Membership.refresh does")
    welcome_if_new = Unsupported("router.answered; overlay.replication.repair.Repair hands a new node its copies")
    handle_call_response = Unsupported("answered and silent")
    call_ping = Unsupported("ping")
    call_find_node = Unsupported("lookup, or send_find for one node")
    call_find_value = Unsupported("call with a messages.Fetch")
    call_store = Unsupported("call with a messages.Store")
    rpc_stun = Unsupported("handle with a messages.Ping: requests come as typed messages")
    rpc_ping = Unsupported("handle with a messages.Ping: requests come as typed messages")
    rpc_store = Unsupported("handle with a messages.Store: requests come as typed messages")
    rpc_find_node = Unsupported("handle with a messages.Find: requests come as typed messages")
    rpc_find_value = Unsupported("handle with a messages.Fetch: requests come as typed messages")


def _observed(pong: messages.Pong) -> tuple[str, int] | None:
    try:
        ip = unpack_ip(pong.ip)
    except Malformed:
        return None
    return (ip, pong.port) if routable(ip, True) else None
