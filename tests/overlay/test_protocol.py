from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import umsgpack
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay import protocol
from overlay.errors import Refused
from overlay.identity.contact import Contact, puzzle_bits
from overlay.identity.network import Network
from overlay.ids import Kind
from overlay.kademlia.routing import BUCKET, FAILURES, RANGE_IN_TABLE
from overlay.wire import fragments, messages
from overlay.wire.messages import Code, Refusal
from storage.store_request import StoreRequest
from tests.overlay.peers import Peer, found, grow, host, new_key, start, start_liar
from tests.simulation.world import Address, Transport, Weather, World

KEY = bytes(20)
VICTIM = ("10.5.0.1", 4000)


def play(story: Callable[[World], Awaitable[None]], seed: int = 0, weather: Weather | None = None) -> None:
    world = World(seed, weather)

    async def begin() -> None:
        await story(world)

    world.play(begin())


def known(peer: Peer) -> set[Contact]:
    return {entry.contact for entry in peer.protocol.router}


def sealed(asker: Peer, target: Peer, request: messages.Request, number: int = 1) -> list[bytes]:
    """The datagrams of a request, to be sent from another address."""
    flags = fragments.SERVER_MODE if asker.protocol.server_mode else 0
    payloads = fragments.cut(flags, number.to_bytes(8, "big"), messages.encode(request))
    return [asker.protocol.sealer.seal(target.contact.key, payload) for payload in payloads]


def test_two_nodes_that_speak_know_each_other() -> None:
    async def story(world: World) -> None:
        one, other = await start(world, host(1)), await start(world, host(2))
        assert await one.protocol.ping(other.contact) == one.contact.address
        await asyncio.sleep(1)
        assert known(one) == {other.contact}
        assert known(other) == {one.contact}

    play(story)


def test_a_client_is_answered_and_put_into_nobodys_table() -> None:
    async def story(world: World) -> None:
        peers = await grow(world, 10)
        client = await start(world, "10.4.0.1", server_mode=False)
        client.protocol.router.answered(peers[0].contact)
        assert len(await client.protocol.lookup(KEY, 5)) == 5
        assert await peers[1].protocol.ping(client.contact) == peers[1].contact.address
        await asyncio.sleep(1)
        assert all(client.contact not in known(peer) for peer in peers)

    play(story)


def test_a_client_keeps_nothing_for_others() -> None:
    async def story(world: World) -> None:
        one, client = await start(world, host(1)), await start(world, host(2), server_mode=False)
        for request in (
            messages.Store(client.token_for(one), Kind.BODY, KEY, b"x", [], 1.0),
            messages.Fetch(client.token_for(one), Kind.BODY, KEY),
        ):
            with pytest.raises(Refused) as caught:
                await one.protocol.call(client.contact, request)
            assert caught.value.code == Code.UNKNOWN_KIND

    play(story)


def test_nobody_gets_into_the_table_by_writing_alone() -> None:
    async def story(world: World) -> None:
        one, other = await start(world, host(1)), await start(world, host(2))
        for number, data in enumerate(range(100)):
            asker = await start(world, f"10.3.0.{data}")
            asker.transport.close()
            (datagram,) = sealed(asker, one, messages.Ping(), number)
            one.protocol.datagram_received(datagram, asker.contact.address)
        await asyncio.sleep(10)
        assert known(one) == set()
        assert not one.protocol._verifying
        await other.protocol.ping(one.contact)
        await asyncio.sleep(1)
        assert known(one) == {other.contact}

    play(story)


def test_strangers_that_write_are_pinged_so_many_at_once_and_no_more() -> None:
    async def story(world: World) -> None:
        one = await start(world, host(1))
        pinged: set[Address] = set()

        def watch(source: Address, target: Address, data: bytes) -> bool:
            pinged.add(target)
            return False

        askers = [await start(world, f"10.3.{number}.1") for number in range(protocol.VERIFYING + 50)]
        world.watch = watch
        answers = 0
        for number, asker in enumerate(askers):
            before = len(one.protocol._calls)
            one.protocol.datagram_received(sealed(asker, one, messages.Ping(), number)[0], asker.contact.address)
            answers += len(one.protocol._calls) - before
        assert answers == protocol.VERIFYING

    play(story)


