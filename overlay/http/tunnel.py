"""HTTPS tunnel for nodes behind strict firewalls: all traffic goes through one other node, the relay.

Theory of operation
-------------------
The tunnel is used only while no node answers by UDP; overlay/node/connection.py decides when. Any node can be the relay
(overlay/http/relay.py): it sees sealed datagrams and can do nothing with them but drop them.

closed      Datagrams go by UDP (`protocol.tunnel_send` is None) and HTTP requests go straight to their node
            (`HTTPClient.via` is None).
opening     `open`: a WebSocket is opened to up to TRIED candidates at the same time. The first of them that passes all
            checks of `_use` is the relay; the others are closed. The checks, in this order: it isn't this node itself;
            it answers a lookup request sent through itself, sealed for the key that it named, so it has that key and
            is a node of this network; it has an HTTP server, so that it can carry large objects; and it does not answer
            by UDP, because then UDP works and no tunnel is needed.
open        `is_open`. Datagrams go through the WebSocket (TunnelSession), and HTTP requests to the relay's HTTP server,
            with a header that names the node they are for.
lost        `lost`: the WebSocket has ended. The tunnel stays in this state until `open`, `replace` or `close`.

`replace` changes the relay: it tries other candidates, and the old one again if none works. `forwards_nothing` is true,
once in REPLACED_AFTER seconds, if no contact but the relay answers any more.

Invariants: `tunnel_send` and `via` are set and reset together with `_current`. A session that isn't used is closed.
Queues are bounded; a datagram that finds one full is dropped, as on a busy line.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import aiohttp
from yarl import URL

from overlay.errors import Malformed, NoAnswer, OverlayError, Refused
from overlay.http import relay_frames
from overlay.http.client import HTTPClient, ViaRelay
from overlay.http.proxy import proxy_for
from overlay.identity.contact import Contact, WireContact, host_port, pack_ip, unpack_ip
from overlay.identity.tls import client_context
from overlay.protocol import OverlayProtocol
from overlay.wire import messages

TRIED = 12
"""Candidates that are tried at the same time; the first that answers becomes the relay."""
PATIENCE = 10.0
"""Seconds for one candidate to open a session."""
CLOSING = 1.0
"""Seconds for the WebSocket's closing handshake."""
REPLACED_AFTER = 600.0
"""Seconds at least between two relays, when no contact is reached through the first."""

log = logging.getLogger(__name__)

Received = Callable[[bytes, tuple[str, int]], None]


@dataclass(frozen=True, slots=True)
class RelayAddress:
    """Where a relay may be: HOST:PORT, and its key where that is known."""

    host: str
    port: int
    key: bytes | None = None


class TunnelSession:
    """An open WebSocket to one relay. `ended` is set when it is over."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        socket: aiohttp.ClientWebSocketResponse,
        contact: Contact,
        host: str,
        proxy: URL | None,
    ) -> None:
        self.contact, self.host, self.proxy = contact, host, proxy
        self.ended = asyncio.Event()
        self._session, self._socket = session, socket
        self._outward: asyncio.Queue[bytes] = asyncio.Queue(relay_frames.WAITING)
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def open(cls, candidate: RelayAddress) -> TunnelSession:
        """Connect; raises NoAnswer. The key that the relay names isn't proven yet: a sealed datagram does that."""
        session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), headers={"User-Agent": "p2pmail"})
        socket: aiohttp.ClientWebSocketResponse | None = None
        try:
            async with asyncio.timeout(PATIENCE):
                url = URL.build(scheme="https", host=candidate.host, port=candidate.port, path=relay_frames.PATH)
                proxy = proxy_for(candidate.host)
                socket = await session.ws_connect(
                    url,
                    proxy=proxy,
                    ssl=client_context(),
                    heartbeat=relay_frames.HEARTBEAT,
                    max_msg_size=relay_frames.LONGEST,
                )
                welcome = relay_frames.decode_welcome(await socket.receive_bytes())
            if candidate.key not in (None, welcome.key):
                raise NoAnswer(
                    f"another node is at {host_port(candidate.host, candidate.port)} than the one that was meant"
                )
            if proxy is None:  # so that all requests go to the same computer even if the name has several addresses
                ip = host = unpack_ip(pack_ip(socket.get_extra_info("peername")[0]))
            else:
                ip, host = _beyond_the_proxy(candidate, welcome), candidate.host
            return cls(session, socket, Contact(welcome.key, ip, candidate.port), host, proxy)
        except BaseException as error:
            await _close(session, socket)
            if isinstance(error, aiohttp.ClientError | OSError | ValueError | TypeError | Malformed):
                where = host_port(candidate.host, candidate.port)
                raise NoAnswer(f"no relay at {where} ({type(error).__name__})") from error
            raise

    def start(self, received: Received) -> None:
        """Carry datagrams both ways from now on."""
        self._tasks = [asyncio.create_task(self._receive(received)), asyncio.create_task(self._send_on())]

    def send(self, key: bytes, ip: str, port: int, datagram: bytes) -> None:
        """Send a datagram to the node with this key at this address."""
        if not self._outward.full():
            to = WireContact(key, pack_ip(ip), port)
            self._outward.put_nowait(relay_frames.encode(relay_frames.Outward(to, datagram)))

    async def close(self) -> None:
        """End the session. A second call does nothing."""
        self.ended.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await _close(self._session, self._socket)

    async def _receive(self, received: Received) -> None:
        try:
            async for message in self._socket:
                if message.type is aiohttp.WSMsgType.BINARY:
                    with suppress(Malformed):
                        inward = relay_frames.decode_inward(message.data)
                        received(inward.datagram, (unpack_ip(inward.ip), inward.port))
        finally:
            self.ended.set()

    async def _send_on(self) -> None:
        try:
            while True:
                await self._socket.send_bytes(await self._outward.get())
        except (aiohttp.ClientError, OSError):
            self.ended.set()


