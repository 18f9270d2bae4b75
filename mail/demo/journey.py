"""The demo: a private overlay of 12 real nodes on loopback, Alice's profile, and Bob, who writes and answers.

`open_demo` runs it behind a screen (tui/ports.py, DemoPort). `run_headless` makes the same journey without a screen and
prints each step. All files are in one temporary folder, which is removed at the end.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from mail.agent import Agent
from mail.agent_thread import AgentThread
from mail.cli.running import run_loop
from mail.demo.private_overlay import PrivateOverlay
from mail.demo.sample_messages import ALICE, ATTACHMENT_BYTES, BOB, sample_messages
from mail.events import Event, NewMail
from mail.identity import Identity
from mail.mailbox import Mailbox
from mail.mime.addresses import Address
from mail.mime.message import Message, read_message
from mail.write.compose import compose, new_message_id
from mail.write.reply import reply
from overlay.ids import Kind
from storage.errors import P2PMailError
from storage.user.outbox import Envelope, State
from storage.user.profile import Profile

NODES = 12
KILLED = 5
POLL = 2.0
"""Seconds between two reads of the inbox. Short, because someone is watching."""
BOBS_ANSWER = "Thank you, that came through {copies} copies. As you see, I am not a person.\n\n"
PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The command line's options for Alice's node: none."""

    passphrase_file: Path | None = None
    listen: str | None = None
    join: tuple[str, ...] = field(default=())
    network: Path | None = None


class DemoWorld:
    """The nodes and Bob, in one event loop and one folder."""

    def __init__(self, folder: Path) -> None:
        self.private_overlay = PrivateOverlay(folder / "network", "demo")
        self.alice = Profile(folder / "alice")
        self._bob_profile = Profile(folder / "bob")
        self._bob: Agent | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self, tell: Callable[[str], None]) -> None:
        """Start the nodes, let Alice and Bob join, and let Bob send his messages."""
        self._loop = asyncio.get_running_loop()
        await self.private_overlay.start(NODES, lambda count: tell(f"Starting node {count} of {NODES}"))
        tell("Alice and Bob join")
        self.member(self.alice, ALICE)
        agent = await self.private_overlay.agent_of(self.alice)
        await agent.publish_card()
        await agent.close()
        self.member(self._bob_profile, BOB)
        self._bob = await self.private_overlay.agent_of(self._bob_profile, tell=self._heard)
        await self._bob.publish_card()
        self._bob.start()
        for message in sample_messages(time.time()):
            tell(f"Bob sends: {message.subject}")
            await asyncio.to_thread(
                self._bob.outbox.accept,
                message.content,
                Envelope(
                    message.message_id, subject=message.subject, sender=BOB, recipients=[ALICE], created=time.time()
                ),
            )
            await self._bob.send()

    async def stop(self) -> None:
        """Stop Bob and the nodes."""
        if self._bob is not None:
            await self._bob.close()
        await self.private_overlay.stop()

    def member(self, profile: Profile, address: str) -> Identity:
        """Make `profile` a member's, polling its inbox often."""
        identity = self.private_overlay.member(address, profile)
        profile.change_config(poll=POLL, mode="client")
        return identity

    def _heard(self, event: Event) -> None:
        if isinstance(event, NewMail) and self._loop is not None:
            self._loop.create_task(self._answer(event.message_id))

    async def _answer(self, message_id: str) -> None:
        """Let Bob answer a message."""
        assert self._bob is not None
        await asyncio.to_thread(_write_answer, self._bob, self._bob_profile, message_id)
        self._bob.wake()


def _write_answer(bob: Agent, profile: Profile, message_id: str) -> None:
    mailbox = Mailbox(profile)
    try:
        row = mailbox.find(message_id, "Inbox")
        if row is None:
            return
        message: Message = read_message(mailbox.path(row))
    finally:
        mailbox.close()
    draft = reply(message, Address("Bob", BOB))
    draft = replace(draft, text=BOBS_ANSWER.format(copies=bob.overlay.k) + draft.text)
    answer_id = new_message_id(BOB)
    spool = profile.spool / f"{os.urandom(8).hex()}.eml"
    with spool.open("xb") as out:
        compose(out, draft, message_id=answer_id)
    bob.outbox.accept(
        spool, Envelope(answer_id, subject=draft.subject, sender=BOB, recipients=draft.recipients, created=time.time())
    )
    spool.unlink()


class Demo:
    """The demo behind a screen: nodes and Bob in a thread, Alice's agent not started yet."""

    def __init__(self, folder: Path, world: DemoWorld, stop: Callable[[], None]) -> None:
        self._folder = folder
        self._stop = stop
        self.profile = world.alice.root
        self.agent = AgentThread(world.alice, DemoOptions())

    def close(self) -> None:
        """Stop the nodes and remove everything."""
        self._stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def open_demo(progress: Callable[[str], None]) -> Demo:
    """Start the demo's network in its own thread. Returns when Bob's messages are sent."""
    folder = Path(tempfile.mkdtemp(prefix="p2pmail-demo-"))
    world = DemoWorld(folder)
    ready = threading.Event()
    failure: list[BaseException] = []
    stopping: list[Callable[[], object]] = []

    async def live() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        stopping.append(partial(loop.call_soon_threadsafe, stop.set))
        try:
            await world.start(progress)
        except BaseException as error:
            failure.append(error)
            await world.stop()
            raise
        finally:
            ready.set()
        await stop.wait()
        await world.stop()

    thread = threading.Thread(target=lambda: run_loop(live()), name="demo network", daemon=True)
    thread.start()
    ready.wait()
    if failure:
        shutil.rmtree(folder, ignore_errors=True)
        raise failure[0]

    def stop() -> None:
        stopping[0]()
        thread.join()

    return Demo(folder, world, stop)


