"""Relay: forwards datagrams and HTTP requests for nodes behind firewalls that only let HTTPS through.

It forwards to nodes only. Before the first datagram to an address, the relay pings the node that is said to be there,
under the key that it is said to have, so a relay can't be used to send to computers outside this network. A relay can
drop what it is given and do nothing else: datagrams are sealed, and the result of an HTTP request is checked with a
datagram (overlay/replication/node_client.py). The other end is overlay/http/tunnel.py.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import aiohttp
from aiohttp import web

from overlay.errors import Malformed, NoAnswer, Refused
from overlay.http import relay_frames
from overlay.http.request_forwarding import REQUESTS, REQUESTS_EACH, RequestForwarder, Target, line
from overlay.identity.contact import Contact, pack_ip, unpack_ip
from overlay.kademlia.lookup import Located
from overlay.limits.address_quota import AddressQuota
from overlay.limits.rate_limits import Rate, RateBuckets
from overlay.protocol import OverlayProtocol
from overlay.protocol_limits import MAX_DATAGRAM
from overlay.wire import messages

SESSIONS, SESSIONS_EACH = 64, 8
"""WebSockets, in all and of one address: many users may share the address of one firewall."""
DATAGRAMS = Rate(200, 600)
"""Datagrams a second and at once of one session, in each direction; more are dropped."""
VERIFYING = 8
"""Addresses that one session may have pinged at the same time."""
PROVEN_FOR = 600.0
"""Seconds for which an address that answered counts as a node's."""
PROVEN = 4096
"""Addresses remembered as nodes'."""
CLOSING = 2.0
"""Seconds for the WebSocket's closing handshake."""
IDLE = 120.0
"""Seconds without a datagram after which a session ends; a user agent sends one every few seconds."""

log = logging.getLogger(__name__)


