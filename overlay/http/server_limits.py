"""What a node's HTTP door gives to everybody, and to one address, at the most: connections, room, patience.

A connection over TLS proves where it comes from, so limits by address hold. Decisions only; bulk.py keeps to them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from overlay.errors import OverlayError
from overlay.protocol_limits import MIN_RATE, RATE_WINDOW

MIB = 1024 * 1024


class TooSlow(OverlayError):
    """The other side sends or takes less than the minimum rate."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Of one door. Sizes in bytes, times in seconds; `..._each` is what one address may have of it.

    connections     open at once; over that they are closed as soon as they are accepted
    spool           received of uploads that aren't stored yet
    inboxes         notifications in memory on their way out
    lookups         under way for /closest
    idle            until a request's headers are complete, and that a connection is kept alive for
    window, rate    every window must bring rate * window bytes of a body
    loopback_free   addresses of this machine share in the totals only: tests, demo, several accounts on one host
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
    """A minimum rate for a body: any amount may come at once, but each window must bring its share."""

    def __init__(self, window: float, rate: int) -> None:
        self._now = asyncio.get_running_loop().time
        self._window = window
        self._share = window * rate
        self._end = self._now() + window
        self._moved = 0

    async def read(self, reader: Callable[[], Awaitable[bytes]]) -> bytes:
        """What `reader` brings next; b"" at the end. Raises TooSlow."""
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
