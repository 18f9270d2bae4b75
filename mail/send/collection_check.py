"""What has become of a message that was sent: its recipients' proofs, and the copies that are left.

What is learnt goes to the outbox; what is lacking is sent again by mail/send/sender.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from mail.send.outbox_batch import OutboxBatch
from mail.send.replica_check import count_copies, due, gone
from mail.send.rules import groups_of_entry, kind_of, proves_collected, segment_key
from overlay.client import Overlay
from overlay.ids import deleter_hash
from storage.user.outbox import OutboxEntry, Recipient, Secrets, State

LET_GO = "The nodes have let it go, and no proof came that it was collected."


class CollectionCheck:
    """Asks the nodes about messages that are out."""

    def __init__(self, overlay: Overlay, learning: OutboxBatch) -> None:
        self._overlay = overlay
        self._learning = learning

    async def prove(self, entry: OutboxEntry) -> set[str]:
        """Ask the nodes for the recipients' signed deletes: the proof that they have it. The addresses of those who
        gave one now. Raises Unreachable."""
        secrets = entry.secrets
        proven: set[str] = set()
        if secrets is None or not secrets.segments:
            return proven
        group_of = groups_of_entry(entry)
        waiting = [r for r in entry.recipients if not r.dormant and r.salt is not None and r.certificate is not None]
        for group in dict.fromkeys(group_of[recipient.address] for recipient in waiting):
            members = [recipient for recipient in waiting if group_of[recipient.address] == group]
            proofs = await self._proofs_of(entry, secrets, group, members)
            learnt = [replace(r, proof=proofs[r.address], reason="") for r in members if r.address in proofs]
            await self._learning.learn(entry.message_id, learnt)
            proven |= proofs.keys()
        return proven

    async def let_go(self, entry: OutboxEntry) -> None:
        """Of a message whose time is over by the clock note which copies the nodes have let go, which proves that it
        is, and which they have after all. Raises Unreachable.

        What was collected since the proofs were asked for is gone too, so before anything is called expired they are
        asked for again.
        """
        left = await gone(self._overlay, entry)
        if any(r.address in left and r.state is not State.EXPIRED for r in entry.recipients):
            left -= await self.prove(entry)
        learnt = [
            replace(r, expired=r.expired + 1, reason=LET_GO) if r.address in left else replace(r, expired=0, reason="")
            for r in entry.recipients
            if r.address in left or r.state is State.EXPIRED
        ]
        await self._learning.learn(entry.message_id, learnt)

    async def take_back(self, entry: OutboxEntry) -> None:
        """Call nothing expired of a message whose time isn't over: the clock was ahead when that was noted."""
        learnt = [replace(r, expired=0, reason="") for r in entry.recipients if r.state is State.EXPIRED]
        await self._learning.learn(entry.message_id, learnt)

    async def _proofs_of(
        self, entry: OutboxEntry, secrets: Secrets, group: bytes, members: Sequence[Recipient]
    ) -> dict[str, bytes]:
        """The signed deletes of those members of a group who have deleted the body, by address. Raises Unreachable."""
        key = segment_key(entry.message_id, 0, len(secrets.segments) > 1, group)
        hashes = {
            deleter_hash(key, recipient.salt, recipient.certificate): recipient.address
            for recipient in members
            if recipient.salt is not None and recipient.certificate is not None
        }
        checks = {
            deleter: partial(proves_collected, key=key, deleter=deleter, recipient=address)
            for deleter, address in hashes.items()
        }
        proofs = await self._overlay.tombstones(kind_of(secrets.coding), key, checks)
        return {hashes[deleter]: proof for deleter, proof in proofs.items()}

    async def recheck(self, entry: OutboxEntry) -> set[str]:
        """See whether the copies are still there; the addresses of those whose mail lacks some. Raises Unreachable."""
        if not due(entry):
            return set()
        copies = await count_copies(self._overlay, entry)
        lacking = {address for address in copies.notifications if copies.lacking(address)}

        def with_what_is_left(recipient: Recipient) -> Recipient:
            bodies = copies.bodies[recipient.address].have, recipient.bodies[1]
            notifications = copies.notifications[recipient.address].have, recipient.notifications[1]
            return replace(recipient, bodies=bodies, notifications=notifications)

        # The state says what is true now, though it was better before.
        worse = [with_what_is_left(recipient) for recipient in entry.recipients if recipient.address in lacking]
        await self._learning.learn(entry.message_id, worse)
        return lacking
