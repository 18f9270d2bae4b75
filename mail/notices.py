"""Lasting troubles are on disk before anybody is told of them (mail/events.py says which are lasting)."""

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
    """Takes events, keeps the lasting troubles among them as notices, and passes every event on."""

    def __init__(self, state: UserState, tell: Callable[[Event], None], now: Callable[[], float] = time.time) -> None:
        self._state = state
        self._tell = tell
        self._now = now
        self._unkept: list[Trouble] = []

    def __call__(self, event: Event) -> None:
        """Never raises: what the disk refuses now is kept with the next event."""
        if isinstance(event, Trouble) and event.lasting:
            self._unkept.append(event)
        self.keep()
        self._tell(event)

    def keep(self) -> None:
        """Put on disk what it refused before."""
        try:
            while self._unkept:
                self._state.notices.add(self._unkept[0].text, self._now())
                self._unkept.pop(0)
        except DatabaseError as error:
            log.warning("%d notices can't be kept yet: %s", len(self._unkept), error)


def keep(profile: Profile, event: Event, now: float) -> None:
    """Keep a lasting trouble of somebody who hasn't the profile's state open. Never raises."""
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
