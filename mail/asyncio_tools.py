"""Work that runs at the same time, for mail/send/sender.py and mail/receive/receiver.py: nothing left behind, nothing
twice.

Small tools of asyncio; no mail is known here.
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
"""Steps that take a while for sure."""
STEPS_TOLD_EVERY = 0.5
"""Seconds between two tellings of how far work is."""


async def gather_all(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all of it to its end, and only then raise the first error: one that fails leaves none unwatched."""
    results = await asyncio.gather(*work, return_exceptions=True)
    done: list[T] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        done.append(result)
    return done


async def gather_each(items: Iterable[T], work: Callable[[T], Awaitable[None]], at_once: int) -> None:
    """Do `work` for each of many items, `at_once` at the same time and no more tasks than that; as `all_of`."""
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
    """Run `function` in a worker thread; when cancelled meanwhile, wait for it first. (A thread can't be stopped, and
    what it works on must not be taken away under it, nor done again beside it.)"""
    running = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # looked at, so that asyncio doesn't complain that nobody did
        raise


class ProgressSteps:
    """Tells how far work of many like steps is, at its beginning if there are MANY, and then every STEPS_TOLD_EVERY."""

    def __init__(self, tell: Callable[[Event], None], what: str, total: int, now: Callable[[], float]) -> None:
        """`now` gives seconds that never go back."""
        self._tell, self._what, self._total, self._done, self._now = tell, what, total, 0, now
        self._told = self._now()
        self._silent = total < MANY
        if not self._silent:
            tell(Progress(what, 0, total))

    def another(self) -> None:
        """One more step is done."""
        self._done += 1
        ended = self._done == self._total and not self._silent
        if ended or self._now() - self._told >= STEPS_TOLD_EVERY:
            self._told, self._silent = self._now(), False
            self._tell(Progress(self._what, self._done, self._total))


class KeyedLocks:
    """One lock a name, there while somebody holds it or waits for it."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[object, asyncio.Lock] = WeakValueDictionary()

    def held(self, name: object) -> bool:
        """Whether somebody has it now."""
        lock = self._locks.get(name)
        return lock is not None and lock.locked()

    @asynccontextmanager
    async def of(self, name: object) -> AsyncIterator[None]:
        """Be the only one that has `name`."""
        lock = self._locks.get(name) or asyncio.Lock()
        self._locks[name] = lock
        async with lock:
            yield