def test_a_flood_of_chosen_ids_doesnt_grow_the_table() -> None:
    async def story(world: World) -> None:
        one = await start(world, host(1))
        asked = 0
        while asked < 200:
            key = new_key(world)
            contact = Contact(key.public_key().public_bytes_raw(), host(1000 + asked), 4000)
            if one.protocol.router.bucket_of(contact.id) is one.protocol.router.buckets[0]:
                asked += 1
                flooding = await start(world, contact.ip, key=key)
                await flooding.protocol.ping(one.contact)
                await asyncio.sleep(0.1)
        assert len(one.protocol.router) == BUCKET

    play(story)


def test_one_address_range_gets_ten_places_in_a_public_network() -> None:
    async def story(world: World) -> None:
        public = Network("test")
        one = await start(world, "8.8.8.8", network=public)
        for number in range(1, 100):
            flooding = await start(world, f"9.9.9.{number}", network=public)
            await flooding.protocol.ping(one.contact)
            await asyncio.sleep(0.1)
        assert 2 <= len(one.protocol.router) <= RANGE_IN_TABLE

    play(story)


def test_private_addresses_get_no_place_in_a_public_network() -> None:
    async def story(world: World) -> None:
        public = Network("test")
        one = await start(world, "8.8.8.8", network=public)
        other = await start(world, "192.168.1.1", network=public)
        assert await other.protocol.ping(one.contact) is not None
        await asyncio.sleep(1)
        assert known(one) == set()

    play(story)


def test_who_hasnt_solved_the_puzzle_gets_no_place() -> None:
    async def story(world: World) -> None:
        network = Network("test", puzzle_bits=4, private_addresses=True)

        async def begin(ip: str, solved: bool) -> Peer:
            while True:
                key = new_key(world)
                contact = Contact(key.public_key().public_bytes_raw(), ip, 4000)
                if (puzzle_bits(contact.id) >= 4) is solved:
                    return await start(world, ip, network=network, key=key)

        one, honest, lazy = await begin(host(1), True), await begin(host(2), True), await begin(host(3), False)
        for other in (honest, lazy):
            assert await other.protocol.ping(one.contact) is not None
        assert await one.protocol.ping(lazy.contact) is not None
        await asyncio.sleep(1)
        assert known(one) == {honest.contact}

    play(story)


def test_a_restarted_node_is_known_at_its_new_address() -> None:
    async def story(world: World) -> None:
        key = new_key(world)
        one, old = await start(world, host(1)), await start(world, host(2), key=key)
        await old.protocol.ping(one.contact)
        await asyncio.sleep(1)
        old.transport.close()
        new = await start(world, host(3), key=key)
        for _ in range(3):
            await new.protocol.ping(one.contact)
            await asyncio.sleep(1)
        assert known(one) == {new.contact}

    play(story)


def test_passing_a_nodes_datagrams_on_doesnt_draw_its_entry_away() -> None:
    async def story(world: World) -> None:
        one, honest = await start(world, host(1)), await start(world, host(2))
        await honest.protocol.ping(one.contact)
        await asyncio.sleep(1)
        for number in range(5):  # a relay that forwards even the pings it gets
            datagram = sealed(honest, one, messages.Ping(), number)[0]
            one.protocol.datagram_received(datagram, VICTIM)
            await asyncio.sleep(1)
        assert known(one) == {honest.contact}

    play(story)


def test_a_silent_contact_is_no_part_of_answers_and_then_loses_its_place_to_one_that_waits() -> None:
    async def story(world: World) -> None:
        one = await start(world, host(1))
        in_bucket: list[Peer] = []
        while len(in_bucket) < BUCKET + 1:
            peer = await start(world, host(100 + world.chance.randrange(60_000)))
            if one.protocol.router.bucket_of(peer.contact.id) is one.protocol.router.buckets[0]:
                in_bucket.append(peer)
                await one.protocol.ping(peer.contact)
        *members, spare = in_bucket
        dead = members[5]
        dead.transport.close()
        assert spare.contact not in known(one)
        for failures in range(1, FAILURES + 1):
            assert dead.contact in known(one)
            await one.protocol.ping(dead.contact)
            entry = one.protocol.router.get(dead.contact.id)
            assert entry is None or entry.failures == failures
            assert dead.contact not in one.protocol.router.closest(dead.contact.id, BUCKET, healthy=True)
        await asyncio.sleep(1)
        assert dead.contact not in known(one)
        assert spare.contact in known(one)

    play(story)


