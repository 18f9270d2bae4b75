"""Lookups that share their results (overlay/kademlia/area_lookup.py)."""

from __future__ import annotations

import random

import pytest

from overlay.identity.contact import Contact
from overlay.ids import distance
from overlay.kademlia import area_lookup
from overlay.kademlia.area_lookup import AreaLookups
from overlay.kademlia.lookup import Located
from overlay.protocol_limits import KEY_BYTES


class LookupNetwork:
    """Nodes, and the number of lookups that were made."""

    def __init__(self, count: int) -> None:
        self.chance = random.Random(count)
        self.nodes = [self.node() for _ in range(count)]
        self.table: list[Contact] = []
        self.asked: list[int] = []
        self.areas = AreaLookups(self.look, lambda key, count: self.table)

    def node(self) -> Located:
        return Located(Contact(self.chance.randbytes(32), "10.0.0.1", 1), b"token", 1, b"")

    def key(self) -> bytes:
        return self.chance.randbytes(KEY_BYTES)

    def nearest(self, key: bytes, count: int) -> list[Located]:
        return sorted(self.nodes, key=lambda at: distance(at.contact.id, key))[:count]

    async def look(self, key: bytes, count: int) -> list[Located]:
        self.asked.append(count)
        return self.nearest(key, count)


@pytest.mark.parametrize(("nodes", "lookups"), [(1, 1), (12, 1), (63, 1), (64, 2), (200, 8), (2000, 128)])
async def test_a_thousand_keys_are_found_exactly_with_few_lookups(nodes: int, lookups: int) -> None:
    world = LookupNetwork(nodes)
    with world.areas.share(1000):
        for _ in range(1000):
            key, count = world.key(), world.chance.randrange(1, 21)
            assert await world.areas.closest(key, count) == world.nearest(key, count)
    assert len(world.asked) <= lookups


@pytest.mark.parametrize(("lookups", "sharing"), [(49, False), (50, True)])
async def test_from_50_lookups_on_they_share(lookups: int, sharing: bool) -> None:
    world = LookupNetwork(12)
    with world.areas.share(lookups), world.areas.share(1):
        assert world.areas.sharing is sharing


async def test_what_was_found_is_used_for_some_seconds_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(area_lookup, "KNOWN_FOR", 0.0)
    world = LookupNetwork(12)
    with world.areas.share(50):
        for _ in range(2):
            await world.areas.closest(world.key(), 3)
    assert world.asked == [64, 3, 64, 3]


async def test_what_was_found_is_forgotten_at_the_end() -> None:
    world = LookupNetwork(12)
    for _ in range(2):
        with world.areas.share(50):
            await world.areas.closest(world.key(), 3)
    assert len(world.asked) == 2


async def test_who_doesnt_answer_is_left_out() -> None:
    world = LookupNetwork(12)
    key = world.key()
    with world.areas.share(50):
        first, second, *_ = await world.areas.closest(key, 5)
        world.areas.silent([first.contact.id])
        assert (await world.areas.closest(key, 5))[0] == second
    assert len(world.asked) == 1


async def test_where_too_few_are_left_of_those_that_answered_it_is_looked_at_again() -> None:
    world = LookupNetwork(12)
    key = world.key()
    with world.areas.share(50):
        for _ in range(3):
            found = await world.areas.closest(key, 13)
            assert found == world.nearest(key, 12)
            world.areas.silent([found[0].contact.id])
    assert world.asked == [64, 64, 64]


async def test_after_a_lookup_that_missed_a_known_node_each_key_is_looked_up_for_a_while() -> None:
    world = LookupNetwork(12)
    world.table = [world.node().contact]
    with world.areas.share(50):
        for _ in range(3):
            key = world.key()
            assert await world.areas.closest(key, 3) == world.nearest(key, 3)
    assert world.asked == [64, 3, 3, 3]


async def test_more_nodes_than_an_area_surely_has_are_looked_up() -> None:
    world = LookupNetwork(12)
    with world.areas.share(50):
        assert len(await world.areas.closest(world.key(), 40)) == 12
    assert world.asked == [40]
