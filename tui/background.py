"""Work that could take time, done in threads that never touch a widget: they post a message, or `Failed`.

Also changes to the mail, one after the other in the order in which the user asked for them. What the work is, is
known to whoever hands it in.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from textual.message import Message
from textual.worker import Worker, WorkerCancelled, get_current_worker

log = logging.getLogger(__name__)


class Failed(Message):
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
        work: Callable[[], None],
        name: str | None = "",
        group: str = "default",
        description: str = "",
        exit_on_error: bool = True,
        start: bool = True,
        exclusive: bool = False,
        thread: bool = False,
    ) -> Worker[None]: ...


def in_background(
    node: Poster, what: str, work: Callable[[], Message | None], *, group: str, exclusive: bool = True
) -> Worker[None]:
    """Run `work` in a thread; its message is posted to `node`, unless newer work of the group has begun meanwhile.

    `what` tells the user what failed, as in "read the folder".
    """

    def run() -> None:
        worker = get_current_worker()
        try:
            message = work()
        except Exception as error:
            if not worker.is_cancelled:
                node.post_message(Failed(what, error))
            return
        if message is not None and not worker.is_cancelled:
            node.post_message(message)

    return node.run_worker(run, name=what, group=group, exclusive=exclusive, thread=True, exit_on_error=False)


def explain(what: str, error: BaseException) -> str:
    """An error in words a user can read. Those that our own code raises are such words already."""
    module = type(error).__module__.partition(".")[0]
    text = str(error).strip()
    if module in ("mail", "storage", "overlay", "tui", "tests") and text:
        return text
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

    def put(self, node: Poster, what: str, work: Callable[[], Message | None]) -> None:
        """Do `work` after everything that was put before; its message, or Failed, is posted to `node`."""
        before = self._last
        self._waiting += 1

        async def run() -> None:
            try:
                if before is not None:
                    await asyncio.wait([before])
                message = await asyncio.to_thread(work)
            except (asyncio.CancelledError, WorkerCancelled):
                raise
            except Exception as error:
                message = Failed(what, error)
            finally:
                self._waiting -= 1
            if message is not None:
                node.post_message(message)

        self._last = asyncio.get_running_loop().create_task(run())

    async def finish(self) -> None:
        """Wait until everything is done."""
        while self._last is not None and not self._last.done():
            await asyncio.wait([self._last])
