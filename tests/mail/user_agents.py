"""Users for tests: everything of a user agent but the network, on real files, with a clock that a test moves.

The overlay is tests/mail/fakes.py's. `Desk.restart` is a crash: new objects on the same files.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from mail.checks.pipeline import Check, Clean, IncomingMessage, Pipeline, Verdict
from mail.checks.spam import Gtube
from mail.directory import Directory
from mail.events import Event, NewMail, Trouble
from mail.receive.filing import Filing
from mail.receive.receiver import Receiver, RecipientKeys
from mail.receive.segment_cache import SegmentCache
from mail.sealed.keys import KeyPair, generate_pair
from mail.sealed.notification import Notification, open_notification
from mail.send.rules import segment_key
from mail.send.sender import Sender
from overlay.identity.card import make_card
from overlay.identity.certificates import TrustStore
from overlay.identity.ownership import Owner
from overlay.ids import Kind, certificate_key, inbox_key
from storage.user.index import Index
from storage.user.outbox import Envelope, Outbox, OutboxEntry, Recipient
from storage.user.profile import Profile
from storage.user.state import UserState
from tests.clock import Clock
from tests.mail.fakes import FakeNode, FakeOverlay
from tests.overlay.issuing import NOW, Issuer


class AllClean:
    """A check for tests in which checks don't matter."""

    name = "nothing"

    def check(self, incoming: IncomingMessage) -> Verdict:
        return Clean()


class UserAgentNetwork:
    """A network of fake nodes, its authority, and user agents in `folder`."""

    def __init__(self, folder: Path, nodes: int = 5) -> None:
        self.folder = folder
        self.clock = Clock(NOW)
        self.issuer = Issuer()
        self.nodes = [FakeNode(number) for number in range(1, nodes + 1)]
        self.overlay = FakeOverlay(self.nodes)
        self.user_agents: list[UserAgent] = []
        self.version = "1.0"
        """Of the program that everybody has."""
        self.room = 1 << 40
        """Bytes free on everybody's disk."""

    def free(self, folder: Path) -> int:
        """Bytes free on the disk of a folder."""
        return self.room

    async def user_agent(self, name: str, issuer: Issuer | None = None) -> UserAgent:
        """A new user NAME@example.org, her card published."""
        user_agent = UserAgent(self, f"{name}@example.org", len(self.user_agents) + 100, issuer or self.issuer)
        self.user_agents.append(user_agent)
        await user_agent.publish()
        return user_agent

    def set_down(self, *, down: bool = True) -> None:
        """Cut the network, or mend it; nobody remembers a card over that."""
        for node in self.nodes:
            node.down = down
        for user_agent in self.user_agents:
            user_agent.forget_cards()

    def forget_mail(self) -> None:
        """The time of all mail is over at the nodes; cards are there."""
        for node in self.nodes:
            node.inboxes.clear()
            node.objects = {place: kept for place, kept in node.objects.items() if place[0] == Kind.CERTIFICATE}

    def close(self) -> None:
        for user_agent in self.user_agents:
            user_agent.close()


