"""Repair between real nodes: copies for newcomers, for successors, and for nodes that lost theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path

import pytest

from overlay.errors import Refused
from overlay.identity.card import make_card
from overlay.identity.ownership import DeleteProof, Owner, encode_delete_proof
from overlay.ids import Kind, body_key, certificate_key, deleter_hash, inbox_key, probe_key
from overlay.node.node import Node
from overlay.primitives.requests import DeleteRequest
from overlay.protocol_limits import ENCRYPTION_KEY_SIZE
from overlay.protocol_limits import INBOX as INBOX_KIND
from overlay.replication.node_client import NodeClient
from overlay.replication.repair import MAX_HINTS, Repair
from overlay.wire import messages
from overlay.wire.messages import Code
from tests.overlay.issuing import NOW, Issuer, Person
from tests.overlay.local_network import ISSUER, LOOPBACK, NETWORK, LocalNetwork, local_network, new_node, run

PERSON = ISSUER.person("alice@village.example", 100)
ALICE = Owner(PERSON.certificate, PERSON.sign)
STRANGER = Issuer(2).person("alice@village.example", 101)
SALT = bytes(range(16))
KEY, INBOX = body_key("<1@village.example>"), inbox_key("alice@village.example")
DELETER = deleter_hash(KEY, SALT, ALICE.certificate)
HOUR, K = 3600.0, NETWORK.k
DATA = b"a sealed body"


def play(folder: Path, story: Callable[[LocalNetwork], Awaitable[None]], count: int = 8) -> None:
    async def begin() -> None:
        async with local_network(folder, count) as place:
            await story(place)

    run(begin)


def repair_of(node: Node) -> Repair:
    assert node.server is not None
    return node.server.repair


async def arrive(place: LocalNetwork, folder: Path, key: bytes, first: int = 20) -> Node:
    """A new node that is the nearest to `key`, and known to all others."""
    distance = int.from_bytes(key, "big")
    nearest = int.from_bytes(place.nearest(key, 1)[0].id, "big") ^ distance
    number = next(n for n in range(first, 1000) if int.from_bytes(new_node(n, None).id, "big") ^ distance < nearest)
    node = new_node(number, folder / str(number))
    await node.listen(0, LOOPBACK)
    await node.join([place.nodes[0].place])
    place.nodes.append(node)
    await asyncio.gather(*(other.protocol.ping(node.located().contact) for other in place.nodes if other is not node))
    return node


async def content(node: Node, kind: int, key: bytes) -> tuple[bytes, float, frozenset[bytes]] | None:
    assert node.store is not None
    found = await node.store.fetch(kind, key)
    if found is None:
        return None
    held, where = found
    return (where if isinstance(where, bytes) else where.read_bytes()), held.expires, held.deleters


@pytest.mark.parametrize("size", [100, 300_000])
def test_a_nearer_newcomer_gets_a_copy_with_its_deleters_and_its_expiry(tmp_path: Path, size: int) -> None:
    async def story(place: LocalNetwork) -> None:
        data = sha256(b"body").digest() * (size // 32)
        await place.overlay.store(Kind.BODY, KEY, data, deleters=[DELETER], ttl=HOUR)
        newcomer = await arrive(place, tmp_path, KEY)
        assert await content(newcomer, Kind.BODY, KEY) is None
        for node in place.nodes:
            await repair_of(node).work()
        assert await content(newcomer, Kind.BODY, KEY) == (data, NOW + HOUR, frozenset([DELETER]))

    play(tmp_path, story)


def test_a_nearer_newcomer_gets_the_inbox_and_not_what_was_acknowledged(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        for notification in (b"one", b"two"):
            await place.overlay.append_inbox(INBOX, notification, ttl=HOUR)
        newcomer = await arrive(place, tmp_path, INBOX)
        assert newcomer.store is not None
        await newcomer.store.acknowledge(INBOX, [sha256(b"one").digest()])
        for node in place.nodes:
            await repair_of(node).work()
        waiting = await newcomer.store.pending_notifications(INBOX)
        assert [(one.data, one.expires) for one in waiting] == [(b"two", NOW + HOUR)]

    play(tmp_path, story)


def test_a_newcomer_gets_the_cards(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        key, card = (
            certificate_key("alice@village.example"),
            make_card(PERSON, bytes(ENCRYPTION_KEY_SIZE), int(NOW * 1000)),
        )
        await place.overlay.store(Kind.CERTIFICATE, key, card, ttl=HOUR)
        newcomer = await arrive(place, tmp_path, key)
        for node in place.nodes:
            await repair_of(node).work()
        found = await content(newcomer, Kind.CERTIFICATE, key)
        assert found is not None and found[0] == card

    play(tmp_path, story)


def test_probes_stay_where_they_were_put_or_p_would_look_better_than_it_is(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        key = probe_key("test", b"1")
        await place.overlay.store(Kind.PROBE, key, b"probe", ttl=HOUR)
        newcomer = await arrive(place, tmp_path, key)
        for node in place.nodes:
            await repair_of(node).work()
            await repair_of(node).run_round()
            await node.leave()
        assert await content(newcomer, Kind.PROBE, key) is None

    play(tmp_path, story)


def test_a_node_that_stops_in_good_order_hands_its_copies_to_the_next(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        await place.overlay.store(Kind.BODY, KEY, DATA, deleters=[DELETER], ttl=HOUR)
        await place.overlay.append_inbox(KEY, b"waits", ttl=HOUR)
        leaver, heir = place.nearest(KEY, 1)[0], place.nearest(KEY, K + 1)[-1]
        assert await content(heir, Kind.BODY, KEY) is None
        await leaver.leave()
        assert await content(heir, Kind.BODY, KEY) == (DATA, NOW + HOUR, frozenset([DELETER]))
        assert heir.store is not None
        assert [one.data for one in await heir.store.pending_notifications(KEY)] == [b"waits"]

    play(tmp_path, story)


def test_leaving_a_network_that_is_gone_ends(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        await place.overlay.store(Kind.BODY, KEY, DATA, ttl=HOUR)
        leaver, *others = place.nearest(KEY, len(place.nodes))
        await asyncio.gather(*(other.vanish() for other in others))
        await leaver.leave(patience=0.05)
        assert await content(leaver, Kind.BODY, KEY) is not None

    play(tmp_path, story)


def test_the_hourly_round_repairs_a_lost_copy(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        await place.overlay.store(Kind.BODY, KEY, DATA, ttl=HOUR)
        one, other = place.nearest(KEY, 2)
        await lose_objects(one)
        assert await content(one, Kind.BODY, KEY) is None
        await repair_of(other).run_round()
        assert await content(one, Kind.BODY, KEY) == (DATA, NOW + HOUR, frozenset())

    play(tmp_path, story)


async def lose_objects(node: Node) -> None:
    """The node's disk has lost its objects."""
    assert node.store is not None
    await node.store._database.write(lambda connection: connection.execute("DELETE FROM objects").rowcount)