class Journey:
    """The demo without a screen: prints each step with its figures, and checks it."""

    def __init__(self, world: DemoWorld, say: Callable[[str], None]) -> None:
        self._world = world
        self._say = say
        self._began = time.perf_counter()
        self._heard = asyncio.Event()

    async def make(self) -> None:
        """Make the journey. Raises JourneyFailed at the first step that fails."""
        await self._world.start(lambda _: None)
        self._step(f"12 nodes and 2 members are up, the nodes hold Bob's messages as {await self._bodies()} objects")
        agent = await self._world.private_overlay.agent_of(self._world.alice, tell=self._tell)
        try:
            await self._collect(agent)
            await self._kill()
            await self._write(agent)
        finally:
            await agent.close()

    async def _collect(self, agent: Agent) -> None:
        count = await agent.sync()
        self._step(f"Alice collected {count} messages")
        mailbox = Mailbox(self._world.alice)
        mailbox.refresh()
        for name in ("Inbox", "Junk", "Quarantine"):
            for row in mailbox.rows(mailbox.ids(name)):
                self._say(f"             {name:<11} {row.size:>9,} bytes  {row.subject}")
        counts = {name: counted.total for name, counted in mailbox.folders().items()}
        _must(counts["Inbox"] == 5, "five messages are in the Inbox")
        _must(counts["Junk"] == 1, "the spam is in Junk")
        _must(counts["Quarantine"] == 1, "the infected message is in Quarantine")
        row = next(row for row in mailbox.rows(mailbox.ids("Inbox")) if row.attachments)
        saved = mailbox.save_attachment(row, mailbox.open(row).attachments[0].index, self._world.alice.root)
        content = saved.read_bytes()
        _must(len(content) == ATTACHMENT_BYTES, "the attachment is whole")
        self._step(
            f"the attachment of {len(content):,} bytes is saved, SHA-256 {hashlib.sha256(content).hexdigest()[:16]}"
        )
        mailbox.close()
        left = await self._bodies()
        self._step(f"the nodes hold {left} copies of Bob's messages now")
        _must(left == 0, "nodes forget what was collected")

    async def _kill(self) -> None:
        for node in self._world.private_overlay.nodes[-KILLED:]:
            await node.vanish()
        self._step(f"{KILLED} of the {NODES} nodes were cut off without a word")

    async def _write(self, agent: Agent) -> None:
        self._heard.clear()
        message_id = new_message_id(ALICE)
        text = f"From: Alice <{ALICE}>\r\nTo: Bob <{BOB}>\r\nSubject: Is anybody there?\r\n"
        message = f"{text}Message-ID: <{message_id}>\r\n\r\nHello Bob!\r\n".encode()
        agent.outbox.accept(
            message,
            Envelope(message_id, subject="Is anybody there?", sender=ALICE, recipients=[BOB], created=time.time()),
        )
        await agent.send()
        sent = agent.outbox.entry(message_id)
        _must(sent is not None, "the message is in the outbox")
        assert sent is not None
        have, want = sent.recipients[0].bodies
        self._step(f"Alice's message to Bob is {sent.recipients[0].state}: {have} of {want} bodies")
        deadline = time.monotonic() + PATIENCE
        while not self._heard.is_set() and time.monotonic() < deadline:
            await agent.sync()
            await asyncio.sleep(POLL / 4)
        _must(self._heard.is_set(), "Bob answered")
        self._step("Bob's answer is in the Inbox")
        await agent.send()
        sent = agent.outbox.entry(message_id)
        _must(sent is not None and sent.recipients[0].state is State.COLLECTED, "the outbox says collected")
        self._step("the outbox says collected: Bob's signed delete was seen")

    def _tell(self, event: Event) -> None:
        if isinstance(event, NewMail) and event.subject.startswith("Re: Is anybody"):
            self._heard.set()

    def _step(self, words: str) -> None:
        self._say(f"{time.perf_counter() - self._began:8.2f} s   {words}")

    async def _bodies(self) -> int:
        """Number of message bodies or segments that all nodes store together."""
        stores = [node.store for node in self._world.private_overlay.nodes if node.store is not None]
        held = [await store.objects() for store in stores]
        return sum(kept.kind == Kind.BODY for objects in held for kept in objects)


class JourneyFailed(P2PMailError):
    """A step of the demo failed."""


def _must(held: bool, what: str) -> None:
    if not held:
        raise JourneyFailed(f"It didn't hold that {what}.")


def run_headless() -> int:
    """Make the journey and print it. Returns 0 if every step succeeded."""
    folder = Path(tempfile.mkdtemp(prefix="p2pmail-demo-"))

    async def journey() -> None:
        world = DemoWorld(folder)
        try:
            await Journey(world, lambda words: print(words, flush=True)).make()
        finally:
            await world.stop()

    try:
        run_loop(journey())
    except JourneyFailed as error:
        print(f"p2pmail-tui: {error}", file=sys.stderr)
        return os.EX_SOFTWARE
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print("Everything held; nothing is kept.")
    return 0
