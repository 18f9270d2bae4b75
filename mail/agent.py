"""The user agent (paper, section 2.1): runs one profile's sending, receiving and node.

Theory of operation
-------------------
An agent is opened, perhaps started, and closed:

    open    take the profile's lock "agent", open the databases, join the overlay, listen at the control socket
    start   begin the regular work below; without it a command calls `sync` or `send` once
    close   cancel the work, hand over what this node stores (LEAVING seconds), close the databases, release the lock

The regular work is six loops that share one event loop and never wait for one another:

    send          what is due in the outbox; again when the next message is due, or when `wake` is called
    collect       the inbox; again after the configured `poll`
    publish       the card, when nodes lack it, a day has passed, or the certificate changed
    revocations   the newest revocation list
    renew         the certificate, from 60 days before its end
    probes        the measuring of availability

Each loop says after how many seconds it wants to run again. When another node answers after a time without an answer
(`presence.back`), all of them wake up at once, and what waited for the network is due.

Invariants:

- One process is a profile's agent. Commands ask it over the control socket (mail/control.py) instead of working beside
  it; the lock, not the socket, decides.
- A loop never ends by an error. It is logged or told, once for each new text, and the work is tried again.
- The revocation list is fetched before a card or a message is trusted.
- A lasting trouble goes through NoticeKeeper: it is on disk before the user is told.
- Nothing here decides about mail: that is mail/send/ and mail/receive/.

The screen has an agent in a thread of its own (mail/agent_thread.py).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace

from mail.availability.estimate import Availability
from mail.availability.probes import Probes
from mail.checks.standard import standard_pipeline
from mail.control import ControlServer
from mail.directory import PUBLISH_EVERY, Directory
from mail.events import Event, NodeStatus, Online, Trouble
from mail.identity import Identity
from mail.membership.certificate_status import (
    REVOCATIONS_EVERY,
    REVOCATIONS_FACT,
    CertificateState,
    certificate_status,
    check_may_send,
    is_news,
)
from mail.membership.renewal import Renewal
from mail.notices import NoticeKeeper
from mail.profile_node import open_client, open_system_node, read_network_file, renew_admission, write_admission
from mail.receive.filing import Filing
from mail.receive.receiver import Receiver, RecipientKeys
from mail.receive.segment_cache import SegmentCache
from mail.send.enqueue import finish_copies
from mail.send.sender import Sender
from mail.version import program_version
from overlay.client import Overlay
from overlay.errors import Offline, OverlayError, Unreachable
from overlay.identity.certificates import CertificateError, TrustStore
from overlay.identity.network import Network
from overlay.node.node import Node
from storage.database import DatabaseError
from storage.user.index import Index
from storage.user.keyring import KeyringError
from storage.user.outbox import Outbox
from storage.user.profile import Config, ConfigError, Profile
from storage.user.state import UserState

log = logging.getLogger(__name__)

LOOK_EVERY = 3600.0
"""Seconds between two checks that the responsible nodes hold our card."""
LEAVING = 5.0
"""Most seconds for handing over what is stored for others. Short, because the user waits for the screen to close."""
SHORTEST_PAUSE = 0.2
LONGEST_PAUSE = 60.0
"""Seconds between two rounds of sending."""
RENEWAL_POLL = 2.0
"""Seconds between two attempts to fetch the authority's answer while a command waits for it."""
RETRY = 10.0
"""Seconds after which failed work is tried again."""


