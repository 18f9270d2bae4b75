"""One node, assembled: what it is configured with, what listens, and what maintains it.

A node goes through three phases, each of which adds a part and takes none away until `stop`:

configured  `Node(NodeConfig)`: key, network, store and clock (overlay/node/config.py). No socket is open.
listening   after `listen`: the UDP socket and its protocol. A node with a store also has `server`, the parts of server
            mode (overlay/node/server_mode.py): HTTP server and relay on the TCP port of the same number, repair, and
            the reachability probe.
joined      after `join`: the regular tasks (overlay/node/maintenance.py), which ping, refresh, rejoin, save contacts,
            expire objects and repair copies until the node stops.

`leave` hands copies on before `stop`; `stop` saves the contacts, ends the tasks, and closes sockets and store.

Node extends kademlia's Server. What of the library is used, and what is replaced, is in docs/architecture.md;
tests/overlay/node/test_inherited.py goes through every inherited name.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Coroutine, Sequence
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
from overlay.identity.admission import Admission
from overlay.identity.certificates import TrustStore
from overlay.identity.contact import Contact, WireContact, host_port, key_text, node_id, puzzle_bits
from overlay.identity.tls import make_identity
from overlay.ids import distance
from overlay.kademlia.lookup import ALPHA, Located
from overlay.node.config import NodeConfig
from overlay.node.connection import Connection
from overlay.node.maintenance import Maintenance
from overlay.node.membership import Membership, every
from overlay.node.reachability_probe import ReachabilityProbe
from overlay.node.saved_contacts import SavedContacts, save_contacts
from overlay.node.server_mode import HTTPEndpoint, ServerMode
from overlay.node.store_adapter import StoreAdapter
from overlay.primitives.service import Service
from overlay.protocol import OverlayProtocol
from overlay.reachability.dial_back import Dialler
from overlay.reachability.presence import Presence
from overlay.reachability.verdict import Reachability
from overlay.replication.node_client import NodeClient
from overlay.replication.repair import LEAVING, Repair
from overlay.wire.sealed_datagram import Sealer
from overlay.wire.write_tokens import WriteTokens
from storage.node.store import NodeStore, Usage

log = logging.getLogger(__name__)

EXPIRE_EVERY = 600.0
"""Seconds between sweeps of what has expired in the store."""

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
"""Interfaces that mean every address, and the address at which this computer reaches them."""


class CantListen(OverlayError):
    """The address or port to listen on can't be opened."""


@dataclass(frozen=True, slots=True)
class Status:
    """What a node knows about itself and the overlay."""

    node_id: str
    listening: str
    mode: str
    contacts: int
    usage: Usage | None
    transport: str
    """udp; https while the tunnel is in use."""
    reachable: bool | None
    """Whether other nodes can reach it, according to dial-back; None: not known yet."""
    online: bool
    """Whether other nodes answer, as far as is known; true for a node that is alone in its network."""
    offline_since: float | None
    """Since when (seconds since the epoch) none has answered."""


def new_key(puzzle: int = 0) -> X25519PrivateKey:
    """A node key whose id solves the network's puzzle: about 2**puzzle attempts of 60 microseconds."""
    while True:
        key = X25519PrivateKey.generate()
        if puzzle_bits(node_id(key.public_key().public_bytes_raw())) >= puzzle:
            return key


