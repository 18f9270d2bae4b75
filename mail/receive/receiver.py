"""Collects one user's mail (paper, sections 3.2 and 3.3): reads the inbox, fetches and files messages, deletes them.

Theory of operation
-------------------
A notification goes through these states. Each is a row of storage/user/state.py, so a process that dies at any point
is followed by one that goes on there:

    taken       the notification is on disk here; only then are the nodes told (acknowledge)
    set aside   it can't be opened now: sealed to a key that isn't here, certificate not good, a newer program's
    postponed   it was opened, but its message couldn't be had: not at the nodes, no room, damaged
    lost        postponed for more than 30 days while nodes answered; the user was told
    filed       the message is in its folder; the body's delete is owed
    done        enough nodes have heard the delete, or the notification was dropped

        taken ----> filed ----> done
        |  ^  ^
        |  |  +-----> postponed ----> lost ----> done (after 30 days more)
        |  +--------> set aside ---------------> done (after 30 days, or when its place is full)
        +-----------> done (forged or of no meaning)

`postponed`, `set aside` and `lost` are tried again at their time, what couldn't be opened at once by another version of
the program. An attempt opens the notification, proves its sender, fetches the body into the spool, checks it, and files
it (mail/receive/filing.py). The message's identity (Message-ID and body) is noted with the filing, so that a second
notification of the same message files nothing.

Invariants:

- A node is told to delete a notification only when it is on disk here, and a body only when the message is in its
  folder and the folder is synced. Until then the nodes have both.
- A delete is never sent for what couldn't be opened: it would tell the sender `collected`.
- Nothing is fetched for a notification whose sender isn't proven, and nothing is shown that wasn't checked.
- What the user must know is told before it is noted, so a crash tells it twice rather than never.
- Strangers can fill little: JUNK_KEPT, PROVEN_KEPT and LACKING_KEPT bound what is kept of those who send what can't be
  opened or had, each kind in a place of its own.
- One message's trouble holds up no other. Only a database that refuses ends a run.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mail.asyncio_tools import KeyedLocks, gather_all, shielded_to_thread
from mail.availability.erasure_code import MOST_SHARES
from mail.events import Event, NewMail, Trouble
from mail.receive.body_download import BodyDownload
from mail.receive.filing import Filing
from mail.receive.segment_cache import NoRoomToReceive, SegmentCache
from mail.sealed.body import REVISION, SealingError
from mail.sealed.keys import KeyMaterialError, KeyPair
from mail.sealed.notification import (
    BUCKETS,
    NotForUs,
    Notification,
    NotificationError,
    Proven,
    Unreadable,
    Untrusted,
    open_notification,
)
from mail.send.rules import UNANSWERED_RETRY, back_off, body_kind, segment_key
from overlay.client import Overlay
from overlay.errors import NotFound, Offline, OverlayError, Unreachable
from overlay.identity.certificates import TrustStore
from overlay.identity.ownership import Owner
from overlay.ids import Kind, inbox_key
from overlay.kademlia.inbox_read import InboxRead
from overlay.protocol_limits import DAY, HOUR, RETENTION
from storage.database import DatabaseError
from storage.user.state import AT_ONCE, DAMAGED, Fate, OwedDelete, TakenNotification, UserState

log = logging.getLogger(__name__)

MESSAGES_AT_ONCE = 4
ROUNDS = 20
"""Inbox readings in a row, while nodes say that more waits."""
UNKNOWN_KEY, UNREADABLE = "stray", "sealed"
"""Values of `hold` for what can't be opened: sealed to a key that isn't here; or to one of ours, but unreadable or from
an unknown sender."""
JUNK_KEPT = 64
"""Notifications kept under each of these: anybody can make such bytes, and nearly all of them are junk."""
PROVEN_KEPT = 100
"""Notifications kept from one member of the network whose certificate isn't good now, or whose program is newer."""
LACKING_KEPT = 1000
"""Notifications kept for more than a day from one sender whose messages no node has, or that can't be opened."""
COSTLY_BACK_OFF = (HOUR, 4 * HOUR, 24 * HOUR)
"""Seconds between attempts at damaged or lost messages: each attempt fetches the whole message again."""
LEAST_ATTEMPTS = 2
"""Attempts before a message is called lost, whatever the clock says."""
DELETES_AT_ONCE = 8
DELETE_ATTEMPTS = 3
"""Attempts after which a delete that some nodes have heard is left to expiry at the others (paper, section 2.2)."""


@dataclass(frozen=True, slots=True)
class RecipientKeys:
    """The recipient's identity and keys. `pairs`: its encryption keys by key id, including retired ones.

    `earlier`: the owner with certificates that were renewed since; messages may still name them as deleters.
    """

    address: str
    owner: Owner
    pairs: Mapping[bytes, KeyPair]
    earlier: Sequence[Owner] = ()


