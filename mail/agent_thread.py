"""Runs the user agent in a thread with its own event loop, so that the screen never waits (tui/ports.py).

Calls are passed to that loop. Events are delivered in that thread. Nothing here decides about mail.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mail.agent import Agent
from mail.cli.passphrase import from_file
from mail.cli.running import run_loop
from mail.events import Event, NodeStatus, Progress, Trouble
from mail.identity import Identity
from mail.membership.certificate_status import check_may_accept
from mail.membership.create_network_with_member import AUTHORITY
from mail.membership.join import join as join_network
from mail.membership.join import resume
from mail.notices import keep
from mail.profile_node import NoNetwork, read_network_file
from mail.version import program_version
from mail.write.compose import Draft
from mail.write.submit_draft import accept_draft
from overlay.errors import OverlayError
from overlay.protocol_limits import DEFAULT_K
from storage.user.keyring import Keyring
from storage.user.outbox import Outbox
from storage.user.profile import Profile, ProfileBusy

T = TypeVar("T")
log = logging.getLogger(__name__)

JOIN_WAIT = 120.0
"""Seconds that the set-up screen waits for the authority. The next start continues the join."""
RESUME_EVERY = 30.0
"""Seconds between two attempts to open the agent."""


class StartOptions(Protocol):
    """The command line's options about the node."""

    @property
    def passphrase_file(self) -> Path | None: ...
    @property
    def listen(self) -> str | None: ...
    @property
    def join(self) -> Sequence[str]: ...
    @property
    def network(self) -> Path | None: ...


