from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.errors import NoAnswer
from overlay.identity.contact import Contact, WireContact
from overlay.kademlia import lookup
from overlay.kademlia.lookup import Located, Lookup
from overlay.wire import messages
from overlay.wire.rpc import Handled, RemotePeer
from tests.overlay.peers import Liar, Peer, closest, found, grow, host, start, start_liar
from tests.simulation.world import Weather, World

K = 10


def play(story: Callable[[World], Awaitable[None]], seed: int = 0, weather: Weather | None = None) -> None:
    world = World(seed, weather)

    async def begin() -> None:
        await story(world)

    world.play(begin())


def ids(located: list[Located]) -> list[bytes]:
    return [one.contact.id for one in located]


def true_ids(peers: list[Peer], key: bytes, k: int, without: Peer) -> list[bytes]:
    return [one.id for one in closest((p for p in peers if p is not without), key, k)]


async def sparse(world: World, count: int, in_bucket: int = 4) -> list[Peer]:
    """Nodes that know few others: some in each bucket that isn't empty, as after joining a Kademlia network."""
    peers = [await start(world, host(number)) for number in range(1, count + 1)]
    for peer in peers:
        for other in world.chance.sample(peers, count):
            if len(peer.protocol.router.bucket_of(other.contact.id).entries) < in_bucket:
                peer.protocol.router.answered(other.contact)
    return peers


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.integers(1, 20))
def test_a_lookup_finds_exactly_the_k_closest(seed: int, k: int) -> None:
    async def story(world: World) -> None:
        peers = await sparse(world, 60)
        for _ in range(3):
            key = world.chance.randbytes(20)
            asking = world.chance.choice(peers)
            assert ids(await asking.protocol.lookup(key, k)) == true_ids(peers, key, k, asking)

    play(story, seed)


def test_what_is_found_comes_with_a_token_that_its_node_takes() -> None:
    async def story(world: World) -> None:
        peers = await grow(world, 20)
        for one in await peers[0].protocol.lookup(bytes(20), K):
            (node,) = [peer for peer in peers if peer.contact == one.contact]
            assert node.tokens.good(one.token, peers[0].contact.key, peers[0].contact.ip)

    play(story)


@pytest.mark.parametrize("seed", range(5))
def test_a_fifth_of_the_nodes_dead_costs_no_recall_and_little_time(seed: int) -> None:
    async def story(world: World) -> None:
        peers = await grow(world, 100)
        for peer in peers:  # RTTs are known, as after some minutes
            for number in range(10):
                peer.protocol.rtt.add_sample(bytes([number]) * 32, 0.03)
        dead, alive = peers[:20], peers[20:]
        for peer in dead:
            peer.transport.close()
        await asyncio.sleep(1)
        for _ in range(5):
            key = world.chance.randbytes(20)
            asking = world.chance.choice(alive)
            started = world.time()
            assert ids(await asking.protocol.lookup(key, K)) == true_ids(alive, key, K, asking)
            assert world.time() - started < 1.0

    play(story, seed)


def test_lost_datagrams_cost_no_recall() -> None:
    async def story(world: World) -> None:
        peers = await sparse(world, 60)
        found_, wanted = 0, 0
        for _ in range(20):
            key = world.chance.randbytes(20)
            asking = world.chance.choice(peers)
            true = true_ids(peers, key, K, asking)
            found_ += len(set(ids(await asking.protocol.lookup(key, K))) & set(true))
            wanted += K
        assert found_ / wanted >= 0.99

    play(story, weather=Weather(loss=0.05, duplication=0.05))


def test_a_node_that_is_slow_is_missed_once_at_the_most() -> None:
    async def story(world: World) -> None:
        peers = await grow(world, 10)

        async def slowly() -> messages.Answer:
            await asyncio.sleep(1.2)
            return found()

        slow = await start_liar(world, "10.9.0.1", lambda sender, request: slowly())
        peers[0].protocol.router.answered(slow.contact)
        assert len(await peers[0].protocol.lookup(slow.contact.id, K)) == 9  # missed, since all others are fast
        assert world.time() < 0.7
        await asyncio.sleep(2)
        assert not peers[0].protocol.suspected(slow.contact)
        for _ in range(3):  # its late answer has shown its RTT
            started = world.time()
            assert ids(await peers[0].protocol.lookup(slow.contact.id, K))[0] == slow.contact.id
            assert 1.2 < world.time() - started < 1.3

    play(story)


