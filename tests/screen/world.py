"""Fixtures for the screen: a profile with the same messages every time, and an agent that only records its calls.

The clock stands still; the zone is UTC (see conftest.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate
from pathlib import Path

from textual import events
from textual.keys import _character_to_key
from textual.pilot import Pilot
from textual.worker import WorkerCancelled

from mail.events import Event, NodeStatus
from mail.mailbox import Mailbox, Profile
from mail.write.compose import Draft
from storage.user.state import UserState
from tui.app import MailApp
from tui.pauses import Pauses
from tui.ports import AgentPort, DemoPort, Options
from tui.screens.mail import MailScreen

NONE = Pauses(settle=0, typing=0, together=0, keep=0, keep_at_least=0, said=1e6, silent=1e6, watch=1e6)
NOW = 1_790_000_000.0
"""A Monday in September 2026, 13:33 UTC."""
HOUR = 3600.0
PHOTO = b"\xff" * 9000
HTML = "<h1>News</h1><p>Of the <b>village</b>.</p>"
ALICE = "Alice <alice@village.example>"


@dataclass
class SampleMessage:
    """One message of the profile. `age` in hours."""

    subject: str
    text: str = "Hello.\n"
    sender: str = "Bob Baker <bob@village.example>"
    age: float = 1.0
    flags: str = ""
    folder: str = "Inbox"
    html: str = ""
    attached: Sequence[tuple[str, bytes]] = ()
    to: str = ALICE
    headers: dict[str, str] = field(default_factory=dict)

    def message_id(self, number: int) -> str:
        """The same for the same place in the list."""
        return f"message{number}@village.example"


SAMPLES = (
    SampleMessage("The plan for Saturday", "Saturday\n\n10:00 Market\n13:00 Lunch at the river\n", age=0.5),
    SampleMessage(
        "Re: Who brings the tent?",
        "I do.\n\nOn Sunday, Alice wrote:\n> Who brings the tent?\n>> I can't.\nSee https://village.example/tent\n"
        "-- \nBob\n",
        age=3,
        flags="S",
    ),
    SampleMessage(
        "Photos", "Here they are.\n", "Carol Čapek <carol@village.example>", 5, attached=[("photo.jpg", b"\xff" * 9000)]
    ),
    SampleMessage(
        "Newsletter", "", "Letters <news@village.example>", 26, "S", html="<h1>News</h1><p>Of the <b>village</b>.</p>"
    ),
    SampleMessage("日本語の件名", "こんにちは\n", "山田太郎 <yamada@village.example>", 49, "RS"),
    SampleMessage("Budget", "The budget of the village.\n", "Dan <dan@village.example>", 24 * 40, "FS"),
    SampleMessage("Minutes", "Sent words.\n", ALICE, 2, "S", "Sent", to="Bob <bob@village.example>"),
    SampleMessage("You have won", "Click here.\n", "Winner <x@spam.example>", 4, "", "Junk"),
    SampleMessage("The invoice", "EICAR would be here.\n", "Mallory <m@bad.example>", 6, "", "Quarantine"),
)


def written(sample: SampleMessage, number: int) -> bytes:
    """The message's bytes."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sample.sender, sample.to, sample.subject
    message["Date"] = formatdate(NOW - sample.age * HOUR)
    message["Message-ID"] = f"<{sample.message_id(number)}>"
    for name, value in sample.headers.items():
        message[name] = value
    if sample.html:
        message.set_content(sample.html, subtype="html")
    else:
        message.set_content(sample.text)
    for name, data in sample.attached:
        message.add_attachment(data, maintype="image", subtype="jpeg", filename=name)
    return message.as_bytes()


def profile_with(root: Path, samples: Sequence[SampleMessage] = SAMPLES) -> Profile:
    """A profile that holds these messages, indexed."""
    profile = Profile(root)
    profile.create()
    folders = profile.folders()
    for number, sample in enumerate(samples):
        unique = folders.add(sample.folder, written(sample, number), sample.flags)
        if sample.folder == "Quarantine":
            state = UserState(profile.state_file)
            state.note_quarantine_reason(unique, "infected: EICAR Test File (found by virus rules)")
            state.close()
    Mailbox(profile).refresh()
    return profile


