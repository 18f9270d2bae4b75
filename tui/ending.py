"""Ends the process when the terminal goes away or SIGTERM arrives.

Without a terminal nothing can be drawn, and an attempt to draw blocks for ever. So open drafts are saved, the agent is
stopped, and the process ends, all without the screen.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from tui.session import Session

HUNG_UP = 128 + signal.SIGHUP


def listen(keep_unsent: Callable[[], None], session: Callable[[], Session], leave: Callable[[], None]) -> None:
    """Handle SIGTERM (`leave`, as if the user did), SIGHUP, and a terminal that is gone without one.

    For the main thread, with its loop running.
    """

    def hang_up(number: int, frame: FrameType | None) -> None:
        # A handler of the interpreter, not of the loop: the loop may be waiting for the dead terminal already.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with suppress(Exception):
            keep_unsent()
        threading.Thread(target=_end, args=(session(),), name="ending").start()

    with suppress(ValueError, NotImplementedError):  # not in the main thread: a test, or somebody's own program
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leave)
        signal.signal(signal.SIGHUP, hang_up)
        if sys.__stdin__ is not None and sys.__stdin__.isatty():
            watched = sys.__stdin__.fileno(), threading.get_ident()
            threading.Thread(target=_watch, args=watched, name="terminal", daemon=True).start()


def _watch(terminal: int, main_thread: int) -> None:
    """Wait until the terminal is gone, then send SIGHUP to the main thread.

    The kernel sends SIGHUP to the session leader only. A shell passes it on; `make` and others wait for their child.
    """
    poller = select.poll()
    poller.register(terminal, 0)  # POLLHUP and POLLERR are always reported
    ((_, happened),) = poller.poll()
    if happened & (select.POLLHUP | select.POLLERR):
        signal.pthread_kill(main_thread, signal.SIGHUP)


def _end(session: Session) -> None:
    with suppress(Exception):
        asyncio.run(session.stop_agent())
    if session.demo is not None:
        with suppress(Exception):
            session.demo.close()
    os._exit(HUNG_UP)
