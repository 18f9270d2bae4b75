"""Accepts a message written on the screen: checks the limits, composes it, and enqueues it (mail/send/enqueue.py)."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress

from mail.identity import Identity
from mail.send.enqueue import accept, check_recipients, check_room, check_sender, check_size
from mail.write.compose import Draft, compose, composed_size, new_message_id
from storage import durable
from storage.user.outbox import Outbox
from storage.user.profile import Profile


def accept_draft(outbox: Outbox, profile: Profile, identity: Identity, draft: Draft, now: float) -> str:
    """Put a message into the durable outbox, and a copy into Sent; returns its Message-ID. `now` in epoch seconds.

    A message that can't be sent is refused before anything is written. Raises ComposeError, and what `accept` raises;
    then nothing was accepted.
    """
    sender, certificate, folders = identity.address, identity.owner.certificate, profile.folders()
    size = composed_size(draft)
    check_recipients(len(draft.recipients))
    check_size(size)
    check_sender(certificate, now)
    check_room(outbox, folders, size, len(draft.recipients), composed=True)
    message_id = new_message_id(sender)
    durable.make_folder(profile.spool)
    spool = profile.spool / f"{secrets.token_hex(8)}.eml"
    try:
        with spool.open("xb") as out:
            os.fchmod(out.fileno(), 0o600)
            compose(out, draft, message_id=message_id, now=lambda: now, progress=lambda _: check_size(out.tell()))
        accept(
            outbox,
            folders,
            spool,
            message_id=message_id,
            subject=draft.subject,
            sender=sender,
            recipients=draft.recipients,
            now=now,
            certificate=certificate,
            bcc=draft.bcc,
        )
    finally:
        with suppress(OSError):
            spool.unlink(missing_ok=True)
    return message_id
