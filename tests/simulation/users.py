"""Users in a simulated world: their agents' real parts, on real folders, over a client of the simulated network."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from mail.availability import Availability
from mail.checks.pipeline import Pipeline
from mail.coding import Code, choose
from mail.directory import Directory
from mail.events import Event, Trouble
from mail.filing import Filing
from mail.keys import KeyPair
from mail.receiving import Reader, Receiving
from mail.sending import Sending
from overlay.certificates import TrustStore
from overlay.errors import OverlayError, Unreachable
from overlay.overlay import Overlay
from overlay.ownership import Owner
from storage.database import DatabaseError
from storage.index import Index
from storage.outbox import Outbox
from storage.profile import Profile
from storage.state import UserState
from tests.mail.desks import AllClean
from tests.simulation.nodes import SimNode


class Person:
    """Somebody with an address, whatever devices she reads on."""

    def __init__(self, address: str, owner: Owner, pair: KeyPair) -> None:
        self.address, self.owner, self.pair = address, owner, pair


class Device:
    """One device of a person's: her folders, outbox and state there. `crash` and `start` are what devices do."""

    def __init__(self, person: Person, folder: Path, trust: TrustStore) -> None:
        self.person = person
        self.profile = Profile(folder, environ={})
        self.profile.create()
        self.troubles: list[str] = []
        self._trust = trust
        self._digests: dict[str, bytes] = {}
        self.node: SimNode | None = None

    async def start(self, node: SimNode, places: Sequence[str]) -> None:
        """Come online as the client `node`."""
        await node.start(places)
        now = node.now
        self.overlay = Overlay(node)
        self.outbox = Outbox(self.profile.outbox_file, now=now)
        self.state = UserState(self.profile.state_file, now=now)
        self.index = Index.open(self.profile.index_file, now)
        self.directory = Directory(self.overlay, self._trust, now)
        person = self.person
        self.sending = Sending(
            self.outbox, self.overlay, self.directory, person.owner, self._tell, now, node.random, code=self._code
        )
        filing = Filing(self.profile.folders(), self.index, Pipeline([AllClean()]), self.state)
        reader = Reader(person.address, person.owner, {person.pair.key_id: person.pair})
        self.receiving = Receiving(
            self.state, self.overlay, self._trust, lambda: reader, filing, self.profile.spool, self._tell, now
        )
        self.node = node

    async def crash(self) -> None:
        """Everything in memory is gone."""
        node, self.node = self.node, None
        assert node is not None
        await node.crash()
        self.outbox.close()
        self.state.close()
        self.index.close()

    async def send(self, *, everything: bool = False) -> None:
        """Send what is due, or `everything` that waits, as somebody who can't wait does."""
        try:
            await self.sending.run(everything=everything)
        except (OverlayError, DatabaseError):  # nobody answers, or it crashed meanwhile
            return

    async def sync(self) -> None:
        """Collect what has come."""
        try:
            await self.receiving.run(everything=True)
        except (OverlayError, DatabaseError):
            return

    def received(self) -> list[bytes]:
        """SHA-256 of every message in her folders."""
        folders = self.profile.folders()
        places = [folders.folder(name) / part for name in folders.names() for part in ("new", "cur")]
        return [self._digest(file) for place in places for file in os.scandir(place)]

    def _digest(self, file: os.DirEntry[str]) -> bytes:
        """A message is written once (maildir(5)): a name that was read needn't be read again."""
        known = self._digests.get(file.path)
        if known is None:
            known = self._digests[file.path] = hashlib.sha256(Path(file).read_bytes()).digest()
        return known

    def _code(self, nodes: int) -> Code:
        if self.node is None:  # it has crashed in the middle of this
            raise Unreachable("This computer is off.")
        return choose(Availability(), self.node.network.k, 0.999, nodes)

    def _tell(self, event: Event) -> None:
        if isinstance(event, Trouble):
            self.troubles.append(event.text)