def _beyond_the_proxy(candidate: RelayAddress, welcome: relay_frames.Welcome) -> str:
    """The relay's IP address; behind a proxy the name may not resolve, so the relay says it. Raises Malformed."""
    try:
        return unpack_ip(pack_ip(candidate.host))
    except Malformed:
        return unpack_ip(welcome.ip)


async def _close(session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse | None) -> None:
    if socket is not None:
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with asyncio.timeout(CLOSING):
                await socket.close()
    await session.close()


class Tunnel:
    """The tunnel of the node behind `protocol`; `http`: its client, whose requests go through the tunnel too."""

    def __init__(self, protocol: OverlayProtocol, http: HTTPClient) -> None:
        self._protocol = protocol
        self._http = http
        self._current: TunnelSession | None = None
        self._now = asyncio.get_running_loop().time
        self._patient_until = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the tunnel is open."""
        return self._current is not None and not self._current.ended.is_set()

    @property
    def lost(self) -> bool:
        """Whether the tunnel was open, and its connection has ended."""
        return self._current is not None and self._current.ended.is_set()

    @property
    def relay(self) -> Contact | None:
        """The relay in use."""
        return self._current.contact if self._current is not None and self.is_open else None

    def forwards_nothing(self) -> bool:
        """Whether no contact but the relay answers through it; true once in REPLACED_AFTER seconds at the most."""
        if not self.is_open or self._current is None:
            return False
        answering = self._protocol.router.closest(self._protocol.own_id, 2, healthy=True)
        if any(contact.key != self._current.contact.key for contact in answering) or self._now() < self._patient_until:
            return False
        self._patient_until = self._now() + REPLACED_AFTER
        return True

    async def replace(self, candidates: Iterable[RelayAddress]) -> None:
        """Use another relay out of these; the present one again if none of them works."""
        if self._current is None:
            return
        relay = self._current.contact
        others = [
            candidate
            for candidate in candidates
            if candidate.key != relay.key and (candidate.host, candidate.port) != relay.address
        ]
        if others and not await self.open(others):
            await self.open([RelayAddress(relay.ip, relay.port, relay.key)])

    async def open(self, candidates: Iterable[RelayAddress]) -> bool:
        """Open a tunnel through one of these nodes. False if none of them works; the tunnel is closed then."""
        await self.close()
        opening = {
            asyncio.create_task(TunnelSession.open(candidate)) for candidate in list(dict.fromkeys(candidates))[:TRIED]
        }
        try:
            while opening:
                done, opening = await asyncio.wait(opening, return_when=asyncio.FIRST_COMPLETED)
                sessions = [task.result() for task in done if task.exception() is None]
                for task in done:
                    error = task.exception()
                    if error is not None and not isinstance(error, OverlayError | TimeoutError):
                        raise error
                for at, session in enumerate(sessions):
                    if await self._use(session):
                        await asyncio.gather(*(other.close() for other in sessions[at + 1 :]))
                        return True
            return False
        finally:
            for task in opening:
                task.cancel()
            for ended in await asyncio.gather(*opening, return_exceptions=True):
                if isinstance(ended, TunnelSession):
                    await ended.close()

    async def close(self) -> None:
        """Close the tunnel, so that datagrams go by UDP again."""
        session, self._current = self._current, None
        self._protocol.tunnel_send = self._http.via = None
        if session is not None:
            await session.close()

    async def _use(self, session: TunnelSession) -> bool:
        """Use the session if it passes the checks (see the head of this file), else close it."""
        if session.contact.id == self._protocol.own_id:  # the network's join address is often this node's own
            await session.close()
            return False
        self._protocol.tunnel_send = session.send
        session.start(self._protocol.datagram_received)
        try:
            contact = self._protocol.checked(session.contact.wire)
            found = await self._protocol.call(contact, messages.Find(bytes(20), 0))
        except (NoAnswer, Refused, Malformed) as error:
            log.info("%s", error)
            found = None
        if (
            not isinstance(found, messages.Found)
            or not found.bulk_port
            # If it answers by UDP, UDP works. (It may use a tunnel itself, through this node.)
            or await self._protocol.answers_by_udp(contact)
        ):
            self._protocol.tunnel_send = None
            await session.close()
            return False
        self._current = session
        self._http.via = ViaRelay(session.host, session.contact.port, found.fingerprint, session.proxy)
        log.info("nobody answers by UDP; going by HTTPS through %s", contact)
        return True
