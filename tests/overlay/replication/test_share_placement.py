"""Shares over real nodes, one a node: stored, fetched although some are gone or hostile, handed on, deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from overlay.errors import NotFound, Unreachable
from overlay.identity.ownership import Owner
from overlay.ids import Kind, body_key, deleter_hash
from overlay.primitives.requests import DeleteRequest
from tests.overlay.local_network import ISSUER, LocalNetwork, local_network, run
from tests.overlay.replication.test_repair import lose_objects, repair_of

PERSON = ISSUER.person("alice@village.example", 100)
ALICE = Owner(PERSON.certificate, PERSON.sign)
KEY, SALT, HOUR = body_key("<1@village.example>"), bytes(16), 3600.0
DELETER = deleter_hash(KEY, SALT, ALICE.certificate)
SHARES = [bytes([number]) * 20_000 for number in range(6)]


class Three:
    """Three different shares are enough."""

    def __init__(self) -> None:
        self.found: set[bytes] = set()

    @property
    def missing(self) -> int:
        return max(0, 3 - len(self.found))

    def take(self, share: bytes, /) -> bool:
        if share in SHARES:
            self.found.add(share)
        return share in SHARES


def play(folder: Path, story: Callable[[LocalNetwork], Awaitable[None]], count: int = 8) -> None:
    async def begin() -> None:
        async with local_network(folder, count) as place:
            await story(place)

    run(begin)


async def spread(place: LocalNetwork, *, again: bool = False) -> tuple[int, int]:
    outcome = await place.overlay.spread(Kind.SHARE, KEY, SHARES, deleters=[DELETER], ttl=HOUR, again=again)
    return outcome.have, outcome.want


async def shares(place: LocalNetwork) -> list[bytes]:
    """Which share each node has, nearest node first; a node has at most one."""
    found = []
    for node in place.nearest(KEY, len(place.nodes)):
        assert node.store is not None
        held = await node.store.variants(Kind.SHARE, KEY)
        assert len(held) <= 1
        if held:
            kept = await node.store.fetch(Kind.SHARE, KEY)
            assert kept is not None and isinstance(kept[1], bytes)
            found.append(kept[1])
    return found


def test_every_share_lies_at_another_one_of_the_nearest_nodes(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        assert await spread(place) == (6, 6)
        assert sorted(await shares(place)) == SHARES
        assert (await place.overlay.spread_held(Kind.SHARE, KEY, 6)).have == 6
        wanted = Three()
        await place.overlay.gather(Kind.SHARE, KEY, wanted, 6)
        assert not wanted.missing and len(wanted.found) < 6  # some were on their way when it was enough

    play(tmp_path, story)


def test_too_few_nodes_take_one_share_each_and_no_more(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        assert await spread(place) == (4, 6)
        assert len(await shares(place)) == 4

    play(tmp_path, story, 4)


def test_only_what_is_lacking_is_put_again_at_nodes_that_have_none(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        await spread(place)
        await lose_objects(place.nearest(KEY, 1)[0])
        assert len(await shares(place)) == 5
        assert await spread(place, again=True) == (6, 6)
        assert sorted(await shares(place)) == SHARES
        assert await spread(place, again=True) == (6, 6)
        assert sorted(await shares(place)) == SHARES

    play(tmp_path, story)


def test_half_of_the_holders_gone_is_no_loss_and_more_than_that_is_said(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        await spread(place)
        holders = place.nearest(KEY, 6)
        await asyncio.gather(*(node.vanish() for node in holders[:3]))
        wanted = Three()
        await place.overlay.gather(Kind.SHARE, KEY, wanted, 6)
        assert not wanted.missing
        await asyncio.gather(*(node.vanish() for node in holders[3:4]))
        with pytest.raises(NotFound):
            await place.overlay.gather(Kind.SHARE, KEY, Three(), 6)
        await asyncio.gather(*(node.vanish() for node in [*holders[4:], *place.nearest(KEY, 8)[6:]]))
        with pytest.raises(Unreachable):
            await place.overlay.gather(Kind.SHARE, KEY, Three(), 6)

    play(tmp_path, story)


def test_attack_what_was_stored_under_the_key_before_hides_no_share(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        for number in range(3):
            false = bytes([100 + number]) * 500
            await place.overlay.store(Kind.SHARE, KEY, false, ttl=HOUR, max_ops=8, max_connections=8)
        await spread(place)
        wanted = Three()
        await place.overlay.gather(Kind.SHARE, KEY, wanted, 6)
        assert not wanted.missing

    play(tmp_path, story)


def test_a_delete_reaches_every_holder(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        await spread(place)
        outcome = await place.overlay.delete(Kind.SHARE, KEY, SALT, ALICE, max_ops=60)
        assert (outcome.have, outcome.want) == (8, 60)
        assert await shares(place) == []

    play(tmp_path, story)


def test_a_node_that_stops_hands_its_share_to_a_node_that_has_none(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        await spread(place)
        leaver = place.nearest(KEY, 1)[0]
        await leaver.leave()
        await leaver.vanish()
        place.nodes.remove(leaver)
        assert sorted(await shares(place)) == SHARES
        await leaver.stop()

    play(tmp_path, story)


def test_no_round_makes_more_copies_of_a_share(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        await spread(place)
        for node in place.nodes:
            for other in place.nodes:
                if other is not node:
                    repair_of(node).met(other.located().contact)
            await repair_of(node).work()
            await repair_of(node).run_round()
        assert sorted(await shares(place)) == SHARES

    play(tmp_path, story)


def test_a_holder_that_slept_through_the_delete_learns_of_it(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        await spread(place)
        sleeper = place.nearest(KEY, 6)[-1]
        for at in await place.overlay.closest(KEY, 8):
            if at.contact.id != sleeper.id:
                await place.overlay._node_client.delete(at, DeleteRequest(Kind.SHARE, KEY, SALT), ALICE)
        assert len(await shares(place)) == 1
        await repair_of(sleeper).run_round()
        assert await shares(place) == []

    play(tmp_path, story)