def test_a_lookup_ends_at_its_deadline_with_what_has_answered() -> None:
    class Never:
        """Names ever nearer nodes that never answer."""

        def __init__(self) -> None:
            self.cancelled = 0
            self.number = 0

        def send_find(
            self,
            contact: Contact,
            key: bytes,
            k: int,
            on_done: Callable[[messages.Found | None], None],
            on_slow: Callable[[], None],
        ) -> Callable[[], None]:
            def cancel() -> None:
                self.cancelled += 1

            return cancel

        def checked(self, wire: object) -> Contact:
            raise NotImplementedError

        def suspected(self, contact: Contact) -> bool:
            return False

    async def story(world: World) -> None:
        asker = Never()
        seeds = [Contact(bytes([number]) * 32, "10.0.0.1", 1) for number in range(20)]
        assert await Lookup(asker, bytes(20), K, seeds=seeds, own_id=bytes(20)).run(deadline=3.0) == []
        assert world.time() == pytest.approx(3.0)
        assert asker.cancelled == lookup.ALPHA

    play(story)


def test_a_cancelled_lookup_leaves_no_calls_behind() -> None:
    async def story(world: World) -> None:
        peers = await grow(world, 5)
        world.part([peers[0].contact.ip])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(peers[0].protocol.lookup(bytes(20), K), 0.2)
        assert not peers[0].protocol._calls

    play(story)


def test_nobody_to_ask_is_nobody_found_at_once() -> None:
    async def story(world: World) -> None:
        alone = await start(world, host(1))
        assert await alone.protocol.lookup(bytes(20), K) == []
        assert world.time() == 0

    play(story)


def test_a_node_never_finds_itself() -> None:
    async def story(world: World) -> None:
        peers = await grow(world, 5)
        assert len(await peers[0].protocol.lookup(peers[0].contact.id, K)) == 4

    play(story)


def test_a_search_for_one_has_more_than_one_place_to_start_from() -> None:
    async def story(world: World) -> None:
        peers = await grow(world, 20)
        key = bytes(20)
        asking = peers[0]
        nearest = true_ids(peers, key, 3, asking)
        for peer in peers:
            if peer.contact.id in nearest:
                peer.transport.close()
        await asyncio.sleep(1)
        alive = [peer for peer in peers if peer.contact.id not in nearest]
        assert ids(await asking.protocol.lookup(key, 1)) == true_ids(alive, key, 1, asking)

    play(story)


def test_the_search_is_wider_on_request() -> None:
    async def story(world: World) -> None:
        peers = await grow(world, 60)
        key = world.chance.randbytes(20)
        assert ids(await peers[0].protocol.lookup(key, 40)) == true_ids(peers, key, 40, peers[0])

    play(story)


def test_suspects_are_asked_and_not_waited_for_while_enough_others_answer() -> None:
    async def story(world: World) -> None:
        peers = await grow(world, 30)
        asking = peers[0]
        key = bytes(20)
        nearest = true_ids(peers, key, 1, asking)[0]
        (dead,) = [peer for peer in peers if peer.contact.id == nearest]
        dead.transport.close()
        await asyncio.sleep(0.1)
        await asking.protocol.lookup(key, K)
        assert asking.protocol.suspected(dead.contact)
        started = world.time()
        alive = [peer for peer in peers if peer is not dead]
        assert ids(await asking.protocol.lookup(key, K)) == true_ids(alive, key, K, asking)
        assert world.time() - started < 0.4
        assert not (asking.protocol.suspected(alive[1].contact))

    play(story)


