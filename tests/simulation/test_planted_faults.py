"""Tests of the tests: the simulation's invariants notice each fault that is planted in the program.

That an fsync which is left out is noticed is shown in tests/storage/node/test_power_cut.py.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from mail.sealed.body import Opener
from mail.send.collection_check import CollectionCheck
from overlay.client import Overlay
from overlay.identity.ownership import Owner
from overlay.kademlia.inbox_read import InboxRead
from overlay.kademlia.lookup import Located
from overlay.primitives.placement import ObjectCopy
from overlay.primitives.requests import FetchRequest
from overlay.replication.node_client import NodeClient
from overlay.replication.repair import Repair
from storage.node import objects
from storage.store_request import StoreRequest
from storage.user.outbox import Outbox, Recipient
from storage.user.state import UserState
from tests.simulation.soak import SMALL, small_folder
from tests.simulation.story import Story

SEEDS = range(500, 506)


def noticed(tmp_path: Path, words: str) -> bool:
    """Whether the invariants report this for one of some seeds."""
    for seed in SEEDS:
        with small_folder(tmp_path) as folder:
            outcome = Story(seed, folder, SMALL).play()
        if any(words in broken for broken in outcome.broken):
            return True
    return False


def test_an_early_acknowledgement_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other time, the recipient tells nodes to delete a message before it is on disk."""
    real, calls = UserState.take_over, 0

    def take_over(self: UserState, notifications: Sequence[bytes], now: float) -> int:
        nonlocal calls
        calls += 1
        return real(self, notifications, now) if calls % 2 else 0

    monkeypatch.setattr(UserState, "take_over", take_over)
    assert noticed(tmp_path, "is lost")


def test_an_early_yes_of_nodes_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes confirm notifications that they don't keep."""

    async def append(*_: object) -> bool:
        return True

    monkeypatch.setattr("overlay.node.store_adapter.StoreAdapter.append", append)
    assert noticed(tmp_path, "is lost")


def test_a_skipped_superset_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what the nearest replica has is collected, but what any has is acknowledged."""
    read = Overlay.read_inbox

    async def first(overlay: Overlay, key: bytes, owner: Owner, **options: int | None) -> list[InboxRead]:
        readings = await read(overlay, key, owner, **options)
        everything = tuple(dict.fromkeys(n for reading in readings for n in reading.notifications))
        hashes = [sha256(notification).digest() for notification in everything]
        for reading in readings:
            await overlay.acknowledge_inbox(key, reading, owner, hashes)
        return readings[:1]

    monkeypatch.setattr(Overlay, "read_inbox", first)
    assert noticed(tmp_path, "is lost")


def test_a_lost_tombstone_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes delete and keep no tombstone."""
    real = objects.add_tombstone

    def add_tombstone(connection: sqlite3.Connection, *arguments: Any, **options: Any) -> tuple[int, list[str]]:
        result = real(connection, *arguments, **options)
        connection.execute("DELETE FROM tombstones")
        return result

    monkeypatch.setattr(objects, "add_tombstone", add_tombstone)
    assert noticed(tmp_path, "came back")


def test_a_miscounted_end_of_the_compressed_message_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bug that the first million simulated messages missed: it needs compressible messages of more than one frame.
    The rest of zlib's output is counted twice where the compressed message ends within a frame."""

    def unpack(self: Opener, content: bytes) -> bytes:
        while not self._inflate.eof:
            data = self._inflate.decompress(content, min(1 << 16, self._size - self._written + 1))
            left = self._inflate.unused_data or self._inflate.unconsumed_tail
            self._compressed += len(content) - len(self._inflate.unconsumed_tail) - len(self._inflate.unused_data)
            content = left
            self._written += len(data)
            self._target.write(data)
            if not data and not content:
                break
        return content

    monkeypatch.setattr(Opener, "_unpack", unpack)
    assert noticed(tmp_path, "is lost")


def test_a_state_that_is_better_than_the_truth_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that is stored at some nodes is shown as collected."""
    real = Outbox.record

    def record(self: Outbox, facts: Sequence[tuple[str, Recipient]]) -> list[Recipient]:
        better = [(name, replace(one, proof=b"none") if one.notifications[0] else one) for name, one in facts]
        return real(self, better)

    monkeypatch.setattr(Outbox, "record", record)
    assert noticed(tmp_path, "untrue: a message is shown as collected")


def test_a_proof_that_is_never_asked_for_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages arrive, but their senders never learn of it."""

    async def prove(*_: object) -> set[str]:
        return set()

    monkeypatch.setattr(CollectionCheck, "ask_for_proofs", prove)
    assert noticed(tmp_path, "arrived and is shown as")


def test_a_hand_off_with_the_wrong_key_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in kademlia, the key of a copy that is handed over is hashed once more."""

    async def copy(self: Repair, kind: int, key: bytes, variant: ObjectCopy, at: Located) -> None:
        data = await self._service.contents(FetchRequest(kind, key, variant.digest))
        wrong = sha256(key).digest()[:20]
        copy = StoreRequest(kind, wrong, data, variant.digest, variant.ttl, variant.deleters)
        await NodeClient.store(self._node_client, at, copy)

    monkeypatch.setattr(Repair, "_copy", copy)
    assert noticed(tmp_path, "an object is stored under a key that no message or card has")
