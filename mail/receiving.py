"""Receiving (paper, sections 3.2 and 3.3): the superset of the inboxes, then each message, then its deletion.

A notification is on disk here before a node is told to delete it, and a message is in its folder before its body is
deleted: whenever this process dies, the next one goes on. Who sent it is proven before anything is fetched, and
what it holds is checked before anybody sees it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mail.coding import MOST_SHARES
from mail.delivery import AWAY, back_off, kind_of, segment_key
from mail.events import Event, NewMail, Progress, Trouble
from mail.filing import Filing
from mail.keys import KeyMaterialError, KeyPair
from mail.notification import BUCKETS, NotForUs, Notification, NotificationError, Untrusted, open_notification
from mail.sealing import Opener, SealingError
from mail.segments import Segment
from mail.shares import Coding, Gathered
from mail.together import Locks, all_of, uninterrupted
from overlay.certificates import TrustStore
from overlay.errors import NotFound, OverlayError, Unreachable
from overlay.ids import Kind, inbox_key
from overlay.messages import RETENTION
from overlay.overlay import Overlay, Reading
from overlay.ownership import Owner
from storage import durable
from storage.database import DatabaseError
from storage.state import Fate, Owed, Taken, UserState

log = logging.getLogger(__name__)

MESSAGES_AT_ONCE = 4
SEGMENTS_AHEAD = 3
"""Segments fetched ahead of the one that is being opened: 4 MiB held a message, whatever its size."""
CODED_AHEAD = 1
"""The same of segments in shares, each of which comes from many nodes at once."""
ROUNDS = 20
"""Inbox readings in a row, while nodes say that more waits."""
SET_ASIDE = 64
"""Notifications that can't be opened and are kept all the same: anybody can fill an inbox with such."""
DELETES_AT_ONCE = 8
DELETE_ATTEMPTS = 3
"""Attempts after which a delete that some nodes have heard is left to expiry at the others (paper, section 2.2)."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Whose mail it is, and what opens it. `pairs`: her encryption keys by key id, the retired ones too.

    `earlier`: the owner by certificates that were renewed, which letters may still name as who may delete them.
    """

    address: str
    owner: Owner
    pairs: Mapping[bytes, KeyPair]
    earlier: Sequence[Owner] = ()


