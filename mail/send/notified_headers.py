"""Reads the headers that notifications carry from a message's file in the outbox."""

from __future__ import annotations

from mail.mime.message import read_headers
from mail.sealed.body import SealingError
from mail.send.rules import NotifiedHeaders
from storage.user.outbox_entry import OutboxEntry


class FileGone(SealingError):
    """The message's file is no longer in the outbox: somebody deleted it."""


def read_notified_headers(entry: OutboxEntry) -> NotifiedHeaders:
    """The headers that notifications carry. A malformed message doesn't raise. Raises FileGone, OSError."""
    try:
        message, size = read_headers(entry.file), entry.file.stat().st_size
    except FileNotFoundError as error:
        raise FileGone("Its file in the outbox is gone.") from error
    return NotifiedHeaders(
        message_id=entry.message_id,
        sender=entry.sender,
        sender_name=message.sender.name,
        to=tuple(map(str, message.to)),
        cc=tuple(map(str, message.cc)),
        subject=message.subject,
        date=message.date if message.date is not None else entry.created,
        references=message.references,
        size=size,
    )
