"""Users in a simulated world: the real parts of user agents, on real folders, over the simulated network."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

from mail.availability.erasure_code import ErasureCode, choose
from mail.availability.estimate import Availability
from mail.checks.pipeline import Pipeline
from mail.directory import Directory
from mail.events import Event, Trouble
from mail.receive.filing import Filing
from mail.receive.receiver import Receiver, RecipientKeys
from mail.receive.segment_cache import SegmentCache
from mail.sealed.keys import KeyPair
from mail.sealed.notification import open_notification
from mail.send.enqueue import SENT, CannotAccept, accept, finish_copies
from mail.send.sender import Sender
from overlay.client import Overlay
from overlay.errors import OverlayError, Unreachable
from overlay.identity.certificates import TrustStore
from overlay.identity.ownership import Owner
from storage.database import DatabaseError
from storage.user.index import Index
from storage.user.outbox import Outbox
from storage.user.profile import Profile
from storage.user.state import UserState
from tests.mail.user_agents import AllClean
from tests.simulation.nodes import SimNode
from tests.workload import Shape


class SimulatedPerson:
    """A member with an address, and one or more devices."""

    def __init__(self, address: str, owner: Owner, pair: KeyPair) -> None:
        self.address, self.owner, self.pair = address, owner, pair


class Device:
    """One device of a person: its folders, outbox and state, and what other programs do to them.

    `crash` and `start` are what devices do; `backup` and `restore` what their owners do.
    """

    def __init__(self, person: SimulatedPerson, folder: Path, trust: TrustStore) -> None:
        self.person = person
        self.profile = Profile(folder, environ={})
        self.profile.create()
        self.troubles: list[str] = []
        self.skew = 0.0
        """Seconds by which its clock is wrong."""
        self.seen: dict[str, bytes] = {}
        """SHA-256 of every message that was in the folders since the last restore, by its unique name."""
        self._trust = trust
        self._backup = folder.with_name(f"{folder.name}.backup")
        self._looked: dict[Path, int] = {}
        self.node: SimNode | None = None

    async def start(self, node: SimNode, places: Sequence[str]) -> None:
        """Come online as the client `node`."""
        node.skew = self.skew
        await node.start(places)
        now = node.now
        self.overlay = Overlay(node)
        self.outbox = self.open_outbox(node)
        finish_copies(self.outbox, self.profile.folders())
        self.state = UserState(self.profile.state_file, now=now)
        self.index = Index.open(self.profile.index_file, now)
        self.directory = Directory(self.overlay, self._trust, now)
        person = self.person
        self.sending = Sender(
            self.outbox,
            self.overlay,
            self.directory,
            owner=lambda: person.owner,
            tell=self._tell,
            now=now,
            random=node.random,
            code=self._code,
        )
        filing = Filing(self.profile.folders(), self.index, Pipeline([AllClean()]), self.state)
        reader = RecipientKeys(person.address, person.owner, {person.pair.key_id: person.pair})
        self.receiving = Receiver(
            self.state,
            self.overlay,
            self._trust,
            keys=lambda: reader,
            filing=filing,
            cache=SegmentCache(self.profile.spool),
            tell=self._tell,
            now=now,
        )
        self.node = node

    def open_outbox(self, node: SimNode) -> Outbox:
        """Another connection to the outbox, with this node's clock and randomness."""
        return Outbox(self.profile.outbox_file, now=node.now, random=node.random)

    def accept(self, shape: Shape, people: Sequence[SimulatedPerson], *, beside: bool) -> bytes | None:
        """Accept a message as `p2pmail send` does, `beside` by a program of its own; its SHA-256.

        None when it was refused, which only a wrong clock may do.
        """
        assert self.node is not None
        addresses = [person.address for person in people]
        message_id = shape.message_id("sim.example")
        path = self.profile.spool / "written.eml"
        with path.open("wb") as file:
            shape.write(file, self.person.address, addresses, message_id=message_id, date=self.node.now())
        digest = hashlib.sha256(path.read_bytes()).digest()
        outbox = self.open_outbox(self.node) if beside else self.outbox
        try:
            accept(
                outbox, self.profile.folders(), path, message_id=message_id, subject="Hello",
                sender=self.person.address, recipients=addresses,
                now=self.node.now(), certificate=self.person.owner.certificate,
            )  # fmt: skip
        except CannotAccept:
            assert self.skew, "refused without need"
            return None
        finally:
            if beside:
                outbox.close()
        return digest

    async def crash(self) -> None:
        """Crash: everything in memory is lost."""
        node, self.node = self.node, None
        assert node is not None
        await node.crash()
        self._close()

    async def stop(self) -> None:
        """Stop the program in good order."""
        node, self.node = self.node, None
        assert node is not None
        await node.stop()
        self._close()

    def _close(self) -> None:
        self.outbox.close()
        self.state.close()
        self.index.close()

    def put_clock(self, skew: float) -> None:
        """From now on the clock is wrong by so many seconds."""
        self.skew = skew
        if self.node is not None:
            self.node.skew = skew

    def backup(self) -> None:
        """Back up the profile, in place of the last backup."""
        shutil.rmtree(self._backup, ignore_errors=True)
        shutil.copytree(self.profile.root, self._backup, ignore=shutil.ignore_patterns("*-shm"))

    @property
    def has_backup(self) -> bool:
        """Whether there is a backup."""
        return self._backup.is_dir()

    def restore(self) -> None:
        """Restore the last backup of the profile. Only while the device is off."""
        assert self.node is None
        shutil.rmtree(self.profile.root)
        shutil.copytree(self._backup, self.profile.root)
        self.seen.clear()
        self._looked.clear()
        self.look()

    def taken(self) -> set[str]:
        """Message-IDs of the notifications that wait to be worked on."""
        now = self.state._now()
        opened = [
            open_notification(
                one.content, {self.person.pair.key_id: self.person.pair}, self.person.address, self._trust, now
            )[0]
            for one in self.state.pending(float("inf"))
        ]
        return {notification.message_id for notification in opened}

    async def send(self, *, everything: bool = False) -> None:
        """Send what is due, or `everything` that waits, as an impatient user does."""
        try:
            await self.sending.run(everything=everything)
        except (OverlayError, DatabaseError):  # no node answers, or the device crashed meanwhile
            return

    async def sync(self) -> None:
        """Collect new mail."""
        try:
            await self.receiving.run(everything=True)
        except (OverlayError, DatabaseError):
            return

    def look(self, *, everywhere: bool = True) -> None:
        """Note what is in the folders but Sent now; not `everywhere`: in those that changed since the last look."""
        for place in self._places():
            changed = place.stat().st_mtime_ns
            if everywhere or self._looked.get(place) != changed:
                self._looked[place] = changed
                for file in os.scandir(place):
                    unique = file.name.partition(":")[0]
                    if unique not in self.seen:  # a message is written once (maildir(5))
                        self.seen[unique] = hashlib.sha256(Path(file).read_bytes()).digest()

    def sent(self) -> set[bytes]:
        """SHA-256 of every copy in Sent."""
        folder = self.profile.folders().folder(SENT)
        return {hashlib.sha256(file.read_bytes()).digest() for file in (folder / "cur").iterdir()}

    def _places(self) -> list[Path]:
        folders = self.profile.folders()
        return [folders.folder(name) / part for name in folders.names() if name != SENT for part in ("new", "cur")]

    # What other programs do to the folders

    def change_flags(self, chance: random.Random) -> None:
        """Set or remove the flags of some messages."""
        for file in self._some(chance):
            flags = "".join(flag for flag in "FRS" if chance.random() < 0.5)
            file.rename(file.parent.parent / "cur" / f"{file.name.partition(':')[0]}:2,{flags}")

    def move(self, chance: random.Random) -> None:
        """Move some messages to a folder of another program."""
        folders = self.profile.folders()
        folders.create("Archive")
        for file in self._some(chance):
            file.rename(folders.folder("Archive") / "cur" / f"{file.name.partition(':')[0]}:2,S")

    def delete(self, chance: random.Random) -> None:
        """Delete some messages that were seen."""
        for file in self._some(chance):
            file.unlink()

    def _some(self, chance: random.Random) -> list[Path]:
        there = sorted(
            file for place in self._places() for file in place.iterdir() if file.name.partition(":")[0] in self.seen
        )
        return [file for file in there if chance.random() < 0.5]

    def _code(self, nodes: int) -> ErasureCode:
        if self.node is None:  # it has crashed meanwhile
            raise Unreachable("This computer is off.")
        return choose(Availability(), self.node.network.k, 0.999, nodes)

    def _tell(self, event: Event) -> None:
        if isinstance(event, Trouble):
            self.troubles.append(event.text)