def test_after_the_network_was_away_others_are_found_at_once_and_everybody_soon() -> None:
    async def story(world: World) -> None:
        peers = await grow(world, 15)
        asking = peers[0]
        world.part([asking.contact.ip])
        assert await asking.protocol.lookup(bytes(20), K) == []
        assert all(asking.protocol.suspected(peer.contact) for peer in peers[1:])
        world.part()
        assert len(await asking.protocol.lookup(bytes(20), K)) == K
        await asyncio.sleep(1)
        assert ids(await asking.protocol.lookup(bytes(20), K)) == true_ids(peers, bytes(20), K, asking)

    play(story)


# Liars

Answer = Callable[[RemotePeer, messages.Request], Handled | None]


async def among_liars(
    world: World, answer: Callable[[list[Peer]], Answer], liars: int = 3
) -> tuple[list[Peer], list[Liar]]:
    """Thirty honest nodes, which all know some liars too."""
    peers = await grow(world, 30)
    lying = [await start_liar(world, f"10.9.0.{number}", answer(peers)) for number in range(1, liars + 1)]
    for peer in peers:
        for liar in lying:
            peer.protocol.router.answered(liar.contact)
    return peers, lying


async def all_honest_are_found(world: World, peers: list[Peer], lying: list[Liar], within: float = 10.0) -> None:
    """Whatever liars do, the result has the k closest honest nodes, in time."""
    for _ in range(5):
        key = world.chance.randbytes(20)
        asking = peers[world.chance.randrange(len(peers))]
        started = world.time()
        result = ids(await asking.protocol.lookup(key, K + len(lying)))
        assert world.time() - started < within
        assert set(true_ids(peers, key, K, asking)) <= set(result)


def test_liars_that_know_only_themselves_hide_nobody() -> None:
    async def story(world: World) -> None:
        liars: list[Liar] = []

        def only_me(peers: list[Peer]) -> Answer:
            return lambda sender, request: found(liar.contact for liar in liars)

        peers, lying = await among_liars(world, only_me)
        liars += lying
        await all_honest_are_found(world, peers, lying)

    play(story)


def test_liars_that_tell_of_nobody_hide_nobody() -> None:
    async def story(world: World) -> None:
        peers, lying = await among_liars(world, lambda peers: lambda sender, request: found())
        await all_honest_are_found(world, peers, lying)

    play(story)


def test_liars_that_tell_of_nodes_that_arent_there_cost_time_only() -> None:
    async def story(world: World) -> None:
        def garbage(sender: RemotePeer, request: messages.Request) -> Handled:
            return found(Contact(world.chance.randbytes(32), f"10.8.{n}.1", 4000) for n in range(40))

        peers, lying = await among_liars(world, lambda peers: garbage)
        await all_honest_are_found(world, peers, lying, within=9.0)

    play(story)


def test_liars_that_tell_honest_ids_at_wrong_addresses_hide_nobody() -> None:
    async def story(world: World) -> None:
        def wrong(peers: list[Peer]) -> Answer:
            def answer(sender: RemotePeer, request: messages.Request) -> Handled:
                assert isinstance(request, messages.Find)
                near = closest(peers, request.key, 40)
                return found(Contact(c.key, f"10.7.{world.chance.randrange(256)}.1", 4000) for c in near)

            return answer

        peers, lying = await among_liars(world, wrong)
        await all_honest_are_found(world, peers, lying, within=9.0)

    play(story)


def test_one_liar_cant_use_up_the_places_that_are_tried_for_an_id() -> None:
    async def story(world: World) -> None:
        one, honest, hidden = [await start(world, host(number)) for number in (1, 2, 3)]
        false = [Contact(hidden.contact.key, f"10.7.{number}.1", 4000) for number in range(10)]
        liar = await start_liar(world, "10.9.0.1", lambda sender, request: found([*false, honest.contact]))
        one.protocol.router.answered(liar.contact)
        honest.protocol.router.answered(hidden.contact)
        # The lie comes first: only the liar names the honest node, and only that one knows the hidden node's address.
        result = await one.protocol.lookup(hidden.contact.id, K)
        assert hidden.contact in [located.contact for located in result]

    play(story)


