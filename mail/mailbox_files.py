"""Opens a profile's folders, index, outbox and state when they are first needed, and finds messages on disk.

Finds where a message is at this moment, whatever other programs do meanwhile. mail/mailbox.py decides what may be done
with it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from storage.errors import DATA, P2PMailError
from storage.user.folders import FolderEntry
from storage.user.index import Index, Row
from storage.user.profile import Profile

if TYPE_CHECKING:
    from storage.user.outbox import Outbox
    from storage.user.state import UserState

T = TypeVar("T")


class MailboxError(P2PMailError):
    """The action isn't possible with this message; the text says why, and what was kept."""

    exit_code = DATA


class ProfileFiles:
    """The files of one profile's mail, each opened when it is first used."""

    def __init__(self, profile: Profile, *, now: Callable[[], float] = time.time) -> None:
        self.profile = profile
        self._now = now
        self._files = profile.folders()
        self._changing = threading.RLock()
        """Held during a change, so that undo takes back the change that the user saw last."""
        self._opening = threading.Lock()
        self._opened_index: Index | None = None
        self._opened_outbox: Outbox | None = None
        self._opened_state: UserState | None = None

    def close(self) -> None:
        """Close the files; the next call opens them again."""
        with self._opening:
            if self._opened_index is not None:
                self._opened_index.close()
            if self._opened_outbox is not None:
                self._opened_outbox.close()
            if self._opened_state is not None:
                self._opened_state.close()
            self._opened_index = self._opened_outbox = self._opened_state = None

    def detach(self) -> None:
        """From now on read without writing, with a copy of the index in memory. `refresh` updates the copy."""
        self.close()
        with self._opening:
            self._opened_index = Index(self.profile.index_file, in_memory=True)

    def path(self, row: Row) -> Path:
        """The message's path at this moment. Raises MailboxError when it is gone."""
        path = self._files.path(row.folder, row.unique, row.place)
        if path is None:
            raise MailboxError("This message is gone: another program moved or deleted it.")
        return path

    @property
    def _index(self) -> Index:
        with self._opening:
            if self._opened_index is None:
                if not self.profile.exists:
                    self.profile.create()
                self._opened_index = Index.open(self.profile.index_file)
            return self._opened_index

    @property
    def _outbox(self) -> Outbox | None:
        from storage.user.outbox import Outbox

        with self._opening:
            if self._opened_outbox is None and self.profile.outbox_file.exists():
                self._opened_outbox = Outbox(self.profile.outbox_file, now=self._now)
            return self._opened_outbox

    @property
    def _state(self) -> UserState | None:
        from storage.user.state import UserState

        with self._opening:
            if self._opened_state is None and self.profile.state_file.exists():
                self._opened_state = UserState(self.profile.state_file, now=self._now)
            return self._opened_state

    def _reading(self, row: Row, read: Callable[[Path], T]) -> T:
        """Read the file; look for it again if another program renames it meanwhile."""
        for _ in range(3):
            try:
                return read(self.path(row))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise MailboxError(f"The message can't be read: {error.strerror}. It stays where it is.") from error
        raise MailboxError("This message is gone: another program moved or deleted it.")

    def _placed(self, row: Row, folder: str, entry: FolderEntry | None) -> bool:
        """Update the message's place in the index; False when it is gone."""
        if entry is None:
            self._index.drop([row.id])
            return False
        self._index.relocate(row.id, folder, entry)
        return True

    def _find(self, folder: str, unique: str) -> Row | None:
        return next((row for row in self._all(folder) if row.unique == unique), None)

    def _all(self, folder: str) -> Iterable[Row]:
        ids = self._index.ids(folder)
        for start in range(0, len(ids), 500):
            yield from self._index.rows(ids[start : start + 500])
