"""The user's mail on disk: folders, lists, search, reading, moving, undo, drafts. Never uses the network.

Screen and command line reach the disk through this class alone. Synchronous and thread-safe; call slow methods in
worker threads. mail/agent.py sends and receives.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mail.mailbox_files import MailboxError
from mail.undo import Change, ChangedMessage, History
from mail.write.draft_store import DRAFTS, DraftStore
from storage.user.folders import QUARANTINE, STANDARD, Counts
from storage.user.index import IndexUnavailable, Row
from storage.user.profile import Profile
from storage.user.search import SearchError

if TYPE_CHECKING:
    from mail.author import Contacts
    from mail.mime.message import Message
    from storage.user.index_summary import Summary
    from storage.user.index_update import Changes
    from storage.user.notices import Notice
    from storage.user.outbox import OutboxEntry, Recipient

T = TypeVar("T")

__all__ = [
    "ARCHIVE",
    "DRAFTS",
    "INBOX",
    "JUNK",
    "QUARANTINE",
    "SENT",
    "TRASH",
    "Counts",
    "IndexUnavailable",
    "Mailbox",
    "MailboxError",
    "OutboxEntry",
    "Profile",
    "QuarantinedMessage",
    "Recipient",
    "Row",
    "SearchError",
]

INBOX, ARCHIVE, SENT, JUNK, TRASH = "Inbox", "Archive", "Sent", "Junk", "Trash"

SEEN, FLAGGED, REPLIED, PASSED, DRAFT = "S", "F", "R", "P", "D"
"""Maildir's flags, which every mail program understands. "P" (passed) means forwarded."""

SOURCE_LIMIT = 1024 * 1024
"""Bytes of a message's source that are shown; the whole of it can be saved."""
LOOKED_AT = 10_000
"""Messages in Sent, the newest ones, whose recipients are the user's contacts; and of other mail, for their names."""
FIRST_RESULTS = 200
"""Results of a search in its first batch, so that something is shown soon."""


@dataclass(frozen=True, slots=True)
class QuarantinedMessage:
    """What is shown of a message in Quarantine: why it is there, and its header."""

    found: str
    headers: tuple[tuple[str, str], ...]
    size: int


