"""The event loop that a node runs on: uvloop with one owner for each descriptor, or asyncio's where uvloop is absent.

uvloop handles four times as many datagrams a second as asyncio's own loop. But its `create_connection(sock=...)`, which
aiohttp calls for each connection, leaves the descriptor with two owners until the connection is made: libuv, which
closes it when the peer resets the connection at that moment, and the Python socket, which closes the same number again
when it is collected. By then the number may belong to another file: once that was the file of a message being fetched,
whose last bytes were lost (uvloop 0.23.0; its issues 645 and 738 fixed a connection that is cancelled, not one that is
reset).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

try:
    import uvloop
except ImportError:
    new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:

    class Loop(uvloop.Loop):
        """uvloop's loop, to which the descriptor of a socket can be handed over."""

        async def create_connection(  # type: ignore[override]
            self, protocol_factory: Callable[[], asyncio.BaseProtocol], *place: Any, **options: Any
        ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
            """As asyncio's. A socket given as `sock` loses its descriptor as soon as the transport has it."""
            if options.get("sock") is not None:
                options["sock"] = _HandedOver(options["sock"])
            made = await super().create_connection(protocol_factory, *place, **options)
            return cast("tuple[asyncio.Transport, asyncio.BaseProtocol]", made)

    new_event_loop = Loop

T = TypeVar("T")


class _HandedOver:
    """A connected socket that gives up its descriptor when uvloop asks for it, and so doesn't close it later."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.family = sock.family
        self.type = sock.type

    def setblocking(self, flag: bool) -> None:
        self._socket.setblocking(flag)

    def fileno(self) -> int:
        """The descriptor; the caller owns it from now on."""
        return self._socket.detach()

    def detach(self) -> None:
        """Called by uvloop when connecting failed: libuv has closed the descriptor."""

    def close(self) -> None:
        """Called by uvloop when the connection is closed: libuv has closed the descriptor."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end in a new event loop."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work)
