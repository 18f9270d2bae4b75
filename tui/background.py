"""Runs slow work in threads, and posts its result, or `Failed`, to a screen or widget.

Theory of operation
-------------------
Work is a function without arguments. It runs in a thread, must not touch a widget, and returns a message or None. The
message is posted on the screen's loop; an exception is posted as `Failed`, whose text can be shown. The caller decides
what the work is. There are three ways to run it:

in_background   At once, and independent of all other work: saving an attachment, preparing a reply.

Latest          For reading what is shown, where only the newest request matters. One instance a purpose. States:

                    idle      `run` starts the work: running
                    running   `run` stores its work: running, one waits
                    one waits `run` replaces the work that waits, which is never started
                    the work ends: the one that waits is started, else idle

                The result of work that was overtaken while it ran isn't posted, unless `every` is set: a folder that
                the user has left doesn't appear, and neither does the error of reading it. If mail pours in, one
                thread reads at a time, however often the list is asked for.

ChangeQueue     For changes to mail and drafts, one queue a session. Changes run one at a time, in the order in which
                they were put. Each waits until the one before it has ended, whether that one succeeded or failed.

Invariants:

- A change that was put runs, even if the screen that put it is closed: it is a task of the loop, not a worker of the
  screen. Leaving the program waits for it (`Session.close` calls `finish` first).
- A message to a screen that was closed is dropped. So a screen that closes itself puts its last change with the screen
  behind it as receiver (tui/screens/compose.py), or the user would not hear of a failure.
- No change is replaced or merged: `u` undoes exactly what the keys before it did.
- No traceback reaches the user. `explain` words an error; one that is not ours, nor the system's, is also logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Protocol

from textual.message import Message
from textual.worker import Worker

from storage.errors import P2PMailError

log = logging.getLogger(__name__)


class Failed(Message, bubble=False):
    """Work failed; `text` can be shown. `what` says what was tried."""

    def __init__(self, what: str, error: BaseException) -> None:
        super().__init__()
        self.text = explain(what, error)
        self.error = error


class Poster(Protocol):
    """A screen, widget or app, as this module needs it: it runs workers and takes messages."""

    def post_message(self, message: Message) -> bool: ...
    def run_worker(
        self,
        work: Coroutine[None, None, None],
        name: str | None = "",
        group: str = "default",
        description: str = "",
        exit_on_error: bool = True,
    ) -> Worker[None]: ...


Work = Callable[[], Message | None]


def in_background(node: Poster, what: str, work: Work) -> None:
    """Run `work` in a thread; its message, or Failed, is posted to `node`. `what`: as in "read the folder"."""

    async def run() -> None:
        message = await _outcome(what, work)
        if message is not None:
            node.post_message(message)

    node.run_worker(run(), name=what, exit_on_error=False)


class Latest:
    """Runs work of which only the newest request matters; see the theory of operation above."""

    def __init__(self, *, every: bool = False) -> None:
        self._every = every
        self._waiting: tuple[Poster, str, Work] | None = None
        self._running = False

    def run(self, node: Poster, what: str, work: Work) -> None:
        """Run `work` in a thread once the running work has ended; parameters as for `in_background`."""
        self._waiting = (node, what, work)
        if not self._running:
            self._running = True
            node.run_worker(self._work(), name=what, exit_on_error=False)

    async def _work(self) -> None:
        try:
            while self._waiting is not None:
                (node, what, work), self._waiting = self._waiting, None
                message = await _outcome(what, work)
                if message is not None and (self._every or self._waiting is None):
                    node.post_message(message)
        finally:
            self._running = False


async def _outcome(what: str, work: Work) -> Message | None:
    try:
        return await asyncio.to_thread(work)
    except Exception as error:
        return Failed(what, error)


def explain(what: str, error: BaseException) -> str:
    """An error in words for the user: its own text and advice if it is ours, else what was tried."""
    text = str(error).strip()
    if isinstance(error, P2PMailError) and text:
        return f"{text} {error.advice}".rstrip()
    if isinstance(error, OSError) and error.strerror:
        place = f" ({error.filename})" if error.filename else ""
        return f"Couldn't {what}: {error.strerror}{place}."
    log.error("could not %s", what, exc_info=error)
    return f"Couldn't {what}: {type(error).__name__}{f': {text}' if text else ''}."


class ChangeQueue:
    """Runs changes in the order in which they were put, one at a time; none is dropped."""

    def __init__(self) -> None:
        self._last: asyncio.Task[None] | None = None
        self._waiting = 0

    @property
    def busy(self) -> bool:
        """Whether a change is still to be done."""
        return self._waiting > 0

    def put(self, node: Poster, what: str, work: Work) -> None:
        """Run `work` after all changes put before it; post its message, or `Failed`, to `node`."""
        before = self._last
        self._waiting += 1

        async def run() -> None:
            try:
                if before is not None:
                    await asyncio.wait([before])
                message = await _outcome(what, work)
            finally:
                self._waiting -= 1
            if message is not None:
                node.post_message(message)

        self._last = asyncio.get_running_loop().create_task(run())

    async def finish(self) -> None:
        """Wait until all changes are done, including those put meanwhile."""
        while self._last is not None and not self._last.done():
            await asyncio.wait([self._last])