def test_a_repair_by_another_holder_spares_one_round_and_no_more(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        await place.overlay.store(Kind.BODY, KEY, DATA, ttl=HOUR)
        one, other = place.nearest(KEY, 2)
        await repair_of(one).run_round()
        await lose_objects(one)
        await repair_of(other).run_round()  # spared: `one` has just looked
        assert await content(one, Kind.BODY, KEY) is None
        await repair_of(other).run_round()
        assert await content(one, Kind.BODY, KEY) is not None

    play(tmp_path, story)


def test_attack_claiming_to_repair_before_every_round_spares_every_other_round_only(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        await place.overlay.store(Kind.BODY, KEY, DATA, ttl=HOUR)
        one, other = place.nearest(KEY, 2)
        node_client = NodeClient(place.client.protocol, None, place.client.http_client)
        await lose_objects(one)
        mended = []
        for _ in range(3):
            (at,) = [at for at in await place.overlay.closest(KEY, 2) if at.contact.id == other.id]
            await node_client.have(at, Kind.BODY, KEY, known=bytes(32))
            await repair_of(other).run_round()
            mended.append(await content(one, Kind.BODY, KEY) is not None)
        assert mended == [False, True, True]

    play(tmp_path, story)


def test_asking_what_is_there_spares_no_round(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        await place.overlay.store(Kind.BODY, KEY, DATA, ttl=HOUR)
        one, other = place.nearest(KEY, 2)
        await lose_objects(one)
        await place.overlay.held(Kind.BODY, KEY, sha256(DATA).digest())
        await repair_of(other).run_round()
        assert await content(one, Kind.BODY, KEY) is not None

    play(tmp_path, story)


def test_a_deleted_body_doesnt_come_back_from_a_node_that_slept_through_the_delete(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        await place.overlay.store(Kind.BODY, KEY, DATA, deleters=[DELETER], ttl=HOUR)
        sleeper = place.nearest(KEY, K)[-1]
        node_client = NodeClient(place.client.protocol, None, place.client.http_client)
        for at in await place.overlay.closest(KEY, K):
            if at.contact.id != sleeper.id:
                assert await node_client.delete(at, DeleteRequest(Kind.BODY, KEY, SALT), ALICE) == 1
        assert await content(sleeper, Kind.BODY, KEY) is not None
        await repair_of(sleeper).run_round()
        assert await place.holders(Kind.BODY, KEY) == []
        newcomer = await arrive(place, tmp_path, KEY)
        for node in place.nodes:
            await repair_of(node).work()
        assert await place.holders(Kind.BODY, KEY) == []
        assert newcomer.store is not None
        (stone,) = await newcomer.store.tombstones(Kind.BODY, KEY)
        assert stone.deleter == DELETER

    play(tmp_path, story)


def test_one_recipients_delete_travels_and_leaves_the_others_copy(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        bob = bytes(32)
        await place.overlay.store(Kind.BODY, KEY, DATA, deleters=[DELETER, bob], ttl=HOUR)
        first, second = place.nearest(KEY, 2)
        node_client = NodeClient(place.client.protocol, None, place.client.http_client)
        (at,) = await place.overlay.closest(KEY, 1)
        await node_client.delete(at, DeleteRequest(Kind.BODY, KEY, SALT), ALICE)
        await repair_of(first).run_round()
        assert await content(second, Kind.BODY, KEY) == (DATA, NOW + HOUR, frozenset([bob]))

    play(tmp_path, story)


def test_holders_that_know_the_same_deletes_dont_tell_them_again(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        bob = bytes(32)
        await place.overlay.store(Kind.BODY, KEY, DATA, deleters=[DELETER, bob], ttl=HOUR)
        await place.overlay.delete(Kind.BODY, KEY, SALT, ALICE)
        first, second = place.nearest(KEY, 2)
        assert first.service is not None
        assert second.service is not None
        told: list[messages.Held] = []
        real = second.service.have

        async def have(kind: int, key: bytes, after: bytes, known: bytes = b"") -> messages.Held:
            told.append(await real(kind, key, after, known))
            return told[-1]

        async def never(*_: object) -> int:
            raise AssertionError("a delete was taken over that is known")

        second.service.have = have  # type: ignore[method-assign]
        first.service.hand_tombstone = second.service.hand_tombstone = never  # type: ignore[method-assign, assignment]
        await repair_of(first).run_round()
        assert [(len(held.digests), held.tombstones, held.same) for held in told] == [(1, [], True)]

    play(tmp_path, story)


def proof(person: Person, key: bytes = KEY, salt: bytes = SALT, signature: bytes = bytes(64)) -> bytes:
    return encode_delete_proof(DeleteProof(key, bytes(20), bytes(16), salt, person.certificate, signature))


@pytest.mark.parametrize(
    "forged",
    [proof(PERSON), proof(STRANGER), proof(PERSON, key=INBOX), b"", b"\x93", bytes(4096)],
    ids=["unsigned", "another authority's", "another key's", "nothing", "nonsense", "long nonsense"],
)
def test_attack_a_forged_delete_that_is_handed_on_is_not_kept(tmp_path: Path, forged: bytes) -> None:
    async def story(place: LocalNetwork) -> None:
        await place.overlay.store(Kind.BODY, KEY, DATA, deleters=[DELETER], ttl=HOUR)
        node_client = NodeClient(place.client.protocol, None, place.client.http_client)
        (at,) = await place.overlay.closest(KEY, 1)
        with pytest.raises(Refused) as refused:
            await node_client.hand_tombstone(at, Kind.BODY, KEY, forged, HOUR)
        assert refused.value.code == Code.NOT_PERMITTED
        node = place.nearest(KEY, 1)[0]
        assert node.store is not None
        assert await node.store.tombstones(Kind.BODY, KEY) == []
        assert await content(node, Kind.BODY, KEY) is not None

    play(tmp_path, story, 4)


def test_attack_a_node_that_answers_with_forged_deletes_takes_nothing_away(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        await place.overlay.store(Kind.BODY, KEY, DATA, deleters=[DELETER], ttl=HOUR)
        honest, liar = place.nearest(KEY, 2)
        assert liar.service is not None
        answers = 0

        async def lie(*_: object) -> messages.Held:
            nonlocal answers
            answers += 1
            return messages.Held(
                [], [messages.WireTombstone(proof(PERSON), HOUR), messages.WireTombstone(b"x", HOUR)], True
            )

        liar.service.handle = lie  # type: ignore[method-assign, assignment]
        await repair_of(honest).run_round()
        assert 0 < answers < 10
        assert await content(honest, Kind.BODY, KEY) is not None

    play(tmp_path, story)


def test_attack_hints_cost_a_bounded_amount_of_work(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        (at,) = await place.overlay.closest(KEY, 1)
        for number in range(2 * MAX_HINTS):
            await place.client.protocol.call(
                at.contact, messages.Recheck(at.token, Kind.BODY, number.to_bytes(20, "big"))
            )
        node = place.nearest(KEY, 1)[0]
        assert repair_of(node).waiting == MAX_HINTS

    play(tmp_path, story, 4)


def test_a_hint_brings_an_empty_replica_its_copy_again(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        await place.overlay.store(Kind.BODY, KEY, DATA, ttl=HOUR)
        await place.overlay.append_inbox(KEY, b"waits", ttl=HOUR)
        one, other = place.nearest(KEY, 2)
        assert one.store is not None
        await lose_objects(one)
        await one.store._database.write(lambda connection: connection.execute("DELETE FROM notifications").rowcount)
        repair_of(other).hinted(Kind.BODY, KEY)
        repair_of(other).hinted(INBOX_KIND, KEY)
        await repair_of(other).work()
        assert await content(one, Kind.BODY, KEY) is not None
        assert [found.data for found in await one.store.pending_notifications(KEY)] == [b"waits"]

    play(tmp_path, story)
