"""A node put together: socket, table, service, store and the HTTP door, joined, kept alive and stopped in order.
 With overlay/node/store_adapter.py the only file of the overlay that knows storage/. Extends kademlia's Server; its
pickled state, its republish loop and its open get/set are replaced or out of reach."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from kademlia.network import Server

from overlay.errors import Malformed, NoAnswer, OverlayError, Unsupported
from overlay.http.client import HTTPClient
from overlay.http.relay import Relay
from overlay.http.request_forwarding import Target
from overlay.http.server import HTTPServer
from overlay.http.server_limits import ServerLimits
from overlay.http.tunnel import Tunnel
from overlay.identity.admission import Admission, Proof
from overlay.identity.certificates import TrustStore
from overlay.identity.contact import Contact, WireContact, host_port, key_text, node_id, puzzle_bits
from overlay.identity.network import Network
from overlay.identity.tls import TLSIdentity, make_identity
from overlay.ids import distance
from overlay.kademlia.lookup import ALPHA, Located
from overlay.node.connection import Connection
from overlay.node.membership import SAVED_CONTACTS, Membership, decode_contacts, encode_contacts, every
from overlay.node.reachability_probe import ReachabilityProbe
from overlay.node.sleep_detector import SleepDetector
from overlay.node.store_adapter import StoreAdapter
from overlay.primitives.service import Service
from overlay.protocol import OverlayProtocol
from overlay.reachability.dial_back import Dialler
from overlay.reachability.presence import Presence
from overlay.reachability.verdict import Reachability
from overlay.replication.node_client import NodeClient
from overlay.replication.repair import LEAVING, ROUND_EVERY, WORK_EVERY, Repair
from overlay.wire.sealed_datagram import Sealer
from overlay.wire.write_tokens import WriteTokens
from storage import durable
from storage.node.store import NodeStore, Usage

log = logging.getLogger(__name__)

PING_EVERY = 5.0
"""Seconds between pings of the quietest contact."""
REFRESH_EVERY = 3600.0
"""Seconds after which a bucket that no lookup touched is looked up (Kademlia, section 2.3)."""
SAVE_EVERY = 300.0
EXPIRE_EVERY = 600.0
REJOIN_EVERY = 10.0
"""Seconds between attempts to find anybody while nobody answers: what waits is to go soon after the network is back."""
CHANGE_EVERY = 3600.0
UDP_EVERY = 60.0
"""Seconds between looks whether UDP works, while everything goes by HTTPS."""
LOST_EVERY = 60.0
"""Seconds between looks for somebody who was lost: what a partition divided grows together again."""


EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
"""What listening at every address is called, and where it is reached from this computer."""


class CantListen(OverlayError):
    """The address or port to listen on isn't to be had."""


@dataclass(frozen=True, slots=True)
class Status:
    """What a node knows of itself and of the overlay."""

    node_id: str
    listening: str
    mode: str
    contacts: int
    usage: Usage | None
    transport: str
    """udp, or https where nothing else gets out."""
    reachable: bool | None
    """Whether others reach it from outside, as far as they say."""
    online: bool
    """Whether other nodes answer, as far as is known; true of a lone node, which has nobody to answer it."""
    offline_since: float | None
    """Since when (epoch seconds) none has."""


def new_key(puzzle: int = 0) -> X25519PrivateKey:
    """A node key whose id solves the network's puzzle; takes about 2**puzzle tries of 60 microseconds."""
    while True:
        key = X25519PrivateKey.generate()
        if puzzle_bits(node_id(key.public_key().public_bytes_raw())) >= puzzle:
            return key