class FakeAgent:
    """Knows its address, says yes to everything, and notes what it was asked."""

    def __init__(self, *, joined: bool = True, passphrase: str | None = None, mailbox: Mailbox | None = None) -> None:
        self.is_joined, self._passphrase = joined, passphrase
        self.is_founder = False
        self.submitted: list[Draft] = []
        self.synced = 0
        self.stopped = False
        self.refuse: Exception | None = None
        self.invites: list[tuple[str, str | None]] = []
        self.callbacks: list[Callable[[Event], None]] = []

    def joined(self) -> bool:
        return self.is_joined

    def locked(self) -> bool:
        return self._passphrase is not None

    def address(self) -> str | None:
        return "alice@village.example" if self.is_joined else None

    async def start(self, passphrase: str | None) -> None:
        if passphrase != self._passphrase:
            raise ValueError("The passphrase doesn't open the keys.")
        self._passphrase = None

    async def stop(self) -> None:
        self.stopped = True

    async def submit(self, draft: Draft) -> str:
        if self.refuse is not None:
            raise self.refuse
        self.submitted.append(draft)
        return "sent@village.example"

    async def sync(self) -> None:
        self.synced += 1

    async def status(self) -> NodeStatus:
        return NodeStatus(
            "ab" * 20,
            "192.0.2.7:4600",
            "node",
            11,
            42,
            250_000_000,
            10**9,
            3,
            0.93,
            7,
            "0.1.0",
            (0.91, 0.95),
            480,
            0.999,
            0.9995,
            online=True,
        )

    def subscribe(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)

    def tell(self, event: Event) -> None:
        """As the agent's thread would."""
        for callback in list(self.callbacks):
            callback(event)

    async def join(self, invite: str, passphrase: str | None) -> str:
        if self.refuse is not None:
            raise self.refuse
        self.invites.append((invite, passphrase))
        self.is_joined = True
        return "alice@village.example"

    def founder(self) -> bool:
        return self.is_founder

    async def invite(self, address: str) -> str:
        if self.refuse is not None:
            raise self.refuse
        return f"p2pmail:line-for-{address}"

    async def found(self, name: str, address: str, passphrase: str | None) -> str:
        self.is_joined = True
        return f"/somewhere/{name}"


class FakeServices:
    """Hands out the fake agent; has no demo."""

    def __init__(self, agent: FakeAgent) -> None:
        self.agent = agent

    def open_agent(self, profile: Path, options: Options) -> AgentPort:
        return self.agent

    def open_demo(self, progress: Callable[[str], None]) -> DemoPort:
        progress("Starting node 1 of 12")
        raise OSError(24, "Too many open files")


def app_on(root: Path, agent: FakeAgent | None = None) -> MailApp:
    """The application on the profile at `root`."""
    return MailApp(Options(profile=root), FakeServices(agent or FakeAgent()), now=lambda: NOW, pauses=NONE)


def mail_screen(app: MailApp) -> MailScreen:
    """The main screen, wherever it is in the stack."""
    return next(screen for screen in app.screen_stack if isinstance(screen, MailScreen))


async def settled(pilot: Pilot[None]) -> None:
    """Until no work is under way and everything posted was handled: what tests wait for instead of a time."""
    app = pilot.app
    assert isinstance(app, MailApp)
    for _ in range(4):
        while not app.typed.idle:
            await pilot.pause(0)
        await pilot.pause(0)
        await app.session.changes.finish()
        for worker in [worker for worker in app.workers if worker.group != "agent"]:
            with suppress(WorkerCancelled):
                await worker.wait()
    await pilot.pause(0)


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    """Until it holds; the test's own time-out ends what never does."""
    while not condition():
        await pilot.pause(0.01)


@asynccontextmanager
async def running(app: MailApp, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Pilot[None]]:
    """The application with its first list on the screen and the agent started."""
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.session.started)
        await settled(pilot)
        yield pilot
        await app.session.close()


async def press(pilot: Pilot[None], *keys: str) -> None:
    """Press keys one after the other, each on a settled screen; "=text" types a text."""
    for key in keys:
        if key.startswith("=") and len(key) > 1:
            type_ahead(pilot, *key[1:])
        else:
            type_ahead(pilot, key)
        await settled(pilot)


def type_ahead(pilot: Pilot[None], *keys: str) -> None:
    """Press keys as fast as they come: none waits for what the one before it does."""
    for key in keys:
        name = _character_to_key(key) if len(key) == 1 else key
        pilot.app.post_message(events.Key(name, key if len(key) == 1 else None))
