"""Decides what happens to sent messages when a certificate has changed, the recipient's or the sender's.

A recipient whose certificate was revoked or has ended can't delete a body that names it, so its proof would never come.
It may also have lost the keys that open the message. Once it has a new certificate, mail/send/sender.py notifies it
again. Nobody accepts a message from a revoked sender.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mail.directory import Directory, UnknownAddress
from storage.user.outbox_entry import OutboxEntry, Recipient, State


async def with_new_certificate(entry: OutboxEntry, directory: Directory) -> set[str]:
    """The addresses whose copy names a certificate that is no longer good, and that have a new one.

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


def fail_uncollected(recipients: Sequence[Recipient], reason: str) -> list[Recipient]:
    """The recipients that haven't collected the message, marked as failed: nobody will accept the copies at the nodes.

    The sealed notification names the revoked certificate, so it is dropped, and another attempt seals a new one.
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
