"""The sockets of a node's HTTP server: accepts connections, counts them by address, starts TLS, and closes them.

asyncio's own server hands a connection over after the TLS handshake only, so one that never completes it would cost a
socket and not be counted. Here a connection counts from accept on. Requests are answered by overlay/http/server.py.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import web

from overlay.http.server_limits import ServerLimits
from overlay.identity.contact import pack_ip, unpack_ip
from overlay.limits.address_quota import AddressQuota

_BACKLOG = 128
_OUT_OF_SOCKETS = 1.0
"""Seconds to wait when this process can't open more files."""
_NONE = 0.01
"""Seconds of grace when there is to be none, because aiohttp takes 0 for no limit."""
_CLOSING = 2.0
"""Seconds for the closing handshake of TLS."""
_MAX_HEADERS = 32
_MAX_FIELD = 8190
"""Bytes of one header: at most 256 KiB a connection and 64 MiB for all connections."""
_BUFFER = 128 * 1024

log = logging.getLogger(__name__)
_quiet = logging.Logger("overlay.http.server.http", logging.CRITICAL + 1)
"""aiohttp logs a traceback for every malformed request; the server logs what matters itself."""


@dataclass(slots=True, eq=False)
class _Connection:
    ip: str
    transport: asyncio.Transport | None = None


class _Server(web.Server):
    """aiohttp's server, which also reports each new and each closed connection."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        limits: ServerLimits,
        on_opened: Callable[[web.RequestHandler, asyncio.Transport], None],
        on_closed: Callable[[web.RequestHandler], None],
    ) -> None:
        super().__init__(
            handler,
            keepalive_timeout=limits.idle,
            lingering_time=limits.linger,
            max_headers=_MAX_HEADERS,
            max_field_size=_MAX_FIELD,
            read_bufsize=_BUFFER,
            auto_decompress=False,
            access_log=None,
            logger=_quiet,
        )
        self._on_opened = on_opened
        self._on_closed = on_closed

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._on_opened(handler, transport)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._on_closed(handler)


class Listener:
    """Listens for HTTPS; `handler` answers the requests. To be started and stopped once."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        context: ssl.SSLContext,
        limits: ServerLimits,
    ) -> None:
        self._handler = handler
        self._context = context
        self._limits = limits
        self._shares = AddressQuota(limits.connections, limits.connections_each, loopback_free=limits.loopback_free)
        self._connections: dict[web.RequestHandler, _Connection] = {}
        self._handshakes: set[asyncio.Task[None]] = set()
        self._all_gone = asyncio.Event()
        self._server: _Server | None = None
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen at an IP literal (:: includes IPv4); returns the port. Raises OSError."""
        both = host == "::" and socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both)
        self._socket.setblocking(False)
        self._server = _Server(self._handler, self._limits, self._on_opened, self._on_closed)
        self._accepting = asyncio.create_task(self._accept(self._socket))
        return int(self._socket.getsockname()[1])

    async def stop(self, grace: float) -> None:
        """Accept no more, let requests finish for `grace` seconds, and close everything."""
        if self._socket is None or self._server is None or self._accepting is None:
            return
        tasks = [self._accepting, *self._handshakes]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._socket.close()
        self._socket = None
        self._server.pre_shutdown()
        await self._server.shutdown(max(grace, _NONE))
        for connection in list(self._connections.values()):
            if connection.transport is not None:
                connection.transport.abort()
        self._all_gone.clear()
        if self._connections:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._all_gone.wait(), _CLOSING)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, peer = await loop.sock_accept(listening)
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    log.warning("Connections wait: %s", error.strerror)
                    await asyncio.sleep(_OUT_OF_SOCKETS)
                continue
            ip = unpack_ip(pack_ip(peer[0]))
            if not self._shares.take(ip):
                accepted.close()
                continue
            task = asyncio.create_task(self._handshake(accepted, ip))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _handshake(self, accepted: socket.socket, ip: str) -> None:
        assert self._server is not None
        protocol = self._server()
        self._connections[protocol] = _Connection(ip)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=self._limits.handshake,
                ssl_shutdown_timeout=_CLOSING,
            )
        except BaseException as error:
            self._on_closed(protocol)
            if not isinstance(error, OSError):  # which no handshake, or a broken or slow one, is
                raise

    def _on_opened(self, protocol: web.RequestHandler, transport: asyncio.Transport) -> None:
        transport.set_write_buffer_limits(high=_BUFFER)
        connection = self._connections.get(protocol)
        if connection is not None:
            connection.transport = transport

    def _on_closed(self, protocol: web.RequestHandler) -> None:
        connection = self._connections.pop(protocol, None)
        if connection is not None:
            self._shares.give(connection.ip)
        if not self._connections:
            self._all_gone.set()
