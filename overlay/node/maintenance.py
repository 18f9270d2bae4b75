"""What keeps a node in the overlay after it has joined: its regular tasks, until it stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence

from overlay.node.connection import Connection
from overlay.node.membership import Membership, every
from overlay.node.saved_contacts import SavedContacts
from overlay.node.sleep_detector import SleepDetector
from overlay.protocol import OverlayProtocol

log = logging.getLogger(__name__)

PING_EVERY = 5.0
"""Seconds between pings of the contact that has been silent for longest."""
REFRESH_EVERY = 3600.0
"""Seconds after which a bucket that no lookup touched is looked up (Kademlia, section 2.3)."""
SAVE_EVERY = 300.0
"""Seconds between writes of the known contacts."""
REJOIN_EVERY = 10.0
"""Seconds between attempts to reach any node while none answers: waiting mail leaves soon after the network returns."""
CHANGE_EVERY = 3600.0
"""Seconds after which the tunnel changes its relay."""
UDP_EVERY = 60.0
"""Seconds between checks whether UDP works, while the tunnel is in use."""
LOST_EVERY = 60.0
"""Seconds between attempts to reach one lost contact: after a partition the two halves find each other again."""


class Maintenance:
    """The regular tasks of a node that has joined. `now`: wall clock; `random`: as os.urandom."""

    def __init__(
        self,
        membership: Membership,
        connection: Connection,
        contacts: SavedContacts,
        *,
        protocol: OverlayProtocol,
        now: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        self.membership = membership
        self.connection = connection
        self.contacts = contacts
        self._protocol = protocol
        self._now = now
        self._random = random
        self.sleep_detector = self._new_sleep_detector()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, more: Callable[[], Sequence[Coroutine[None, None, None]]]) -> None:
        """Run the regular tasks, and `more` of them, from now on. A second call adds none."""
        self.sleep_detector = self._new_sleep_detector()
        if not self._tasks:
            self._tasks.append(asyncio.create_task(self._run(more)))

    def cancel(self) -> None:
        """Cancel the tasks, and don't wait for their end."""
        for task in self._tasks:
            task.cancel()

    async def stop(self) -> None:
        """Cancel the tasks and wait for their end. A second call does nothing."""
        self.cancel()
        await asyncio.gather(*self._tasks, *self.membership.leave(), return_exceptions=True)
        self._tasks.clear()

    async def _run(self, more: Callable[[], Sequence[Coroutine[None, None, None]]]) -> None:
        random, connection, contacts = self._random, self.connection, self.contacts
        await asyncio.gather(
            every(PING_EVERY, self._protocol.ping_least_recently_seen, random),
            every(PING_EVERY, self._return_after_sleep, random),
            every(REFRESH_EVERY, lambda: self.membership.refresh(REFRESH_EVERY), random),
            every(PING_EVERY, connection.check_presence, random),
            every(REJOIN_EVERY, connection.rejoin, random),
            every(PING_EVERY, connection.restore, random),
            every(CHANGE_EVERY, connection.change_relay, random),
            every(UDP_EVERY, connection.try_udp, random),
            every(LOST_EVERY, self.membership.retry_lost, random),
            every(PING_EVERY, contacts.save_first, random),
            every(SAVE_EVERY, contacts.save, random),
            *more(),
        )

    async def _return_after_sleep(self) -> None:
        if self.sleep_detector.slept():
            log.info("this computer has slept; finding the overlay again")
            self._protocol.resumed()
            await self.membership.return_after_sleep(self.contacts.load())

    def _new_sleep_detector(self) -> SleepDetector:
        return SleepDetector(self._now, asyncio.get_running_loop().time, PING_EVERY)
