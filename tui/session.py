"""Whose mail is on the screen: the mailbox, the agent once it runs, and what was heard from it last."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mail.events import Event
from mail.mailbox import Mailbox, Profile
from tui.background import ChangeQueue
from tui.ports import AgentPort, DemoPort, Options, Services

STOP_WITHIN = 8.0
"""Seconds that the agent gets for stopping in good order when the user leaves."""


@dataclass(slots=True)
class Session:
    """One profile on the screen. The demo is a session too, with a profile that is thrown away."""

    services: Services
    options: Options
    profile: Profile
    mailbox: Mailbox
    changes: ChangeQueue
    agent: AgentPort | None = None
    demo: DemoPort | None = None
    started: bool = False
    given: str | None = None
    """The passphrase typed during set-up, for the start that follows; forgotten with it."""
    unsubscribe: Callable[[], None] | None = None

    @classmethod
    def of(cls, services: Services, options: Options, demo: DemoPort | None = None) -> Session:
        """The session of the profile that the options name, or of a demo. Opens nothing yet."""
        profile = Profile(demo.profile if demo else options.profile)
        agent = demo.agent if demo else None
        return cls(services, options, profile, Mailbox(profile), ChangeQueue(), agent, demo)

    @property
    def new(self) -> bool:
        """Whether this is a first start: no keys, and no mail."""
        if self.demo is not None or self.profile.keyring_file.exists():
            return False
        folders = self.profile.folders()
        return not any(_holds_mail(folders.folder(name)) for name in folders.names())

    @property
    def address(self) -> str:
        """The user's own address, "" while it isn't known."""
        return (self.agent.address() or "") if self.agent is not None else ""

    def passphrase(self) -> str | None:
        """What --passphrase-file holds, or None without one. Raises OSError."""
        given, self.given = self.given, None
        if given is not None:
            return given
        path: Path | None = self.options.passphrase_file
        if path is None:
            return None
        lines = path.read_text("utf-8").splitlines()
        return lines[0] if lines else ""

    async def start(self, passphrase: str | None, hear: Callable[[Event], None]) -> None:
        """Have the agent go to work, and hear its events. Raises what the agent raises."""
        assert self.agent is not None
        if self.unsubscribe is None:
            self.unsubscribe = self.agent.subscribe(hear)
        await self.agent.start(passphrase)
        self.started = True

    async def stop_agent(self) -> None:
        """In good order, or not at all when it takes too long: what is in the outbox is on disk in any case."""
        if self.agent is not None and self.started:
            self.started = False
            with suppress(Exception):
                await asyncio.wait_for(self.agent.stop(), STOP_WITHIN)

    async def close(self) -> None:
        """Finish the changes asked for, stop the agent, let go of everything."""
        await self.changes.finish()
        if self.unsubscribe is not None:
            self.unsubscribe()
            self.unsubscribe = None
        await self.stop_agent()
        await asyncio.to_thread(self.mailbox.close)
        if self.demo is not None:
            await asyncio.to_thread(self.demo.close)


def _holds_mail(folder: Path) -> bool:
    for name in ("cur", "new"):
        with suppress(FileNotFoundError), os.scandir(folder / name) as items:
            if next(items, None) is not None:
                return True
    return False