@pytest.mark.parametrize("key", [bytes(32), b"\x01" + bytes(31)])
def test_a_contact_whose_key_is_none_doesnt_stop_a_lookup(key: bytes) -> None:
    async def story(world: World) -> None:
        false = [Contact(key, f"10.7.0.{number}", 4000) for number in range(1, 4)]
        peers, _ = await among_liars(world, lambda peers: lambda sender, request: found(false))
        for _ in range(3):
            started = world.time()
            result = await peers[0].protocol.lookup(false[0].id, K)
            assert len(result) == K
            assert world.time() - started < 1.0

    play(story)


def test_liars_that_answer_something_else_count_as_silent() -> None:
    async def story(world: World) -> None:
        peers, lying = await among_liars(world, lambda peers: lambda sender, request: messages.Done(1))
        await all_honest_are_found(world, peers, lying)

    play(story)


def test_a_lookup_considers_a_bounded_number_of_contacts() -> None:
    async def story(world: World) -> None:
        def endless(sender: RemotePeer, request: messages.Request) -> Handled:
            return found(liar.contact for liar in world.chance.sample(liars, 40))

        liars: list[Liar] = []
        liars += [await start_liar(world, f"10.9.{number >> 8}.{number & 255}", endless) for number in range(700)]
        one = await start(world, host(1))
        search = Lookup(one.protocol, bytes(20), 20, seeds=[liar.contact for liar in liars], own_id=one.contact.id)
        assert len(await search.run()) == 20
        assert len(search._candidates) == lookup.CANDIDATES

    play(story)


def test_what_a_lookup_learns_isnt_in_the_table_before_it_answered() -> None:
    async def story(world: World) -> None:
        false = Contact(b"f" * 32, "10.7.0.1", 4000)
        liar = await start_liar(world, "10.9.0.1", lambda sender, request: found([false]))
        one = await start(world, host(1))
        one.protocol.router.answered(liar.contact)
        await one.protocol.lookup(false.id, K)
        assert [entry.contact for entry in one.protocol.router] == [liar.contact]

    play(story)


def test_nothing_is_sent_to_impossible_places() -> None:
    async def story(world: World) -> None:
        places = [bytes(4), bytes(16), b"\xff" * 4, b"\xe0\0\0\1", b"local", bytes(5)]
        wires = [WireContact(bytes([n]) * 32, ip, 4000) for n, ip in enumerate(places, 1)]
        liar = await start_liar(world, "10.9.0.1", lambda sender, request: messages.Found(wires, bytes(16), 0, b""))
        one = await start(world, host(1))
        one.protocol.router.answered(liar.contact)
        targets = set()

        def watch(source: tuple[str, int], target: tuple[str, int], data: bytes) -> bool:
            targets.add(target)
            return True

        world.watch = watch
        assert [located.contact for located in await one.protocol.lookup(bytes(20), K)] == [liar.contact]
        assert targets == {one.contact.address, liar.contact.address}

    play(story)


def test_a_call_that_was_never_answered_is_no_error_of_a_lookup() -> None:
    async def story(world: World) -> None:
        one = await start(world, host(1))
        with pytest.raises(NoAnswer):
            await one.protocol.call(Contact(b"f" * 32, "10.7.0.1", 4000), messages.Ping())
        assert await one.protocol.lookup(bytes(20), K, [Contact(b"f" * 32, "10.7.0.1", 4000)]) == []

    play(story)


@pytest.mark.parametrize("dead", [0, 10])
def test_a_lookup_leaves_nothing_for_the_garbage_collector(dead: int) -> None:
    async def story(world: World) -> None:
        peers = await grow(world, 40)
        for peer in peers[:dead]:
            peer.transport.close()
        asking = peers[-1].protocol
        one = Lookup(asking, bytes(20), K, seeds=asking.router.closest(bytes(20), 20), own_id=asking.own_id)
        assert len(await one.run()) == K
        gone = weakref.ref(one)
        del one
        await asyncio.sleep(60)  # until no late answer is accepted any more
        assert gone() is None

    gc.collect()
    gc.disable()
    try:
        play(story)
    finally:
        gc.enable()