class UserAgent:
    """One user."""

    def __init__(self, world: UserAgentNetwork, address: str, number: int, issuer: Issuer) -> None:
        self.world = world
        self.address = address
        person = issuer.person(address, number, serial=number)
        self.owner = Owner(person.certificate, person.sign)
        self.earlier: list[Owner] = []
        self._number, self._issuer = number, issuer
        self.pairs: dict[bytes, KeyPair] = {}
        self.new_key()
        self.profile = Profile(world.folder / address.partition("@")[0], environ={})
        self.profile.create()
        self.trust = TrustStore([world.issuer.der])
        self.events: list[Event] = []
        self.checks: list[Check] = [AllClean(), Gtube()]
        self.may_send: Callable[[], None] = lambda: None
        self._open()

    def new_key(self) -> KeyPair:
        """A new encryption key; the old ones stay."""
        self.pair = generate_pair(self.world.clock())
        self.pairs[self.pair.key_id] = self.pair
        return self.pair

    def renew(self) -> None:
        """Another certificate of the same key."""
        self.earlier.append(self.owner)
        person = self._issuer.person(self.address, self._number, serial=self._number + 1000)
        self.owner = Owner(person.certificate, person.sign)

    async def publish(self) -> None:
        card = make_card(self.owner, self.pair.public, int(self.world.clock() * 1000))
        await self.world.overlay.store(Kind.CERTIFICATE, certificate_key(self.address), card, ttl=1)

    def restart(self) -> None:
        """Everything in memory is gone; what is on disk is there."""
        self.close()
        self._open()

    def close(self) -> None:
        self.outbox.close()
        self.state.close()
        self.index.close()

    def forget_cards(self) -> None:
        self.directory = Directory(self.world.overlay, self.trust, self.world.clock)
        self.sending._directory = self.directory

    # Sending

    def write(
        self, *recipients: UserAgent | str, message_id: str = "letter@example.org", message: bytes | None = None
    ) -> OutboxEntry:
        """Put a message into the outbox."""
        to = [each if isinstance(each, str) else each.address for each in recipients]
        data = plain_message(self.address, to, message_id) if message is None else message
        self.outbox.accept(
            data, Envelope(message_id, subject="Hello", sender=self.address, recipients=to, created=self.world.clock())
        )
        return self.entry(message_id)

    async def send(self) -> None:
        await self.sending.run(everything=True)

    async def send_for(self, seconds: float) -> None:
        """Be online for so long: make each attempt when it is due."""
        end = self.world.clock() + seconds
        while (due := min(entry.next_attempt for entry in self.outbox.entries())) <= end:
            self.world.clock.now = max(self.world.clock(), due)
            await self.sending.run()
        self.world.clock.now = end

    def entry(self, message_id: str = "letter@example.org") -> OutboxEntry:
        found = self.outbox.entry(message_id)
        assert found is not None
        return found

    def copy(self, recipient: UserAgent | str, message_id: str = "letter@example.org") -> Recipient:
        """What is known of one recipient's copy."""
        address = recipient if isinstance(recipient, str) else recipient.address
        return next(r for r in self.entry(message_id).recipients if r.address == address)

    # Receiving

    async def collect(self) -> int:
        return await self.receiving.run(everything=True)

    async def get(self, *notifications: bytes) -> None:
        """Lay notifications into this user agent's inbox."""
        for notification in notifications:
            await self.world.overlay.append_inbox(self.inbox_key, notification, ttl=1)

    def told(self) -> Notification:
        """What the only notification in the inbox says."""
        (data,) = self.world.overlay.inbox(self.inbox_key)
        return open_notification(data, self.pairs, self.address, self.trust, self.world.clock())[0]

    def folder(self, name: str) -> list[bytes]:
        """The bytes of every message in a folder."""
        folders = self.profile.folders()
        return [(folders.folder(name) / entry.place).read_bytes() for entry in folders.scan(name)]

    def everywhere(self) -> list[bytes]:
        """The bytes of every message in any folder."""
        return [data for name in self.profile.folders().names() for data in self.folder(name)]

    @property
    def inbox_key(self) -> bytes:
        return inbox_key(self.address)

    @property
    def troubles(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Trouble)]

    @property
    def lasting(self) -> list[str]:
        """What she was told that stays until she has seen it."""
        return [event.text for event in self.events if isinstance(event, Trouble) and event.lasting]

    @property
    def new_mail(self) -> list[NewMail]:
        return [event for event in self.events if isinstance(event, NewMail)]

    def _check(self) -> None:
        self.may_send()

    def _open(self) -> None:
        world, now = self.world, self.world.clock
        self.outbox = Outbox(self.profile.outbox_file, now=now)
        self.state = UserState(self.profile.state_file, now=now)
        self.index = Index.open(self.profile.index_file, now)
        self.directory = Directory(world.overlay, self.trust, now)
        tell: Callable[[Event], None] = self.events.append
        self.sending = Sender(
            self.outbox,
            world.overlay,
            self.directory,
            owner=lambda: self.owner,
            tell=tell,
            now=now,
            may_send=self._check,
        )
        self.filing = Filing(self.profile.folders(), self.index, Pipeline(self.checks), self.state)
        self.receiving = Receiver(
            self.state,
            world.overlay,
            self.trust,
            keys=lambda: RecipientKeys(self.address, self.owner, self.pairs, self.earlier),
            filing=self.filing,
            cache=SegmentCache(self.profile.spool, self.world.free),
            tell=tell,
            now=now,
            version=self.world.version,
        )


def plain_message(
    sender: str, to: list[str], message_id: str, text: bytes = b"Hello.\n", subject: str = "Hello"
) -> bytes:
    """A small message."""
    head = f"From: {sender}\nTo: {', '.join(to)}\nSubject: {subject}\nMessage-ID: <{message_id}>\n"
    return head.encode() + b"Date: Mon, 02 Mar 2026 12:00:00 +0000\n\n" + text


def body_at(message_id: str = "letter@example.org", index: int = 0, many: bool = False) -> bytes:
    """Key of a body, or of one segment of it."""
    return segment_key(message_id, index, many)


def noise(size: int) -> bytes:
    """Bytes that can't be compressed, the same every time."""
    return random.Random(1).randbytes(size)


async def a_good_one(alice: UserAgent, bob: UserAgent) -> Notification:
    """A good notification for Bob, whose body nodes have; his inbox is empty."""
    alice.write(bob)
    await alice.send()
    notification = bob.told()
    for node in bob.world.nodes:
        node.inboxes.clear()
    return notification
