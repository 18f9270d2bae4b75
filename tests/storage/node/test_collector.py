"""storage/node/collector.py: what goes when room is needed, in which order, and what never goes (paper 2.3)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.node import collector
from storage.node.objects import NoSpace, charge_of
from storage.node.store import NodeStore
from storage.store_request import StoreRequest

BODY = 1
OWNER = b"o" * 32
SIZE = 1000
CHARGE = charge_of(SIZE, 1)


class ClockedStore:
    """A store with a clock of its own, and keys that are its own or another node's."""

    def __init__(self, folder: Path, room: float) -> None:
        self.now = 1_000_000.0
        self.quota = int(room * CHARGE)
        self.store = NodeStore(folder, quota=self.quota, now=lambda: self.now)
        self.mine: set[bytes] = set()
        self.asked: list[bytes] = []

    def responsible(self, key: bytes) -> bool:
        self.asked.append(key)
        return key in self.mine

    async def put(self, name: str, *, mine: bool = False, ttl: float = 1e6, size: int = SIZE) -> bytes:
        key = name.encode().ljust(20, b".")
        if mine:
            self.mine.add(key)
        content = name.encode().ljust(size, b".")
        digest = hashlib.sha256(content).digest()
        await self.store.store(StoreRequest(BODY, key, content, digest, ttl, [OWNER]), self.responsible)
        self.now += 1000
        return key

    async def names(self) -> list[str]:
        return [one.key.rstrip(b".").decode() for one in await self.store.objects()]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[float], ClockedStore]]:
    nodes: list[ClockedStore] = []

    def start(room: float) -> ClockedStore:
        nodes.append(ClockedStore(tmp_path / f"{len(nodes)}", room))
        return nodes[-1]

    yield start
    for node in nodes:
        node.store.close()


async def test_while_there_is_room_nothing_is_collected(make: Callable[[float], ClockedStore]) -> None:
    node = make(3)
    for name in "abc":
        await node.put(name)
    assert await node.names() == ["a", "b", "c"]
    assert node.asked == []


async def test_the_least_recently_used_goes_first(make: Callable[[float], ClockedStore]) -> None:
    node = make(3)
    keys = [await node.put(name) for name in "abc"]
    assert await node.store.fetch(BODY, keys[0]) is not None
    await node.put("d")
    assert await node.names() == ["a", "c", "d"]
    await node.put("e")
    assert await node.names() == ["a", "d", "e"]


async def test_what_the_node_is_responsible_for_stays_however_old(make: Callable[[float], ClockedStore]) -> None:
    node = make(3)
    await node.put("a", mine=True)
    await node.put("b", mine=True)
    await node.put("c")
    await node.put("d")
    assert await node.names() == ["a", "b", "d"]


async def test_expired_objects_go_before_anything_that_lives(make: Callable[[float], ClockedStore]) -> None:
    node = make(3)
    await node.put("a")
    await node.put("b")
    await node.put("c", ttl=500)
    await node.put("d")
    assert await node.names() == ["a", "b", "d"]
    assert node.asked == []


async def test_a_node_full_of_its_own_refuses_and_keeps_everything(make: Callable[[float], ClockedStore]) -> None:
    node = make(3)
    for name in "abc":
        await node.put(name, mine=True)
    with pytest.raises(NoSpace):
        await node.put("d")
    assert await node.names() == ["a", "b", "c"]


async def test_nothing_is_dropped_when_it_wouldnt_be_enough(make: Callable[[float], ClockedStore]) -> None:
    node = make(4)
    await node.put("a")
    for name in "bcd":
        await node.put(name, mine=True)
    with pytest.raises(NoSpace):
        await node.put("e", size=2 * SIZE + 600)
    assert await node.names() == ["a", "b", "c", "d"]
    await node.put("f")  # for a smaller one it is
    assert await node.names() == ["b", "c", "d", "f"]


async def test_an_object_larger_than_the_quota_drops_nothing(make: Callable[[float], ClockedStore]) -> None:
    node = make(3)
    for name in "abc":
        await node.put(name)
    with pytest.raises(NoSpace):
        await node.put("d", size=4 * SIZE + 4000)
    assert await node.names() == ["a", "b", "c"]
    assert node.asked == []