class AgentThread:
    """One profile's agent in its own thread. Its coroutines may be awaited in any event loop."""

    def __init__(self, profile: Profile, options: StartOptions) -> None:
        self.profile = profile
        self._options = options
        self._identity: Identity | None = None
        self._agent: Agent | None = None
        self._outbox: Outbox | None = None
        self._callbacks: list[Callable[[Event], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None
        self._opening: Future[None] | None = None
        self._passphrase: str | None = None
        self._answering: asyncio.Task[None] | None = None
        self._authority_folder = profile.root / AUTHORITY

    # Answers that don't block

    def joined(self) -> bool:
        """Whether this profile has an address or a pending join."""
        return self.profile.keyring_file.exists()

    def locked(self) -> bool:
        """Whether the keyring needs a passphrase that hasn't been given yet."""
        if self._identity is not None or not self.joined() or self._options.passphrase_file is not None:
            return False
        return Keyring.is_protected(self.profile.keyring_file)

    def address(self) -> str | None:
        """The user's own address, or None before the keyring is open."""
        return None if self._identity is None else self._identity.address

    def subscribe(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """Call `callback` with each event, in the agent's thread. Returns a function that ends this."""
        self._callbacks.append(callback)

        def end() -> None:
            with suppress(ValueError):
                self._callbacks.remove(callback)

        return end

    # Calls that take time

    async def start(self, passphrase: str | None) -> None:
        """Open the keyring, then start the agent in the background. Raises KeyringError, OSError."""
        if self._options.passphrase_file is not None:
            passphrase = await asyncio.to_thread(from_file, self._options.passphrase_file)
        identity = await asyncio.to_thread(Identity.open, self.profile, passphrase)
        self._outbox = await asyncio.to_thread(Outbox, self.profile.outbox_file)
        self._identity = identity
        self._passphrase = passphrase
        self._start_thread()
        self._opening = self._run(self._open(identity))

    async def stop(self) -> None:
        """Stop the agent and its thread. Unsent mail stays in the outbox."""
        if self._thread is None or self._loop is None or self._stop is None:
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        await asyncio.to_thread(self._thread.join)
        self._thread = None
        if self._outbox is not None:
            self._outbox.close()

    async def submit(self, draft: Draft) -> str:
        """Accept a finished message into the outbox, with a copy in Sent. Returns its Message-ID.

        Raises ComposeError, CertificateError, OutboxError, OSError; nothing was accepted then.
        """
        message_id = await asyncio.to_thread(self._accept, draft)
        if self._agent is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._agent.wake)
        return message_id

    async def sync(self) -> None:
        """Send unsent mail and collect new mail now. Raises OverlayError."""
        agent = await self._ready()
        await asyncio.wrap_future(self._run(agent.sync()))

    async def status(self) -> NodeStatus:
        """This node's figures; zeros before the agent is open."""
        if self._agent is None:
            quota = self.profile.config.quota
            return NodeStatus("", "", "client", 0, 0, 0, quota, 0, None, DEFAULT_K, program_version())
        return await asyncio.wrap_future(self._run(self._agent.status()))

    async def join(self, invite: str, passphrase: str | None) -> str:
        """Join with an invite; returns the address. Raises EnrolmentError, InviteError, KeyringError, OSError."""
        self._start_thread()

        def tell(words: str) -> None:
            self._tell(Progress(words, 0, 0))

        return await asyncio.wrap_future(
            self._run(join_network(self.profile, invite, passphrase, wait=JOIN_WAIT, tell=tell))
        )

    def founder(self) -> bool:
        """Whether this profile created its network and so has its authority."""
        return (self._authority_folder / "authority.pem").exists()

    async def invite(self, address: str) -> str:
        """Make an invite for `address`. Raises AuthorityError, AddressError."""
        from mail.membership.create_network import make_invite

        return await asyncio.to_thread(make_invite, self._authority_folder, address, self._passphrase)

    async def found(self, name: str, address: str, passphrase: str | None) -> str:
        """Create a network with this profile as its first node and member. Returns the outcome in words.

        Raises AuthorityError, AddressError, KeyringError, OSError.
        """
        from mail.membership.create_network_with_member import create_with_member

        said: list[str] = []
        folder = await asyncio.to_thread(create_with_member, self.profile, name, address, passphrase, said.append)
        return "\n".join([f"Its authority lies in {folder}: keep a copy.", *said])

    # Inside

    def _accept(self, draft: Draft) -> str:
        if self._outbox is None or self._identity is None:
            raise OverlayError("The keys are not open yet; the message was kept as a draft.")
        check_may_accept(self.profile, self._identity, time.time())
        return accept_draft(self._outbox, self.profile, self._identity, draft, time.time())

    def _start_thread(self) -> None:
        if self._thread is not None:
            return
        ready = threading.Event()

        async def live() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            ready.set()
            await self._stop.wait()
            if self._opening is not None:
                self._opening.cancel()
            if self._answering is not None:
                self._answering.cancel()
                await asyncio.gather(self._answering, return_exceptions=True)
            if self._agent is not None:
                await self._agent.close()

        self._thread = threading.Thread(target=lambda: run_loop(live()), name="user agent", daemon=True)
        self._thread.start()
        ready.wait()

    async def _open(self, identity: Identity) -> None:
        """Open the agent, trying again while that fails, and start its regular work."""
        told = ""
        while True:
            try:
                if identity.joining:
                    await resume(self.profile, identity.keyring, wait=JOIN_WAIT)
                path = self._options.network or self.profile.network_file
                network = await asyncio.to_thread(read_network_file, path)
                agent = await Agent.open(
                    self.profile,
                    identity,
                    network=network,
                    join=tuple(self._options.join),
                    listen=self._options.listen or _listen(self.profile),
                    if_reached=self._options.listen is None and self.profile.config.mode == "auto",
                    tell=self._pass_on,
                )
                break
            except asyncio.CancelledError:
                raise
            except Exception as error:
                if str(error) != told:
                    log.info("the agent can't start yet: %s", error)
                    self._tell(Trouble(f"{error} It will be tried again."))
                    told = str(error)
                if isinstance(error, NoNetwork):
                    return
                await asyncio.sleep(RESUME_EVERY)
        agent.start()
        self._agent = agent
        if self.founder():
            self._answering = asyncio.create_task(self._answer_invites())

    async def _answer_invites(self) -> None:
        """Answer joins and renewals as `p2pmail authority serve` does, until cancelled."""
        from mail.membership.authority_service import AuthorityService

        service = AuthorityService(self._authority_folder, self._passphrase, tell=log.info)
        try:
            await service.start()
        except ProfileBusy:
            return  # a separate `p2pmail authority serve` does it
        except Exception as error:  # must not stop the founder's own mail: tell the founder
            self._tell(Trouble(f"Invites can't be answered: {error}"))
            return
        try:
            await service.run()
        finally:
            await service.stop()

    async def _ready(self) -> Agent:
        if self._opening is not None:
            await asyncio.wrap_future(self._opening)
        if self._agent is None:
            raise OverlayError("This profile has joined no network yet.")
        return self._agent

    def _run(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _tell(self, event: Event) -> None:
        """Tell an event of this file, and store it if it is lasting. (The agent stores its own.)"""
        keep(self.profile, event, time.time())
        self._pass_on(event)

    def _pass_on(self, event: Event) -> None:
        for callback in tuple(self._callbacks):
            callback(event)


def _listen(profile: Profile) -> str | None:
    """The configured place to listen at; None for a client."""
    return None if profile.config.mode == "client" else profile.config.listen


def open_agent(profile: Path, options: StartOptions) -> AgentThread:
    """The agent of the profile in this folder, not started."""
    opened = Profile(profile)
    opened.create()
    return AgentThread(opened, options)