class Relay:
    """The relay behind the HTTP server of the node with `protocol`.

    `interface`: where the node listens; `home`: how its own HTTP server is reached from this computer; `known`: how it
    is reached from elsewhere, if that is known.
    """

    def __init__(
        self,
        protocol: OverlayProtocol,
        interface: str,
        home: Target,
        known: Callable[[], Located | None],
        *,
        loopback_free: bool,
    ) -> None:
        self._protocol = protocol
        self._interface = interface
        self.home = home
        self._known = known
        self._sessions = AddressQuota(SESSIONS, SESSIONS_EACH, loopback_free=loopback_free)
        self._requests = AddressQuota(REQUESTS, REQUESTS_EACH, loopback_free=loopback_free)
        self._forwarder = RequestForwarder(home, self.known_for_requests)
        self._proven: OrderedDict[tuple[str, int], float] = OrderedDict()
        self._now = asyncio.get_running_loop().time
        self._open: set[web.WebSocketResponse] = set()

    @staticmethod
    def wanted(request: web.BaseRequest) -> bool:
        """Whether a request is for a relay."""
        return request.path == relay_frames.PATH or relay_frames.TO in request.headers

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer such a request."""
        if request.remote is None:
            raise ConnectionResetError("the asker is gone")
        ip = unpack_ip(pack_ip(request.remote))
        is_session = request.path == relay_frames.PATH
        shares = self._sessions if is_session else self._requests
        if not shares.take(ip):
            return line(503, "this relay is too busy", messages.Code.BUSY)
        try:
            return await (self._serve(request) if is_session else self._forwarder.answer(request))
        finally:
            shares.give(ip)

    async def close(self) -> None:
        """End all sessions, and close idle connections."""
        await asyncio.gather(*(self._end(socket) for socket in self._open))
        await self._forwarder.close()

    @staticmethod
    async def _end(socket: web.WebSocketResponse) -> None:
        with suppress(TimeoutError, OSError, RuntimeError):
            async with asyncio.timeout(CLOSING):
                await socket.close(code=aiohttp.WSCloseCode.GOING_AWAY)

    # Datagrams

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """One session: a WebSocket to the user, and a UDP socket of its own to the nodes."""
        socket = web.WebSocketResponse(
            heartbeat=relay_frames.HEARTBEAT, receive_timeout=IDLE, max_msg_size=relay_frames.LONGEST, compress=False
        )
        if not socket.can_prepare(request):
            return line(400, "a relay is used over a WebSocket")
        session = _Session(self)
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_datagram_endpoint(lambda: session, local_addr=(self._interface, 0))
        except OSError as error:
            log.warning("no socket for a relay's session: %s", error)
            return line(503, "this relay has no socket left", messages.Code.BUSY)
        sending = asyncio.create_task(session.send_on(socket))
        self._open.add(socket)
        try:
            await socket.prepare(request)
            known = self._known()
            welcome = relay_frames.Welcome(self._protocol.sealer.public, known.contact.wire.ip if known else b"")
            await socket.send_bytes(relay_frames.encode(welcome))
            with suppress(TimeoutError):
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.BINARY:
                        session.forward(message.data)
        finally:
            self._open.discard(socket)
            transport.close()
            for task in (sending, *session.verifying):
                task.cancel()
            await asyncio.gather(sending, *session.verifying, return_exceptions=True)
        return socket

    async def verify(self, contact: Contact) -> bool:
        """Whether it is a node of this network: it answers under its key, or did in the last PROVEN_FOR seconds."""
        if self.knows(*contact.address):
            return True
        try:
            contact = self._protocol.checked(contact.wire)
            await self._protocol.call(contact, messages.Ping())
        except (NoAnswer, Refused, Malformed):
            return False
        self._proven[contact.address] = self._now() + PROVEN_FOR
        self._proven.move_to_end(contact.address)
        if len(self._proven) > PROVEN:
            self._proven.popitem(last=False)
        return True

    def knows(self, ip: str, port: int) -> bool:
        """Whether a node has answered from there in the last PROVEN_FOR seconds."""
        return self._proven.get((ip, port), -math.inf) > self._now()

    def known_for_requests(self, ip: str, port: int) -> bool:
        """The same, for twice as long: a token that came by datagram may be used over HTTP until it expires."""
        return self._proven.get((ip, port), -math.inf) + PROVEN_FOR > self._now()

    def is_home(self, contact: Contact) -> bool:
        """Whether it is this node, at whatever address."""
        return contact.key == self._protocol.sealer.public


class _Session(asyncio.DatagramProtocol):
    """One user of the relay: forwards datagrams in both directions, within rate and queue limits."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._transport: asyncio.DatagramTransport | None = None
        self._inward: asyncio.Queue[bytes] = asyncio.Queue(relay_frames.WAITING)
        self._buckets = RateBuckets(DATAGRAMS)
        self._ipv6 = False
        self._home_as: tuple[str, int] | None = None
        self._queued: dict[tuple[str, int], list[bytes]] = {}
        self.verifying: set[asyncio.Task[None]] = set()
        self._now: Callable[[], float] = asyncio.get_running_loop().time

    def forward(self, data: bytes) -> None:
        """Forward one message of the user, if it is for a node and within the rate."""
        if not self._buckets.take(b"out", self._now()):
            return
        try:
            outward = relay_frames.decode_outward(data)
            to = Contact(outward.to.key, unpack_ip(outward.to.ip), outward.to.port)
        except Malformed:
            return
        if self._relay.is_home(to):
            self._home_as = to.address
            self._send(outward.datagram, self._relay.home.ip, self._relay.home.port)
        elif self._relay.knows(*to.address):
            self._send(outward.datagram, *to.address)
        else:
            self._verify_first(to, outward.datagram)

    def _verify_first(self, to: Contact, datagram: bytes) -> None:
        """Ping the target first; queue its datagrams until it answers."""
        waiting = self._queued.get(to.address)
        if waiting is not None:
            if len(waiting) < relay_frames.WAITING // VERIFYING:
                waiting.append(datagram)
            return
        if len(self._queued) >= VERIFYING:
            return  # the user agent sends it again
        self._queued[to.address] = [datagram]

        async def verify() -> None:
            try:
                if await self._relay.verify(to):
                    for one in self._queued[to.address]:
                        self._send(one, *to.address)
            finally:
                del self._queued[to.address]

        task = asyncio.create_task(verify())
        self.verifying.add(task)
        task.add_done_callback(self.verifying.discard)

    def _send(self, datagram: bytes, ip: str, port: int) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._ipv6 and ":" not in ip:
            ip = "::ffff:" + ip
        try:
            self._transport.sendto(datagram, (ip, port))
        except (OSError, ValueError) as error:
            log.debug("a relay can't send to %s port %s: %s", ip, port, error)

    async def send_on(self, socket: web.WebSocketResponse) -> None:
        """Send the user what arrives, until cancelled."""
        while True:
            await socket.send_bytes(await self._inward.get())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio hands over the socket."""
        self._transport = cast(asyncio.DatagramTransport, transport)
        self._ipv6 = len(transport.get_extra_info("sockname") or ()) == 4

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Forward a datagram from a node; those from other addresses are dropped."""
        ip, port = unpack_ip(pack_ip(addr[0])), addr[1]
        if (ip, port) == (self._relay.home.ip, self._relay.home.port) and self._home_as is not None:
            ip, port = self._home_as
        elif not self._relay.knows(ip, port):
            return
        if len(data) > MAX_DATAGRAM or not self._buckets.take(b"in", self._now()):
            return
        if not self._inward.full():
            self._inward.put_nowait(relay_frames.encode(relay_frames.Inward(pack_ip(ip), port, data)))

    def error_received(self, exc: Exception) -> None:
        """An ICMP error came back: the request times out."""