def test_the_quietest_contact_is_pinged() -> None:
    async def story(world: World) -> None:
        peers = await grow(world, 10)
        await asyncio.sleep(5)
        for _ in range(9):
            await peers[0].protocol.ping_least_recently_seen()
        assert all(entry.seen > 4 for entry in peers[0].protocol.router)
        alone = await start(world, "10.4.0.1")
        await alone.protocol.ping_least_recently_seen()

    play(story)


def test_a_pong_that_lies_of_our_address_is_no_address() -> None:
    async def story(world: World) -> None:
        one = await start(world, host(1))
        liar = await start_liar(world, host(2), lambda sender, request: messages.Pong(bytes(5), 4000))
        assert await one.protocol.ping(liar.contact) is None
        other = await start_liar(world, host(3), lambda sender, request: messages.Pong(bytes(4), 4000))
        assert await one.protocol.ping(other.contact) is None
        third = await start_liar(world, host(4), lambda sender, request: Refusal(Code.BUSY))
        assert await one.protocol.ping(third.contact) is None
        assert await one.protocol.ping(Contact(bytes(32), host(5), 4000)) is None

    play(story)


# Amplification

WITHOUT_TOKEN: dict[str, messages.Request] = {
    "ping": messages.Ping(),
    **{f"find {k}, padded": messages.Find(KEY, k, messages.find_padding(k)) for k in (0, 1, 5, 10, 20, 40)},
    **{f"find {k}, bare": messages.Find(KEY, k) for k in (0, 1, 10, 40)},
    "find, all padding": messages.Find(KEY, 40, bytes(1024)),
    "store": messages.Store(bytes(16), Kind.BODY, KEY, b"", [], 1.0),
    "large store": messages.Store(bytes(16), Kind.BODY, KEY, bytes(8192), [], 1.0),
    "fetch": messages.Fetch(bytes(16), Kind.BODY, KEY),
    "delete": messages.Delete(bytes(16), Kind.BODY, KEY, bytes(16), b"", bytes(64)),
    "append-inbox": messages.AppendInbox(bytes(16), KEY, b"x", 1.0),
    "read-inbox": messages.ReadInbox(bytes(16), KEY, b"", bytes(64)),
    "acknowledge-inbox": messages.AcknowledgeInbox(bytes(16), KEY, [], b"", bytes(64)),
    "tombstones": messages.AskTombstones(bytes(16), Kind.BODY, KEY, [bytes(32)]),
}


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("name", [*WITHOUT_TOKEN, "ask for the key", "random bytes"])
def test_a_sender_without_a_token_is_sent_at_most_three_times_its_bytes(name: str, family: str) -> None:
    async def story(world: World) -> None:
        form = "10.0.{}.{}" if family == "ipv4" else "fd00::{:x}:{:x}"
        ips = [form.format(0, number) for number in range(1, 61)]
        peers = [await start(world, ip) for ip in ips]
        for peer in peers:
            for other in peers:
                peer.protocol.router.answered(other.contact)
        victim = (form.format(5, 1), 4000)
        forging = await start(world, form.format(4, 1))  # an unknown node, so that it is pinged too
        target = peers[0]
        target.protocol.bulk_port, target.protocol.fingerprint = 65535, bytes(32)
        assert target.store is not None
        await target.store.store(StoreRequest(Kind.BODY, KEY, bytes(8000), bytes(32), 1.0), None)
        if name == "ask for the key":
            datagrams = [forging.protocol.sealer.ask_key(bytes(16))]
        elif name == "random bytes":
            datagrams = [bytes([1]) + forging.contact.key + bytes(100), bytes(40), b"\x00" * 60]
        else:
            datagrams = sealed(forging, target, WITHOUT_TOKEN[name])
        out = 0

        def watch(source: Address, to: Address, data: bytes) -> bool:
            nonlocal out
            if to == victim:
                out += len(data)
            return True

        world.watch = watch
        for datagram in datagrams:
            target.protocol.datagram_received(datagram, victim)
        await asyncio.sleep(20)
        size = sum(map(len, datagrams))
        assert out <= 3 * size, f"{out / size:.2f} times"
        assert (out > 0) is (name != "random bytes")

    play(story)


