"""Stores lasting troubles (mail/events.py) as notices before the user is told of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from mail.events import Event, Trouble
from storage.database import DatabaseError
from storage.user.profile import Profile
from storage.user.state import UserState

log = logging.getLogger(__name__)


class NoticeKeeper:
    """Passes events on to `tell`, after storing the lasting troubles among them as notices."""

    def __init__(self, state: UserState, tell: Callable[[Event], None], now: Callable[[], float] = time.time) -> None:
        self._state = state
        self._tell = tell
        self._now = now
        self._unkept: list[Trouble] = []

    def __call__(self, event: Event) -> None:
        """Never raises for the disk: what can't be stored now is stored with the next event."""
        if isinstance(event, Trouble) and event.lasting:
            self._unkept.append(event)
        self.keep()
        self._tell(event)

    def keep(self) -> None:
        """Store the notices that couldn't be stored before."""
        try:
            while self._unkept:
                self._state.notices.add(self._unkept[0].text, self._now())
                self._unkept.pop(0)
        except DatabaseError as error:
            log.warning("%d notices can't be kept yet: %s", len(self._unkept), error)


def keep(profile: Profile, event: Event, now: float) -> None:
    """Store a lasting trouble, for a caller without an open state database. Never raises for the disk."""
    if not (isinstance(event, Trouble) and event.lasting):
        return
    try:
        state = UserState(profile.state_file)
        try:
            state.notices.add(event.text, now)
        finally:
            state.close()
    except DatabaseError as error:
        log.warning("a notice can't be kept: %s", error)