class Mailbox(DraftStore):
    """One user's mail on disk. Opens files when they are first used."""

    def __init__(self, profile: Profile, *, now: Callable[[], float] = time.time) -> None:
        super().__init__(profile, now=now)
        self._history = History()
        self._known_contacts: Contacts | None = None

    # -- looking

    def folders(self) -> dict[str, Counts]:
        """Every folder in display order, with its counts from the index."""
        counts = self._index.counts()
        return {name: counts.get(name, Counts()) for name in self._files.names() or STANDARD}

    def names(self) -> list[str]:
        """The names of all folders in display order."""
        return self._files.names()

    def ids(self, folder: str) -> array[int]:
        """The row numbers of a folder, newest first."""
        return self._index.ids(folder)

    def rows(self, ids: Sequence[int]) -> list[Row]:
        """The rows with these numbers, with `who` to show; those of messages that are gone are left out."""
        contacts = self._contacts()
        return [replace(row, who=_who(row, contacts)) for row in self._index.rows(ids)]

    def find(self, message_id: str, folder: str | None = None) -> Row | None:
        """The message with this Message-ID, in `folder` or, without one, in any folder."""
        rows = self._index.by_message_id(message_id) if message_id else []
        return next((row for row in rows if folder in (None, row.folder)), None)

    def named(self, identifier: str) -> list[Row]:
        """The messages with this Message-ID, in the order of the folders, or the one whose file has this name."""
        rows = (self._index.by_message_id(identifier) or self._index.by_unique(identifier)) if identifier else []
        order = {name: number for number, name in enumerate(self.folders())}
        return sorted(rows, key=lambda row: order.get(row.folder, len(order)))

    def shared_message_ids(self) -> set[str]:
        """The Message-IDs that several messages have, in any folders."""
        return self._index.shared_message_ids()

    def search(self, query: str, folder: str | None = None, *, typing: bool = False) -> Iterator[array[int]]:
        """The messages that match, newest first, in batches: a first one soon, then all. Raises SearchError.

        `typing`: the last word may be unfinished.
        """
        from storage.user.search import parse

        asked = parse(query, typing=typing)
        first = self._index.search(asked, folder, FIRST_RESULTS)
        yield first
        if len(first) == FIRST_RESULTS:
            yield self._index.search(asked, folder)

    def open(self, row: Row) -> Message:
        """Read the message for display. Raises MailboxError when it is gone, in Quarantine, or can't be read."""
        from mail import author
        from mail.mime.message import read_message

        if row.folder == QUARANTINE:
            raise MailboxError("This message is in Quarantine and isn't opened. Release it first, if you are sure.")
        message = self._reading(row, read_message)
        contacts = self._contacts()
        odd = author.warnings(message.sender, contacts)
        return replace(message, author=author.described(message.sender, contacts), defects=(*odd, *message.defects))

    def source(self, row: Row) -> str:
        """The message's source, safe for a terminal, at most SOURCE_LIMIT bytes of it. Raises MailboxError."""
        from mail.mime import sanitize
        from mail.mime.charset import decode

        def read(path: Path) -> str:
            with path.open("rb") as file:
                data = file.read(SOURCE_LIMIT + 1)
            text = sanitize.block(decode(data[:SOURCE_LIMIT]))
            return text if len(data) <= SOURCE_LIMIT else f"{text}\n[The source is longer; only its beginning is here.]"

        if row.folder == QUARANTINE:
            raise MailboxError("This message is in Quarantine and isn't opened.")
        return self._reading(row, read)

    def save_attachment(self, row: Row, index: int, target: Path) -> Path:
        """Save one attachment; see mail.mime.attachments.save_attachment. Raises MailboxError, AttachmentError,
        OSError."""
        from mail.mime.attachments import save_attachment

        if row.folder == QUARANTINE:
            raise MailboxError("This message is in Quarantine; nothing of it is saved.")
        return save_attachment(self.path(row), index, target)

    # -- changing

    def flag(self, ids: Sequence[int], add: str = "", remove: str = "", what: str = "changed") -> int:
        """Add and remove flags (Maildir's letters); returns how many messages changed. Can be undone."""
        with self._changing:
            steps = []
            for row in self._index.rows(ids):
                if not set(add) - set(row.flags) and not set(remove) & set(row.flags):
                    continue
                before, entry = self._files.reflag(row.folder, row.unique, add, remove, row.place) or (None, None)
                if self._placed(row, row.folder, entry) and entry is not None and before is not None:
                    added, removed = (
                        "".join(sorted({*one} - {*other}))
                        for one, other in ((entry.flags, before.flags), (before.flags, entry.flags))
                    )
                    steps.append(ChangedMessage(row.id, row.folder, row.folder, entry.unique, added, removed))
            self._history.remember(Change(_said(what, len(steps)), tuple(steps)))
            return len(steps)

    def mark_seen(self, row: Row) -> bool:
        """Mark a message as read, without undo; returns whether it was unread."""
        with self._changing:
            current = self._index.row(row.id)
            if current is None or not current.unread:
                return False
            entry = self._files.change_flags(current.folder, current.unique, SEEN, "", current.place)
            return self._placed(current, current.folder, entry)

    def move(self, ids: Sequence[int], target: str, what: str = "") -> int:
        """Move messages to `target`; returns how many were moved. Can be undone.

        Messages can't be moved into or out of Quarantine: see `release`. Raises MailboxError, FolderError, OSError.
        """
        if target == QUARANTINE:
            raise MailboxError("Only the checks put a message into Quarantine.")
        with self._changing:
            rows = self._index.rows(ids)
            if any(row.folder == QUARANTINE for row in rows):
                raise MailboxError("A message leaves Quarantine only by being released, or deleted for good.")
            return self._move(rows, target, what or f"moved to {target}:")

    def archive(self, ids: Sequence[int]) -> int:
        """Move to Archive."""
        return self.move(ids, ARCHIVE, "archived")

    def delete(self, ids: Sequence[int]) -> int:
        """Move to Trash. Messages that are there already stay: see `purge`."""
        return self.move(ids, TRASH, "deleted")

    def purge(self, ids: Sequence[int]) -> int:
        """Delete for good, without undo; returns how many there were."""
        with self._changing:
            rows = self._index.rows(ids)
            gone = sum(self._files.remove(row.folder, row.unique, row.place) for row in rows)
            self._index.drop([row.id for row in rows])
            return gone

    def mark_spam(self, ids: Sequence[int]) -> int:
        """Move to Junk, and learn that such mail is spam. Raises what `move` and the classifier raise."""
        return self._judge(ids, JUNK, spam=True, what="marked as spam")

    def mark_ham(self, ids: Sequence[int]) -> int:
        """Move to the Inbox, and learn that such mail isn't spam."""
        return self._judge(ids, INBOX, spam=False, what="marked as not spam")

    def undo(self) -> str | None:
        """Undo the last change; returns words for it, or None when there is nothing to undo.

        A message that another program moved or deleted meanwhile stays as it is, and the words say so. After an error
        the rest of the change can still be undone. Raises OSError, IndexUnavailable.
        """
        with self._changing:
            change = self._history.take()
            if change is None:
                return None
            elsewhere, left = 0, list(change.steps)
            try:
                while left:
                    elsewhere += not self._take_back(left[0], trained=change.trained)
                    del left[0]
            except BaseException:
                self._history.remember(replace(change, steps=tuple(left)))
                raise
            if not elsewhere:
                return change.what
            were, stay = ("was", "stays as it is") if elsewhere == 1 else ("were", "stay as they are")
            return f"{change.what}; {_messages(elsewhere)} {were} changed elsewhere and {stay}"

    # -- following other programs

    def refresh(self, progress: Callable[[int, int], None] | None = None) -> Changes:
        """Update the index from the disk; see Index.update. Raises IndexUnavailable."""
        changes = self._index.update(self._files, _summarise, progress)
        if changes:
            self._known_contacts = None
        return changes

    def stamps(self) -> tuple[object, ...]:
        """A value that differs when a program has changed a folder; cheap enough to compare every few seconds."""
        return tuple((name, self._files.times(name)) for name in self._files.names())

    def mark_answered(self, message_id: str, flag: str) -> None:
        """Mark a message as replied to ("R") or forwarded ("P"), and as read, without undo."""
        with self._changing:
            row = self.find(message_id)
            if row is not None and row.folder != QUARANTINE:
                entry = self._files.change_flags(row.folder, row.unique, flag + SEEN, "", row.place)
                self._placed(row, row.folder, entry)

    # -- Quarantine

    def quarantined(self, row: Row) -> QuarantinedMessage:
        """What may be shown of a message in Quarantine. Raises MailboxError."""
        from mail.mime.message import read_message
        from storage.user.state import UserState

        message = self._reading(row, read_message)
        state = UserState(self.profile.state_file)
        try:
            found = state.quarantine_reason(row.unique)
        finally:
            state.close()
        return QuarantinedMessage(found or "The reason was not kept.", message.headers, message.size)

    def release(self, ids: Sequence[int]) -> int:
        """Move from Quarantine to the Inbox, when the user confirms it. Can be undone."""
        with self._changing:
            rows = [row for row in self._index.rows(ids) if row.folder == QUARANTINE]
            return self._move(rows, INBOX, "released from Quarantine:")

    # -- the outbox on disk

    def outbox(self) -> list[OutboxEntry]:
        """The messages in the outbox and their states, newest first; a running agent changes them."""
        outbox = self._outbox
        return [] if outbox is None else outbox.entries()

    def outbox_stamp(self) -> tuple[object, ...]:
        """A value that differs when the outbox may have changed."""
        outbox = self._outbox
        return () if outbox is None else outbox.change_marker()

    def retry(self, message_id: str) -> bool:
        """Have the failed and expired recipients of a message tried again; False when there are none.

        What waits for its next attempt is due now.
        """
        outbox = self._outbox
        if outbox is None:
            return False
        if outbox.retry(message_id, self._now()):
            return True
        outbox.make_due([message_id], self._now())
        return False

    def forget(self, message_id: str) -> None:
        """Remove a message from the outbox."""
        outbox = self._outbox
        if outbox is not None:
            outbox.forget(message_id)

    # -- notices for the user, from any process

    def notices(self, *, seen: bool = False) -> list[Notice]:
        """The notices that the user hasn't seen, newest first; `seen`: also those that the user has."""
        state = self._state
        if state is None:
            return []
        return state.notices.all() if seen else state.notices.unseen()

    def mark_notices_seen(self, newest: int) -> None:
        """Mark the notices up to the one with this id as seen."""
        state = self._state
        if state is not None:
            state.notices.mark_seen(newest, self._now())

    # -- inside

    def _contacts(self) -> Contacts:
        """The people the user writes to, as of the last `refresh`."""
        from mail.author import Contacts

        if self._known_contacts is None:
            people, senders = self._index.correspondents(SENT, (QUARANTINE, JUNK, TRASH), LOOKED_AT)
            self._known_contacts = Contacts(people, senders)
        return self._known_contacts

    def _move(self, rows: Sequence[Row], target: str, what: str, marks: dict[int, bool | None] | None = None) -> int:
        """Move the messages; those moved before an error can be undone too."""
        steps = []
        try:
            for row in rows:
                if row.folder == target:
                    continue
                entry = self._files.move(row.folder, row.unique, target, row.place)
                if self._placed(row, target, entry) and entry is not None:
                    mark_before = marks.get(row.id) if marks else None
                    steps.append(ChangedMessage(row.id, row.folder, target, entry.unique, mark_before=mark_before))
        finally:
            self._history.remember(Change(_said(what, len(steps)), tuple(steps), marks is not None))
        return len(steps)

    def _judge(self, ids: Sequence[int], target: str, *, spam: bool, what: str) -> int:
        with self._changing:
            rows = [row for row in self._index.rows(ids) if row.folder != QUARANTINE]
            marks = {row.id: self._train(row, spam) for row in rows}
            return self._move(rows, target, what, marks)

    def _train(self, row: Row, mark: bool | None) -> bool | None:
        from mail.spam_training import train
        from storage.user.state import UserState

        state = UserState(self.profile.state_file)
        try:
            return self._reading(row, lambda path: train(state, path, row.message_id or row.unique, mark))
        finally:
            state.close()

    def _take_back(self, step: ChangedMessage, *, trained: bool) -> bool:
        row = self._index.row(step.row)
        if row is None or (row.folder, row.unique) != (step.now_folder, step.now_unique):
            # The message is gone from there, or the index was rebuilt and the number means another: compare the name.
            row = self._find(step.now_folder, step.now_unique)
        if row is None:
            return False
        if trained:
            self._train(row, step.mark_before)
        if row.folder != step.folder:
            entry = self._files.move(row.folder, row.unique, step.folder, row.place)
        else:
            entry = self._files.change_flags(row.folder, row.unique, step.removed, step.added, row.place)
        return self._placed(row, step.folder, entry)


def _who(row: Row, contacts: Contacts) -> str:
    """The sender as a list shows it. Nothing proves who wrote what is in Quarantine."""
    from mail.author import listed, mailbox

    person = mailbox(row.sender)
    if row.folder == QUARANTINE:
        return f"claims: {person.address or person.name or 'nobody'}"
    return listed(person, contacts)


def _said(what: str, count: int) -> str:
    return f"{what} {_messages(count)}"


def _messages(count: int) -> str:
    return f"{count} message{'' if count == 1 else 's'}"


def _summarise(path: Path) -> Summary:
    """Read a message for the index. Imported here: where no message is new, nothing has to be parsed."""
    from mail.mime.message import summarise

    return summarise(path)
