"""What must hold at any moment, and at the end, whatever happens in a simulated community."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from typing import TYPE_CHECKING, Any, TypeAlias

from mail.send.rules import segment_key
from overlay.ids import Kind, certificate_key, inbox_key
from overlay.protocol_limits import RETENTION
from overlay.wire.rpc import TASKS
from storage.user.outbox import State
from tests.simulation.nodes import SimNode
from tests.simulation.users import Device, SimulatedPerson

if TYPE_CHECKING:
    from tests.simulation.story import Story, StoryMessage

Received: TypeAlias = Mapping[SimulatedPerson, Set[bytes]]
"""SHA-256 of each message that was ever in a person's folders, on any device."""

CHECK_EVERY = 2.0
"""Virtual seconds between two full checks while much happens."""
MOST_SKEW = 3600.0
MOST_SEGMENTS = 4


class Invariants:
    """Checks one story; `broken` lists the violations."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self._keys: set[bytes] = set()
        self._deletes: dict[bytes, set[tuple[int, bytes, bytes]]] = {}
        self._checked = -CHECK_EVERY
        self._waiting: dict[Device, dict[tuple[str, str], bytes]] = {}
        self._written: dict[SimulatedPerson, set[bytes]] = {}
        self._ever: dict[SimulatedPerson, set[bytes]] = {}
        self._forgotten: set[tuple[str, str]] = set()
        """(Message-ID, recipient) that was lost with a disk and isn't in the restored backup: it needn't arrive."""
        self._unproven: set[tuple[str, str]] = set()
        """(Message-ID, recipient) whose signed delete may be missing, because one of the two restored a backup."""
        self.broken: list[str] = []

    def accepted(self, message: StoryMessage) -> None:
        """A message was accepted: objects may be stored under its keys, and it must arrive."""
        self._keys.add(segment_key(message.message_id, 0, many=False))
        self._keys |= {segment_key(message.message_id, index, many=True) for index in range(MOST_SEGMENTS)}
        waiting = self._waiting.setdefault(message.sender, {})
        for person in message.recipients:
            self._written.setdefault(person, set()).add(message.digest)
            waiting[message.message_id, person.address] = message.digest

    def restored(self, device: Device, taken: Set[str]) -> None:
        """The device's backup was restored. `taken`: Message-IDs that only this device was responsible for before.

        What it had accepted or collected since the backup was lost with the old disk, which no program can prevent.
        """
        mine = self._waiting.setdefault(device, {})
        mine.clear()
        address = device.person.address
        for message in self._story.messages:
            there = [(message.message_id, person.address) for person in message.recipients]
            if device.person in message.recipients:
                self._unproven.add((message.message_id, address))
                if message.message_id in taken:
                    self._forgotten.add((message.message_id, address))
            if message.sender is device:
                if device.outbox.entry(message.message_id) is None:
                    self._forgotten.update(there)
                    self._unproven.update(there)
                else:
                    mine.update(dict.fromkeys(there, message.digest))

    def watch(self, node: SimNode) -> None:
        """Record the deletes that the node confirms."""
        assert node.service is not None
        room, done = node.service.backend, self._deletes.setdefault(node.id, set())
        real = room.delete

        async def delete(kind: int, key: bytes, deleter: bytes, proof: bytes, ttl: float) -> int:
            dropped = await real(kind, key, deleter, proof, ttl)
            done.add((kind, key, deleter))
            return dropped

        room.delete = delete  # type: ignore[method-assign]

    def check(self, *, always: bool = True) -> None:
        """Check what must hold at any moment; unless `always`, at most every CHECK_EVERY seconds."""
        now = self._story.world.time()
        if not always and now < self._checked + CHECK_EVERY:
            return
        self._checked = now
        self._look(everywhere=False)
        self._check_nodes()
        self._check_states()
        self._check_folders()

    def check_end(self) -> None:
        """Check what must hold once all faults are over and nothing is under way."""
        self._look(everywhere=True)
        self.check()
        self._check_delivered()
        self._check_known()
        self._check_sent()
        self._check_deleted()

    def _say(self, words: str) -> None:
        if words not in self.broken:
            self.broken.append(words)

    def _living(self) -> Iterable[SimNode]:
        return [node for node in self._story.nodes.values() if node is not None and node.store is not None]

    def _check_nodes(self) -> None:
        people = self._story.people
        inboxes = {inbox_key(person.address) for person in people}
        cards = {certificate_key(person.address) for person in people}
        for node in self._living():
            deleted = self._deletes[node.id]
            for kind, key, deleters, expires in _objects(node):
                if key not in (cards if kind == Kind.CERTIFICATE else self._keys):
                    self._say("an object is stored under a key that no message or card has")
                if any((kind, key, deleter) in deleted for deleter in deleters):
                    self._say("a body that was deleted at a node came back to it")
                if expires > self._story.world.wall() + RETENTION + MOST_SKEW:
                    self._say("a copy outlives its expiry")
            if set(_inboxes(node)) - inboxes:
                self._say("an inbox exists under a key that is no member's")
            protocol = node.protocol
            if len(protocol._tasks) > TASKS or len(protocol._replies) > 2048 or len(protocol._reassembly) > 1024:
                self._say("a node's memory isn't bounded")

    def _look(self, *, everywhere: bool) -> None:
        for device in self._story.devices:
            device.look(everywhere=everywhere)
            self._ever.setdefault(device.person, set()).update(device.seen.values())

    def _check_states(self) -> None:
        """The state in the outbox is never better than the truth. A final state stays, so it is checked once."""
        people = {person.address: person for person in self._story.people}
        for device, waiting in self._waiting.items():
            if device.node is None:
                continue
            for message_id, address in sorted(waiting.keys() - _open(device)):
                state = _state(device, message_id, address)
                if state is State.COLLECTED:
                    if waiting.pop((message_id, address)) not in self._ever[people[address]]:
                        self._say("untrue: a message is shown as collected, but its recipient doesn't have it")
                elif state in (State.FAILED, State.EXPIRED):
                    self._say(f"untrue: a message was given up, {state}")

    def _check_folders(self) -> None:
        for device in self._story.devices:
            messages = Counter(device.seen.values())
            if max(messages.values(), default=0) > 1:
                self._say("a message is shown twice")
            if not self._written.get(device.person, set()).issuperset(messages):
                self._say("a person got a message that was for another person, or was changed")
            for words in device.troubles:
                if " is lost" in words or "given up" in words:
                    self._say(f"a user was told: {words}")

    def _check_delivered(self) -> None:
        for message in self._story.messages:
            for person in message.recipients:
                arrived = message.digest in self._ever[person]
                if not arrived and (message.message_id, person.address) not in self._forgotten:
                    self._say(f"{message.message_id} to {person.address} is lost")

    def _check_sent(self) -> None:
        """Each sender has a copy of its message in Sent."""
        kept = {device: device.sent() for device in self._story.devices}
        for message in self._story.messages:
            gone = any((message.message_id, person.address) in self._forgotten for person in message.recipients)
            if message.digest not in kept[message.sender] and not gone:
                self._say(f"{message.message_id} isn't in its sender's Sent")

    def _check_known(self) -> None:
        """Each message that arrived is shown to its sender as collected."""
        for message in self._story.messages:
            for person in message.recipients:
                proven = (message.message_id, person.address) not in self._unproven
                if proven and message.sender.node is not None and message.digest in self._ever[person]:
                    state = _state(message.sender, message.message_id, person.address)
                    if state is not State.COLLECTED:
                        self._say(f"untrue: {message.message_id} to {person.address} arrived and is shown as {state}")

    def _check_deleted(self) -> None:
        """No node still has a body that all recipients have deleted."""
        everywhere: dict[tuple[int, bytes], set[bytes]] = {}
        for done in self._deletes.values():
            for kind, key, deleter in done:
                everywhere.setdefault((kind, key), set()).add(deleter)
        for node in self._living():
            for kind, key, deleters, _ in _objects(node):
                if kind == Kind.BODY and deleters and deleters <= everywhere.get((kind, key), set()):
                    self._say("a body that all recipients have deleted is still stored")


def _state(device: Device, message_id: str, address: str) -> State | None:
    entry = device.outbox.entry(message_id)
    return next((one.state for one in entry.recipients if one.address == address), None) if entry else None


def _objects(node: SimNode) -> list[tuple[int, bytes, set[bytes], float]]:
    rows = _rows(node, "SELECT kind, key, deleters, expires FROM objects")
    return [
        (kind, key, {deleters[at : at + 32] for at in range(0, len(deleters), 32)}, expires)
        for kind, key, deleters, expires in rows
    ]


def _open(device: Device) -> set[tuple[str, str]]:
    """What has no final state in this outbox. A query of its own, for speed; `state_of` decides about the rest."""
    sql = "SELECT message_id, address FROM recipient WHERE proof IS NULL AND NOT failed AND NOT expired"
    return set(device.outbox._db.read(lambda connection: connection.execute(sql).fetchall()))


def _inboxes(node: SimNode) -> list[bytes]:
    return [key for (key,) in _rows(node, "SELECT key FROM inboxes")]


def _rows(node: SimNode, sql: str) -> list[tuple[Any, ...]]:
    assert node.store is not None
    return node.store._database._connection.execute(sql).fetchall()
