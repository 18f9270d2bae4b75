"""Helpers for concurrent work with asyncio: gathering, threads that finish, progress, locks by key.

General tools, used by mail/send/ and mail/receive/.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, TypeVar
from weakref import WeakValueDictionary

from mail.events import Event, Progress

T = TypeVar("T")
P = ParamSpec("P")

MANY = 100
"""Number of steps from which the beginning of the work is reported too."""
STEPS_TOLD_EVERY = 0.5
"""Seconds between two reports of progress."""


async def gather_all(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all coroutines to their end and only then raise the first error, so that none runs on unobserved."""
    results = await asyncio.gather(*work, return_exceptions=True)
    done: list[T] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        done.append(result)
    return done


async def gather_each(items: Iterable[T], work: Callable[[T], Awaitable[None]], at_once: int) -> None:
    """Do `work` for each item in `at_once` tasks. Raises the first error at the end, as `gather_all` does."""
    errors: list[Exception] = []
    left = iter(items)

    async def worker() -> None:
        for item in left:
            try:
                await work(item)
            except Exception as error:
                errors.append(error)

    await gather_all(worker() for _ in range(at_once))
    if errors:
        raise errors[0]


async def shielded_to_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `function` in a worker thread. If cancelled, wait for the function to end before raising.

    A thread can't be stopped, and its files must not be removed, nor its work repeated, while it still runs.
    """
    running = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # retrieved, or asyncio would log it as never retrieved
        raise


class ProgressSteps:
    """Reports the progress of equal steps: at the beginning if there are MANY, then every STEPS_TOLD_EVERY seconds."""

    def __init__(self, tell: Callable[[Event], None], what: str, total: int, now: Callable[[], float]) -> None:
        """`now` is a monotonic clock in seconds."""
        self._tell, self._what, self._total, self._done, self._now = tell, what, total, 0, now
        self._told = self._now()
        self._silent = total < MANY
        if not self._silent:
            tell(Progress(what, 0, total))

    def another(self) -> None:
        """Count one more finished step."""
        self._done += 1
        ended = self._done == self._total and not self._silent
        if ended or self._now() - self._told >= STEPS_TOLD_EVERY:
            self._told, self._silent = self._now(), False
            self._tell(Progress(self._what, self._done, self._total))


class KeyedLocks:
    """Locks by name. A lock exists while a task holds it or waits for it."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[object, asyncio.Lock] = WeakValueDictionary()

    def held(self, name: object) -> bool:
        """Whether a task holds the lock now."""
        lock = self._locks.get(name)
        return lock is not None and lock.locked()

    @asynccontextmanager
    async def of(self, name: object) -> AsyncIterator[None]:
        """Hold the lock of `name`."""
        lock = self._locks.get(name) or asyncio.Lock()
        self._locks[name] = lock
        async with lock:
            yield
