"""Finds out what became of a sent message: the recipients' proofs, and the copies that nodes still have.

The results go to the outbox. mail/send/sender.py sends again what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from mail.send.outbox_batch import OutboxBatch
from mail.send.replica_check import count_copies, find_expired, is_due
from mail.send.rules import (
    GONE_FOR,
    PROOF_BACK_OFF,
    body_kind,
    counted_since,
    entry_groups,
    proves_collected,
    segment_key,
)
from overlay.client import Overlay
from overlay.ids import deleter_hash
from storage.user.outbox import OutboxEntry, Recipient, Secrets, State

LET_GO = "The nodes have let it go, and no proof came that it was collected."


class CollectionCheck:
    """Asks the nodes about messages that were sent."""

    def __init__(self, overlay: Overlay, batch: OutboxBatch) -> None:
        self._overlay = overlay
        self._batch = batch

    async def ask_for_proofs(self, entry: OutboxEntry) -> set[str]:
        """Ask the nodes for the recipients' signed deletes, which prove that they collected the message.

        Returns the addresses whose proof was found now. Raises Unreachable.
        """
        secrets = entry.secrets
        proven: set[str] = set()
        if secrets is None or not secrets.segments:
            return proven
        group_of = entry_groups(entry)
        waiting = [r for r in entry.recipients if not r.dormant and r.salt is not None and r.certificate is not None]
        for group in dict.fromkeys(group_of[recipient.address] for recipient in waiting):
            members = [recipient for recipient in waiting if group_of[recipient.address] == group]
            proofs = await self._proofs_of(entry, secrets, group, members)
            updated = [replace(r, proof=proofs[r.address], reason="") for r in members if r.address in proofs]
            await self._batch.record(entry.message_id, updated)
            proven |= proofs.keys()
        return proven

    async def note_expired(self, entry: OutboxEntry, now: float) -> None:
        """Record which copies of a message have expired at the nodes, and which of them nodes have after all.

        Called when the message's time is over by this clock (`now`, epoch seconds); that nodes have removed the copies
        confirms it. One answer confirms nothing, because the nodes that have a copy may be away: it has expired when
        nodes have answered so for GONE_FOR. A copy that was collected since the last query is gone too, so proofs are
        asked for again before any copy is called expired. Raises Unreachable.
        """
        left = await find_expired(self._overlay, entry)
        if any(r.address in left and r.state is not State.EXPIRED for r in entry.recipients):
            left -= await self.ask_for_proofs(entry)

        def after_this_answer(recipient: Recipient) -> Recipient:
            if recipient.address not in left:
                return _not_gone(recipient)
            since = counted_since(entry, recipient.gone_since, now, PROOF_BACK_OFF)
            if now - since < GONE_FOR and not recipient.expired:
                return replace(recipient, gone_since=since)
            return replace(recipient, expired=recipient.expired + 1, gone_since=since, reason=LET_GO)

        updated = [after_this_answer(r) for r in entry.recipients if r.address in left or _seems_gone(r)]
        await self._batch.record(entry.message_id, updated)

    async def undo_expiry(self, entry: OutboxEntry) -> None:
        """Call no copy expired of a message whose time isn't over: the clock was ahead when that was recorded."""
        updated = [_not_gone(r) for r in entry.recipients if _seems_gone(r)]
        await self._batch.record(entry.message_id, updated)

    async def _proofs_of(
        self, entry: OutboxEntry, secrets: Secrets, group: bytes, members: Sequence[Recipient]
    ) -> dict[str, bytes]:
        """The signed deletes that nodes have of a group's members, by address. Raises Unreachable."""
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
        proofs = await self._overlay.tombstones(body_kind(secrets.coding), key, checks)
        return {hashes[deleter]: proof for deleter, proof in proofs.items()}

    async def check_copies(self, entry: OutboxEntry) -> set[str]:
        """Count the copies at the nodes, if that is due; returns the addresses that lack some. Raises Unreachable."""
        if not is_due(entry):
            return set()
        copies = await count_copies(self._overlay, entry)
        lacking = {address for address in copies.notifications if copies.lacking(address)}

        def with_what_is_left(recipient: Recipient) -> Recipient:
            bodies = copies.bodies[recipient.address].have, recipient.bodies[1]
            notifications = copies.notifications[recipient.address].have, recipient.notifications[1]
            return replace(recipient, bodies=bodies, notifications=notifications)

        # The state must say what is true now, even if it was better before.
        worse = [with_what_is_left(recipient) for recipient in entry.recipients if recipient.address in lacking]
        await self._batch.record(entry.message_id, worse)
        return lacking


def _seems_gone(recipient: Recipient) -> bool:
    return recipient.state is State.EXPIRED or (recipient.state is State.STORED and recipient.gone_since is not None)


def _not_gone(recipient: Recipient) -> Recipient:
    return replace(recipient, expired=0, gone_since=None, reason="")