class Receiving:
    """Collects one user's mail. One for a profile."""

    def __init__(
        self,
        state: UserState,
        overlay: Overlay,
        trust: TrustStore,
        reader: Callable[[], Reader],
        filing: Filing,
        spool: Path,
        tell: Callable[[Event], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._state = state
        self._overlay = overlay
        self._trust = trust
        self._reader = reader
        self._filing = filing
        self._spool = spool
        self._tell = tell
        self._now = now
        self._running = asyncio.Lock()
        self._messages = Locks()  # two notifications of one message are one message
        self._late: set[bytes] = set()
        self._aside: set[bytes] = set()

    @property
    def late(self) -> int:
        """Messages that are known to be there for us, and couldn't be collected when last tried."""
        return len(self._late)

    async def run(self, *, everything: bool = False) -> int:
        """Collect what has come; how many messages were filed. Raises Unreachable when no inbox node answers.

        What was taken over earlier is worked on even then. Raises DatabaseError when the disk refuses; nothing that
        was acknowledged is lost by that.
        """
        async with self._running:
            filed = await self.work(everything=everything)
            for _ in range(ROUNDS):
                more = await self._take_over()
                filed += await self.work()
                if not more:
                    break
            await self.settle_deletes()
            return filed

    async def _take_over(self) -> bool:
        """Read all replicas, keep the superset, acknowledge; whether more waits (paper, section 3.2)."""
        reader = self._reader()
        key = inbox_key(reader.address)
        readings = await self._overlay.read_inbox(key, reader.owner)
        # What has a size that no notification has isn't worth a place on this disk, but its room at the nodes.
        superset = dict.fromkeys(n for reading in readings for n in reading.notifications if len(n) in BUCKETS)
        if superset:
            await asyncio.to_thread(self._state.take, superset, self._now())

        async def acknowledge(reading: Reading) -> bool:
            taken = dict.fromkeys((*superset, *reading.notifications))
            hashes = [hashlib.sha256(notification).digest() for notification in taken]
            return await self._overlay.acknowledge_inbox(key, reading, reader.owner, hashes)

        # At every replica, at those too that had less: what moves there later is known there to be taken.
        heard = await all_of(acknowledge(reading) for reading in readings if superset or reading.notifications)
        return any(heard) and any(reading.more for reading in readings)

    async def work(self, *, everything: bool = False) -> int:
        """Fetch, check and file the messages of notifications taken over; how many were filed. Raises DatabaseError."""
        gate = asyncio.Semaphore(MESSAGES_AT_ONCE)

        async def one(taken: Taken) -> bool:
            async with gate:
                return await self._one(taken)

        moment = float("inf") if everything else self._now()
        pending = await asyncio.to_thread(self._state.pending, moment)
        return sum(await all_of(one(taken) for taken in pending))

    async def _one(self, taken: Taken) -> bool:
        reader = self._reader()
        try:
            notification, _ = await asyncio.to_thread(
                open_notification, taken.content, reader.pairs, reader.address, self._trust, self._now()
            )
        except (NotForUs, Untrusted, KeyMaterialError) as error:  # may be a clock that is wrong, here or there
            await self._unopened(taken, error)
            return False
        except NotificationError as error:  # anybody can put bytes into an inbox: no word to the user
            await self._reject(taken, error)
            return False
        self._aside.discard(taken.hash)
        async with self._messages.of((notification.message_id, notification.sender)):
            return await self._once(taken, notification)

    async def _once(self, taken: Taken, notification: Notification) -> bool:
        """Collect a message unless it was filed before: nothing is delivered twice to the eye."""
        if await asyncio.to_thread(self._state.have, _identity(notification), notification.sender):
            await self._filed(taken, notification)
            return False
        try:
            await self._collect(taken, notification)
        except SealingError as error:  # its bytes are those that the sender announced: no other node has better ones
            await self._lose(taken, notification, error)
            return False
        except (OverlayError, OSError) as error:
            await self._missed(taken, notification, error)
            return False
        except DatabaseError:
            raise
        except Exception as error:  # a fault of ours holds up this message alone, and isn't silent
            log.exception("collecting %s failed", notification.message_id)
            await self._missed(taken, notification, error)
            return False
        return True

    async def _collect(self, taken: Taken, notification: Notification) -> None:
        """Fetch and open the body into the spool, check it, file it (paper, sections 3.3 and 3.4)."""
        filed = await asyncio.to_thread(self._filing.find, taken.folder, taken.file)
        folder = taken.folder or ""
        if not filed:
            spooled = self._spool / f"{taken.hash.hex()}.eml"
            await asyncio.to_thread(durable.make_folder, self._spool)
            try:
                await self._fetch_body(notification, spooled)
                folder = await uninterrupted(self._filing.file, taken.hash, spooled, notification)
            finally:
                await asyncio.to_thread(spooled.unlink, missing_ok=True)
        await self._filed(taken, notification)
        self._tell(NewMail(notification.message_id, _person(notification), notification.subject, folder))

    async def _fetch_body(self, notification: Notification, target: Path) -> None:
        """Segments, fetched some ahead and opened in order. Raises NotFound, Unreachable, SealingError, OSError."""
        many = len(notification.segments) > 1
        others = len(notification.to) + len(notification.cc) + notification.left_out > 1
        # Else it is deleted in a moment, and its copies needn't be mended.

        async def fetch(segment: Segment) -> bytes:
            key = segment_key(notification.message_id, segment.index, many, notification.group)
            if notification.coding is not None:
                return await self._gather(notification.coding, key, segment)
            return await self._overlay.fetch(Kind.BODY, key, digest=segment.digest, repair=others)

        ahead = SEGMENTS_AHEAD if notification.coding is None else CODED_AHEAD
        left = list(notification.segments)
        running: list[asyncio.Task[bytes]] = []
        what = f"collecting {notification.subject or notification.message_id}"
        with target.open("wb") as file:
            opener = Opener(notification.session_key, notification.original_size, file)
            try:
                while left or running:
                    while left and len(running) <= ahead:
                        running.append(asyncio.create_task(fetch(left.pop(0))))
                    await asyncio.to_thread(opener.feed, await running[0])
                    running.pop(0)
                    if many:
                        self._tell(
                            Progress(
                                what, min(opener.written, notification.original_size - 1), notification.original_size
                            )
                        )
                await asyncio.to_thread(opener.finish)
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)
        if many:
            self._tell(Progress(what, notification.original_size, notification.original_size))

    async def _gather(self, coding: Coding, key: bytes, segment: Segment) -> bytes:
        """A segment from its shares. Raises NotFound, Unreachable, SealingError."""
        gathered = Gathered(coding, key, segment.size)
        await self._overlay.gather(Kind.SHARE, key, gathered, coding.n)
        data = await asyncio.to_thread(gathered.segment)
        if hashlib.sha256(data).digest() != segment.digest:  # its shares are signed: the sender made them so
            raise SealingError("The body isn't what its sender announced.")
        return data

    async def _filed(self, taken: Taken, notification: Notification) -> None:
        many = len(notification.segments) > 1
        keys = [segment_key(notification.message_id, s.index, many, notification.group) for s in notification.segments]
        kind = kind_of(notification.coding)
        deletes = [(kind, key, notification.deleter_salt) for key in keys]
        await uninterrupted(
            self._state.filed, taken.hash, _identity(notification), notification.sender, deletes, self._now()
        )
        self._late.discard(taken.hash)

    async def _missed(self, taken: Taken, notification: Notification, error: Exception) -> None:
        """The message couldn't be had: later again, until nobody can have it any more; then the user is told."""
        if isinstance(error, NotFound) and self._now() - taken.taken > RETENTION:
            await self._lose(taken, notification, error)
            return
        self._late.add(taken.hash)
        reason = _words(error)
        if taken.attempts == 0 or (reason != taken.reason and not isinstance(error, NotFound | Unreachable)):
            what = f'"{notification.subject or "(no subject)"}" from {_person(notification)}'
            self._tell(Trouble(f"{what} can't be collected yet ({reason}); it will be tried again."))
        await self._later(taken, reason, away=isinstance(error, Unreachable))

    async def _lose(self, taken: Taken, notification: Notification, error: Exception) -> None:
        """Nothing can bring this message any more: the user must know. (A delete would say "collected".)"""
        what = f'A message from {_person(notification)}, "{notification.subject or "(no subject)"}", is lost'
        words = f"{what}: {_words(error)} Ask for it to be sent again."
        await asyncio.to_thread(self._state.reject, taken.hash, Fate.LOST, words)
        self._late.discard(taken.hash)
        self._tell(Trouble(words, lasting=True))

    async def _unopened(self, taken: Taken, error: Exception) -> None:
        """Set aside what can't be opened now, some of it, as long as its message can be there."""
        if taken.hash not in self._aside and len(self._aside) >= SET_ASIDE:
            await self._reject(taken, error)
        elif self._now() - taken.taken > RETENTION:
            words = f"A notification couldn't be opened for 30 days and is given up: {error}"
            await asyncio.to_thread(self._state.reject, taken.hash, Fate.LOST, words)
            self._aside.discard(taken.hash)
            self._tell(Trouble(words, lasting=True))
        else:
            log.info("a notification is set aside: %s", error)
            self._aside.add(taken.hash)
            await self._later(taken, str(error))

    async def _reject(self, taken: Taken, error: Exception) -> None:
        log.info("a notification was dropped: %s", error)
        await asyncio.to_thread(self._state.reject, taken.hash, Fate.REJECTED, str(error))

    async def _later(self, taken: Taken, reason: str, *, away: bool = False) -> None:
        pause = back_off(taken.attempts + 1)
        moment = self._now() + (min(pause, AWAY) if away else pause)
        await asyncio.to_thread(self._state.postpone, taken.hash, reason, moment)

    async def settle_deletes(self) -> None:
        """Take our hash from the objects of filed messages, at all k nodes (paper, section 3.3)."""
        owed = await asyncio.to_thread(self._state.owed, self._now())
        reader = self._reader()
        gate = asyncio.Semaphore(DELETES_AT_ONCE)

        async def heard(owed: Owed, owner: Owner) -> bool:
            most = MOST_SHARES if owed.kind == Kind.SHARE else None
            try:
                outcome = await self._overlay.delete(owed.kind, owed.key, owed.salt, owner, max_ops=most)
            except OverlayError:
                return False
            return outcome.have >= outcome.want or (outcome.have > 0 and owed.attempts >= DELETE_ATTEMPTS)

        async def delete(owed: Owed) -> None:
            async with gate:
                enough = await heard(owed, reader.owner)
                for owner in reader.earlier:  # which of them the sender knew isn't told
                    enough = (await heard(owed, owner) or owed.attempts >= DELETE_ATTEMPTS) and enough
            if enough:
                await asyncio.to_thread(self._state.deleted, owed.key, owed.salt)
            else:
                moment = self._now() + back_off(owed.attempts + 1)
                await asyncio.to_thread(self._state.delete_later, owed.key, owed.salt, moment)

        await all_of(delete(one) for one in owed)


def _identity(notification: Notification) -> str:
    """What tells messages apart: the Message-ID and the body. A sender who uses an ID twice loses nothing by it."""
    body = hashlib.sha256(b"".join(segment.digest for segment in notification.segments))
    return f"{notification.message_id} {body.hexdigest()}"


def _words(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def _person(notification: Notification) -> str:
    return f"{notification.sender_name} <{notification.sender}>" if notification.sender_name else notification.sender
