"""What is done again and again, for what is kept and to hear of what came: as much as is needed, and not more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path

from overlay.client import Overlay
from overlay.ids import Kind, deleter_hash, distance, inbox_key
from overlay.kademlia.lookup import Located
from overlay.primitives.placement import FULL_ROUND_EVERY, RECENT, SHARED_BY
from overlay.primitives.requests import DeleteRequest
from overlay.primitives.service import refusal
from overlay.wire.messages import Code
from storage.store_request import StoreRequest
from tests.simulation.hostile_network import ADDRESS, ALICE, HostileNetwork
from tests.simulation.nodes import SimNode

KEY = sha256(b"a segment").digest()[:20]
INBOX = inbox_key(ADDRESS)
SALT = bytes(16)
DELETER = deleter_hash(KEY, SALT, ALICE.certificate)
SHARE = b"one of many"
DAY = 86400.0


def play(folder: Path, nodes: int, story: Callable[[HostileNetwork, Overlay, list[SimNode]], Awaitable[None]]) -> None:
    """A story among so many nodes, the nearest to KEY first."""
    hostile_network = HostileNetwork(1, folder, nodes, 0.0, k=3)

    async def begin(overlay: Overlay) -> None:
        await asyncio.sleep(300)
        await story(hostile_network, overlay, sorted(hostile_network.nodes, key=lambda node: distance(node.id, KEY)))

    hostile_network.play(begin)


async def look(node: SimNode, rounds: int) -> None:
    assert node.server is not None
    for _ in range(rounds):
        await node.server.repair.run_round()


async def holders(nodes: list[SimNode]) -> list[SimNode]:
    """Those that keep a share of KEY."""
    return [node for node in nodes if node.store is not None and await node.store.variants(Kind.SHARE, KEY)]


async def put(node: SimNode) -> None:
    assert node.store is not None
    digest = sha256(SHARE).digest()
    await node.store.store(StoreRequest(Kind.SHARE, KEY, SHARE, digest, DAY, [DELETER]), lambda _: True)


def looks_heard_by(node: SimNode) -> list[bytes]:
    """The keys after which others look, as it hears of it from now on."""
    looked: list[bytes] = []
    assert node.server is not None
    node.server.repair.looked = lambda kind, key: looked.append(key)  # type: ignore[method-assign]
    return looked


def test_a_share_that_has_come_to_lie_too_far_out_is_handed_on_once_and_within_a_day(tmp_path: Path) -> None:
    async def story(hostile_network: HostileNetwork, overlay: Overlay, nodes: list[SimNode]) -> None:
        far = nodes[-1]
        await put(far)
        await look(far, FULL_ROUND_EVERY)
        assert await holders(nodes) == [nodes[0], far]
        await look(far, FULL_ROUND_EVERY)
        assert await holders(nodes) == [nodes[0], far]

    play(tmp_path, SHARED_BY + 8, story)


def test_a_share_that_lies_well_costs_two_questions_an_hour(tmp_path: Path) -> None:
    async def story(hostile_network: HostileNetwork, overlay: Overlay, nodes: list[SimNode]) -> None:
        holder = nodes[8]
        await put(holder)
        before, begun = hostile_network.world.sent, hostile_network.world.time()
        await look(holder, FULL_ROUND_EVERY)
        took, spent = hostile_network.world.time() - begun, hostile_network.world.sent - before
        before = hostile_network.world.sent
        await asyncio.sleep(took)
        assert spent - (hostile_network.world.sent - before) <= 1.2 * 4 * FULL_ROUND_EVERY

    play(tmp_path, 24, story)


def test_a_share_hears_of_its_delete_though_one_witness_hasnt_heard_and_one_is_gone(tmp_path: Path) -> None:
    async def story(hostile_network: HostileNetwork, overlay: Overlay, nodes: list[SimNode]) -> None:
        holder, unaware, gone = nodes[8], nodes[1], nodes[2]
        await put(holder)
        for at in await overlay.closest(KEY, 8):
            if at.contact.id != unaware.id:
                await overlay._node_client.delete(at, DeleteRequest(Kind.SHARE, KEY, SALT), ALICE)
        hostile_network.nodes.remove(gone)
        nodes.remove(gone)
        await gone.crash()
        await look(holder, 2)
        assert await holders(nodes) == [holder]
        await look(holder, 1)
        assert not await holders(nodes)

    play(tmp_path, 24, story)


def test_who_stops_spends_no_time_on_the_deletes_of_shares(tmp_path: Path) -> None:
    async def story(hostile_network: HostileNetwork, overlay: Overlay, nodes: list[SimNode]) -> None:
        await put(nodes[0])
        await overlay.delete(Kind.SHARE, KEY, SALT, ALICE, max_ops=SHARED_BY)
        assert not await holders(nodes)
        before = hostile_network.world.sent
        assert nodes[0].server is not None
        await nodes[0].server.repair.leave()
        assert hostile_network.world.sent == before

    play(tmp_path, 8, story)


def test_deletes_that_all_have_rest_until_another_one_comes(tmp_path: Path) -> None:
    async def story(hostile_network: HostileNetwork, overlay: Overlay, nodes: list[SimNode]) -> None:
        await overlay.store(Kind.BODY, KEY, b"sealed", deleters=[DELETER], ttl=DAY)
        await overlay.delete(Kind.BODY, KEY, SALT, ALICE)
        one = nodes[0]
        looked = looks_heard_by(nodes[1])
        await look(one, 2)
        assert looked == [KEY], "all were found to have it"
        await overlay._node_client.delete(one.located(), DeleteRequest(Kind.BODY, KEY, bytes([1]) * 16), ALICE)
        await look(one, 3)
        assert looked == 3 * [KEY], "once to tell them, once to see that they have it"

    play(tmp_path, 8, story)


def test_deletes_that_not_all_take_are_taken_around_for_some_hours_and_then_looked_after_once_a_day(
    tmp_path: Path,
) -> None:
    async def story(hostile_network: HostileNetwork, overlay: Overlay, nodes: list[SimNode]) -> None:
        await overlay.store(Kind.BODY, KEY, b"sealed", deleters=[DELETER], ttl=DAY)
        full = nodes[2]

        async def refuse(kind: int, key: bytes, proof: bytes, ttl: float) -> int:
            raise refusal(Code.NO_SPACE)

        assert full.service is not None
        full.service.hand_tombstone = refuse  # type: ignore[method-assign]
        for at in await overlay.closest(KEY, 6):
            if at.contact.id != full.id:
                await overlay._node_client.delete(at, DeleteRequest(Kind.BODY, KEY, SALT), ALICE)
        one = nodes[0]
        looked = looks_heard_by(nodes[1])
        await look(one, 3)
        assert looked == 3 * [KEY]
        later = hostile_network.world.wall() + RECENT
        hostile_network.world.wall = lambda: later  # type: ignore[method-assign]
        await look(one, 2 * FULL_ROUND_EVERY)
        assert looked == 5 * [KEY]

    play(tmp_path, 8, story)


def test_a_delete_that_only_nodes_farther_out_heard_of_reaches_the_copies_within_the_hour(tmp_path: Path) -> None:
    async def story(hostile_network: HostileNetwork, overlay: Overlay, nodes: list[SimNode]) -> None:
        await overlay.store(Kind.BODY, KEY, b"sealed", deleters=[DELETER], ttl=DAY)
        for at in (await overlay.closest(KEY, 6))[3:]:
            await overlay._node_client.delete(at, DeleteRequest(Kind.BODY, KEY, SALT), ALICE)
        for node in nodes:
            await look(node, 1)
        assert not [node for node in nodes if node.store is not None and await node.store.variants(Kind.BODY, KEY)]

    play(tmp_path, 8, story)


def test_an_inbox_that_is_read_every_minute_is_looked_up_every_five(tmp_path: Path) -> None:
    async def story(hostile_network: HostileNetwork, overlay: Overlay, nodes: list[SimNode]) -> None:
        lookups = await read_every_minute(overlay, 20)
        assert lookups == [0, 5, 10, 15]

    play(tmp_path, 12, story)


def test_an_inbox_is_looked_up_again_when_one_of_its_nodes_is_gone(tmp_path: Path) -> None:
    async def story(hostile_network: HostileNetwork, overlay: Overlay, nodes: list[SimNode]) -> None:
        await overlay.read_inbox(INBOX, ALICE)
        nearest = min(nodes, key=lambda node: distance(node.id, INBOX))
        hostile_network.nodes.remove(nearest)
        await nearest.crash()
        assert await read_every_minute(overlay, 3) == [1]

    play(tmp_path, 12, story)


def test_an_inbox_is_looked_up_again_at_once_when_none_of_its_nodes_answers(tmp_path: Path) -> None:
    async def story(hostile_network: HostileNetwork, overlay: Overlay, nodes: list[SimNode]) -> None:
        await overlay.read_inbox(INBOX, ALICE)
        by_distance = sorted(nodes, key=lambda node: distance(node.id, INBOX))
        for node in by_distance[:6]:
            hostile_network.nodes.remove(node)
            await node.crash()
        answered = {reading.node.contact.id for reading in await overlay.read_inbox(INBOX, ALICE)}
        assert answered == {node.id for node in by_distance[6:]}

    play(tmp_path, 12, story)


def test_an_inbox_is_looked_up_again_when_too_few_nodes_were_there_the_last_time(tmp_path: Path) -> None:
    async def story(hostile_network: HostileNetwork, overlay: Overlay, nodes: list[SimNode]) -> None:
        await overlay.node.protocol.ping(nodes[0].located().contact)
        hostile_network.world.part([hostile_network.client.place_ip, nodes[0].place_ip])
        assert len(await overlay.read_inbox(INBOX, ALICE)) == 1
        hostile_network.world.part()
        assert len(await overlay.read_inbox(INBOX, ALICE)) > 1

    play(tmp_path, 12, story)


def test_an_inbox_is_looked_up_again_when_a_nearer_node_is_heard_of(tmp_path: Path) -> None:
    async def story(hostile_network: HostileNetwork, overlay: Overlay, nodes: list[SimNode]) -> None:
        by_distance = sorted(nodes, key=lambda node: distance(node.id, INBOX))
        hostile_network.world.part([node.place_ip for node in by_distance[:3]])
        await overlay.read_inbox(INBOX, ALICE)
        hostile_network.world.part()
        await overlay.node.protocol.ping(by_distance[0].located().contact)
        answered = {reading.node.contact.id for reading in await overlay.read_inbox(INBOX, ALICE)}
        assert answered == {node.id for node in by_distance[:6]}

    play(tmp_path, 12, story)


async def read_every_minute(overlay: Overlay, minutes: int) -> list[int]:
    """Read the inbox so often; the minutes in which its nodes were looked up."""
    looked: list[int] = []
    lookup = overlay.node.closest

    async def closest(key: bytes, count: int, *, disjoint: bool = False) -> list[Located]:
        looked.append(minute)
        return await lookup(key, count, disjoint=disjoint)

    overlay.node.closest = closest  # type: ignore[method-assign]
    for minute in range(minutes):  # noqa: B007 - `closest` reads it
        await overlay.read_inbox(INBOX, ALICE)
        await asyncio.sleep(60)
    return looked
