"""Work that could take time, done in threads that never touch a widget: they post a message, or `Failed`.

Also changes to the mail, one after the other in the order in which the user asked for them. What the work is, is
known to whoever hands it in.
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
    """A screen, widget or app: whatever has workers and takes messages."""

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
    """Work of which only the newest matters, such as reading a list: one runs at a time, and at most one waits.

    However often it is asked for, as when mail pours in, no threads pile up. What was overtaken is not posted, unless
    `every` is set.
    """

    def __init__(self, *, every: bool = False) -> None:
        self._every = every
        self._waiting: tuple[Poster, str, Work] | None = None
        self._running = False

    def run(self, node: Poster, what: str, work: Work) -> None:
        """Run `work` in a thread as soon as what runs now is over; see `in_background`."""
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
    """An error in words a user can read: its own and its advice if it is ours, else what was tried."""
    text = str(error).strip()
    if isinstance(error, P2PMailError) and text:
        return f"{text} {error.advice}".rstrip()
    if isinstance(error, OSError) and error.strerror:
        place = f" ({error.filename})" if error.filename else ""
        return f"Couldn't {what}: {error.strerror}{place}."
    log.error("could not %s", what, exc_info=error)
    return f"Couldn't {what}: {type(error).__name__}{f': {text}' if text else ''}."


class ChangeQueue:
    """Changes in the order they were asked for, one at a time, each in a thread; none is ever dropped."""

    def __init__(self) -> None:
        self._last: asyncio.Task[None] | None = None
        self._waiting = 0

    @property
    def busy(self) -> bool:
        """Whether something is still to be done."""
        return self._waiting > 0

    def put(self, node: Poster, what: str, work: Work) -> None:
        """Do `work` after everything that was put before; its message, or Failed, is posted to `node`."""
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
        """Wait until everything is done."""
        while self._last is not None and not self._last.done():
            await asyncio.wait([self._last])