class Node(Server):  # type: ignore[misc, unused-ignore]
    """One process's place in the overlay: a system node when it has a `store`, a client when it has none."""

    protocol: OverlayProtocol
    protocol_class = OverlayProtocol  # type: ignore[assignment, unused-ignore]

    def __init__(  # noqa: PLR0913 - the parts that it is put together from, named at each call
        self,
        network: Network,
        key: X25519PrivateKey,
        *,
        store: NodeStore | None = None,
        trust: TrustStore | None = None,
        tls: TLSIdentity | None = None,
        now: Callable[[], float] = time.time,
        random: Callable[[int], bytes] = os.urandom,
        proof: Proof | None = None,
        reach: Reachability | None = None,
    ) -> None:
        """`proof` says whose node it is, where the network admits certified ones only.

        `reach`: whether a node with a store serves from the beginning, and may change that; it does for ever else.
        """
        self._reach = reach or Reachability(serves=store is not None, fixed=True)
        self._proof = proof
        self.network = network
        self.now = now
        self.random = random
        self.transport = None
        self.trust = trust or (TrustStore(network.authorities) if network.authorities else None)
        self.sealer = Sealer(key, network.name, random)
        self.id = node_id(self.sealer.public)
        self.store = store
        self.service: Service | None = None
        self.http_client = HTTPClient(self.sealer.public, checked=self._checked)
        self.ip, self.port = "", 0
        self._tls = tls
        self._http_server: HTTPServer | None = None
        self._store_adapter: StoreAdapter | None = None
        self.repair: Repair | None = None
        self.reachability_probe: ReachabilityProbe | None = None
        self._state: Path | None = None
        self._background: list[asyncio.Task[None]] = []
        self._membership: Membership | None = None
        self._sleep_detector: SleepDetector | None = None
        self._connection: Connection | None = None
        self._saved = False
        self._relay: Relay | None = None

    # Life

    async def listen(self, port: int, interface: str = "0.0.0.0") -> None:  # noqa: S104
        """Open UDP, and TCP on the same port when this is a system node; port 0 takes any. Raises CantListen."""
        for attempt in range(10):
            await self._open_udp(port, interface)
            if self.store is None:
                return
            try:
                await self._open_http_server(interface)
            except OSError as error:
                self._close_udp()
                if port or attempt == 9:
                    raise CantListen(f"TCP port {port} of {interface} can't be had: {error.strerror}.") from error
            else:
                self._start_repair()
                return

    async def join(self, places: Sequence[str] = (), state: Path | None = None) -> int:
        """Find the overlay from HOST:PORT[/KEY] places and from the contacts saved in `state`; contacts known then.

        Returns 0 when nobody answered: the node then goes on trying. Raises ValueError for a bad place.
        """
        self._state = state
        membership = self._membership = Membership(self.protocol, self.network, self.random, ipv6=":" in self.ip)
        connection = self._connection = Connection(
            self.protocol,
            membership,
            self._new_tunnel(),
            saved=self._load_state,
            serves=self._serves,
            lone=self._is_lone,
            random=self.random,
        )
        found = await connection.join([*places, *self.network.join])
        self._sleep_detector = SleepDetector(self.now, asyncio.get_running_loop().time, PING_EVERY)
        if not self._background:
            self._background.append(asyncio.create_task(self._maintain(membership, connection)))
        return found

    async def leave(self, patience: float = LEAVING) -> None:
        """Hand the copies that are kept here to those who come next, before `stop`; `patience` seconds at most."""
        if self.repair is not None and self.port:
            await self.repair.leave(patience)

    async def stop(self) -> None:
        """Save what is known, close the doors, finish what was begun. The store is closed too."""
        for task in self._background:
            task.cancel()
        ending = [*self._background, *(self._membership.leave() if self._membership else [])]
        await asyncio.gather(*ending, return_exceptions=True)
        self._background.clear()
        if self._connection is not None:
            await self._connection.close()
        if self._relay is not None:
            await self._relay.close()
        if self._http_server is not None:
            await self._http_server.stop()
        await self.http_client.close()
        if self.port:
            self.save_state(self._state)
            await self.protocol.settle()
            self._close_udp()
        if self.store is not None:
            await asyncio.to_thread(self.store.close)

    async def vanish(self) -> None:
        """Be gone without a word, as after a power cut: for simulations and the demo. `stop` still tidies up."""
        for task in self._background:
            task.cancel()
        self._close_udp()
        if self._connection is not None:
            await self._connection.close()
        if self._http_server is not None:
            await self._http_server.stop(0)

    # Asking

    async def closest(self, key: bytes, count: int, *, disjoint: bool = False) -> list[Located]:
        """The `count` closest live nodes, nearest first, this one among them when it serves."""
        found = await self.protocol.lookup(key, count, disjoint=disjoint)
        if self.protocol.server_mode:
            found.append(self.located())
            found.sort(key=lambda located: distance(located.contact.id, key))
        return found[:count]

    def located(self) -> Located:
        """This node as its own lookups find it."""
        me = self.node
        http_server = self._http_server is not None
        token = self.protocol.tokens.issue(me.key, me.ip)
        return Located(me, token, self.port if http_server else 0, self.protocol.fingerprint)

    @property
    def place(self) -> str:
        """HOST:PORT/KEY, for others to join at."""
        return f"{host_port(self._own_ip(), self.port)}/{key_text(self.sealer.public)}"

    async def status(self) -> Status:
        """This node, in figures."""
        usage = await self.store.usage() if self.store is not None else None
        mode = "node" if self.protocol.server_mode else "client"
        listening = host_port(self.ip, self.port)
        transport = "https" if self._connection is not None and self._connection.https else "udp"
        presence = self.protocol.presence
        return Status(
            self.id.hex(),
            listening,
            mode,
            self.protocol.router.answering,
            usage,
            transport,
            self._reach.reachable,
            presence.online,
            presence.since,
        )

    @property
    def lone(self) -> bool:
        """Whether the network is this node alone, as far as it can know.

        It serves, no other node has ever answered it, and each place to join that it was told of is its own.
        """
        return self.protocol.server_mode and self._is_lone()

    # State across restarts

    def save_state(self, fname: Path | None) -> None:
        """Keep the best known contacts as JSON, durably; those that were lost, too: they are met again some day."""
        router = self.protocol.router
        known = [*router.closest(self.id, SAVED_CONTACTS, healthy=True), *router.closest(self.id, SAVED_CONTACTS)]
        contacts = list(dict.fromkeys([*known, *reversed(router.lost.values())]))
        if fname is None or not contacts:
            return
        try:
            durable.write(fname, encode_contacts(contacts))
            self._saved = True
        except OSError as error:
            log.warning("can't save the known contacts: %s", error)

    def _load_state(self) -> list[Contact]:
        """Contacts of an earlier run; a file that can't be read is the same as none."""
        if self._state is None:
            return []
        try:
            contacts = decode_contacts(self._state.read_bytes(), self.protocol)
            self.protocol.presence.met |= any(contact.id != self.id for contact in contacts)
            return contacts
        except FileNotFoundError:
            return []
        except (OSError, Malformed) as error:
            self.protocol.presence.met = True
            log.warning(
                "the saved contacts in %s can't be read (%s); starting from the places to join", self._state, error
            )
            return []

    # The rest of what kademlia's Server offers (docs/architecture.md says what is used of it)

    alpha = ALPHA
    storage = Unsupported("store, or an overlay.client.Overlay for what the network keeps")
    refresh_loop = Unsupported("join, which refreshes buckets until stop")
    save_state_loop = Unsupported("join with a state file, which saves contacts until stop")
    get = Unsupported("overlay.client.Overlay.fetch: an object has a kind and a digest")
    set = Unsupported("overlay.client.Overlay.store: an object has a kind, a time to live and deleters")
    set_digest = Unsupported("overlay.client.Overlay.store: an object has a kind, a time to live and deleters")
    refresh_table = Unsupported("join, which refreshes buckets until stop")
    load_state = Unsupported("listen, then join with the state file")
    save_state_regularly = Unsupported("join with a state file, which saves contacts until stop")

    @property
    def ksize(self) -> int:
        """Nodes that keep a copy of each object (the paper's k)."""
        return self.network.k

    @property
    def node(self) -> Contact:  # type: ignore[override, unused-ignore]
        """This node's own contact."""
        return Contact(self.sealer.public, self._own_ip(), self.port)

    def bootstrappable_neighbors(self) -> list[tuple[str, int]]:
        """(IP, port) of the closest known contacts, as `bootstrap` takes them."""
        return [contact.address for contact in self.protocol.router.find_neighbors(self.node)]

    async def bootstrap(self, addrs: Sequence[tuple[str, int]]) -> list[Contact]:
        """Join at (IP, port) pairs, each key trusted as heard; the closest contacts then. `join` takes keys too."""
        if self._membership is None:
            await self.join([host_port(*address) for address in addrs])
        else:
            await asyncio.gather(*(self.bootstrap_node(address) for address in addrs))
            await self._membership.settle()
        return self.protocol.router.find_neighbors(self.node)

    async def bootstrap_node(self, addr: tuple[str, int]) -> Contact | None:
        """The node that answers at this (IP, port), its key trusted as heard; None when none of this network does."""
        try:
            contact = self.protocol.checked(Contact(await self.protocol.ask_key(*addr), *addr).wire)
        except (NoAnswer, Malformed):
            return None
        return contact if await self.protocol.ping(contact) is not None else None

    # Inside

    async def _open_udp(self, port: int, interface: str) -> None:
        try:
            self.transport, self.protocol = await asyncio.get_running_loop().create_datagram_endpoint(
                self._create_protocol, local_addr=(interface, port)
            )
        except OSError as error:
            raise CantListen(f"UDP port {port} of {interface} can't be had: {error.strerror or error}.") from error
        self.ip, self.port = self.transport.get_extra_info("sockname")[:2]
        with contextlib.suppress(OSError, AttributeError):
            udp = self.transport.get_extra_info("socket")
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    def _create_protocol(self) -> OverlayProtocol:
        loop = asyncio.get_running_loop()
        tokens = WriteTokens(loop.time, self.random)
        if self.store is not None:
            self._store_adapter = StoreAdapter(
                self.store, self._responsible, self.now, private_addresses=self.network.private_addresses
            )
            self.service = Service(self.id, self._store_adapter, self.trust, tokens, self.now)
        protocol = self.protocol_class(
            self.sealer, self.network, self.id, tokens, self.service, server_mode=self._serves(), random=self.random
        )
        protocol.presence = Presence(self.id, self.now, loop.time)
        protocol.proof = self._proof
        if self.network.admission == "certified" and self.trust is not None:
            protocol.admission = Admission(self.network.name, self.trust, self.now)
        return protocol

    async def _open_http_server(self, interface: str) -> None:
        assert self.service is not None
        identity = self._tls or make_identity(self.now())
        limits = ServerLimits(loopback_free=self.network.private_addresses)
        home = Target(EVERYWHERE.get(interface, interface), self.port, identity.fingerprint)
        self._relay = Relay(self.protocol, interface, home, self._known_place, loopback_free=limits.loopback_free)
        http_server = HTTPServer(
            self.service,
            self.protocol.tokens,
            identity,
            closest=self.protocol.lookup,
            own=self._known_place,
            limits=limits,
            relay=self._relay,
        )
        await http_server.start(interface, self.port)
        self._http_server = http_server
        self.protocol.dialler = Dialler(self.sealer, interface, loopback_free=limits.loopback_free)
        self.protocol.bulk_port, self.protocol.fingerprint = self.port, identity.fingerprint

    def _responsible(self, key: bytes) -> bool:
        return self.protocol.router.responsible(key, self.network.k)

    def _start_repair(self) -> None:
        assert self.service is not None and self._store_adapter is not None
        node_client = NodeClient(self.protocol, self.service, self.http_client, self.now)
        self.repair = Repair(self.protocol, node_client, self.service, self._store_adapter, self.network.k)
        if self._http_server is not None:
            self.reachability_probe = ReachabilityProbe(
                self.protocol, node_client, self._reach, self.random, self._on_mode_changed
            )
        self.service.watch = self.repair
        self.protocol.on_contact_added = self.repair.met

    def _checked(self, wire: WireContact) -> Contact:
        return self.protocol.checked(wire)

    def _close_udp(self) -> None:
        if self.transport is not None:
            self.transport.close()
        self.port = 0

    def _own_ip(self) -> str:
        """The address to call this node by: one that listens everywhere learns it from others, else it is loopback."""
        everywhere = EVERYWHERE.get(self.ip)
        return self.ip if everywhere is None else self.protocol.observed_address or everywhere

    def _known_place(self) -> Located | None:
        """This node for strangers' lists, or None while it doesn't serve or know where they can reach it."""
        if not self.protocol.server_mode:
            return None
        return None if self.ip in EVERYWHERE and self.protocol.observed_address is None else self.located()

    async def _maintain(self, membership: Membership, connection: Connection) -> None:
        """Keep the table true, the state saved and the store tidy, until cancelled."""
        await asyncio.gather(
            every(PING_EVERY, self.protocol.ping_least_recently_seen, self.random),
            every(PING_EVERY, self._return_after_sleep, self.random),
            every(REFRESH_EVERY, lambda: membership.refresh(REFRESH_EVERY), self.random),
            every(PING_EVERY, connection.look, self.random),
            every(REJOIN_EVERY, connection.rejoin, self.random),
            every(PING_EVERY, connection.restore, self.random),
            every(CHANGE_EVERY, connection.change_relay, self.random),
            every(UDP_EVERY, connection.try_udp, self.random),
            every(LOST_EVERY, membership.retry_lost, self.random),
            every(PING_EVERY, self._save_first, self.random),
            every(SAVE_EVERY, self._save, self.random),
            every(EXPIRE_EVERY, self._expire, self.random),
            *self._server_tasks(),
        )

    def _server_tasks(self) -> list[Coroutine[None, None, None]]:
        if self.repair is None:
            return []
        work = every(WORK_EVERY, self.repair.work, self.random)
        tasks = [work, every(ROUND_EVERY, self._run_repair_round, self.random)]
        return [*tasks, self.reachability_probe.watch()] if self.reachability_probe is not None else tasks

    async def _run_repair_round(self) -> None:
        if self.repair is not None and self.protocol.server_mode:
            await self.repair.run_round()

    async def _on_mode_changed(self) -> None:
        """Be known to those around, or hand them what is kept here."""
        if not self.protocol.server_mode:
            await self.leave()
        elif self._membership is not None:
            await self._membership.settle()

    async def _return_after_sleep(self) -> None:
        if self._sleep_detector is not None and self._membership is not None and self._sleep_detector.slept():
            log.info("this computer has slept; finding the overlay again")
            self.protocol.resumed()
            await self._membership.return_after_sleep(self._load_state())

    def _new_tunnel(self) -> Tunnel:
        return Tunnel(self.protocol, self.http_client)

    def _serves(self) -> bool:
        """Whether it is to be a node while others can reach it."""
        return self.store is not None and self._reach.serves

    def _is_lone(self) -> bool:
        others = self._membership is not None and self._membership.others
        return self._serves() and not self.protocol.presence.met and not others

    async def _save(self) -> None:
        self.save_state(self._state)

    async def _save_first(self) -> None:
        """Whoever is met first is remembered at once: from then on this node knows that it isn't the whole network."""
        if not self._saved:
            self.save_state(self._state)

    async def _expire(self) -> None:
        if self.store is not None:
            await self.store.expire()
