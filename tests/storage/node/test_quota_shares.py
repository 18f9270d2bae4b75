"""Shares: sums that never drift from the rows, and limits for a peer and its range."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from storage.node import quota_shares
from storage.node.objects import Origin
from storage.node.quota_shares import ShareUsed
from storage.node.schema import SCHEMA
from storage.node.store import NodeStore
from storage.store_request import StoreRequest

NOW = 1_700_000_000.0
QUOTA = 800_000
MALLORY, EVE = Origin(b"pmallory", b"r1"), Origin(b"peve", b"r1")
BOB = Origin(b"pbob", b"r2")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[NodeStore]:
    opened = NodeStore(tmp_path / "node", quota=QUOTA, now=lambda: NOW)
    yield opened
    opened.close()


async def put(store: NodeStore, number: int, origin: Origin | None, size: int = 9_488) -> None:
    """Ten thousand bytes of the quota."""
    data = number.to_bytes(4, "big") * (size // 4)
    digest = hashlib.sha256(data).digest()
    key = number.to_bytes(20, "big")
    await store.store(StoreRequest(1, key, data, digest, 60, [b"d" * 32]), lambda _: True, origin=origin)


async def held(store: NodeStore, who: bytes) -> int:
    return await store._read(lambda connection: quota_shares.bytes_held_for(connection, who))


async def test_a_peer_has_an_eighth_and_its_range_a_quarter(store: NodeStore) -> None:
    for number in range(9):
        await put(store, number, MALLORY)
    with pytest.raises(ShareUsed):
        for number in range(9, 20):
            await put(store, number, MALLORY)
    assert await held(store, b"pmallory") <= QUOTA / 8
    with pytest.raises(ShareUsed):
        for number in range(100, 140):
            await put(store, number, Origin(b"p%d" % number, b"r1"))
    assert QUOTA / 4 - 11_000 < await held(store, b"r1") <= QUOTA / 4
    await put(store, 200, BOB)


async def test_shares_are_halved_on_a_node_that_fills_up(store: NodeStore) -> None:
    for number in range(60):
        await put(store, number, None)
    with pytest.raises(ShareUsed):
        for number in range(100, 110):
            await put(store, number, BOB)
    assert await held(store, b"pbob") <= QUOTA / 16


async def test_what_was_refused_left_nothing(store: NodeStore) -> None:
    await put(store, 1, BOB)
    before, sum_before = await store.usage(), await held(store, b"pbob")
    with pytest.raises(ShareUsed):
        await put(store, 2, BOB, size=200_000)
    assert (await store.usage(), await held(store, b"pbob")) == (before, sum_before)
    assert await store.fetch(1, (2).to_bytes(20, "big")) is None
    assert list((store.spool_folder.parent / "bodies").rglob("*.*")) == []


async def test_a_share_is_free_again_when_things_are_deleted_or_acknowledged(store: NodeStore) -> None:
    await put(store, 1, BOB)
    await store.append(b"k" * 20, b"notification", 60, origin=BOB)
    assert await held(store, b"pbob") == await held(store, b"r2") > 0
    await store.delete(1, (1).to_bytes(20, "big"), b"d" * 32, b"", 60)
    await store.acknowledge(b"k" * 20, [hashlib.sha256(b"notification").digest()])
    assert await held(store, b"pbob") == await held(store, b"r2") == 0


async def test_notifications_count_too(store: NodeStore) -> None:
    with pytest.raises(ShareUsed):
        for number in range(100):
            await store.append(b"k" * 20, number.to_bytes(2, "big") * 2_000, 60, origin=EVE)
    assert 0 < await held(store, b"peve") <= QUOTA / 8


async def test_storing_the_same_again_takes_no_more(store: NodeStore) -> None:
    for number in range(9):
        await put(store, number, BOB)
    before = await held(store, b"pbob")
    for number in range(9):
        await put(store, number, BOB)
        await put(store, number, EVE)
    assert (await held(store, b"pbob"), await held(store, b"peve")) == (before, 0)


async def test_a_range_that_doesnt_count_has_no_share(store: NodeStore) -> None:
    for number in range(30):
        await put(store, number, Origin(b"p%d" % number, None))


async def test_how_full_an_inbox_is(store: NodeStore) -> None:
    heard: list[float] = []
    for number in range(11):
        await store.append(b"k" * 20, number.to_bytes(2, "big") * 5_000, 60, admit=heard.append)
    assert heard == [pytest.approx(number * 10_256 / (QUOTA / 2)) for number in range(11)]
    await store.append(b"x" * 20, b"another", 60, admit=heard.append)
    assert heard[-1] == pytest.approx(11 * 10_256 / (QUOTA / 2))  # the room for all inboxes
    assert not await store.append(b"x" * 20, b"another", 60, admit=heard.append)
    assert len(heard) == 12  # it is there: nothing is asked


async def test_what_isnt_admitted_to_an_inbox_isnt_kept(store: NodeStore) -> None:
    def refuse(fullness: float) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await store.append(b"k" * 20, b"notification", 60, admit=refuse)
    assert await store.append(b"k" * 20, b"notification", 60)


async def test_a_store_of_the_first_version_is_opened_with_all_that_it_keeps(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    with closing(sqlite3.connect(folder / "store.sqlite")) as old:
        old.executescript(_first(SCHEMA) + "PRAGMA user_version=1;")
        old.execute(
            "INSERT INTO objects (key, kind, digest, size, created, expires, used, deleters, charge)"
            " VALUES (?, 1, ?, 3, ?, ?, ?, ?, 515)",
            (b"k" * 20, hashlib.sha256(b"old").digest(), NOW, NOW + 60, NOW, b""),
        )
        old.execute("INSERT INTO contents VALUES (1, ?)", (b"old",))
        old.commit()
    store = NodeStore(folder, quota=QUOTA, now=lambda: NOW)
    found = await store.fetch(1, b"k" * 20)
    assert found is not None and found[1] == b"old"
    await put(store, 1, BOB)
    assert await held(store, b"pbob") > 0
    store.close()
    again = NodeStore(folder, quota=QUOTA, now=lambda: NOW)
    assert (await again.usage()).objects == 2
    again.close()


def _first(schema: str) -> str:
    """Version 1, as 0.1.0 made it: without shares."""
    before, _, _ = schema.partition("-- What is kept for whom")
    return before.replace(", peer BLOB, span BLOB", "")
