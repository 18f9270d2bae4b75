"""Stores drafts while they are written, beside other programs that may open, change and send them.

A draft is never overwritten: each version is a new message, and the version before is removed only if it is still what
this program wrote or read. mail/write/drafts.py defines what a draft contains.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mail.mailbox_files import MailboxError, ProfileFiles
from storage import durable
from storage.user.folders import QUARANTINE, FolderEntry
from storage.user.index import IndexUnavailable, Row
from storage.user.profile import Profile

if TYPE_CHECKING:
    from mail.mime.addresses import Address
    from mail.write.drafts import DraftForm

DRAFTS = "Drafts"
DRAFT, SEEN, TRASHED = "D", "S", "T"

KEY_SIZE = 32
STALE = 30 * 86400.0
"""Seconds after which a held file is taken to be from a program that died."""

CHANGED = "Another program has changed this draft: its version stays in Drafts, beside yours."
GONE = "Another program has changed, sent or deleted this draft: look into Drafts and Sent before you send it."


def _ignore(_: str) -> None:
    """The default for `tell`: drop the words."""


class DraftStore(ProfileFiles):
    """The stored drafts of one profile."""

    def __init__(self, profile: Profile, *, now: Callable[[], float] = time.time) -> None:
        super().__init__(profile, now=now)
        self._known: dict[str, bytes] = {}
        """Unique name of each draft being edited, and its digest when it was read or written."""

    def save_draft(
        self, unsent: DraftForm, sender: Address, previous: str | None = None, tell: Callable[[str], None] = _ignore
    ) -> str:
        """Store the draft durably; returns its unique name in Drafts. `previous` names the version stored before.

        If another program changed or removed the previous version, nothing of it is touched, and `tell` gets the words
        for the user. Raises OSError, ComposeError; then the previous version is still there.
        """
        from mail.mime.message import summarise
        from mail.write import drafts
        from mail.write.compose import new_message_id

        with self._changing:
            before = None if previous is None else self._files.find(DRAFTS, previous)
            flags = {*(before.flags if before else ""), DRAFT, SEEN} - {TRASHED}
            durable.make_folder(self.profile.spool)
            written = self.profile.spool / f"draft-{secrets.token_hex(8)}.new"
            try:
                with written.open("xb") as out:
                    drafts.write(
                        out,
                        unsent,
                        sender=sender,
                        message_id=new_message_id(sender.address),
                        now=self._now(),
                        key=self._key(make=True),
                    )
                digest = _digest(written)
                unique = self._files.add(DRAFTS, written, flags="".join(sorted(flags)), consume=True)
            finally:
                written.unlink(missing_ok=True)
            self._known[unique] = digest
            if words := self._drop_draft(previous, before):
                tell(words)
            with suppress(IndexUnavailable):  # the draft is on disk; the next update finds it
                self._index.add(self._files, DRAFTS, unique, summarise)
            return unique

    def open_draft(self, row: Row) -> DraftForm:
        """Read a draft to continue it; attachments within it are held until `let_go`. Raises MailboxError."""
        from mail.write import drafts

        self._sweep()
        key = self._key()

        def read(path: Path) -> DraftForm:
            place = self.profile.spool / f"draft-{secrets.token_hex(8)}.eml"
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                _second_name(path, place)
            except FileNotFoundError:
                raise
            except OSError:  # on a disk that can't be written, the draft can still be read
                place = path
            unsent = drafts.read(place, key)
            self._known[row.unique] = _digest(place)
            if place != path and not any(item.inside for item in unsent.enclosures):
                place.unlink()
            return unsent

        return self._reading(row, read)

    def discard_draft(self, unique: str) -> str:
        """Remove a draft that was sent or discarded; words for the user if another program's version stays, else ""."""
        with self._changing:
            return self._drop_draft(unique, self._files.find(DRAFTS, unique))

    def hold(self, row: Row) -> Path:
        """A path to the message that stays valid while a forward of it is being written."""
        if row.folder == QUARANTINE:
            raise MailboxError("This message is in Quarantine and can't be forwarded.")
        place = self.profile.spool / f"forward-{row.unique}.eml"
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            _second_name(self.path(row), place)
        return place

    def let_go(self, unsent: DraftForm, *, kept: bool = False) -> None:
        """Remove what `hold` and `open_draft` held for this draft; other files stay.

        `kept`: the draft was stored, and still needs the messages that it forwards; its own attachments are inside it.
        """
        for item in unsent.enclosures:
            held = item.path.name.startswith("draft-" if kept else ("draft-", "forward-"))
            if held and item.path.parent == self.profile.spool:
                item.path.unlink(missing_ok=True)

    # -- inside

    def _drop_draft(self, unique: str | None, entry: FolderEntry | None) -> str:
        """Remove a version if nobody changed it; else return words that say why it stays."""
        if unique is None:
            return ""
        known = self._known.pop(unique, None)
        if entry is None:
            return GONE if known is not None else ""
        path = self._files.folder(DRAFTS) / entry.place
        with suppress(FileNotFoundError):
            if known is not None and _digest(path) != known:
                return CHANGED
        self._files.remove(DRAFTS, unique, entry.place)
        with suppress(IndexUnavailable):
            if (row := self._find(DRAFTS, unique)) is not None:
                self._index.drop([row.id])
        return ""

    def _key(self, *, make: bool = False) -> bytes:
        """The key that binds our field of a draft to this profile; where none exists, one that proves nothing."""
        path = self.profile.root / "drafts.key"
        with suppress(OSError):
            if len(key := path.read_bytes()) == KEY_SIZE:
                return key
        fresh = secrets.token_bytes(KEY_SIZE)
        if make:
            durable.write(path, fresh)
        return fresh

    def _sweep(self) -> None:
        """Remove files that were held by programs that died."""
        with suppress(OSError):
            for place in self.profile.spool.glob("draft-*"):
                if self._now() - place.stat().st_ctime > STALE:
                    place.unlink()


def _second_name(path: Path, place: Path) -> None:
    """Link the file to a second name, or copy it where the file system has no links."""
    try:
        place.hardlink_to(path)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(path, place)


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
