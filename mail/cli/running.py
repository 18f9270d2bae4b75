"""Runs the event loop of a command: logs unhandled errors, and treats signals as a request to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from overlay import event_loop

T = TypeVar("T")
log = logging.getLogger(__name__)


def run_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in an event loop, and return its result."""

    async def main() -> T:
        asyncio.get_running_loop().set_exception_handler(unhandled)
        return await work

    return event_loop.run(main())


def unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an unhandled error as asyncio does, except for one harmless case.

    A recipient with enough shares of a message closes its other TLS connections while bytes still arrive. uvloop
    reports that as a fatal error with a traceback; it is only logged for debugging here.
    """
    closed = isinstance(context.get("exception"), RuntimeError) and "the handler is closed" in str(context["exception"])
    if closed and "SSL protocol" in context.get("message", ""):
        log.debug("a connection was closed while bytes came by it")
    else:
        loop.default_exception_handler(context)


async def stop_requested() -> None:
    """Wait for SIGTERM, SIGINT or SIGHUP (the terminal was closed). nohup ignores SIGHUP, and so does this."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    try:
        await stop.wait()
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
