"""Sends what is in the outbox (paper, section 3.1), and learns what became of it.

Theory of operation
-------------------
The outbox keeps facts about each recipient's copy, never a state: how many nodes said yes to the body and to the
notification, the recipient's signed delete, how often the nodes denied having it. The state follows from the facts
(storage/user/outbox_entry.py):

    queued      no node has the body, or none has the notification
    stored      at least one node has each: the recipient can collect the message
    collected   a proof is here: the recipient's signed delete of the body, checked
    expired     it was stored, its time is over, and nodes have said for two hours that they have none of it
    failed      given up before any node had it; the reason says why

        queued ----> stored ----> collected
          |             |             ^
          v             v             |  (a late proof)
        failed       expired ---------+

An attempt at a message does these steps in this order. Each writes its result to the outbox before the next begins:

    1. Ask the nodes for proofs. A recipient with a proof is done.
    2. After 30 days: ask whether the nodes still have the copies. Proofs are asked for once more before a copy is
       called expired, because a message that was collected meanwhile is gone too.
    3. Now and then: count the copies. What nodes have lost is sent again.
    4. For each recipient that needs it: fetch the card, draw a salt, and keep the salt.
    5. Seal the body segment by segment and store it. The session key was drawn when the message was accepted; the code
       of a large body and the digests of its segments are kept before the first byte is out.
    6. Seal the notification for each recipient, keep the sealed bytes, and append it to the inbox's replicas.
    7. Note when the next attempt is due, and tell the user what has ended.

Invariants:

- An attempt that is repeated, after a crash or from a restored backup, sends the same bytes. If the file seals to other
  bytes than before, the message fails and the user is told; it is never sent as a second message.
- A recipient is notified only after a node has the body.
- One attempt at a message runs at a time. One recipient's trouble holds up no other recipient, one message's no other
  message, and a bug here is told to the user instead of stopping the outbox.
- Being offline is no attempt: what nobody answered isn't counted, so nothing fails because of it.
- The clock alone ends nothing. A copy expires when nodes say so for hours, and a later proof turns `expired` into
  `collected`.
- The user is told first and the outbox notes it afterwards: a crash between them tells twice, never not at all.

Which bytes go where is decided in mail/send/rules.py; mail/send/body_upload.py carries the body.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from mail.asyncio_tools import KeyedLocks, ProgressSteps, gather_all, gather_each
from mail.availability.erasure_code import MOST_SHARES, ErasureCode
from mail.directory import Directory, NobodyElse, UnknownAddress
from mail.events import Event, OutboxChanged, Progress, Trouble
from mail.sealed.body import SealingError, TooLarge
from mail.sealed.erasure_shares import SEED_SIZE, CodingPlan
from mail.sealed.keys import KeyMaterialError
from mail.sealed.notification import NotificationError, seal_notification
from mail.send.body_upload import BodyChanged, StoredBody, store_body
from mail.send.certificate_changes import fail_uncollected, with_new_certificate
from mail.send.collection_check import CollectionCheck
from mail.send.notified_headers import FileGone, read_notified_headers
from mail.send.outbox_batch import OutboxBatch
from mail.send.reasons import error_reason, failure_notices, refusal_reason
from mail.send.rules import (
    ASK_AGAIN,
    FIRST_ATTEMPTS,
    GIVEN_UP_AFTER,
    MINUTE,
    PROOF_BACK_OFF,
    UNANSWERED_RETRY,
    UNKNOWN_FOR,
    NotifiedHeaders,
    back_off,
    counted_since,
    decode_member_ids,
    entry_groups,
    interleave_recipients,
    member_ids,
    notification_for,
)
from overlay.client import Overlay
from overlay.errors import OverlayError, Unreachable
from overlay.identity.card import KEY_ID_SIZE, Card
from overlay.identity.certificates import Revoked, parse_certificate
from overlay.identity.ownership import Owner
from overlay.ids import inbox_key
from overlay.protocol_limits import RETENTION, SALT_BYTES
from storage.database import DatabaseError
from storage.user.outbox import Outbox, OutboxEntry, OutboxError, Recipient, Secrets, State

log = logging.getLogger(__name__)

MESSAGES_AT_ONCE = 4
RECIPIENTS_AT_ONCE = 32


PERMANENT = (TooLarge, BodyChanged, NotificationError, FileGone)
"""Errors that no further attempt can cure: the recipients concerned fail, and the user is told at once."""
TEMPORARY = (OverlayError, SealingError, KeyMaterialError, OutboxError, OSError)


class Sender:
    """Sends the messages in the outbox. There is one sender for a profile."""

    def __init__(  # noqa: PLR0913 - its collaborators, passed by keyword
        self,
        outbox: Outbox,
        overlay: Overlay,
        directory: Directory,
        *,
        owner: Callable[[], Owner],
        tell: Callable[[Event], None],
        now: Callable[[], float] = time.time,
        random: Callable[[int], bytes] = os.urandom,
        code: Callable[[int], ErasureCode] | None = None,
        may_send: Callable[[], None] = lambda: None,
    ) -> None:
        """`owner` returns the sender with its newest certificate.

        `may_send` raises Revoked or CertificateExpired when no recipient would accept this sender's mail. `code`
        chooses the erasure code of a large body for a number of nodes; without it bodies are stored in whole copies.
        """
        self._outbox = outbox
        self._overlay = overlay
        self._directory = directory
        self._owner = owner
        self._tell = tell
        self._now = now
        self._random = random
        self._code = code
        self._may_send = may_send
        self._batch = OutboxBatch(outbox)
        self._unanswered: Counter[str] = Counter()  # attempts in a row that no node answered, by Message-ID
        self._collection = CollectionCheck(overlay, self._batch)
        self._reported_earlier = False
        self._locks = KeyedLocks()  # by Message-ID: two attempts at once would send two notifications

    async def run(self, *, everything: bool = False) -> None:
        """Send the messages that are due, and ask for proofs of collection. Failures are recorded in the outbox.

        With `everything` the messages that aren't due yet are sent too. A message that another call is working on is
        skipped; with `everything` this call waits for it. Raises DatabaseError when the outbox can't be read or
        written, after the other messages are done.
        """
        gate = asyncio.Semaphore(MESSAGES_AT_ONCE)
        if not self._reported_earlier:
            self._reported_earlier = True
            for entry in await asyncio.to_thread(self._outbox.unreported):
                await self._report(entry)

        async def attempt(message_id: str) -> None:
            async with self._locks.of(message_id), gate:
                await self._attempt(message_id, everything=everything)
            if len(names) > 1:
                steps.another()

        entries = await asyncio.to_thread(self._outbox.due, self._now(), everything)
        names = [
            e.message_id for e in interleave_recipients(entries) if everything or not self._locks.held(e.message_id)
        ]
        del entries  # 5,000 recipients take 25 MB
        what = f"going through {len(names)} messages in the outbox"
        steps = ProgressSteps(self._tell, what, len(names), asyncio.get_running_loop().time)
        with self._overlay.areas.share(len(names)):
            await gather_all(attempt(name) for name in names)

    async def network_is_back(self) -> None:
        """Make the messages due whose last attempt no node answered. Raises DatabaseError."""
        waiting = list(self._unanswered)
        self._unanswered.clear()
        await asyncio.to_thread(self._outbox.make_due, waiting, self._now())

    async def _attempt(self, message_id: str, *, everything: bool) -> None:
        """Make one attempt at a message if it is due, and record the result."""
        entry = await asyncio.to_thread(self._outbox.entry, message_id)
        if entry is None or not (entry.due(self._now()) or (everything and not entry.settled)):
            return
        late = self._lifetime_is_over(entry) and not entry.notified
        away = lonely = False
        try:
            await self._advance(entry)
        except Revoked as error:
            lost = fail_uncollected((await self._reload(entry)).recipients, error_reason(error))
            await self._batch.record(entry.message_id, lost)
        except PERMANENT as error:
            await self._record_reason(entry, error_reason(error), failed=True)
        except TEMPORARY as error:
            log.info("%s: %s", entry.message_id, error)
            away, lonely = isinstance(error, Unreachable), isinstance(error, NobodyElse)
            await self._record_reason(entry, error_reason(error), answered=not away)
        except DatabaseError:
            raise
        except Exception as error:  # a bug here must not block other messages: log it and tell the user
            log.exception("sending %s failed", entry.message_id)
            await self._record_reason(entry, f"This is a fault of p2pmail ({type(error).__name__}: {error}).")
        entry = await self._reload(entry)
        if late and entry.notified:  # written under a wrong clock, or without a network for weeks
            await asyncio.to_thread(self._outbox.restart_lifetime, entry.message_id)
        elif not away or lonely:
            await self._give_up(entry, self._unanswered[entry.message_id] if lonely else entry.attempts)
        await self._note_attempt(await self._reload(entry), away=away)

    async def _advance(self, entry: OutboxEntry) -> None:
        """Ask for proofs, check the copies at the nodes, and send to the recipients whose copies are missing."""
        await self._collection.ask_for_proofs(await self._reload(entry))
        entry = await self._reload(entry)
        if self._lifetime_is_over(entry):
            await self._collection.note_expired(entry, self._now())
        else:
            await self._collection.undo_expiry(entry)
        self._may_send()
        lacking = set() if self._lifetime_is_over(entry) else await self._collection.check_copies(entry)
        entry = await self._reload(entry)
        wanting = {r.address for r in entry.recipients if r.address in lacking or self._wants_copies(r, entry)}
        wanting |= await with_new_certificate(entry, self._directory)
        if wanting:
            await self._send(entry, wanting)

    async def _note_attempt(self, entry: OutboxEntry, *, away: bool) -> None:
        """Record when the next attempt is due, and tell the user.

        `away`: no node answered, so this one doesn't count as an attempt.
        """
        waits = any(r.state is State.QUEUED for r in entry.recipients)
        pause = back_off(entry.attempts + 1) if waits else back_off(entry.attempts + 1, PROOF_BACK_OFF)
        if away:
            self._unanswered[entry.message_id] += 1
            pause = min(back_off(self._unanswered[entry.message_id]), UNANSWERED_RETRY)
        else:
            self._unanswered.pop(entry.message_id, None)
        pause = ASK_AGAIN if entry.settled else pause
        counts = not away and self._now() >= parse_certificate(self._owner().certificate).not_before
        await asyncio.to_thread(self._outbox.record_attempt, entry.message_id, self._now() + pause, answered=counts)
        self._tell(OutboxChanged(entry.message_id))
        await self._report(entry)

    async def _report(self, entry: OutboxEntry) -> None:
        """Tell the user for which recipients the message has failed or expired, unless they were told before.

        It is recorded only afterwards, so that a crash in between tells the user twice rather than never.
        """
        ended = [r for r in entry.recipients if r.state in (State.FAILED, State.EXPIRED) and not r.reported]
        for words in failure_notices(entry.subject, ended):
            self._tell(Trouble(words, lasting=True))
        if ended:
            await asyncio.to_thread(self._outbox.mark_reported, entry.message_id, [r.address for r in ended])

    async def _send(self, entry: OutboxEntry, wanting: Collection[str]) -> None:
        """Store the body and the notifications of the recipients in `wanting` (addresses) where nodes lack them."""
        with self._overlay.areas.share(len(wanting)):
            cards, missing = await self._look_up_cards(entry, wanting)
            if cards:
                await self._send_to(entry, cards)
        if missing is not None:
            raise missing

    async def _send_to(self, entry: OutboxEntry, cards: Mapping[str, Card | None]) -> None:
        """Store the body and the notifications of the recipients in `cards`."""
        entry = await self._reload(entry)
        headers = await asyncio.to_thread(read_notified_headers, entry)
        secrets = entry.secrets
        assert secrets is not None  # they are removed only when every recipient has collected the message
        group_of = entry_groups(entry)
        groups: dict[bytes, list[Recipient]] = {group_of[address]: [] for address in cards}
        for recipient in entry.recipients:
            if group_of[recipient.address] in groups:
                groups[group_of[recipient.address]].append(recipient)
        stored = await self._store_body(entry, secrets, groups, headers.size)

        def with_body(recipient: Recipient) -> Recipient:
            of = stored.outcomes[group_of[recipient.address]]
            return replace(
                recipient,
                bodies=(of.have, of.want),
                reason=recipient.reason if of.have else refusal_reason(of.refusals),
            )

        found = [with_body(recipient) for recipient in entry.recipients if recipient.address in cards]
        updated = await self._batch.record(entry.message_id, found)
        to_notify = [recipient for recipient in updated if recipient.bodies[0]]
        steps = self._steps(f"notifying {len(to_notify)} recipients of", entry, len(to_notify))

        async def notify(recipient: Recipient) -> None:
            group = group_of[recipient.address]
            await self._notify(
                entry, recipient, cards[recipient.address], headers=headers, secrets=secrets, stored=stored, group=group
            )
            steps.another()

        await gather_each(to_notify, notify, RECIPIENTS_AT_ONCE)

    async def _look_up_cards(
        self, entry: OutboxEntry, wanting: Collection[str]
    ) -> tuple[dict[str, Card | None], Unreachable | None]:
        """Look up the cards of the recipients in `wanting`, and draw a salt for each that has none (step 4).

        A recipient whose card has expired at the nodes gets None: its notification was sealed before and is sent
        again as it is. The second value is the error of a lookup that may succeed later: no node answered, or the
        network has no other member yet.
        """
        cards: dict[str, Card | None] = {}
        steps = self._steps(f"looking up {len(wanting)} recipients of", entry, len(wanting))
        missing: Unreachable | None = None

        async def find(recipient: Recipient) -> None:
            nonlocal missing
            steps.another()
            try:
                card = await self._directory.card(recipient.address)
            except Unreachable as error:  # it must not block other recipients
                missing = error
                return
            except UnknownAddress as error:
                if recipient.notification is not None and self._certificate_is_good(recipient):
                    cards[recipient.address] = None  # away for longer than nodes keep a card
                    return
                # For a while: a lookup may miss the right nodes while the network is starting, and the nodes that have
                # the card may be away just now.
                since = counted_since(entry, recipient.unknown_since, self._now())
                certain = self._now() - since >= UNKNOWN_FOR
                updated = replace(recipient, failed=certain, reason=str(error), unknown_since=since)
                await self._record(entry, updated)
                return
            cards[recipient.address] = card
            if recipient.unknown_since is not None:
                recipient = await self._record(entry, replace(recipient, unknown_since=None))
            told = (
                recipient.notifications[0]
                and recipient.notification is not None
                and self._certificate_is_good(recipient)
            )
            if recipient.certificate != card.certificate.der and not told:
                # The first attempt, or a new certificate. No node has anything yet that names it.
                new = replace(recipient, salt=self._random(SALT_BYTES), certificate=card.certificate.der)
                none = (0, recipient.notifications[1])
                await self._record(entry, replace(new, notification=None, notifications=none, reason=""))

        wanted = [recipient for recipient in entry.recipients if recipient.address in wanting]
        await gather_each(wanted, find, RECIPIENTS_AT_ONCE)
        return cards, missing

    async def _store_body(
        self, entry: OutboxEntry, secrets: Secrets, groups: Mapping[bytes, Sequence[Recipient]], size: int
    ) -> StoredBody:
        """Store the body, and record its segments in the outbox (step 5)."""
        what = f"sending {entry.subject or entry.message_id}"

        def progress(sent: int) -> None:
            self._tell(Progress(what, min(sent, size - 1), size))

        coding = secrets.coding

        async def plan(key: bytes) -> CodingPlan | None:
            nonlocal coding
            made = await self._plan(key)
            if made is not None:  # saved before the first share is sent, so that a retry makes the same shares
                coding = made.encode()
                await asyncio.to_thread(self._outbox.save_secrets, entry.message_id, replace(secrets, coding=coding))
            return made

        everybody = [recipient for group in groups.values() for recipient in group]
        ttl = max(self._time_left(entry, recipient) for recipient in everybody)
        those, begun = member_ids(everybody), decode_member_ids(secrets.begun)
        again = those <= begun and not self._lifetime_is_over(entry)
        if not begun:  # saved before anything is sent, so that a retry can resume
            secrets = replace(secrets, begun=b"".join(sorted(those)))
            await asyncio.to_thread(self._outbox.save_secrets, entry.message_id, secrets)
        stored = await store_body(
            self._overlay,
            entry.file,
            entry.message_id,
            secrets=secrets,
            groups=groups,
            progress=progress,
            ttl=ttl,
            plan=plan,
            again=again,
        )
        # A member that was added later is recorded once all nodes know it: nodes that stored the body before don't
        # wait for its delete.
        complete = [group for group, of in stored.outcomes.items() if of.have >= of.want]
        noted = decode_member_ids(secrets.begun).union(*(member_ids(groups[group]) for group in complete))
        known = replace(secrets, coding=coding, begun=b"".join(sorted(noted)))
        if not secrets.segments:
            digests = [(segment.size, segment.digest) for segment in stored.segments]
            known = replace(known, segments=digests)
        if known != replace(secrets, coding=coding):
            await asyncio.to_thread(self._outbox.save_secrets, entry.message_id, known)
        if stored.many or len(groups) > 1:
            self._tell(Progress(what, size, size))
        return stored

    async def _plan(self, key: bytes) -> CodingPlan | None:
        if self._code is None:
            return None
        nodes = await self._overlay.closest(key, MOST_SHARES)
        code = self._code(len(nodes))
        return None if code.m == 1 else CodingPlan(code.m, code.n, self._random(SEED_SIZE))

    async def _notify(
        self,
        entry: OutboxEntry,
        recipient: Recipient,
        card: Card | None,
        *,
        headers: NotifiedHeaders,
        secrets: Secrets,
        stored: StoredBody,
        group: bytes,
    ) -> None:
        """Append the notification to the k replicas of one inbox (step 6). An error affects this recipient alone."""
        try:
            sealed = recipient.notification
            # A notification that no node has yet is sealed again if the recipient's key has changed.
            other_key = sealed is not None and card is not None and sealed[:KEY_ID_SIZE] != card.key_id
            if sealed is None or (other_key and not recipient.notifications[0]):
                assert card is not None and recipient.salt is not None  # without a card it was sealed before
                told = notification_for(
                    recipient.address,
                    headers,
                    session_key=secrets.session_key,
                    segments=stored.segments,
                    salt=recipient.salt,
                    coding=stored.coding,
                    group=group,
                )
                sealed = await asyncio.to_thread(seal_notification, told, self._owner(), card.encryption_key)
                recipient = await self._record(entry, replace(recipient, notification=sealed))
            left = self._time_left(entry, recipient)
            outcome = await self._overlay.append_inbox(inbox_key(recipient.address), sealed, ttl=left)
        except NotificationError as error:
            await self._record(entry, replace(recipient, failed=True, reason=str(error)))
            return
        except Unreachable:
            raise
        except (KeyMaterialError, OverlayError) as error:
            await self._record(entry, replace(recipient, reason=str(error)))
            return
        reason = "" if outcome.have else refusal_reason(outcome.refusals)
        await self._record(entry, replace(recipient, notifications=(outcome.have, outcome.want), reason=reason))

    async def _give_up(self, entry: OutboxEntry, attempts: int) -> None:
        """Fail the recipients that the message couldn't be sent to for 30 days, as long as nodes keep anything."""
        if not self._lifetime_is_over(entry) or attempts + 1 < GIVEN_UP_AFTER:
            return
        failed = [
            replace(r, failed=True, reason=f"It couldn't be sent for 30 days. {r.reason}".rstrip())
            for r in entry.recipients
            if r.state is State.QUEUED
        ]
        await self._batch.record(entry.message_id, failed)

    def _time_left(self, entry: OutboxEntry, recipient: Recipient) -> float:
        """Seconds until this recipient's copies expire; the whole retention if no node has had a copy by then."""
        left = entry.created + RETENTION - self._now()
        if left <= 0 and not recipient.notifications[0]:
            return RETENTION
        return min(max(left, MINUTE), RETENTION)

    def _certificate_is_good(self, recipient: Recipient) -> bool:
        """Whether the certificate that this recipient's copies name is good."""
        return recipient.certificate is not None and self._directory.good(recipient.certificate)

    def _lifetime_is_over(self, entry: OutboxEntry) -> bool:
        """Whether the message is older than the retention by this computer's clock, which may be wrong."""
        return self._now() - entry.created >= RETENTION

    def _wants_copies(self, recipient: Recipient, entry: OutboxEntry) -> bool:
        """Whether to store more copies: always while no node has one; at the first attempts also while some lack it."""
        if recipient.settled:
            return False
        short = recipient.bodies[0] < recipient.bodies[1] or recipient.notifications[0] < recipient.notifications[1]
        return recipient.state is State.QUEUED or (short and entry.attempts < FIRST_ATTEMPTS)

    async def _record_reason(
        self, entry: OutboxEntry, reason: str, *, failed: bool = False, answered: bool = True
    ) -> None:
        recipients = [r for r in (await self._reload(entry)).recipients if r.state is State.QUEUED]
        if not answered:  # whether the address is known is looked up again once a node answers
            recipients = [replace(recipient, unknown_since=None) for recipient in recipients]
        waiting = [replace(recipient, reason=reason, failed=failed) for recipient in recipients]
        await self._batch.record(entry.message_id, waiting)

    async def _record(self, entry: OutboxEntry, recipient: Recipient) -> Recipient:
        (noted,) = await self._batch.record(entry.message_id, [recipient])
        return noted

    def _steps(self, what: str, entry: OutboxEntry, total: int) -> ProgressSteps:
        now = asyncio.get_running_loop().time
        return ProgressSteps(self._tell, f"{what} {entry.subject or entry.message_id}", total, now)

    async def _reload(self, entry: OutboxEntry) -> OutboxEntry:
        return await asyncio.to_thread(self._outbox.entry, entry.message_id) or entry
