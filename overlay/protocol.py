"""What a node says to nodes: pings, lookups, and who gets into the table. Extends kademlia's protocol.
 kademlia's open `rpc_store`/`rpc_find_value` and its welcome by hand-off are out of the network's reach: requests come
as typed messages (overlay/wire/messages.py), and those that store go to the service (overlay/primitives/service.py).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable

from kademlia.protocol import KademliaProtocol

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

SUSPECTED = 30.0
"""Seconds for which a contact that stayed silent is asked without being waited for."""
SUSPECTS = 2048
OPINIONS = 16
"""Nodes whose word on our address counts: those that were asked last, one vote each. So a changed address is learned
within a minute or two of pings, and one liar has one vote."""
VERIFYING = 64
"""Strangers pinged at once, to learn whether they answer; more are passed over, they will write again."""


class OverlayProtocol(SealedRPC, KademliaProtocol):  # type: ignore[misc, unused-ignore]
    """One node's side of the overlay: its table, its answers, its questions."""

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
        """Hears of every node that has come into the table, or come back after silence."""
        self._suspects: OrderedDict[Contact, float] = OrderedDict()
        self._verifying: set[bytes] = set()
        self.reputation = Reputation(self._loop.time)
        self.presence = Presence(own_id, time.time, self._loop.time)
        """Whether anybody answers, and whose word counts while nobody does."""
        self.proof: Proof | None = None
        """Whose node this is, where the network wants to know that."""
        self.admission: Admission | None = None
        """Who has shown whose node it is, where the network wants to know that."""
        self.dialler: Dialler | None = None
        """Sees for others whether they are reached, where this node is a system node."""
        self._proving: dict[bytes, list[Callable[[bool], None]]] = {}
        self._observed_addresses: OrderedDict[bytes, str] = OrderedDict()

    # Answering

    def handle(self, sender: RemotePeer, request: messages.Request) -> Handled:
        """Answer a request; one from a node that isn't known yet is a reason to ping it."""
        if sender.server_mode:
            self._meet(sender.contact)
        match request:
            case messages.Ping():
                return messages.Pong(pack_ip(sender.contact.ip), sender.contact.port)
            case messages.Find():
                return self.answer_find(sender, request)
            case messages.AskAdmission():
                proof = self.proof
                if proof is None or len(request.padding) < len(messages.ADMISSION_PADDING):
                    return Refusal(Code.NOT_PERMITTED)
                return messages.Admitted(proof.certificate, proof.signature)
            case messages.DialBack() if self.dialler is not None:
                if not self.tokens.good(request.token, sender.contact.key, sender.contact.ip):
                    return Refusal(Code.BAD_TOKEN)
                return self.dialler.dial(sender.contact, request.fingerprint)
            case messages.DialBack():
                return Refusal(Code.UNKNOWN_KIND)
            case _ if self.service is None:
                return Refusal(Code.UNKNOWN_KIND)
            case _:
                return self.service.handle(sender.contact, request)

    def answer_find(self, sender: RemotePeer, request: messages.Find) -> messages.Found:
        """The k closest contacts known here, as many as fit into three times the request, and a token."""
        count = min(request.k, messages.affordable(sender.received))
        closest = self.router.closest(request.key, count + 1, healthy=True)
        asker = sender.contact.id
        contacts = [contact.wire for contact in closest if contact.id != asker][:count]
        token = self.tokens.issue(sender.contact.key, sender.contact.ip)
        return messages.Found(contacts, token, self.bulk_port, self.fingerprint)

    def _meet(self, contact: Contact) -> None:
        """Ping a node that wrote to us and is new: only one that answers gets into the table.

        One that writes from another address than it is known at is pinged at the known one first: whoever passes
        its datagrams on can't draw it away while it is there. Sent once, since the address may be forged.
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
        """Admit who answered; a client is never put into the table, and leaves it if it was a node."""
        self._suspects.pop(contact, None)
        if server_mode and contact.id != self.own_id:
            self.presence.heard()
        if not server_mode or not self.reputation.trusted(contact.key):
            self.router.drop(contact.id)
        elif not self.network.puzzle_bits or puzzle_bits(contact.id) >= self.network.puzzle_bits:
            self._when_admitted(contact, lambda admitted: self._admit(contact) if admitted else self._expel(contact))

    def _admit(self, contact: Contact) -> None:
        back = (entry := self.router.get(contact.id)) is not None and entry.failures > 0
        if self.router.answered(contact) or back:
            self.sealer.keep(contact.key)
            self.on_contact_added(contact)

    def _expel(self, contact: Contact) -> None:
        self.router.drop(contact.id)

    def _when_admitted(self, contact: Contact, then: Callable[[bool], None]) -> None:
        """Hear whether the network admits this node, asking it for its proof if need be."""
        admission = self.admission
        if admission is None or admission.admitted(contact.key):
            then(True)
            return
        waiting = self._proving.setdefault(contact.key, [])
        waiting.append(then)
        if len(waiting) > 1:
            return

        def on_answer(answer: messages.Answer | None) -> None:
            shown = isinstance(answer, messages.Admitted) and admission.show(
                contact.key, Proof(answer.certificate, answer.signature)
            )
            for hear in self._proving.pop(contact.key, ()):
                hear(shown)

        self.start_call(contact, messages.AskAdmission(messages.ADMISSION_PADDING), on_answer)

    def silent(self, contact: Contact) -> None:
        """Remember who didn't answer; who waits for its place is pinged first."""
        self._suspects[contact] = self._loop.time() + SUSPECTED
        self._suspects.move_to_end(contact)
        if len(self._suspects) > SUSPECTS:
            self._suspects.popitem(last=False)
        successor = self.router.failed(contact)
        if successor is not None:
            self.start_call(successor, messages.Ping(), lambda _: None)

    # Asking (overlay/kademlia/lookup.py's LookupRPC)

    def send_find(
        self,
        contact: Contact,
        key: bytes,
        k: int,
        on_done: Callable[[messages.Found | None], None],
        on_slow: Callable[[], None],
    ) -> Callable[[], None]:
        """Send a Find; returns what cancels it."""

        def on_answer(answer: messages.Answer | None) -> None:
            if not isinstance(answer, messages.Found):
                on_done(None)
                return
            self._when_admitted(contact, lambda admitted: on_done(answer if admitted else None))

        request = messages.Find(key, k, messages.find_padding(k))
        try:
            call = self.start_call(contact, request, on_answer, on_slow=on_slow)
        except Malformed:  # somebody told of a contact whose key is none
            return self._loop.call_soon(on_done, None).cancel
        return lambda: self.cancel_call(call)

    def checked(self, wire: WireContact) -> Contact:
        """A contact from the network, as one that may be asked. Raises Malformed."""
        return Contact.received(wire, private_addresses=self.network.private_addresses, puzzle=self.network.puzzle_bits)

    def suspected(self, contact: Contact) -> bool:
        """Whether it failed to answer in the last SUSPECTED seconds."""
        return self._suspects.get(contact, 0.0) > self._loop.time()

    async def lookup(
        self, key: bytes, k: int, seeds: Iterable[Contact] = (), *, disjoint: bool = False
    ) -> list[Located]:
        """The k closest other nodes that answer (paper, section 2.1), on one path or on `disjoint` ones.

        Never raises for a silent network.
        """
        known = [*self.router.closest(key, max(k, BUCKET)), *seeds]
        if disjoint:
            found, _ = await disjoint_lookup(self, key, k, seeds=known, own_id=self.own_id)
        else:
            found = await Lookup(self, key, k, seeds=known, own_id=self.own_id).run()
        self.router.bucket_of(key).refreshed = self._loop.time()
        return found

    async def ping(self, contact: Contact) -> tuple[str, int] | None:
        """Where `contact` sees this node, or None when it stays silent."""
        try:
            answer = await self.call(contact, messages.Ping())
        except (NoAnswer, Refused, Malformed):
            return None
        if not isinstance(answer, messages.Pong):
            return None
        seen = _observed(answer)
        if seen is not None:
            self._observed_addresses[contact.key] = seen[0]
            self._observed_addresses.move_to_end(contact.key)
            if len(self._observed_addresses) > OPINIONS:
                self._observed_addresses.popitem(last=False)
        return seen

    async def answers_by_udp(self, contact: Contact) -> bool:
        """Whether `contact` answers by UDP, while everything else goes another way."""
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
        """The IP address at which others see this node, when at least two agree (one can lie)."""
        (ip, votes), *_ = Counter(self._observed_addresses.values()).most_common(1) or [("", 0)]
        return ip if votes >= 2 else None

    def resumed(self) -> None:
        """This computer has slept: what was suspected, and how others saw it, is of another place and time."""
        self._suspects.clear()
        self._observed_addresses.clear()

    async def ping_least_recently_seen(self) -> None:
        """Ask the contact that has been quiet for longest whether it is there."""
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
