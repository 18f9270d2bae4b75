"""The sockets behind a node's HTTP door: accepted, counted by address, given TLS, and closed.

asyncio's own server would hand a connection over after its handshake only, when one that never shakes hands has long
cost a socket: here it counts from accept on. What is said on a connection is bulk.py's.
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
"""Seconds to wait when this process may open no more files."""
_NONE = 0.01
"""Seconds of grace when there is to be none: aiohttp takes 0 for no limit at all."""
_CLOSING = 2.0
"""Seconds for the other side to say good-bye in TLS."""
_MAX_HEADERS = 32
_MAX_FIELD = 8190
"""With 32 headers 256 KiB a connection, and 64 MiB for all of them, at the very worst."""
_BUFFER = 128 * 1024

log = logging.getLogger(__name__)
_quiet = logging.Logger("overlay.http.server.http", logging.CRITICAL + 1)
"""aiohttp logs a traceback for every piece of nonsense that a stranger sends; the door itself tells what matters."""


@dataclass(slots=True, eq=False)
class _Connection:
    ip: str
    transport: asyncio.Transport | None = None


class _Server(web.Server):
    """aiohttp's, and it tells when a connection comes and goes."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        limits: ServerLimits,
        came: Callable[[web.RequestHandler, asyncio.Transport], None],
        went: Callable[[web.RequestHandler], None],
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
        self._came = came
        self._went = went

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._came(handler, transport)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._went(handler)


class Listener:
    """Listens for HTTPS and lets `handler` answer. Start and stop once each."""

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
        self._welcoming: set[asyncio.Task[None]] = set()
        self._all_gone = asyncio.Event()
        self._server: _Server | None = None
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen at an IP literal (:: is IPv4 too); the real port. Raises OSError."""
        both = host == "::" and socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both)
        self._socket.setblocking(False)
        self._server = _Server(self._handler, self._limits, self._came, self._went)
        self._accepting = asyncio.create_task(self._accept(self._socket))
        return int(self._socket.getsockname()[1])

    async def stop(self, grace: float) -> None:
        """Take no more, give requests under way `grace` seconds, and close everything."""
        if self._socket is None or self._server is None or self._accepting is None:
            return
        tasks = [self._accepting, *self._welcoming]
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
            task = asyncio.create_task(self._welcome(accepted, ip))
            self._welcoming.add(task)
            task.add_done_callback(self._welcoming.discard)

    async def _welcome(self, accepted: socket.socket, ip: str) -> None:
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
            self._went(protocol)
            if not isinstance(error, OSError):  # which no handshake, or a broken or slow one, is
                raise

    def _came(self, protocol: web.RequestHandler, transport: asyncio.Transport) -> None:
        transport.set_write_buffer_limits(high=_BUFFER)
        connection = self._connections.get(protocol)
        if connection is not None:
            connection.transport = transport

    def _went(self, protocol: web.RequestHandler) -> None:
        connection = self._connections.pop(protocol, None)
        if connection is not None:
            self._shares.give(connection.ip)
        if not self._connections:
            self._all_gone.set()