class Receiver:
    """Collects one user's mail. One for a profile."""

    def __init__(  # noqa: PLR0913 - its collaborators, passed by keyword
        self,
        state: UserState,
        overlay: Overlay,
        trust: TrustStore,
        *,
        keys: Callable[[], RecipientKeys],
        filing: Filing,
        cache: SegmentCache,
        tell: Callable[[Event], None],
        now: Callable[[], float] = time.time,
        version: str = "",
    ) -> None:
        """`version`: the program's. What another version couldn't open is tried again at once."""
        self._state = state
        self._overlay = overlay
        self._trust = trust
        self._keys = keys
        self._filing = filing
        self._cache = cache
        self._download = BodyDownload(overlay, cache, tell)
        self._opener = f"{version}/{REVISION}"
        self._tell = tell
        self._now = now
        self._running = asyncio.Lock()
        self._messages = KeyedLocks()  # by message: two notifications of one message must file it once
        self._swept = False
        self._told_too_many: set[str] = set()
        """Senders of which the user was told that they announced too many messages that can't be collected."""

    @property
    def late(self) -> int:
        """Number of announced messages that couldn't be collected when last tried. Raises DatabaseError."""
        return self._state.count_waiting(without=(UNKNOWN_KEY, UNREADABLE))

    async def run(self, *, everything: bool = False) -> int:
        """Collect new mail; returns the number of messages filed. Raises Unreachable when no inbox node answers.

        Notifications taken over earlier are worked on even then. Raises DatabaseError when the disk fails; nothing
        that was acknowledged is lost.
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
        """Read all replicas, save the superset, acknowledge; returns whether more waits (paper, section 3.2)."""
        keys = self._keys()
        key = inbox_key(keys.address)
        readings = await self._overlay.read_inbox(key, keys.owner)
        # Anything of another size is no notification: it isn't saved, but acknowledged to free its space at the nodes.
        superset = dict.fromkeys(n for reading in readings for n in reading.notifications if len(n) in BUCKETS)
        if superset:
            await asyncio.to_thread(self._state.take_over, superset, self._now())

        async def acknowledge(reading: InboxRead) -> bool:
            taken = dict.fromkeys((*superset, *reading.notifications))
            hashes = [hashlib.sha256(notification).digest() for notification in taken]
            return await self._overlay.acknowledge_inbox(key, reading, keys.owner, hashes)

        # At every replica, including those that had less: they then refuse what repair brings them later.
        heard = await gather_all(acknowledge(reading) for reading in readings if superset or reading.notifications)
        return any(heard) and any(reading.more for reading in readings)

    async def work(self, *, everything: bool = False) -> int:
        """Fetch, check and file the pending messages; returns the number filed. Raises DatabaseError."""
        if not self._swept:
            await asyncio.to_thread(lambda: self._cache.sweep(self._state.hashes(), self._now()))
            self._swept = True
        gate = asyncio.Semaphore(MESSAGES_AT_ONCE)

        async def one(taken: TakenNotification) -> bool:
            async with gate:
                return await self._process(taken)

        filed = 0
        while True:
            pending = await asyncio.to_thread(
                self._state.pending, self._now(), everything=everything, opener=self._opener
            )
            filed += sum(await gather_all(one(taken) for taken in pending))
            if len(pending) < AT_ONCE:
                return filed
            everything = False  # otherwise what was tried just now would be tried again

    async def _process(self, taken: TakenNotification) -> bool:
        keys = self._keys()
        try:
            notification, _ = await asyncio.to_thread(
                open_notification, taken.content, keys.pairs, keys.address, self._trust, self._now()
            )
        except (NotForUs, Unreadable, Untrusted, Proven, KeyMaterialError) as error:
            await self._set_aside(taken, error)
            return False
        except NotificationError as error:  # anybody can put bytes into an inbox, so the user isn't told
            await self._reject(taken, error)
            return False
        async with self._messages.of((notification.message_id, notification.sender)):
            return await self._collect_once(taken, notification)

    async def _collect_once(self, taken: TakenNotification, notification: Notification) -> bool:
        """Collect a message unless it was filed before, so that the user never sees it twice."""
        if await asyncio.to_thread(self._state.has_message, _identity(notification), notification.sender):
            await self._note_filed(taken, notification)
            return False
        try:
            await self._collect(taken, notification)
        except (OverlayError, OSError, NoRoomToReceive, SealingError) as error:
            await self._postpone(taken, notification, error)
            return False
        except DatabaseError:
            raise
        except Exception as error:  # a bug here must not block other messages: log it and tell the user
            log.exception("collecting %s failed", notification.message_id)
            await self._postpone(taken, notification, error)
            return False
        return True

    async def _collect(self, taken: TakenNotification, notification: Notification) -> None:
        """Fetch and open the body, check it, and file it (paper, sections 3.3 and 3.4)."""
        folder = taken.folder or ""
        if not await asyncio.to_thread(self._filing.is_filed, taken.folder, taken.file):
            async with self._download.fetch(taken.hash, notification) as spooled:
                found = await asyncio.to_thread(self._filing.find_moved, spooled, notification) if taken.file else None
                if found is None:
                    found = await shielded_to_thread(self._filing.file, taken.hash, spooled, notification)
                folder = found
        await self._note_filed(taken, notification)
        self._tell(NewMail(notification.message_id, _sender_text(notification), notification.subject, folder))

    async def _note_filed(self, taken: TakenNotification, notification: Notification) -> None:
        many = len(notification.segments) > 1
        keys = [segment_key(notification.message_id, s.index, many, notification.group) for s in notification.segments]
        kind = body_kind(notification.coding)
        deletes = [(kind, key, notification.deleter_salt) for key in keys]
        await shielded_to_thread(
            self._state.mark_filed, taken.hash, _identity(notification), notification.sender, deletes, self._now()
        )
        await self._download.discard(taken.hash)

    async def _postpone(self, taken: TakenNotification, notification: Notification, error: Exception) -> None:
        """Schedule another attempt at a message that couldn't be collected, tell the user, or give it up."""
        what = f'"{notification.subject or "(no subject)"}" from {_sender_text(notification)}'
        reason = _error_reason(error)
        self._tell_failure(taken, what, reason, error)
        if isinstance(error, SealingError):
            await self._download.discard(taken.hash)
        lacking = isinstance(error, NotFound | SealingError)
        if lacking and (
            await self._expire(taken, f"{what} is", reason) or await self._drop_if_too_many(taken, notification)
        ):
            return
        pause = back_off(taken.attempts + 1)
        hold = DAMAGED if isinstance(error, SealingError) else ""
        away = isinstance(error, Unreachable)
        if hold or taken.lost is not None:
            pause = back_off(taken.attempts + 1, COSTLY_BACK_OFF)
        elif away:
            pause = min(pause, UNANSWERED_RETRY)
        moment = self._now() + pause
        await asyncio.to_thread(
            self._state.postpone,
            taken.hash,
            reason,
            moment,
            hold=hold,
            opener=self._opener,
            answered=not away,
            sender=notification.sender if lacking else "",
        )

    def _tell_failure(self, taken: TakenNotification, what: str, reason: str, error: Exception) -> None:
        """Tell the user what failed, once and not at every attempt."""
        new = taken.attempts == 0 or reason != taken.reason
        kept = "It stays at the nodes for up to 30 days and is tried again"
        if isinstance(error, SealingError):
            # The bytes are what the sender announced. Whether the sender or this program is wrong is unknown here.
            if new:
                words = f"{what} can't be opened: {reason} {kept}, at once after an update of p2pmail."
                self._tell(Trouble(words, lasting=True))
        elif isinstance(error, NoRoomToReceive):
            if new:
                words = f"{what} can't be collected: {reason}. {kept}; make room before that."
                self._tell(Trouble(words, lasting=True))
        elif isinstance(error, Offline):
            return  # shown elsewhere while it lasts
        elif not taken.reason or (new and not isinstance(error, NotFound | Unreachable)):
            self._tell(Trouble(f"{what} can't be collected yet ({reason}); it will be tried again."))

    async def _expire(self, taken: TakenNotification, what: str, reason: str) -> bool:
        """After 30 days, when the nodes have removed it, tell the user that it is lost; drop it 30 days later.

        It is kept until then: the clock may be wrong, a node may still have it, a newer program may open it. No delete
        is sent, because that would tell the sender `collected`. Returns whether it was dropped.
        """
        if self._now() - taken.taken <= RETENTION or taken.attempts < LEAST_ATTEMPTS:
            return False
        if taken.lost is None:
            self._tell(Trouble(f"{what} lost: {reason} Ask for it to be sent again.", lasting=True))
            await asyncio.to_thread(self._state.mark_lost, taken.hash, self._now())
            return False
        if self._now() - taken.lost <= RETENTION:
            return False
        await asyncio.to_thread(self._state.reject, taken.hash, Fate.LOST, f"{what} lost: {reason}")
        await self._download.discard(taken.hash)
        return True

    async def _drop_if_too_many(self, taken: TakenNotification, notification: Notification) -> bool:
        """Bound the messages that one sender announces but no node has; returns whether this one was dropped.

        Only after a day: nodes may be unreachable for a while, and many messages may arrive at once.
        """
        if self._now() - taken.taken <= DAY or taken.attempts < LEAST_ATTEMPTS:
            return False
        sender = notification.sender
        words = (
            f"{sender} has announced more than {LACKING_KEPT:,} messages that can't be collected. What is beyond that"
            " is dropped; its sender won't see it as collected."
        )
        if not await asyncio.to_thread(self._state.drop_if_too_many, taken.hash, sender, words, room=LACKING_KEPT):
            return False
        await self._download.discard(taken.hash)
        if sender not in self._told_too_many:
            self._told_too_many.add(sender)
            self._tell(Trouble(words, lasting=True))
        return True

    async def _set_aside(self, taken: TakenNotification, error: Exception) -> None:
        """Set aside a notification that may be opened later, within its kind's limit, until its message expires."""
        hold, room, what = _hold_for(error)
        words = f"{what} can't be opened: {error}"
        moment = self._now() + back_off(taken.attempts + 1)
        aside = await asyncio.to_thread(
            self._state.set_aside, taken.hash, str(error), moment, hold=hold, opener=self._opener, room=room
        )
        if not aside:
            told = f"{words} As {room} of them wait already, it was dropped; its sender won't see it as collected."
            self._tell(Trouble(told, lasting=True))
            await asyncio.to_thread(self._state.reject, taken.hash, Fate.LOST, words)
        elif isinstance(error, Proven | KeyMaterialError):
            if not taken.attempts:
                self._tell(Trouble(f"{words} It is kept and tried again for 60 days.", lasting=True))
            await self._expire(taken, f"{what} is", str(error))
        elif self._now() - taken.taken > RETENTION:
            words = f"{words} It was kept for 30 days and is given up."
            self._tell(Trouble(words, lasting=True))
            await asyncio.to_thread(self._state.reject, taken.hash, Fate.LOST, words)
        else:
            log.info("a notification is set aside: %s", error)

    async def _reject(self, taken: TakenNotification, error: Exception) -> None:
        log.info("a notification was dropped: %s", error)
        await asyncio.to_thread(self._state.reject, taken.hash, Fate.REJECTED, str(error))

    async def settle_deletes(self) -> None:
        """Delete the bodies of filed messages, as far as they are ours, at all k nodes (paper, section 3.3)."""
        owed = await asyncio.to_thread(self._state.owed_deletes, self._now())
        keys = self._keys()
        gate = asyncio.Semaphore(DELETES_AT_ONCE)

        async def heard(owed: OwedDelete, owner: Owner) -> bool:
            most = MOST_SHARES if owed.kind == Kind.SHARE else None
            outcome = await self._overlay.delete(owed.kind, owed.key, owed.salt, owner, max_ops=most)
            return outcome.have >= outcome.want or (outcome.have > 0 and owed.attempts >= DELETE_ATTEMPTS)

        async def delete(owed: OwedDelete) -> None:
            pause, away = back_off(owed.attempts + 1), False
            try:
                async with gate:
                    enough = await heard(owed, keys.owner)
                    for owner in keys.earlier:  # the notification doesn't say which certificate the sender used
                        enough = (await heard(owed, owner) or owed.attempts >= DELETE_ATTEMPTS) and enough
            except OverlayError as error:
                enough, away = False, isinstance(error, Unreachable)
                pause = min(pause, UNANSWERED_RETRY) if away else pause
            if enough:
                await asyncio.to_thread(self._state.delete_done, owed.key, owed.salt)
            else:
                later = self._now() + pause
                await asyncio.to_thread(self._state.postpone_delete, owed.key, owed.salt, later, answered=not away)

        await gather_all(delete(one) for one in owed)


def _hold_for(error: Exception) -> tuple[str, int, str]:
    """Why a notification that can't be opened is held, how many of the kind are kept, and its name for the user."""
    if isinstance(error, Proven):
        return error.sender, PROVEN_KEPT, f"Mail from {error.sender}"
    if isinstance(error, KeyMaterialError):
        return "key", AT_ONCE, "Mail"
    if isinstance(error, NotForUs):
        return UNKNOWN_KEY, JUNK_KEPT, "Something in the inbox, which may be mail,"
    return UNREADABLE, JUNK_KEPT, "Something in the inbox, which may be mail,"


def _identity(notification: Notification) -> str:
    """Identifies a message by Message-ID and body, so that a sender that reuses a Message-ID loses nothing."""
    body = hashlib.sha256(b"".join(segment.digest for segment in notification.segments))
    return f"{notification.message_id} {body.hexdigest()}"


def _error_reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def _sender_text(notification: Notification) -> str:
    return f"{notification.sender_name} <{notification.sender}>" if notification.sender_name else notification.sender
