"""Running an event loop for a command: what nobody caught is logged, signals are a request to stop."""

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
    """Run `work` to its end."""

    async def main() -> T:
        asyncio.get_running_loop().set_exception_handler(unhandled)
        return await work

    return event_loop.run(main())


def unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What nobody caught is logged, as asyncio does.

    Not so that a TLS connection was closed here while bytes were on their way, as whoever has enough shares of a
    letter does: uvloop calls that a fatal error and prints a traceback.
    """
    closed = isinstance(context.get("exception"), RuntimeError) and "the handler is closed" in str(context["exception"])
    if closed and "SSL protocol" in context.get("message", ""):
        log.debug("a connection was closed while bytes came by it")
    else:
        loop.default_exception_handler(context)


async def stop_requested() -> None:
    """Wait for SIGTERM, SIGINT, or a hangup: the terminal went away. (Under nohup that isn't meant.)"""
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
