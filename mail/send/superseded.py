"""What becomes of letters on their way when a certificate has changed, the recipient's or our own. Decisions only.

A recipient whose certificate was revoked or has ended can't delete what names it, so that her proof would never come,
and with the keys of before she may have lost the means to open it: when she has a new one mail/send/sender.py writes to
her again. Nobody takes what a revoked sender wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mail.directory import Directory, UnknownAddress
from storage.user.outbox_entry import OutboxEntry, Recipient, State


async def superseded(entry: OutboxEntry, directory: Directory) -> set[str]:
    """The addresses whose letter names a certificate that isn't good any more, and who have another one now.

    Raises Unreachable.
    """
    found = set()
    for recipient in entry.recipients:
        if recipient.settled or recipient.certificate is None or directory.good(recipient.certificate):
            continue
        try:
            card = await directory.card(recipient.address)
        except UnknownAddress:
            continue
        if card.certificate.der != recipient.certificate:
            found.add(recipient.address)
    return found


def given_up(recipients: Sequence[Recipient], reason: str) -> list[Recipient]:
    """Those who haven't collected it, as failed: the copies that nodes have will be taken by nobody.

    What was sealed names the certificate that nobody takes, so another attempt seals anew.
    """
    return [
        replace(
            recipient,
            bodies=(0, recipient.bodies[1]),
            notifications=(0, recipient.notifications[1]),
            notification=None,
            failed=True,
            reason=reason,
        )
        for recipient in recipients
        if recipient.state in (State.QUEUED, State.STORED)
    ]