class Agent:
    """One user's agent, joined to the overlay. Make it with `open`; end it with `close`."""

    def __init__(
        self, profile: Profile, identity: Identity, node: Node, tell: Callable[[Event], None], now: Callable[[], float]
    ) -> None:
        self.profile = profile
        self.identity = identity
        self.node = node
        self._now = now
        self._wake = asyncio.Event()
        self._sleeping: set[asyncio.Event] = set()
        self._hurry = self._collect_all = False
        self._tasks: list[asyncio.Task[None]] = []
        self._locks = ExitStack()
        self._control: ControlServer | None = None
        with ExitStack() as opened:
            self.state = UserState(profile.state_file)
            opened.callback(self.state.close)
            self.outbox = Outbox(profile.outbox_file)
            opened.callback(self.outbox.close)
            self._index = Index.open(profile.index_file)
            opened.callback(self._index.close)
            checks = standard_pipeline(self.state, profile.config.known_spammers, profile.config.clamd)
            self._opened = opened.pop_all()
        tell = self._tell = NoticeKeeper(self.state, tell, now)
        assert node.trust is not None
        self._trust: TrustStore = node.trust
        self._revocations_learnt = float("-inf")
        self._published = float("-inf")
        kept = self.state.fact(REVOCATIONS_FACT)
        with suppress(CertificateError):  # the profile has changed its network: the list is another authority's
            self._trust.accept_revocations(kept or b"", now())
        self.probes = Probes(self.state, node.network, profile.config.target, now)
        node.protocol.presence.back = self._network_is_back
        node.protocol.presence.changed = self._tell_online
        self.overlay = Overlay(node, lambda: self.probes.k)
        self.directory = Directory(self.overlay, self._trust, now)
        finish_copies(self.outbox, profile.folders())
        profile.folders().sweep()
        filing = Filing(profile.folders(), self._index, checks, self.state)
        self._sending = Sender(
            self.outbox,
            self.overlay,
            self.directory,
            owner=lambda: identity.owner,
            tell=tell,
            now=now,
            code=self.probes.code,
            may_send=self._may_send,
        )
        self._receiving = Receiver(
            self.state,
            self.overlay,
            self._trust,
            keys=self._reader,
            filing=filing,
            cache=SegmentCache(profile.spool),
            tell=tell,
            now=now,
            version=program_version(),
        )
        self._renewal = Renewal(profile, identity, self.overlay, self._trust, self.state, tell=tell, now=now)
        self._published_by = b""
        loop = asyncio.get_running_loop()

        def say(words: str) -> None:  # called from any thread that uses the keyring
            loop.call_soon_threadsafe(tell, Trouble(words, lasting=True))

        identity.keyring.tell = say

    @classmethod
    async def open(
        cls,
        profile: Profile,
        identity: Identity,
        *,
        network: Network | None = None,
        join: Sequence[str] = (),
        listen: str | None = None,
        if_reached: bool = False,
        tell: Callable[[Event], None] = lambda _: None,
        now: Callable[[], float] = time.time,
    ) -> Agent:
        """Take the profile's lock "agent" and join the overlay.

        With `listen` (or the configured mode "node") the agent runs a system node too; with `if_reached` it is in
        server mode only while others reach it. Raises ProfileBusy if another process is this profile's agent,
        NoNetwork, CantListen, ConfigError (a bad place in the configuration or in `join`), IndexUnavailable, OSError,
        DatabaseError.
        """
        with ExitStack() as locks:
            locks.enter_context(profile.lock("agent"))
            if network is None:
                network = await asyncio.to_thread(read_network_file, profile.network_file)
            places = (*join, *profile.config.join)
            if network.admission == "certified" and not identity.waiting:
                await asyncio.to_thread(write_admission, profile, network, identity.owner)
            try:
                # A network that admits only members' nodes has no admission proof for a profile that still joins.
                stranger = if_reached and network.admission == "certified" and identity.waiting
                if not stranger and (listen is not None or profile.config.mode == "node"):
                    place = listen or profile.config.listen
                    node = await open_system_node(
                        profile, network, listen=place, join=places, now=now, if_reached=if_reached
                    )
                else:
                    node = await open_client(profile, network, join=places, now=now)
            except OverlayError:
                raise
            except ValueError as error:
                raise ConfigError(f"{error}".rstrip(".") + ".") from error
            try:
                agent = cls(profile, identity, node, tell, now)
            except BaseException:
                await node.stop()
                raise
            agent._locks = locks.pop_all()
        try:
            control = ControlServer(profile.control_socket, agent.answer)
            await control.start()
            agent._control = control
        except BaseException:
            await agent.close()
            raise
        return agent

    async def close(self) -> None:
        """Stop all work and leave the overlay. Unsent mail stays in the outbox."""
        self.identity.keyring.tell = log.warning
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            if self._control is not None:
                await self._control.close()
            await self.node.leave(LEAVING)
            await self.node.stop()
        finally:
            self._tell.keep()
            await asyncio.to_thread(self._opened.close)
            self._locks.close()

    # Work

    async def sync(self, *, everything: bool = True) -> int:
        """Send unsent mail and collect new mail concurrently. Returns how many messages were filed.

        Raises Unreachable if no node answers, DatabaseError; each after both halves have ended.
        """
        await self._learn_revocations()
        sent, filed = await asyncio.gather(
            self._sending.run(everything=everything),
            self._receiving.run(everything=everything),
            return_exceptions=True,
        )
        for result in (sent, filed):
            if isinstance(result, BaseException):
                raise result
        assert isinstance(filed, int)
        return filed

    async def send(self) -> None:
        """Try to send all unsent mail. What fails stays in the outbox with its reason."""
        await self._learn_revocations()
        await self._sending.run(everything=True)

    async def publish_card(self) -> None:
        """Store our card at the k closest nodes, with a new encryption key if one is due.

        Raises Unreachable (no node took it), CertificateError (our certificate isn't valid any more), KeyringError.
        """
        self._may_send()
        await asyncio.to_thread(self.identity.rotate, self._now())
        outcome = await self.directory.publish_next(self.identity.address, self.identity.card)
        if not outcome.have:
            raise Unreachable(f"No node took our card, by which others find us: {'; '.join(outcome.refusals)}")
        self._published_by = self.identity.owner.certificate
        await asyncio.to_thread(renew_admission, self.profile, self.node, self.identity.owner)

    async def renew(self, wait: float = 0.0) -> None:
        """Renew the certificate if that is due, and tell the user if it is about to end, has ended or was revoked.

        Waits up to `wait` seconds for the answer to a fresh request, and if the certificate has ended. Publishes a
        card with the renewed certificate. Raises KeyringError, OSError, DatabaseError.
        """
        try:
            await self._learn_revocations()
            for _ in range(1 + int(wait / RENEWAL_POLL)):
                if await self._renewal.run():
                    await self.publish_card()
                    break
                if not wait or not (self._renewal.fresh or (self.ended and self._renewal.due())):
                    break
                await asyncio.sleep(RENEWAL_POLL)
        except OverlayError as error:
            log.info("renewing: %s", error)
        await self._look_at_certificate()

    def start(self) -> None:
        """Start the six loops of regular work."""
        if not self.node.protocol.presence.online:
            self._tell_online()
        self._tasks = [
            asyncio.create_task(self._forever(self._send_due, self._wake)),
            asyncio.create_task(self._forever(self._collect)),
            asyncio.create_task(self._forever(self._publish)),
            asyncio.create_task(self._forever(self._revocations)),
            asyncio.create_task(self._forever(self._renew)),
            asyncio.create_task(self._forever(lambda: self.probes.run(self.overlay))),
        ]

    def wake(self) -> None:
        """Start a round of sending now: the outbox has a new message."""
        self._wake.set()

    def _network_is_back(self) -> None:
        """Wake up all loops: a node answers again after none did."""
        self._hurry = self._collect_all = True
        for sleeping in self._sleeping:
            sleeping.set()

    def _tell_online(self) -> None:
        presence = self.node.protocol.presence
        self._tell(Online(presence.online, presence.since))

    @property
    def late(self) -> int:
        """Number of messages with a notification that couldn't be collected at the last attempt."""
        return self._receiving.late

    async def status(self) -> NodeStatus:
        """This node's figures, and what it knows of the overlay."""
        status = await node_status(self.node, self.profile.config, self.overlay.k, self.probes.known)
        if self.identity.waiting:
            return status
        try:
            state, ends = certificate_status(self.identity.owner.certificate, self._trust, self._now()).document
        except CertificateError as error:  # not valid yet: the clock is wrong; show the rest
            log.info("the certificate's status isn't known: %s", error)
            return status
        return replace(status, certificate=state, certificate_ends=ends)

    async def answer(self, request: str) -> dict[str, object]:
        """Answer a request at the control socket."""
        match request:
            case "status":
                return status_document(await self.status())
            case "sync":
                self.wake()
                return {"filed": await self.sync(), "late": self.late}
            case _:
                return {"error": f"unknown request {request!r}"}

    def _reader(self) -> RecipientKeys:
        identity = self.identity
        return RecipientKeys(identity.address, identity.owner, identity.pairs(), identity.earlier(self._now()))

    async def _forever(self, work: Callable[[], Awaitable[float]], wake: asyncio.Event | None = None) -> None:
        """Repeat `work` after the seconds that it returns each time, or at once when `wake` is set.

        Being offline isn't reported as a trouble: the screen shows it while it lasts, and its end sets `wake`.
        """
        trouble = ""
        wake = wake or asyncio.Event()
        self._sleeping.add(wake)
        while True:
            try:
                pause = await work()
                trouble = ""
            except Offline:
                pause = LONGEST_PAUSE
            except (CertificateError, KeyringError, DatabaseError) as error:  # these don't pass by themselves
                pause, trouble = RETRY, self._complain(str(error), trouble, lasting=True)
            except OverlayError as error:
                pause, trouble = RETRY, self._complain(str(error), trouble)
            except Exception as error:
                log.exception("regular work failed")
                pause, trouble = RETRY, self._complain(f"{type(error).__name__}: {error}", trouble, lasting=True)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(wake.wait(), pause)
                wake.clear()

    def _complain(self, words: str, before: str, *, lasting: bool = False) -> str:
        """Tell the user of a trouble unless it was the last one told."""
        if words != before:
            self._tell(Trouble(words, lasting))
        return words

    async def _send_due(self) -> float:
        await self._learn_revocations()
        if self._hurry:
            self._hurry = False
            await self._sending.network_is_back()
        await self._sending.run()
        due = await asyncio.to_thread(self.outbox.next_due)
        return LONGEST_PAUSE if due is None else min(max(due - self._now(), SHORTEST_PAUSE), LONGEST_PAUSE)

    async def _collect(self) -> float:
        await self._learn_revocations()
        everything, self._collect_all = self._collect_all, False
        await self._receiving.run(everything=everything)
        return self.profile.config.poll

    async def _publish(self) -> float:
        fresh = 0 <= self._now() - self._published < PUBLISH_EVERY
        fresh = fresh and self._published_by == self.identity.owner.certificate
        if not (fresh and await self.directory.kept()):
            await self.publish_card()
            self._published = self._now()
        return LOOK_EVERY

    async def _renew(self) -> float:
        await self.renew()
        return self._renewal.pause()

    def _may_send(self) -> None:
        check_may_send(self.identity, self._trust, self._now())

    @property
    def ended(self) -> bool:
        """Whether our certificate has ended, so that only renewing it is possible."""
        return (
            certificate_status(self.identity.owner.certificate, self._trust, self._now()).state
            is CertificateState.ENDED
        )

    async def _look_at_certificate(self) -> None:
        """Store our certificate for commands without the passphrase, and warn the user once of each new status."""
        if self.identity.waiting:
            return
        status = certificate_status(self.identity.owner.certificate, self._trust, self._now())
        if await asyncio.to_thread(is_news, self.state, self.identity.owner.certificate, status):
            log.info("%s", status.words)  # not a warning: a terminal would show it twice
            self._tell(Trouble(status.words, lasting=True))

    async def _revocations(self) -> float:
        await self._learn_revocations()
        return REVOCATIONS_EVERY

    async def _learn_revocations(self) -> None:
        """Fetch the revocation list if an hour has passed, and store it for the next start."""
        if 0 <= self._now() - self._revocations_learnt < REVOCATIONS_EVERY:
            return
        known = self._trust.revocations()
        if not await self.overlay.refresh_revocations():
            return  # no node answered: try again at the next call
        self._revocations_learnt = self._now()
        newest = self._trust.revocations()
        if newest is not None and newest != known:
            await asyncio.to_thread(self.state.keep_fact, REVOCATIONS_FACT, newest)


async def node_status(node: Node, config: Config, k: int, known: Availability | None = None) -> NodeStatus:
    """The figures of a node. `known`: the measured availability, if an agent measures it."""
    status = await node.status()
    known = known or Availability()
    usage = status.usage
    return NodeStatus(
        node_id=status.node_id,
        listening=status.listening,
        mode=status.mode,
        contacts=status.contacts,
        objects=usage.objects if usage else 0,
        bytes=usage.bytes if usage else 0,
        quota=usage.quota if usage else config.quota,
        inboxes=usage.inboxes if usage else 0,
        availability=known.p,
        k=k,
        version=program_version(),
        interval=known.interval,
        observations=round(known.observations),
        target=config.target,
        reached=None if known.p is None else known.reaches(k),
        transport=status.transport,
        reachable=status.reachable,
        online=status.online,
        offline_since=status.offline_since,
        alone=node.lone,
    )


def status_document(status: NodeStatus) -> dict[str, object]:
    """The document that `p2pmail status --json` prints (docs/commands.md)."""
    return asdict(status)
