"""Records facts about recipients in the outbox, many in one commit.

A commit waits for the disk (milliseconds), and a message to 5,000 recipients has four facts about each of them. Facts
that arrive while a commit runs wait, and form the next one. No decisions are made here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from storage.user.outbox import Outbox, Recipient


class OutboxBatch:
    """Writes facts to the outbox, one commit at a time. For one event loop."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._waiting: list[tuple[list[tuple[str, Recipient]], asyncio.Future[list[Recipient]]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def record(self, message_id: str, facts: Sequence[Recipient]) -> list[Recipient]:
        """Record facts about recipients of one message; returns what is on disk now. Raises DatabaseError."""
        if not facts:
            return []
        noted: asyncio.Future[list[Recipient]] = asyncio.get_running_loop().create_future()
        self._waiting.append(([(message_id, known) for known in facts], noted))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        return await noted

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            facts = [fact for some, _ in batch for fact in some]
            try:
                noted = await asyncio.to_thread(self._outbox.record, facts)
            except BaseException as error:
                for _, waiter in batch:
                    if not waiter.done():
                        waiter.set_exception(error)
                if isinstance(error, asyncio.CancelledError):
                    raise
                continue
            for some, waiter in batch:
                mine, noted = noted[: len(some)], noted[len(some) :]
                if not waiter.done():
                    waiter.set_result(mine)
