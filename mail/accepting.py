"""Accepting a finished message: from here on the user agent is responsible for it (docs/commands.md, `send`).

The one door into the outbox for screen and commands. Carrying it away is mail/sending.py's.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

from overlay.address import normalise_address
from storage.folders import FolderError, Folders
from storage.outbox import Outbox, StillOnItsWay

log = logging.getLogger(__name__)


def accept(
    outbox: Outbox,
    folders: Folders,
    message: Path,
    message_id: str,
    subject: str,
    sender: str,
    recipients: Sequence[str],
    now: float,
) -> None:
    """Put a message into the durable outbox and a copy into Sent, or neither. `now` in epoch seconds.

    Handed in again by a caller who heard no answer, it is one message with one copy.

    Raises AddressError, OutboxError, DatabaseError, OSError; then nothing was accepted. (When the copy fails while a
    running agent has begun to send, the message is on its way: it is accepted, and its copy is missing.)
    """
    addresses = [normalise_address(recipient) for recipient in recipients]
    entry = outbox.accept(message, message_id, subject, sender, addresses, now)
    # The copy's name follows from the entry, so that an earlier acceptance that was killed can't leave a second one.
    unique = f"{int(entry.created)}.I{hashlib.sha256(message_id.encode()).hexdigest()[:32]}.p2pmail"
    accepted_before = entry.created != now
    try:
        if not (accepted_before and folders.find_anywhere(unique)):
            folders.add("Sent", message, "S", unique=unique)
    except (OSError, FolderError) as error:
        try:
            outbox.withdraw(message_id)
        except StillOnItsWay:
            log.warning("no copy of %s is in Sent: %s", message_id, error)
            return
        raise
