"""Sending what is in the outbox (paper, section 3.1): cards, the sealed body at k nodes, a notification to each.

Every step's result is in the outbox before the next one starts, so a send that is interrupted goes on with the same
bytes. What is put where is decided in mail/delivery.py.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from mail.delivery import (
    PROOF_BACK_OFF,
    UNKNOWN_AFTER,
    Headers,
    back_off,
    deleters_of,
    notification_for,
    proves_collected,
    segment_key,
)
from mail.directory import Directory, UnknownAddress
from mail.events import Event, OutboxChanged, Progress
from mail.message import read_message
from mail.notification import seal_notification
from mail.sealing import SESSION_KEY_SIZE, SealingError, seal_body
from mail.segments import Segment
from overlay.card import Card
from overlay.errors import OverlayError
from overlay.ids import SALT_BYTES, Kind, deleter_hash, inbox_key
from overlay.messages import RETENTION
from overlay.overlay import Overlay
from overlay.ownership import Owner
from storage.outbox import Entry, Outbox, Recipient, Secrets, State

log = logging.getLogger(__name__)

AT_ONCE = 3
"""Segments on their way at the same time: 3 MiB held, whatever the size of the message."""

LETTERS_AT_ONCE = 4


class Changed(SealingError):
    """The message seals to other bytes than before: the file was changed, or zlib is another one now."""


class Sending:
    """Carries the outbox's letters into the overlay; one at a time for a profile."""

    def __init__(
        self,
        outbox: Outbox,
        overlay: Overlay,
        directory: Directory,
        owner: Owner,
        tell: Callable[[Event], None],
        now: Callable[[], float] = time.time,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._outbox = outbox
        self._overlay = overlay
        self._directory = directory
        self._owner = owner
        self._tell = tell
        self._now = now
        self._random = random
        self._going: set[str] = set()  # letters being attempted: two attempts at once would be two notifications

    async def run(self, *, everything: bool = False) -> None:
        """Send what is due (or all that waits), and ask for proofs of collection. What fails is in the outbox."""
        gate = asyncio.Semaphore(LETTERS_AT_ONCE)

        async def attempt(entry: Entry) -> None:
            if entry.message_id in self._going:
                return
            self._going.add(entry.message_id)
            try:
                async with gate:
                    await self._attempt(await self._reload(entry))
            finally:
                self._going.discard(entry.message_id)

        entries = await asyncio.to_thread(self._outbox.due, self._now(), everything)
        await asyncio.gather(*map(attempt, entries))

    async def _attempt(self, entry: Entry) -> None:
        """Bring one letter as far as it comes today."""
        try:
            await self._expire(entry)
            await self._prove(entry)
            entry = await self._reload(entry)
            if any(self._wants_copies(r, entry) for r in entry.recipients):
                await self._send(entry)
        except (OverlayError, SealingError, OSError) as error:
            log.info("%s: %s", entry.message_id, error)
            await self._explain(entry, str(error))
        entry = await self._reload(entry)
        waits = any(r.state is State.QUEUED for r in entry.recipients)
        pause = back_off(entry.attempts + 1) if waits else back_off(entry.attempts + 1, PROOF_BACK_OFF)
        await asyncio.to_thread(self._outbox.attempted, entry.message_id, self._now() + pause)
        self._tell(OutboxChanged(entry.message_id))

    async def _send(self, entry: Entry) -> None:
        cards = await self._cards(entry)
        if not cards:
            return
        entry = await self._reload(entry)
        headers = await asyncio.to_thread(_headers, entry)
        secrets = entry.secrets or Secrets(self._random(SESSION_KEY_SIZE), [])
        if entry.secrets is None:
            await asyncio.to_thread(self._outbox.keep_secrets, entry.message_id, secrets)
        salts = {r.address: r.salt for r in entry.recipients if r.salt is not None}
        segments, have, want = await self._store_body(entry, secrets, cards, salts, headers.size)
        for recipient in entry.recipients:
            if recipient.address in cards:
                best = max(recipient.bodies[0], have), want
                await self._learn(entry, replace(recipient, bodies=best))
        entry = await self._reload(entry)
        if have:
            await asyncio.gather(
                *(
                    self._notify(entry, recipient, cards[recipient.address], headers, secrets, segments)
                    for recipient in entry.recipients
                    if recipient.address in cards
                )
            )

    async def _cards(self, entry: Entry) -> dict[str, Card]:
        """The cards of those who still need something, each with a salt of their own from here on (step 1)."""
        cards: dict[str, Card] = {}
        for recipient in entry.recipients:
            if not self._wants_copies(recipient, entry):
                continue
            try:
                cards[recipient.address] = card = await self._directory.card(recipient.address)
            except UnknownAddress as error:
                failed = entry.attempts + 1 >= UNKNOWN_AFTER
                await self._learn(entry, replace(recipient, failed=failed, reason=str(error)))
                continue
            if recipient.certificate != card.certificate.der:  # the first attempt, or a renewed certificate
                fresh = replace(
                    recipient,
                    salt=self._random(SALT_BYTES),
                    certificate=card.certificate.der,
                    notification=None,
                    reason="",
                )
                await self._learn(entry, fresh)
        return cards

    async def _store_body(
        self, entry: Entry, secrets: Secrets, cards: dict[str, Card], salts: dict[str, bytes], size: int
    ) -> tuple[list[Segment], int, int]:
        """Seal and store the body, segment by segment (steps 2 to 4): its segments, and copies of the rarest one."""
        segments: list[Segment] = []
        have: list[int] = []
        want = self._overlay.k
        sent = 0
        # A body of one segment lies under the Message-ID itself, and how many there are is known after the first.
        source = await asyncio.to_thread(entry.file.open, "rb")
        try:
            parts = seal_body(source, secrets.session_key)
            buffered = await asyncio.to_thread(_take, parts, 2)
            many = len(buffered) > 1
            running: set[asyncio.Task[None]] = set()

            async def store(segment: Segment, data: bytes) -> None:
                nonlocal sent
                key = segment_key(entry.message_id, segment.index, many)
                deleters = deleters_of(key, cards, salts)
                outcome = await self._overlay.store(Kind.BODY, key, data, deleters=deleters, ttl=RETENTION)
                have.append(outcome.have)
                sent += len(data)
                if many:
                    self._tell(Progress(f"sending {entry.subject or entry.message_id}", min(sent, size), size))

            try:
                while buffered:
                    segment, data = buffered.pop(0)
                    if secrets.segments and secrets.segments[segment.index] != (segment.size, segment.digest):
                        raise Changed(
                            "The message file was changed after it was accepted; it is not sent a second time."
                        )
                    segments.append(segment)
                    running.add(asyncio.create_task(store(segment, data)))
                    if len(running) >= AT_ONCE:
                        done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                        for task in done:
                            task.result()
                    if not buffered:
                        buffered = await asyncio.to_thread(_take, parts, 1)
                await asyncio.gather(*running)
            finally:
                for task in running:
                    task.cancel()
        finally:
            source.close()
        if not secrets.segments:
            digests = [(segment.size, segment.digest) for segment in segments]
            await asyncio.to_thread(self._outbox.keep_secrets, entry.message_id, Secrets(secrets.session_key, digests))
        if many:
            self._tell(Progress(f"sending {entry.subject or entry.message_id}", size, size))
        return segments, min(have), want

    async def _notify(
        self,
        entry: Entry,
        recipient: Recipient,
        card: Card,
        headers: Headers,
        secrets: Secrets,
        segments: Sequence[Segment],
    ) -> None:
        """Append the notification to the k replicas of one inbox (step 5)."""
        sealed = recipient.notification
        if sealed is None:
            assert recipient.salt is not None
            told = notification_for(recipient.address, headers, secrets.session_key, segments, recipient.salt)
            sealed = await asyncio.to_thread(seal_notification, told, self._owner, card.encryption_key)
            recipient = await self._learn(entry, replace(recipient, notification=sealed))
        outcome = await self._overlay.append_inbox(inbox_key(recipient.address), sealed, ttl=RETENTION)
        reason = "" if outcome.have else "; ".join(outcome.refusals)
        best = max(outcome.have, recipient.notifications[0]), outcome.want
        await self._learn(entry, replace(recipient, notifications=best, reason=reason))

    async def _prove(self, entry: Entry) -> None:
        """Ask the nodes for the recipients' signed deletes: the proof that they have the message."""
        secrets = entry.secrets
        if secrets is None or not secrets.segments:
            return
        key = segment_key(entry.message_id, 0, len(secrets.segments) > 1)
        for recipient in entry.recipients:
            if recipient.state is not State.STORED or recipient.salt is None or recipient.certificate is None:
                continue
            deleter = deleter_hash(key, recipient.salt, recipient.certificate)
            proofs = await self._overlay.tombstones(Kind.BODY, key, deleter)
            for proof in proofs:
                if proves_collected(proof, key, deleter, recipient.address):
                    await self._learn(entry, replace(recipient, proof=proof, reason=""))
                    break

    async def _expire(self, entry: Entry) -> None:
        """After retention the nodes have nothing left, and the sender must be told."""
        if self._now() - entry.created < RETENTION:
            return
        for recipient in entry.recipients:
            if not recipient.settled:
                reason = "not collected in time; the nodes have let it go"
                await self._learn(entry, replace(recipient, expired=True, reason=reason))

    def _wants_copies(self, recipient: Recipient, entry: Entry) -> bool:
        """Whether it isn't at enough nodes: surely while none has it, and for the first attempts while some lack."""
        if recipient.settled:
            return False
        short = recipient.bodies[0] < recipient.bodies[1] or recipient.notifications[0] < recipient.notifications[1]
        return recipient.state is State.QUEUED or (short and entry.attempts < UNKNOWN_AFTER)

    async def _explain(self, entry: Entry, reason: str) -> None:
        for recipient in (await self._reload(entry)).recipients:
            if recipient.state is State.QUEUED:
                await self._learn(entry, replace(recipient, reason=reason))

    async def _learn(self, entry: Entry, recipient: Recipient) -> Recipient:
        return await asyncio.to_thread(self._outbox.learn, entry.message_id, recipient)

    async def _reload(self, entry: Entry) -> Entry:
        return await asyncio.to_thread(self._outbox.entry, entry.message_id) or entry


def _take(parts: Iterator[tuple[Segment, bytes]], count: int) -> list[tuple[Segment, bytes]]:
    return list(islice(parts, count))


def _headers(entry: Entry) -> Headers:
    """What notifications tell of the message, read from it (the guarded adapter never raises)."""
    message = read_message(entry.file)
    return Headers(
        message_id=entry.message_id,
        sender=entry.sender,
        sender_name=message.sender.name,
        to=tuple(map(str, message.to)),
        cc=tuple(map(str, message.cc)),
        subject=message.subject,
        date=message.date if message.date is not None else entry.created,
        references=message.references,
        size=entry.file.stat().st_size,
    )
