"""Whoever sends pays: makes the stamps that nodes ask for, one for all replicas of a notification.

What a stamp is and what it costs is in overlay/limits/stamps.py.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from overlay.limits.stamps import MOST, bits_of, mint

KEPT = 256
AT_ONCE = 2
"""Stamps made at the same time."""
NICE = 10
"""What else this computer does comes first."""


class StampPayer:
    """Makes stamps in threads of its own, each once. `now` gives seconds since the epoch."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._stamps: dict[tuple[bytes, bytes], bytes] = {}
        self._making: dict[tuple[bytes, bytes], asyncio.Lock] = {}
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._threads: ThreadPoolExecutor | None = None

    def stamp(self, key: bytes, digest: bytes) -> bytes:
        """The stamp that was made for this notification, or none."""
        return self._stamps.get((key, digest), b"")

    async def pay(self, key: bytes, digest: bytes, bits: int) -> bytes | None:
        """A stamp of at least so many bits of work; None when that is more than anybody may ask.

        One is made at a time for a notification: its other replicas wait, and find what they need.
        """
        if bits > MOST:
            return None
        lock = self._making.setdefault((key, digest), asyncio.Lock())
        try:
            async with lock:
                known = self.stamp(key, digest)
                if bits_of(known, key, digest, self._now()) >= bits:
                    return known
                async with self._gate:
                    made = await self._make(key, digest, bits)
                if made is not None:
                    self._stamps[key, digest] = made
                    while len(self._stamps) > KEPT:
                        del self._stamps[next(iter(self._stamps))]
                return made
        finally:
            if not lock.locked():
                self._making.pop((key, digest), None)

    async def _make(self, key: bytes, digest: bytes, bits: int) -> bytes | None:
        stop = threading.Event()
        if self._threads is None:
            self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="mint", initializer=_be_nice)
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, mint, key, digest, bits, self._now(), stop)
        finally:
            stop.set()  # nobody waits any longer


def _be_nice() -> None:
    """Let this thread alone come after others, where the system can (on Linux a thread has a niceness of its own)."""
    with suppress(AttributeError, OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
