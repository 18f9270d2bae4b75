"""Sends what is in the outbox (paper, section 3.1), and learns what became of it.

Theory of operation
-------------------
The outbox keeps facts about each recipient's copy, never a state: how many nodes said yes to the body and to the
notification, the recipient's signed delete, how often the nodes denied having it. The state follows from the facts
(storage/user/outbox_entry.py):

    queued      no node has the body, or none has the notification
    stored      at least one node has each: the recipient can collect the message
    collected   a proof is here: the recipient's signed delete of the body, checked
    expired     it was stored, its time is over, and the nodes say that they let it go
    failed      given up before any node had it; the reason says why

        queued ----> stored ----> collected
          |             |             ^
          v             v             |  (a late proof)
        failed       expired ---------+

An attempt at a message does these steps in this order. Each writes its result to the outbox before the next begins:

    1. Ask the nodes for proofs; whoever gave one is done.
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
- The clock alone ends nothing. A copy expires when nodes say so, and a later proof turns `expired` into `collected`.
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
from mail.send.collection_check import CollectionCheck
from mail.send.notified_headers import FileGone, headers_of
from mail.send.outbox_batch import OutboxBatch
from mail.send.reasons import endings, refused, words_of
from mail.send.rules import (
    ASK_AGAIN,
    AWAY,
    GIVEN_UP_AFTER,
    MINUTE,
    PROOF_BACK_OFF,
    UNKNOWN_AFTER,
    UNKNOWN_FOR,
    NotifiedHeaders,
    back_off,
    groups_of_entry,
    in_turn,
    members,
    members_in,
    notification_for,
)
from mail.send.superseded import given_up, superseded
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

LETTERS_AT_ONCE = 4
RECIPIENTS_AT_ONCE = 32


HOPELESS = (TooLarge, BodyChanged, NotificationError, FileGone)
"""What no other attempt can mend: the recipients concerned have failed, and the user is told at once."""
TEMPORARY = (OverlayError, SealingError, KeyMaterialError, OutboxError, OSError)


class Sender:
    """Carries the outbox's letters into the overlay; one for a profile."""

    def __init__(  # noqa: PLR0913 - the parts that it is put together from, named at each call
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
        """`owner` says who sends, with the newest certificate; `may_send` raises Revoked or Ended when nobody would
        take it. `code` chooses how a large body is coded on so many nodes; without it in whole copies."""
        self._outbox = outbox
        self._overlay = overlay
        self._directory = directory
        self._owner = owner
        self._tell = tell
        self._now = now
        self._random = random
        self._code = code
        self._may_send = may_send
        self._learning = OutboxBatch(outbox)
        self._away: Counter[str] = Counter()  # attempts in a row at which nobody answered, by Message-ID
        self._proving = CollectionCheck(overlay, self._learning)
        self._looked = False
        self._letters = KeyedLocks()  # one attempt a letter: two at once would be two notifications

    async def run(self, *, everything: bool = False) -> None:
        """Send what is due (or all that waits), and ask for proofs of collection. What fails is in the outbox.

        A letter that another call is at is left to that, or with `everything` waited for. Raises DatabaseError when
        the outbox can't be read or written, once the other letters are done.
        """
        gate = asyncio.Semaphore(LETTERS_AT_ONCE)
        if not self._looked:
            self._looked = True
            for entry in await asyncio.to_thread(self._outbox.unreported):
                await self._report(entry)

        async def attempt(message_id: str) -> None:
            async with self._letters.of(message_id), gate:
                await self._attempt(message_id, everything=everything)
            if len(names) > 1:
                steps.another()

        entries = await asyncio.to_thread(self._outbox.due, self._now(), everything)
        names = [e.message_id for e in in_turn(entries) if everything or not self._letters.held(e.message_id)]
        del entries  # 5,000 recipients have 25 MB
        what = f"going through {len(names)} messages in the outbox"
        steps = ProgressSteps(self._tell, what, len(names), asyncio.get_running_loop().time)
        with self._overlay.areas.share(len(names)):
            await gather_all(attempt(name) for name in names)

    async def network_is_back(self) -> None:
        """Make due what waits for somebody to answer. Raises DatabaseError."""
        waiting = list(self._away)
        self._away.clear()
        await asyncio.to_thread(self._outbox.make_due, waiting, self._now())

    async def _attempt(self, message_id: str, *, everything: bool) -> None:
        """Bring one letter as far as it comes today if it is due, and note how far that was."""
        entry = await asyncio.to_thread(self._outbox.entry, message_id)
        if entry is None or not (entry.due(self._now()) or (everything and not entry.settled)):
            return
        late = self._over(entry) and not entry.notified
        away = lonely = False
        try:
            await self._advance(entry)
        except Revoked as error:
            lost = given_up((await self._reload(entry)).recipients, words_of(error))
            await self._learning.learn(entry.message_id, lost)
        except HOPELESS as error:
            await self._explain(entry, words_of(error), failed=True)
        except TEMPORARY as error:
            log.info("%s: %s", entry.message_id, error)
            away, lonely = isinstance(error, Unreachable), isinstance(error, NobodyElse)
            await self._explain(entry, words_of(error), answered=not away)
        except DatabaseError:
            raise
        except Exception as error:  # a fault of ours holds up this letter alone, and isn't silent
            log.exception("sending %s failed", entry.message_id)
            await self._explain(entry, f"This is a fault of p2pmail ({type(error).__name__}: {error}).")
        entry = await self._reload(entry)
        if late and entry.notified:  # it was written under a clock that was wrong, or without a network for weeks
            await asyncio.to_thread(self._outbox.restart_lifetime, entry.message_id)
        elif not away or lonely:
            await self._give_up(entry, self._away[entry.message_id] if lonely else entry.attempts)
        await self._note_attempt(await self._reload(entry), away=away)

    async def _advance(self, entry: OutboxEntry) -> None:
        """Learn what was collected, check what nodes still have, and send to the recipients for whom copies lack."""
        await self._proving.prove(await self._reload(entry))
        entry = await self._reload(entry)
        if self._over(entry):
            await self._proving.let_go(entry)
        else:
            await self._proving.take_back(entry)
        self._may_send()
        lacking = set() if self._over(entry) else await self._proving.recheck(entry)
        entry = await self._reload(entry)
        wanting = {r.address for r in entry.recipients if r.address in lacking or self._wants_copies(r, entry)}
        wanting |= await superseded(entry, self._directory)
        if wanting:
            await self._send(entry, wanting)

    async def _note_attempt(self, entry: OutboxEntry, *, away: bool) -> None:
        """Write down when the next attempt is due, and tell the user. `away`: nobody answered, so this one is none."""
        waits = any(r.state is State.QUEUED for r in entry.recipients)
        pause = back_off(entry.attempts + 1) if waits else back_off(entry.attempts + 1, PROOF_BACK_OFF)
        if away:
            self._away[entry.message_id] += 1
            pause = min(back_off(self._away[entry.message_id]), AWAY)
        else:
            self._away.pop(entry.message_id, None)
        pause = ASK_AGAIN if entry.settled else pause
        counts = not away and self._now() >= parse_certificate(self._owner().certificate).not_before
        await asyncio.to_thread(self._outbox.record_attempt, entry.message_id, self._now() + pause, answered=counts)
        self._tell(OutboxChanged(entry.message_id))
        await self._report(entry)

    async def _report(self, entry: OutboxEntry) -> None:
        """Tell the user for whom it has failed or expired, unless she was told. Noted only then: better twice than
        never."""
        ended = [r for r in entry.recipients if r.state in (State.FAILED, State.EXPIRED) and not r.reported]
        for words in endings(entry.subject, ended):
            self._tell(Trouble(words, lasting=True))
        if ended:
            await asyncio.to_thread(self._outbox.mark_reported, entry.message_id, [r.address for r in ended])

    async def _send(self, entry: OutboxEntry, wanting: Collection[str]) -> None:
        """Bring body and notifications to those who want them (addresses), as far as nodes lack them."""
        with self._overlay.areas.share(len(wanting)):
            cards, missing = await self._cards(entry, wanting)
            if cards:
                await self._send_to(entry, cards)
        if missing is not None:
            raise missing

    async def _send_to(self, entry: OutboxEntry, cards: Mapping[str, Card | None]) -> None:
        """Bring body and notifications to those in `cards`."""
        entry = await self._reload(entry)
        headers = await asyncio.to_thread(headers_of, entry)
        secrets = entry.secrets
        assert secrets is not None  # only what everybody has collected has none
        group_of = groups_of_entry(entry)
        groups: dict[bytes, list[Recipient]] = {group_of[address]: [] for address in cards}
        for recipient in entry.recipients:
            if group_of[recipient.address] in groups:
                groups[group_of[recipient.address]].append(recipient)
        stored = await self._store_body(entry, secrets, groups, headers.size)

        def with_body(recipient: Recipient) -> Recipient:
            of = stored.outcomes[group_of[recipient.address]]
            return replace(
                recipient, bodies=(of.have, of.want), reason=recipient.reason if of.have else refused(of.refusals)
            )

        found = [with_body(recipient) for recipient in entry.recipients if recipient.address in cards]
        learnt = await self._learning.learn(entry.message_id, found)
        to_notify = [recipient for recipient in learnt if recipient.bodies[0]]
        steps = self._steps(f"notifying {len(to_notify)} recipients of", entry, len(to_notify))

        async def notify(recipient: Recipient) -> None:
            group = group_of[recipient.address]
            await self._notify(
                entry, recipient, cards[recipient.address], headers=headers, secrets=secrets, stored=stored, group=group
            )
            steps.another()

        await gather_each(to_notify, notify, RECIPIENTS_AT_ONCE)

    async def _cards(
        self, entry: OutboxEntry, wanting: Collection[str]
    ) -> tuple[dict[str, Card | None], Unreachable | None]:
        """The cards of those who still need something, each with a salt of their own from here on (step 1).

        None for who has no card any more: what was sealed for her before is brought again. With them why some may
        still come to have one: nobody answered, or the network has only begun.
        """
        cards: dict[str, Card | None] = {}
        steps = self._steps(f"looking up {len(wanting)} recipients of", entry, len(wanting))
        missing: Unreachable | None = None

        async def find(recipient: Recipient) -> None:
            nonlocal missing
            steps.another()
            try:
                card = await self._directory.card(recipient.address)
            except Unreachable as error:  # it holds up nobody else
                missing = error
                return
            except UnknownAddress as error:
                if recipient.notification is not None and self._good(recipient):
                    cards[recipient.address] = None  # she may have been away for longer than nodes keep a card
                    return
                # Several times in a row: one may have missed the right nodes while the network was coming up.
                # And for a while: those that have her card may be away just now.
                since = self._unknown_since(entry, recipient)
                certain = entry.attempts + 1 >= UNKNOWN_AFTER and self._now() - since >= UNKNOWN_FOR
                learnt = replace(recipient, failed=certain, reason=str(error), unknown_since=since)
                await self._learn(entry, learnt)
                return
            cards[recipient.address] = card
            if recipient.unknown_since is not None:
                recipient = await self._learn(entry, replace(recipient, unknown_since=None))
            told = recipient.notifications[0] and recipient.notification is not None and self._good(recipient)
            if recipient.certificate != card.certificate.der and not told:
                # The first attempt, or another certificate. Of what names that one nobody has anything yet.
                new = replace(recipient, salt=self._random(SALT_BYTES), certificate=card.certificate.der)
                none = (0, recipient.notifications[1])
                await self._learn(entry, replace(new, notification=None, notifications=none, reason=""))

        wanted = [recipient for recipient in entry.recipients if recipient.address in wanting]
        await gather_each(wanted, find, RECIPIENTS_AT_ONCE)
        return cards, missing

    async def _store_body(
        self, entry: OutboxEntry, secrets: Secrets, groups: Mapping[bytes, Sequence[Recipient]], size: int
    ) -> StoredBody:
        """The body at its nodes, and what its segments are in the outbox (steps 2 to 4)."""
        what = f"sending {entry.subject or entry.message_id}"

        def progress(sent: int) -> None:
            self._tell(Progress(what, min(sent, size - 1), size))

        coding = secrets.coding

        async def plan(key: bytes) -> CodingPlan | None:
            nonlocal coding
            made = await self._plan(key)
            if made is not None:  # kept before the first share is out: another try makes the same ones
                coding = made.encode()
                await asyncio.to_thread(self._outbox.save_secrets, entry.message_id, replace(secrets, coding=coding))
            return made

        everybody = [recipient for group in groups.values() for recipient in group]
        ttl = max(self._left(entry, recipient) for recipient in everybody)
        those, begun = members(everybody), members_in(secrets.begun)
        again = those <= begun and not self._over(entry)
        if not begun:  # kept before anything is out: an attempt that is interrupted goes on where it was
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
        # Who came later is noted once all nodes know her: what one had before is deleted without her.
        complete = [group for group, of in stored.outcomes.items() if of.have >= of.want]
        noted = members_in(secrets.begun).union(*(members(groups[group]) for group in complete))
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
        """Append the notification to the k replicas of one inbox (step 5). What goes wrong concerns her alone."""
        try:
            sealed = recipient.notification
            # What nobody has yet may as well be sealed to the key that she uses now.
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
                recipient = await self._learn(entry, replace(recipient, notification=sealed))
            left = self._left(entry, recipient)
            outcome = await self._overlay.append_inbox(inbox_key(recipient.address), sealed, ttl=left)
        except NotificationError as error:
            await self._learn(entry, replace(recipient, failed=True, reason=str(error)))
            return
        except Unreachable:
            raise
        except (KeyMaterialError, OverlayError) as error:
            await self._learn(entry, replace(recipient, reason=str(error)))
            return
        reason = "" if outcome.have else refused(outcome.refusals)
        await self._learn(entry, replace(recipient, notifications=(outcome.have, outcome.want), reason=reason))

    async def _give_up(self, entry: OutboxEntry, attempts: int) -> None:
        """What couldn't be sent for as long as nodes keep anything won't be, and the sender must be told."""
        if not self._over(entry) or attempts + 1 < GIVEN_UP_AFTER:
            return
        given_up = [
            replace(r, failed=True, reason=f"It couldn't be sent for 30 days. {r.reason}".rstrip())
            for r in entry.recipients
            if r.state is State.QUEUED
        ]
        await self._learning.learn(entry.message_id, given_up)

    def _left(self, entry: OutboxEntry, recipient: Recipient) -> float:
        """Seconds that her copies have, whenever they are made: all of retention when no node had one in that time."""
        left = entry.created + RETENTION - self._now()
        if left <= 0 and not recipient.notifications[0]:
            return RETENTION
        return min(max(left, MINUTE), RETENTION)

    def _unknown_since(self, entry: OutboxEntry, recipient: Recipient) -> float:
        """Since when each answer has been that nobody holds the address, moved forward by what wasn't waited for.

        Of the time since the last attempt the pause that was planned counts at the most: a clock that is put forward
        by an hour must not make seconds of looking into an hour.
        """
        now = self._now()
        if recipient.unknown_since is None:
            return now
        before = max(entry.scheduled - recipient.unknown_since, 0.0)
        waited = min(max(now - entry.scheduled, 0.0), max(entry.next_attempt - entry.scheduled, 0.0))
        planned = sum(back_off(attempt) for attempt in range(1, entry.attempts + 1))  # a clock may jump in an attempt
        return now - min(before + waited, planned)

    def _good(self, recipient: Recipient) -> bool:
        """Whether the certificate that her copies name is good."""
        return recipient.certificate is not None and self._directory.good(recipient.certificate)

    def _over(self, entry: OutboxEntry) -> bool:
        """Whether its time is over by this computer's clock, which may be wrong."""
        return self._now() - entry.created >= RETENTION

    def _wants_copies(self, recipient: Recipient, entry: OutboxEntry) -> bool:
        """Whether it isn't at enough nodes: surely while none has it, and for the first attempts while some lack."""
        if recipient.settled:
            return False
        short = recipient.bodies[0] < recipient.bodies[1] or recipient.notifications[0] < recipient.notifications[1]
        return recipient.state is State.QUEUED or (short and entry.attempts < UNKNOWN_AFTER)

    async def _explain(self, entry: OutboxEntry, reason: str, *, failed: bool = False, answered: bool = True) -> None:
        recipients = [r for r in (await self._reload(entry)).recipients if r.state is State.QUEUED]
        if not answered:  # whether the address is known is looked for anew when somebody answers
            recipients = [replace(recipient, unknown_since=None) for recipient in recipients]
        waiting = [replace(recipient, reason=reason, failed=failed) for recipient in recipients]
        await self._learning.learn(entry.message_id, waiting)

    async def _learn(self, entry: OutboxEntry, recipient: Recipient) -> Recipient:
        (noted,) = await self._learning.learn(entry.message_id, [recipient])
        return noted

    def _steps(self, what: str, entry: OutboxEntry, total: int) -> ProgressSteps:
        now = asyncio.get_running_loop().time
        return ProgressSteps(self._tell, f"{what} {entry.subject or entry.message_id}", total, now)

    async def _reload(self, entry: OutboxEntry) -> OutboxEntry:
        return await asyncio.to_thread(self._outbox.entry, entry.message_id) or entry
