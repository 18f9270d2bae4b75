"""Makes the stamps that nodes ask a sender for, one for all replicas of a notification.

overlay/limits/stamps.py says what a stamp is and what it costs.
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
"""Stamps remembered."""
AT_ONCE = 2
"""Stamps made concurrently."""
NICE = 10
"""Niceness of the threads, so that other work on this computer comes first."""


class StampPayer:
    """Makes each stamp once, in threads of its own. `now` gives seconds since the epoch."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._stamps: dict[tuple[bytes, bytes], bytes] = {}
        self._making: dict[tuple[bytes, bytes], asyncio.Lock] = {}
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._threads: ThreadPoolExecutor | None = None

    def stamp(self, key: bytes, digest: bytes) -> bytes:
        """The stamp that was made for this notification; empty if none was."""
        return self._stamps.get((key, digest), b"")

    async def pay(self, key: bytes, digest: bytes, bits: int) -> bytes | None:
        """A stamp of at least `bits` bits of work; None when that is more than a node may ask for.

        For one notification, stamps are made one at a time: calls for its other replicas wait, and use the same stamp.
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
            stop.set()  # the caller is done or was cancelled


def _be_nice() -> None:
    """Lower the priority of this thread, where the system can (on Linux each thread has its own niceness)."""
    with suppress(AttributeError, OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