async def test_refused_stores_dont_keep_a_full_node_searching(make: Callable[[float], ClockedStore]) -> None:
    node = make(3)
    for name in "abc":
        await node.put(name, mine=True)
    for _ in range(5):
        with pytest.raises(NoSpace):
            await node.put("d")
    assert len(node.asked) == 3
    node.now += collector.SEARCH_MEMORY
    node.mine.clear()
    await node.put("d")
    assert await node.names() == ["b", "c", "d"]


async def test_a_full_node_doesnt_look_at_its_own_objects_for_every_store(
    make: Callable[[float], ClockedStore],
) -> None:
    node = make(20)
    for number in range(15):
        await node.put(f"a {number:02}", mine=True)
    for number in range(5):
        await node.put(f"b {number}")
    start = node.now
    for number in range(5):
        await node.put(f"c {number}")
        node.now = start
    assert len(node.asked) == 15 + 5
    assert [name for name in await node.names() if name[0] != "a"] == [f"c {number}" for number in range(5)]
    node.now += collector.SEARCH_MEMORY
    node.mine.clear()  # and what isn't its own any more is found again after a while
    await node.put("d")
    assert "a 00" not in await node.names()


async def test_the_search_goes_on_past_one_batch(
    make: Callable[[float], ClockedStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "BATCH", 2)
    node = make(7)
    for name in "abcde":
        await node.put(name, mine=True)
    await node.put("f")
    await node.put("g")
    await node.put("h")
    assert await node.names() == ["a", "b", "c", "d", "e", "g", "h"]


async def test_many_expired_objects_go_in_batches(
    make: Callable[[float], ClockedStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "BATCH", 2)
    node = make(10)
    for name in "abcde":
        await node.put(name, ttl=10)
    await node.put("f")
    assert await node.store.expire() == 5
    assert await node.names() == ["f"]
    assert (await node.store.usage()).bytes == CHARGE


async def test_stores_of_one_moment_on_a_full_node_all_find_room_and_take_no_more_than_they_need(
    make: Callable[[float], ClockedStore],
) -> None:
    node = make(20)
    for number in range(20):
        await node.put(f"old {number:02}")
    await asyncio.gather(*(node.put(f"new {number}") for number in range(5)))
    names = await node.names()
    assert sum(name.startswith("new") for name in names) == 5
    assert len(names) == 20


async def test_a_notification_makes_room_among_objects_but_not_the_other_way(
    make: Callable[[float], ClockedStore],
) -> None:
    node = make(4)
    for name in "abcd":
        await node.put(name)
    with pytest.raises(NoSpace):
        await node.store.append(b"i" * 20, b"n" * 500, 1e6)
    assert await node.store.append(b"i" * 20, b"n" * 500, 1e6, responsible=node.responsible)
    assert await node.names() == ["b", "c", "d"]
    node.mine.update(one.key for one in await node.store.objects())
    with pytest.raises(NoSpace):
        await node.put("e")
    assert (await node.store.read(b"i" * 20, b"r" * 32, limit=1000))[0] == [b"n" * 500]


async def test_inboxes_beyond_their_share_cost_no_object(make: Callable[[float], ClockedStore]) -> None:
    node = make(4)
    await node.put("a")
    with pytest.raises(NoSpace):
        await node.store.append(b"i" * 20, b"n" * 3500, 1e6, responsible=node.responsible)
    assert await node.names() == ["a"]
    assert node.asked == []


async def test_an_expired_inbox_makes_room_for_the_next_notification(make: Callable[[float], ClockedStore]) -> None:
    node = make(4)
    for number in range(2):
        assert await node.store.append(b"i" * 20, b"%d" % number * 1200, 100)
    with pytest.raises(NoSpace):
        await node.store.append(b"j" * 20, b"n" * 1200, 100)
    node.now += 100
    assert await node.store.append(b"j" * 20, b"n" * 1200, 100)
