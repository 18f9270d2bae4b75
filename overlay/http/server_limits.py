"""Limits of a node's HTTP server, in all and for one client address: connections, memory, disk, time.

A TLS connection proves its source address, so limits by address hold. No I/O; overlay/http/server.py applies them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from overlay.errors import OverlayError
from overlay.protocol_limits import MIN_RATE, RATE_WINDOW

MIB = 1024 * 1024


class TooSlow(OverlayError):
    """The other side sends or receives at less than the minimum rate."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Limits of one HTTP server. Sizes in bytes, times in seconds; `..._each`: for one address.

    connections     open at the same time; further ones are closed when accepted
    spool           received of uploads that aren't stored yet, on disk
    inboxes         notifications in memory that are being sent
    lookups         under way for /closest
    idle            until a request's headers are complete; and how long a connection is kept alive
    window, rate    in every window at least rate * window bytes of a body must arrive
    loopback_free   loopback addresses count in the totals only: tests, demo, several accounts on one host
    """

    connections: int = 256
    connections_each: int = 16
    spool: int = 512 * MIB
    spool_each: int = 128 * MIB
    inboxes: int = 64 * MIB
    inboxes_each: int = 20 * MIB
    lookups: int = 32
    lookups_each: int = 4
    handshake: float = 10.0
    idle: float = 15.0
    window: float = RATE_WINDOW
    rate: int = MIN_RATE
    linger: float = 5.0
    loopback_free: bool = False


class Pace:
    """A minimum rate for a body: it may come unevenly, but each window must bring rate * window bytes."""

    def __init__(self, window: float, rate: int) -> None:
        self._now = asyncio.get_running_loop().time
        self._window = window
        self._share = window * rate
        self._end = self._now() + window
        self._moved = 0

    async def read(self, reader: Callable[[], Awaitable[bytes]]) -> bytes:
        """What `reader` returns next; b"" at the end. Raises TooSlow."""
        while True:
            try:
                async with asyncio.timeout_at(self._end):
                    data = await reader()
            except TimeoutError:
                if self._moved < self._share:
                    raise TooSlow(f"less than {self._share:.0f} bytes came in {self._window:.0f} seconds") from None
                self._end = self._now() + self._window
                self._moved = 0
                continue
            self._moved += len(data)
            return data