def test_a_padded_find_is_answered_in_full() -> None:
    async def story(world: World) -> None:
        peers = await grow(world, 60)
        asking, target = peers[0], peers[1]
        for k in (1, 10, 20, 40):
            request = messages.Find(world.chance.randbytes(20), k, messages.find_padding(k))
            answer = await asking.protocol.call(target.contact, request)
            assert isinstance(answer, messages.Found)
            held = target.protocol.router.closest(request.key, k + 1, healthy=True)
            assert answer.contacts == [c.wire for c in held if c != asking.contact][:k]

    play(story)


# What kademlia and rpcudp would have done


def test_kademlias_own_calls_are_out_of_the_networks_reach() -> None:
    async def story(world: World) -> None:
        one, other = await start(world, host(1)), await start(world, host(2))
        sent = 0

        def watch(source: Address, to: Address, data: bytes) -> bool:
            nonlocal sent
            sent += 1
            return True

        world.watch = watch
        for name in ("ping", "stun", "store", "find_node", "find_value", "find"):
            for args in ([], [bytes(20)], [bytes(20), KEY], [bytes(20), KEY, b"value"]):
                packed = umsgpack.packb([name, args])
                for datagram in (b"\x00" + bytes(20) + packed, b"\x01" + bytes(20) + packed):
                    one.protocol.datagram_received(datagram, other.contact.address)
                for payload in fragments.cut(fragments.SERVER_MODE, bytes(8), packed):
                    datagram = other.protocol.sealer.seal(one.contact.key, payload)
                    one.protocol.datagram_received(datagram, other.contact.address)
        await asyncio.sleep(1)
        assert sent == 0
        assert one.store.calls == 0
        assert known(one) == set()

    play(story)


@settings(max_examples=25)
@given(st.lists(st.binary(max_size=1100), max_size=10), st.integers(0, 2**32))
def test_sealed_nonsense_is_dropped_and_the_overlay_goes_on(nonsense: list[bytes], seed: int) -> None:
    async def story(world: World) -> None:
        peers = await grow(world, 5)
        hostile = await start_liar(world, "10.9.0.1", lambda sender, request: found())
        for number, blob in enumerate(nonsense):
            for flags in (0, 1, 2, 3, 255):
                payload = bytes([flags]) + number.to_bytes(8, "big") + b"\0\1" + blob
                hostile.transport.sendto(
                    hostile.protocol.sealer.seal(peers[0].contact.key, payload), peers[0].contact.address
                )
            hostile.transport.sendto(hostile.protocol.sealer.seal(peers[0].contact.key, blob), peers[0].contact.address)
        await asyncio.sleep(1)
        assert len(await peers[0].protocol.lookup(KEY, 4)) == 4

    play(story, seed)


def test_silent_contacts_are_remembered_in_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "SUSPECTS", 5)

    async def story(world: World) -> None:
        one = await start(world, host(1))
        contacts = [Contact(bytes([number]) * 32, host(number), 4000) for number in range(10, 20)]
        for contact in contacts:
            one.protocol.silent(contact)
        assert [one.protocol.suspected(contact) for contact in contacts] == [False] * 5 + [True] * 5
        await asyncio.sleep(protocol.SUSPECTED + 1)
        assert not any(one.protocol.suspected(contact) for contact in contacts)

    play(story)


def test_a_closed_socket_ends_a_lookup_at_once() -> None:
    async def story(world: World) -> None:
        peers = await grow(world, 30)
        world.part([peers[0].contact.ip])
        searching = asyncio.ensure_future(peers[0].protocol.lookup(KEY, 10))
        await asyncio.sleep(0.1)
        transport: Transport = peers[0].transport
        transport.close()
        assert await searching == []
        assert world.time() < 0.11
        assert not peers[0].protocol._calls

    play(story)
