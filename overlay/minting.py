"""Whoever sends pays: makes the stamps that nodes ask for, one for all replicas of a notification.

What a stamp is and what it costs is in overlay/stamps.py.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from overlay.stamps import MOST, bits_of, mint

KEPT = 256


class Mint:
    """Makes stamps in a thread, each once. `now` gives seconds since the epoch."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._stamps: dict[tuple[bytes, bytes], bytes] = {}
        self._turn = asyncio.Lock()

    def stamp(self, key: bytes, digest: bytes) -> bytes:
        """The stamp that was made for this notification, or none."""
        return self._stamps.get((key, digest), b"")

    async def pay(self, key: bytes, digest: bytes, bits: int) -> bytes | None:
        """A stamp of at least so many bits; None when that is more than anybody may ask.

        One is made at a time; the others wait, and find what they need when it was for the same notification.
        """
        if bits > MOST:
            return None
        async with self._turn:
            known = self.stamp(key, digest)
            if bits_of(known, key, digest, self._now()) >= bits:
                return known
            stop = threading.Event()
            try:
                made = await asyncio.to_thread(mint, key, digest, bits, self._now(), stop)
            finally:
                stop.set()  # nobody waits any longer
            if made is not None:
                self._stamps[key, digest] = made
                while len(self._stamps) > KEPT:
                    del self._stamps[next(iter(self._stamps))]
            return made
