"""What must be true all the while, and in the end, whatever happens in a simulated community."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from typing import TYPE_CHECKING, Any, TypeAlias

from mail.delivery import segment_key
from overlay.ids import Kind, certificate_key, inbox_key
from overlay.messages import RETENTION
from overlay.rpc import TASKS
from storage.outbox import State
from tests.simulation.nodes import SimNode
from tests.simulation.users import Device, Person

if TYPE_CHECKING:
    from tests.simulation.story import Story

Received: TypeAlias = Mapping[Person, Set[bytes]]
"""SHA-256 of what is in somebody's folders, on whatever device."""

MOST_SKEW = 3600.0
MOST_SEGMENTS = 3


class Invariants:
    """Watches one story; `broken` says what was found."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self._keys: set[bytes] = set()
        self._deletes: dict[bytes, set[tuple[int, bytes, bytes]]] = {}
        self._born = story.world.wall()
        self._collected: set[tuple[str, str]] = set()
        self.broken: list[str] = []

    def keys_of(self, message_id: str) -> None:
        """A letter was accepted: objects may lie under its keys."""
        self._keys.add(segment_key(message_id, 0, many=False))
        self._keys |= {segment_key(message_id, index, many=True) for index in range(MOST_SEGMENTS)}

    def watch(self, node: SimNode) -> None:
        """Note what the node says yes to when it is told to delete."""
        assert node.service is not None
        room, done = node.service.store_room, self._deletes.setdefault(node.id, set())
        real = room.delete

        async def delete(kind: int, key: bytes, deleter: bytes, proof: bytes, ttl: float) -> int:
            dropped = await real(kind, key, deleter, proof, ttl)
            done.add((kind, key, deleter))
            return dropped

        room.delete = delete  # type: ignore[method-assign]

    def check(self) -> None:
        """What must be true at any moment."""
        shown = self._shown()
        self._check_nodes()
        self._check_states(_by_person(shown))
        self._check_eyes(shown)

    def check_end(self) -> None:
        """What must be true when all is mended and has come to rest."""
        self.check()
        self._check_delivered(_by_person(self._shown()))
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
                    self._say("an object lies under a key that nobody stored anything under")
                if any((kind, key, deleter) in deleted for deleter in deleters):
                    self._say("a body that was deleted at a node came back to it")
                if expires > self._story.world.wall() + RETENTION + MOST_SKEW:
                    self._say("a copy outlives its expiry")
            if set(_inboxes(node)) - inboxes:
                self._say("an inbox lies under a key that is nobody's")
            protocol = node.protocol
            if len(protocol._tasks) > TASKS or len(protocol._answers) > 2048 or len(protocol._reassembly) > 1024:
                self._say("a node's memory isn't bounded")

    def _shown(self) -> dict[Device, Counter[bytes]]:
        return {device: Counter(device.received()) for device in self._story.devices}

    def _check_states(self, received: Received) -> None:
        """The outbox's state is never better than the truth."""
        shown = self._story.states()
        for one in self._story.letters:
            for person in one.recipients:
                state = shown.get((one.message_id, person.address))
                if state is State.COLLECTED and one.digest not in received[person]:
                    self._say("a letter is called collected that its recipient hasn't")
                if state in (State.FAILED, State.EXPIRED):
                    self._say(f"a letter is given up: {state}")

    def _check_eyes(self, shown: Mapping[Device, Counter[bytes]]) -> None:
        written: dict[Person, set[bytes]] = {person: set() for person in self._story.people}
        for one in self._story.letters:
            for person in one.recipients:
                written[person].add(one.digest)
        for device, letters in shown.items():
            if max(letters.values(), default=0) > 1:
                self._say("a letter is shown twice")
            if not written[device.person].issuperset(letters):
                self._say("somebody was given a letter that isn't hers")

    def _check_delivered(self, received: Received) -> None:
        lost = [
            f"{one.message_id} to {person.address} is lost"
            for one in self._story.letters
            for person in one.recipients
            if one.digest not in received[person]
        ]
        for words in lost:
            self._say(words)

    def _check_deleted(self) -> None:
        """No node still has a body that everybody has deleted, and the senders know."""
        everywhere: dict[tuple[int, bytes], set[bytes]] = {}
        for done in self._deletes.values():
            for kind, key, deleter in done:
                everywhere.setdefault((kind, key), set()).add(deleter)
        for node in self._living():
            for kind, key, deleters, _ in _objects(node):
                if kind == Kind.BODY and deleters and deleters <= everywhere.get((kind, key), set()):
                    self._say("a body that all have deleted is still there")


def _by_person(shown: Mapping[Device, Counter[bytes]]) -> Received:
    found: dict[Person, set[bytes]] = {device.person: set() for device in shown}
    for device, letters in shown.items():
        found[device.person].update(letters)
    return found


def _objects(node: SimNode) -> list[tuple[int, bytes, set[bytes], float]]:
    rows = _rows(node, "SELECT kind, key, deleters, expires FROM objects")
    return [
        (kind, key, {deleters[at : at + 32] for at in range(0, len(deleters), 32)}, expires)
        for kind, key, deleters, expires in rows
    ]


def _inboxes(node: SimNode) -> list[bytes]:
    return [key for (key,) in _rows(node, "SELECT key FROM inboxes")]


def _rows(node: SimNode, sql: str) -> list[tuple[Any, ...]]:
    assert node.store is not None
    return node.store._database._connection.execute(sql).fetchall()
