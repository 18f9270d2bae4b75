"""Files a collected message: runs the checks, and puts it into the folder that they choose (paper, section 3.4).

No message is shown before it was filed. Infected mail, unchecked mail, and mail whose From isn't the proven sender go
to Quarantine, spam goes to Junk, and the rest to the Inbox. The message's bytes stay as they were sent.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from mail import author
from mail.checks.pipeline import Destination, IncomingMessage, Pipeline
from mail.mime import parser
from mail.mime.message import read_headers, summarise
from mail.sealed.notification import Notification
from storage.user.folders import Folders
from storage.user.index import Index, IndexUnavailable
from storage.user.state import UserState

ADDED = 256
"""Bytes that other programs may add to the header of a message they move (neomutt: Content-Length; mbsync: X-TUID)."""
PIECE = 1 << 20


class Filing:
    """Files messages into one user's folders. Synchronous, for a worker thread."""

    def __init__(self, folders: Folders, index: Index, checks: Pipeline, state: UserState) -> None:
        self._folders = folders
        self._index = index
        self._checks = checks
        self._state = state

    def is_filed(self, folder: str | None, unique: str | None) -> bool:
        """Whether the message that was to be filed under this name, when the process died, is there."""
        return bool(folder and unique and self._folders.find_anywhere(unique) is not None)

    def find_moved(self, spooled: Path, notification: Notification) -> str | None:
        """The folder to which another program moved the filed message, under a name of its own; None if not found.

        The other program may have added lines to its header. Raises OSError.
        """
        if notification.sender == notification.recipient:  # the sender's own copy in Sent has the same bytes
            return None
        size = spooled.stat().st_size
        for name in self._folders.names():
            for place in self._folders.places(name):
                path = self._folders.folder(name) / place
                with suppress(FileNotFoundError):
                    if 0 <= path.stat().st_size - size <= ADDED and _same_message(spooled, path):
                        return name
        return None

    def file(self, hash_: bytes, spooled: Path, notification: Notification) -> str:
        """Check and file the message; returns the folder's name once it is durable. Raises OSError.

        The file's name is recorded first, so that a crash in between can't file the message twice.
        """
        folder, reason = self._place(spooled, notification)
        unique = self._folders.new_unique()
        self._state.note_filing(hash_, folder, unique)
        if reason:
            self._state.note_quarantine_reason(unique, reason)
        self._folders.add(folder, spooled, consume=True, unique=unique)
        with suppress(IndexUnavailable, OSError):  # the index can be rebuilt from the folders
            self._index.add(self._folders, folder, unique, summarise)
        return folder

    def _place(self, spooled: Path, notification: Notification) -> tuple[str, str]:
        """The folder, and the reason if it isn't the Inbox."""
        report = self._checks.run(IncomingMessage(spooled, notification.sender))
        if report.place is not Destination.QUARANTINE:
            with spooled.open("rb") as file:
                fields = parser.walk(file).parts[0].headers.all("from")
            if words := author.objection(fields, notification.sender):
                return Destination.QUARANTINE.value, f"{words}, but {notification.sender} sent it"
        return report.place.value, "" if report.place is Destination.INBOX else str(report)


def _same_message(spooled: Path, other: Path) -> bool:
    """Whether both files have the same Message-ID, sender and body."""
    ours, theirs = read_headers(spooled), read_headers(other)
    if not ours.message_id or (ours.message_id, ours.sender) != (theirs.message_id, theirs.sender):
        return False
    with spooled.open("rb") as first, other.open("rb") as second:
        for line in first:
            if line in {b"\n", b"\r\n"}:
                break
        left = spooled.stat().st_size - first.tell()
        second.seek(-left, os.SEEK_END)
        while piece := first.read(PIECE):
            if piece != second.read(PIECE):
                return False
    return True
