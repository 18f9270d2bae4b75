"""The way out for whom a firewall lets only HTTPS through: everything goes by way of one node (overlay/http/relay.py).

Which of the nodes it is doesn't matter: it sees sealed datagrams and can do nothing but drop them. Taken only when
nobody answers by UDP.
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
"""Nodes that are tried, all at once; the first that answers is it."""
PATIENCE = 10.0
"""Seconds for one of them to open a session."""
CLOSING = 1.0
REPLACED_AFTER = 600.0
"""Seconds that a relay has at least, before another one is tried because nobody is reached through it."""

log = logging.getLogger(__name__)

Received = Callable[[bytes, tuple[str, int]], None]


@dataclass(frozen=True, slots=True)
class RelayAddress:
    """Where a node's HTTP door may be: HOST:PORT, and its key where it is known."""

    host: str
    port: int
    key: bytes | None = None


class TunnelSession:
    """An open session with one relay. `ended` is set when it is over."""

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
    async def open(cls, http_server: RelayAddress) -> TunnelSession:
        """Raises NoAnswer. Whether it has the key that it names is for a sealed datagram to show."""
        session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), headers={"User-Agent": "p2pmail"})
        socket: aiohttp.ClientWebSocketResponse | None = None
        try:
            async with asyncio.timeout(PATIENCE):
                url = URL.build(scheme="https", host=http_server.host, port=http_server.port, path=relay_frames.PATH)
                proxy = proxy_for(http_server.host)
                socket = await session.ws_connect(
                    url,
                    proxy=proxy,
                    ssl=client_context(),
                    heartbeat=relay_frames.HEARTBEAT,
                    max_msg_size=relay_frames.LONGEST,
                )
                welcome = relay_frames.decode_welcome(await socket.receive_bytes())
            if http_server.key not in (None, welcome.key):
                raise NoAnswer(
                    f"another node is at {host_port(http_server.host, http_server.port)} than the one that was meant"
                )
            if proxy is None:  # each request to the same one, should the name have several addresses
                ip = host = unpack_ip(pack_ip(socket.get_extra_info("peername")[0]))
            else:
                ip, host = _beyond_the_proxy(http_server, welcome), http_server.host
            return cls(session, socket, Contact(welcome.key, ip, http_server.port), host, proxy)
        except BaseException as error:
            await _close(session, socket)
            if isinstance(error, aiohttp.ClientError | OSError | ValueError | TypeError | Malformed):
                where = host_port(http_server.host, http_server.port)
                raise NoAnswer(f"no relay at {where} ({type(error).__name__})") from error
            raise

    def start(self, received: Received) -> None:
        """Carry datagrams both ways from now on."""
        self._tasks = [asyncio.create_task(self._receive(received)), asyncio.create_task(self._send_on())]

    def send(self, key: bytes, ip: str, port: int, datagram: bytes) -> None:
        """A datagram for the node with this key at this address."""
        if not self._outward.full():
            to = WireContact(key, pack_ip(ip), port)
            self._outward.put_nowait(relay_frames.encode(relay_frames.Outward(to, datagram)))

    async def close(self) -> None:
        """End it. A second time does nothing."""
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


def _beyond_the_proxy(http_server: RelayAddress, welcome: relay_frames.Welcome) -> str:
    """The relay's address: who goes through a proxy may know no names' addresses. Raises Malformed."""
    try:
        return unpack_ip(pack_ip(http_server.host))
    except Malformed:
        return unpack_ip(welcome.ip)


async def _close(session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse | None) -> None:
    if socket is not None:
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with asyncio.timeout(CLOSING):
                await socket.close()
    await session.close()


class Tunnel:
    """The way by HTTPS of the node behind `protocol`, and of its requests over HTTP, while there is no other."""

    def __init__(self, protocol: OverlayProtocol, http: HTTPClient) -> None:
        self._protocol = protocol
        self._http = http
        self._link: TunnelSession | None = None
        self._now = asyncio.get_running_loop().time
        self._patient_until = 0.0

    @property
    def taken(self) -> bool:
        """Whether everything goes by HTTPS now."""
        return self._link is not None and not self._link.ended.is_set()

    @property
    def lost(self) -> bool:
        """Whether it went by HTTPS, and the connection has ended."""
        return self._link is not None and self._link.ended.is_set()

    @property
    def relay(self) -> Contact | None:
        """The node that everything goes by way of now."""
        return self._link.contact if self._link is not None and self.taken else None

    def blind(self) -> bool:
        """Whether nobody but the relay answers any more, by way of it; true once in a while at the most."""
        if not self.taken or self._link is None:
            return False
        answering = self._protocol.router.closest(self._protocol.own_id, 2, healthy=True)
        if any(contact.key != self._link.contact.key for contact in answering) or self._now() < self._patient_until:
            return False
        self._patient_until = self._now() + REPLACED_AFTER
        return True

    async def replace(self, http_servers: Iterable[RelayAddress]) -> None:
        """Try others than the relay that passes nothing on; that one again when there is no other."""
        if self._link is None:
            return
        relay = self._link.contact
        others = [
            http_server
            for http_server in http_servers
            if http_server.key != relay.key and (http_server.host, http_server.port) != relay.address
        ]
        if others and not await self.find(others):
            await self.find([RelayAddress(relay.ip, relay.port, relay.key)])

    async def find(self, http_servers: Iterable[RelayAddress]) -> bool:
        """Whether one of these nodes passes our datagrams on; if so everything goes there from now on."""
        await self.close()
        opening = {
            asyncio.create_task(TunnelSession.open(http_server))
            for http_server in list(dict.fromkeys(http_servers))[:TRIED]
        }
        try:
            while opening:
                done, opening = await asyncio.wait(opening, return_when=asyncio.FIRST_COMPLETED)
                links = [task.result() for task in done if task.exception() is None]
                for task in done:
                    error = task.exception()
                    if error is not None and not isinstance(error, OverlayError | TimeoutError):
                        raise error
                for at, link in enumerate(links):
                    if await self._use(link):
                        await asyncio.gather(*(other.close() for other in links[at + 1 :]))
                        return True
            return False
        finally:
            for task in opening:
                task.cancel()
            for ended in await asyncio.gather(*opening, return_exceptions=True):
                if isinstance(ended, TunnelSession):
                    await ended.close()

    async def close(self) -> None:
        """Go by UDP again."""
        link, self._link = self._link, None
        self._protocol.tunnel_send = self._http.via = None
        if link is not None:
            await link.close()

    async def _use(self, link: TunnelSession) -> bool:
        """See whether it is another node of this network that has the key it named, and can carry large bodies too."""
        if link.contact.id == self._protocol.own_id:  # the place where others join is often this node's own
            await link.close()
            return False
        self._protocol.tunnel_send = link.send
        link.start(self._protocol.datagram_received)
        try:
            contact = self._protocol.checked(link.contact.wire)
            found = await self._protocol.call(contact, messages.Find(bytes(20), 0))
        except (NoAnswer, Refused, Malformed) as error:
            log.info("%s", error)
            found = None
        if (
            not isinstance(found, messages.Found)
            or not found.bulk_port
            # Who answers by UDP is no way out: it may go by HTTPS itself, by way of this node.
            or await self._protocol.answers_by_udp(contact)
        ):
            self._protocol.tunnel_send = None
            await link.close()
            return False
        self._link = link
        self._http.via = ViaRelay(link.host, link.contact.port, found.fingerprint, link.proxy)
        log.info("nobody answers by UDP; going by HTTPS through %s", contact)
        return True