class Node(Server):  # type: ignore[misc, unused-ignore]
    """One participant: a system node when it is configured with a store, else a client."""

    protocol: OverlayProtocol
    protocol_class = OverlayProtocol  # type: ignore[assignment, unused-ignore]

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self.network, self.store = config.network, config.store
        self.now, self.random = config.now, config.random
        authorities = config.network.authorities
        self.trust = config.trust or (TrustStore(authorities) if authorities else None)
        self._reachability = config.reachability or Reachability(server_mode=config.store is not None, fixed=True)
        self.sealer = Sealer(config.key, config.network.name, config.random)
        self.id = node_id(self.sealer.public)
        self.http_client = HTTPClient(self.sealer.public, checked=self._checked)
        self.transport = None
        self.ip, self.port = "", 0
        self.server: ServerMode | None = None
        """What a node with a store runs once it listens; a client has none."""
        self._maintenance: Maintenance | None = None
        """What runs once the node has joined."""

    # Life

    async def listen(self, port: int, interface: str = "0.0.0.0") -> None:  # noqa: S104
        """Open UDP, and with a store TCP on the same port number; port 0 takes any free one. Raises CantListen."""
        for attempt in range(10):
            await self._open_udp(port, interface)
            if self.store is None:
                return
            try:
                http = await self._open_http_server(interface)
            except OSError as error:
                self._close_udp()
                if port or attempt == 9:
                    raise CantListen(f"TCP port {port} of {interface} can't be had: {error.strerror}.") from error
            else:
                self.server = self._start_server(self.store, http)
                return

    async def join(self, places: Sequence[str] = (), state: Path | None = None) -> int:
        """Join through HOST:PORT[/KEY] addresses and the contacts saved in the file `state`; contacts known then.

        0 means that no node answered; the node keeps trying. Raises ValueError for a malformed address.
        """
        if self._maintenance is None:
            self._maintenance = self._new_maintenance()
        maintenance = self._maintenance
        maintenance.contacts.path = state
        found = await maintenance.connection.join([*places, *self.network.join])
        maintenance.start(self._regular_tasks)
        return found

    async def leave(self, patience: float = LEAVING) -> None:
        """Hand on the copies kept here before `stop`, for `patience` seconds at most."""
        if self.server is not None and self.port:
            await self.server.repair.leave(patience)

    async def stop(self) -> None:
        """Save the contacts, finish what was begun, close sockets and store. A second call does nothing."""
        maintenance = self._maintenance
        if maintenance is not None:
            await maintenance.stop()
            await maintenance.connection.close()
        if self.server is not None and self.server.http is not None:
            await self.server.http.stop()
        await self.http_client.close()
        if self.port:
            if maintenance is not None:
                await maintenance.contacts.save()
            await self.protocol.settle()
            self._close_udp()
        if self.store is not None:
            await asyncio.to_thread(self.store.close)

    async def vanish(self) -> None:
        """Disappear without a word, as after a power cut: for simulations and the demo. `stop` still tidies up."""
        if self._maintenance is not None:
            self._maintenance.cancel()
        self._close_udp()
        if self._maintenance is not None:
            await self._maintenance.connection.close()
        if self.server is not None and self.server.http is not None:
            await self.server.http.server.stop(0)

    # Asking

    async def closest(self, key: bytes, count: int, *, disjoint: bool = False) -> list[Located]:
        """The `count` closest live nodes, nearest first, including this one in server mode."""
        found = await self.protocol.lookup(key, count, disjoint=disjoint)
        if self.protocol.server_mode:
            found.append(self.located())
            found.sort(key=lambda located: distance(located.contact.id, key))
        return found[:count]

    def located(self) -> Located:
        """This node as a lookup finds it."""
        me = self.node
        http_server = self.server is not None and self.server.http is not None
        token = self.protocol.tokens.issue(me.key, me.ip)
        return Located(me, token, self.port if http_server else 0, self.protocol.fingerprint)

    @property
    def place(self) -> str:
        """HOST:PORT/KEY, an address to join at."""
        return f"{host_port(self._own_ip(), self.port)}/{key_text(self.sealer.public)}"

    async def status(self) -> Status:
        """This node's state and usage."""
        usage = await self.store.usage() if self.store is not None else None
        mode = "node" if self.protocol.server_mode else "client"
        listening = host_port(self.ip, self.port)
        transport = "https" if self._maintenance is not None and self._maintenance.connection.https else "udp"
        presence = self.protocol.presence
        return Status(
            self.id.hex(),
            listening,
            mode,
            self.protocol.router.answering,
            usage,
            transport,
            self._reachability.reachable,
            presence.online,
            presence.since,
        )

    @property
    def lone(self) -> bool:
        """Whether this node is the whole network, as far as it can know.

        It is in server mode, no other node has ever answered it, and all join addresses that it was given are its own.
        """
        return self.protocol.server_mode and self._is_lone()

    @property
    def service(self) -> Service | None:
        """The primitives of this node; None for a client."""
        return self.protocol.service

    def save_state(self, fname: Path | None) -> None:
        """Write the best known contacts to `fname` as JSON, durably."""
        save_contacts(self.protocol, fname)

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
        if self._maintenance is None:
            await self.join([host_port(*address) for address in addrs])
        else:
            await asyncio.gather(*(self.bootstrap_node(address) for address in addrs))
            await self._maintenance.membership.settle()
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
        service = None
        if self.store is not None:
            service = Service(self.id, self._adapted(self.store), self.trust, tokens, self.now)
        protocol = self.protocol_class(
            self.sealer,
            self.network,
            self.id,
            tokens,
            service,
            server_mode=self._wants_server_mode(),
            random=self.random,
        )
        protocol.presence = Presence(self.id, self.now, loop.time)
        protocol.proof = self._config.proof
        if self.network.admission == "certified" and self.trust is not None:
            protocol.admission = Admission(self.network.name, self.trust, self.now)
        return protocol

    def _adapted(self, store: NodeStore) -> StoreAdapter:
        return StoreAdapter(
            store,
            lambda key: self.protocol.router.responsible(key, self.network.k),
            self.now,
            private_addresses=self.network.private_addresses,
        )

    async def _open_http_server(self, interface: str) -> HTTPEndpoint | None:
        """Listen for HTTPS on the port of the UDP socket. Raises OSError."""
        assert self.service is not None
        identity = self._config.tls or make_identity(self.now())
        limits = ServerLimits(loopback_free=self.network.private_addresses)
        home = Target(EVERYWHERE.get(interface, interface), self.port, identity.fingerprint)
        relay = Relay(self.protocol, interface, home, self._known_place, loopback_free=limits.loopback_free)
        http_server = HTTPServer(
            self.service,
            self.protocol.tokens,
            identity,
            closest=self.protocol.lookup,
            own=self._known_place,
            limits=limits,
            relay=relay,
        )
        await http_server.start(interface, self.port)
        self.protocol.dialler = Dialler(self.sealer, interface, loopback_free=limits.loopback_free)
        self.protocol.bulk_port, self.protocol.fingerprint = self.port, identity.fingerprint
        return HTTPEndpoint(http_server, relay)

    def _checked(self, wire: WireContact) -> Contact:
        return self.protocol.checked(wire)

    def _start_server(self, store: NodeStore, http: HTTPEndpoint | None) -> ServerMode:
        assert self.service is not None
        node_client = NodeClient(self.protocol, self.service, self.http_client, self.now)
        repair = Repair(self.protocol, node_client, self.service, self._adapted(store), self.network.k)
        probe = None
        if http is not None:
            probe = ReachabilityProbe(
                self.protocol, node_client, self._reachability, self.random, self._on_mode_changed
            )
        self.service.observer = repair
        self.protocol.on_contact_added = repair.met
        return ServerMode(self.protocol, repair, http, probe)

    def _new_maintenance(self) -> Maintenance:
        contacts = SavedContacts(self.protocol)
        membership = Membership(self.protocol, self.network, self.random, ipv6=":" in self.ip)
        connection = Connection(
            self.protocol,
            membership,
            self._new_tunnel(),
            saved=contacts.load,
            server_mode=self._wants_server_mode,
            lone=self._is_lone,
            random=self.random,
        )
        return Maintenance(membership, connection, contacts, protocol=self.protocol, now=self.now, random=self.random)

    def _close_udp(self) -> None:
        if self.transport is not None:
            self.transport.close()
        self.port = 0

    def _own_ip(self) -> str:
        """This node's IP address; if it listens on every interface, the observed address or loopback."""
        everywhere = EVERYWHERE.get(self.ip)
        return self.ip if everywhere is None else self.protocol.observed_address or everywhere

    def _known_place(self) -> Located | None:
        """This node as others may list it; None in client mode, and while its address isn't known."""
        if not self.protocol.server_mode:
            return None
        return None if self.ip in EVERYWHERE and self.protocol.observed_address is None else self.located()

    def _regular_tasks(self) -> list[Coroutine[None, None, None]]:
        server = self.server.tasks(self.random) if self.server is not None else []
        return [every(EXPIRE_EVERY, self._expire, self.random), *server]

    async def _on_mode_changed(self) -> None:
        """Announce this node to its neighbours, or hand them what is kept here."""
        if not self.protocol.server_mode:
            await self.leave()
        elif self._maintenance is not None:
            await self._maintenance.membership.settle()

    def _new_tunnel(self) -> Tunnel:
        return Tunnel(self.protocol, self.http_client)

    def _wants_server_mode(self) -> bool:
        """Whether it is to be in server mode while others can reach it."""
        return self.store is not None and self._reachability.server_mode

    def _is_lone(self) -> bool:
        others = self._maintenance is not None and self._maintenance.membership.others
        return self._wants_server_mode() and not self.protocol.presence.met and not others

    async def _expire(self) -> None:
        if self.store is not None:
            await self.store.expire()
