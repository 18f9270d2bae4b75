"""One profile on the screen: its mailbox, its queue of changes, and its agent.

A session goes through these states:

    made      `of`: nothing is open; the mailbox opens its files when it is first asked
    reading   the list is shown from disk; no agent is needed
    opened    `agent` is set, not started: no address yet, or the keyring waits for its passphrase
    started   `start` returned: mail is sent and collected, events arrive
    closed    `close`: changes finished first, then events, agent, mailbox and demo

The application holds one session at a time and makes a new one for the demo; after set-up the same one is shown again.
"""

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
"""Seconds that leaving waits for the agent to stop."""


@dataclass(slots=True)
class Session:
    """See above. The demo is a session too, with a temporary profile."""

    services: Services
    options: Options
    profile: Profile
    mailbox: Mailbox
    changes: ChangeQueue
    agent: AgentPort | None = None
    demo: DemoPort | None = None
    started: bool = False
    given: str | None = None
    """The passphrase typed during set-up; the first call of `passphrase` returns and clears it."""
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
        """The passphrase from set-up (once), else the first line of --passphrase-file, else None. Raises OSError."""
        given, self.given = self.given, None
        if given is not None:
            return given
        path: Path | None = self.options.passphrase_file
        if path is None:
            return None
        lines = path.read_text("utf-8").splitlines()
        return lines[0] if lines else ""

    async def start(self, passphrase: str | None, hear: Callable[[Event], None]) -> None:
        """Start the agent and subscribe `hear` to its events. Raises what the agent raises."""
        assert self.agent is not None
        if self.unsubscribe is None:
            self.unsubscribe = self.agent.subscribe(hear)
        await self.agent.start(passphrase)
        self.started = True

    async def stop_agent(self) -> None:
        """Stop the agent, but wait no longer than `STOP_WITHIN`: the outbox is on disk in any case."""
        if self.agent is not None and self.started:
            self.started = False
            with suppress(Exception):
                await asyncio.wait_for(self.agent.stop(), STOP_WITHIN)

    async def close(self) -> None:
        """Finish the queued changes, stop the agent, and close mailbox and demo."""
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
