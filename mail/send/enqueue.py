"""Accepts a finished message into the outbox; then the user agent is responsible for it (docs/commands.md, `send`).

Screen and commands both use this way into the outbox. Every limit is checked here, before the disk is used.
mail/send/sender.py sends the message.

The message is accepted when the outbox's row is committed. Before that everything is invisible and can be removed
without free disk space (the copy for Sent lies in Sent/tmp). After that nothing turns acceptance into refusal: the copy
gets its name by a rename, now or at the next start (`finish_copies`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from mail.mime import sanitize
from mail.mime.addresses import Address, field_of
from mail.mime.headers import LINE_LIMIT
from mail.sealed.body import ORIGINAL_LIMIT
from overlay.identity.address import normalise_address
from overlay.identity.certificates import parse_certificate
from storage.database import DatabaseError
from storage.errors import PERMISSION, TEMPORARY
from storage.space import require_room
from storage.user.folders import FolderError, Folders
from storage.user.outbox import Envelope, Outbox, OutboxError

log = logging.getLogger(__name__)

RECIPIENT_LIMIT = 10_000
"""Recipients of one message: the paper's n (section 4)."""
BESIDES = 128 * 1024
"""Bytes of disk that the outbox needs besides the message: pages of the database and its log."""
FOR_A_RECIPIENT = 1024
"""The same for each recipient."""
SENT = "Sent"


class CannotAccept(OutboxError):
    """The message can't be sent, so it is refused at once; the text says why and what to do."""


class ClockWrong(CannotAccept):
    """This computer's clock can't be right."""

    exit_code = TEMPORARY


class NotCertified(CannotAccept):
    """The sender has no valid certificate, or no longer has one."""

    exit_code = PERMISSION


def check_recipients(count: int) -> None:
    """Raises CannotAccept for none, or more than RECIPIENT_LIMIT."""
    if not count:
        raise CannotAccept("A message without recipients can't be sent; it was not accepted.")
    if count > RECIPIENT_LIMIT:
        raise CannotAccept(
            f"There are {count:,} recipients, and {RECIPIENT_LIMIT:,} are allowed in one message."
            " It was not accepted; send it to fewer at a time."
        )


def check_size(size: int) -> None:
    """Raises CannotAccept for a message of more bytes than can be sealed."""
    if size > ORIGINAL_LIMIT:
        raise CannotAccept(
            f"The message has {size:,} bytes with its attachments encoded, and {ORIGINAL_LIMIT:,} are allowed (960 MiB,"
            " some 735 MB of attachments). It was not accepted; send less in one message."
        )


def check_sender(certificate: bytes, now: float) -> None:
    """Raises NotCertified, ClockWrong when nothing can be sent with this certificate (DER) at `now` (epoch seconds)."""
    opened = parse_certificate(certificate)
    if now < opened.not_before:
        raise ClockWrong(
            f"This computer's clock says {_day(now)}, and your certificate was made on {_day(opened.not_before)}."
            " The message was not accepted; set the clock, then send it again."
        )
    if now >= opened.not_after:
        raise NotCertified(
            f"Your certificate ended on {_day(opened.not_after)}, so nothing can be sent with it. The message was not"
            " accepted; `p2pmail sync` asks the authority to renew it, or join with a new invite, then send it again."
        )


def check_room(outbox: Outbox, folders: Folders, size: int, recipients: int, *, composed: bool = False) -> None:
    """Raises storage.space.NoRoom unless there is room for a message of `size` bytes.

    The message's own file is on disk already, unless it is still to be `composed`.
    """
    needs = {folders.folder(SENT): size, outbox.folder: BESIDES + FOR_A_RECIPIENT * recipients}
    if composed:
        needs[outbox.folder] += size
    require_room(needs)


def accept(  # noqa: PLR0913 - the message's envelope, named at each call
    outbox: Outbox,
    folders: Folders,
    message: Path,
    *,
    message_id: str,
    subject: str,
    sender: str,
    recipients: Sequence[str],
    now: float,
    certificate: bytes,
    bcc: Sequence[Address] = (),
) -> None:
    """Move the message in the file `message` into the outbox, and put a copy into Sent; or do neither.

    `now` in epoch seconds; `certificate` (DER) is the sender's. `bcc` goes into the copy alone. A message that was
    accepted before (the same bytes, Message-ID and recipients) is accepted again, but not sent or kept twice. Raises
    CannotAccept, AddressError, AlreadySent, DatabaseError, OSError; then nothing was accepted. Only AcceptanceUnknown
    leaves that open.
    """
    addresses = list(dict.fromkeys(normalise_address(recipient) for recipient in recipients))
    size = message.stat().st_size
    check_recipients(len(addresses))
    check_size(size)
    check_sender(certificate, now)
    check_room(outbox, folders, size, len(addresses))
    unique = folders.stage(SENT, message, _bcc_field(message, bcc))
    try:
        new = outbox.accept(
            message,
            Envelope(message_id, subject=subject, sender=sender, recipients=addresses, created=now),
            consume=True,
            copy=unique,
        )
    except BaseException:
        with suppress(OSError):
            folders.unstage(SENT, unique)
        raise
    if not new:
        with suppress(OSError):
            folders.unstage(SENT, unique)
        finish_copies(outbox, folders)
        return
    _finish(outbox, folders, message_id, unique, None)


def _bcc_field(message: Path, bcc: Sequence[Address]) -> bytes:
    """The Bcc field for the sender's own copy, with the line end that the message has; b"" without any."""
    if not bcc:
        return b""
    people = [Address(sanitize.line(person.name), sanitize.line(person.address)) for person in bcc]
    with message.open("rb") as file:
        ending = b"\r\n" if file.readline(LINE_LIMIT + 2).endswith(b"\r\n") else b"\n"
    return field_of("Bcc", people).encode().replace(b"\r\n", ending) + ending


def finish_copies(outbox: Outbox, folders: Folders) -> None:
    """Publish the copies in Sent that an interrupted acceptance left in Sent/tmp. Raises DatabaseError."""
    for message_id, unique, file in outbox.missing_sent_copies():
        _finish(outbox, folders, message_id, unique, file)


def _finish(outbox: Outbox, folders: Folders, message_id: str, unique: str, file: Path | None) -> None:
    """Publish the copy, made again from the outbox's `file` if it was swept. A failure is retried at the next start."""
    try:
        if not folders.publish(SENT, unique, "S"):
            if file is None:
                return
            if file.exists():
                folders.add(SENT, file, "S", unique=unique)
        outbox.mark_copied(message_id)
    except (OSError, FolderError, DatabaseError) as error:
        log.warning("the copy of %s isn't in Sent yet: %s", message_id, error)


def _day(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d}"
