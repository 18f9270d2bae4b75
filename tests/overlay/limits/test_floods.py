"""Floods: what unknown keys, one address or one peer may cost a node, and that other peers are served meanwhile."""

from __future__ import annotations

import asyncio
import threading
from hashlib import pbkdf2_hmac, sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import Refused
from overlay.identity.contact import Contact
from overlay.ids import inbox_key, leading_zero_bits
from overlay.limits import rate_limits
from overlay.limits.rate_limits import STRANGERS_IN_ALL, DatagramGate, Rate, RateBuckets
from overlay.limits.stamp_payer import StampPayer
from overlay.limits.stamps import FEWEST, GOOD_FOR, MOST, bits_asked, bits_of, mint
from overlay.protocol_limits import HOUR
from overlay.replication.node_client import NodeClient
from overlay.wire import messages, reply_cache
from overlay.wire.messages import Code
from overlay.wire.reply_cache import ReplyCache
from overlay.wire.sealed_datagram import Sealer
from storage.node import inboxes
from storage.store_request import StoreRequest
from tests.overlay.local_network import NETWORK, LocalNetwork, local_network, run
from tests.overlay.peers import PUBLIC, Peer, start
from tests.simulation.world import EPOCH, World

KEY, DIGEST = bytes(range(20)), sha256(b"a notification").digest()
INBOX = inbox_key("alice@village.example")


# Token buckets


@given(st.lists(st.floats(0, 5), max_size=200))
def test_no_more_is_let_through_than_the_rate_and_the_burst(pauses: list[float]) -> None:
    rate, taken, now = RateBuckets(Rate(2.0, 5.0)), 0, 0.0
    for pause in pauses:
        now += pause
        taken += rate.take(b"x", now)
    assert taken <= 5 + 2 * now + 1e-6


def test_buckets_fill_again_and_are_each_their_own() -> None:
    rate = RateBuckets(Rate(1.0, 2.0))
    assert [rate.take(b"x", 0.0) for _ in range(3)] == [True, True, False]
    assert rate.take(b"y", 0.0)
    assert [rate.take(b"x", 1.5), rate.take(b"x", 1.5)] == [True, False]


def test_any_number_of_addresses_takes_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "KEPT", 100)
    rate = RateBuckets(Rate(1.0, 2.0))
    for number in range(1000):
        rate.take(number.to_bytes(4, "big"), 0.0)
    assert len(rate) == 100


def test_one_address_and_one_range_have_their_shares_of_strangers() -> None:
    gate = DatagramGate(loopback_free=False)
    assert sum(gate.admits("192.0.2.1", 0.0, known=False) for _ in range(1000)) == 60
    assert sum(gate.admits(f"192.0.2.{n}", 0.0, known=False) for n in range(2, 255)) == 200 - 60
    assert gate.admits("198.51.100.1", 0.0, known=False)


def test_all_strangers_together_have_a_share_and_peers_that_are_known_their_own() -> None:
    gate = DatagramGate(loopback_free=False)
    admitted = sum(gate.admits(f"10.{n >> 8}.{n & 255}.1", 0.0, known=False) for n in range(5000))
    assert admitted == STRANGERS_IN_ALL.at_once
    assert gate.admits("192.0.2.1", 0.0, known=True)


def test_an_ipv6_machine_with_many_addresses_is_one() -> None:
    gate = DatagramGate(loopback_free=False)
    assert sum(gate.admits(f"2001:db8::{n:x}", 0.0, known=False) for n in range(1, 1000)) == 60


def test_this_machine_shares_in_the_totals_only_where_addresses_may_be_private() -> None:
    free, strict = DatagramGate(loopback_free=True), DatagramGate(loopback_free=False)
    assert sum(free.admits("127.0.0.1", 0.0, known=False) for _ in range(200)) == 200
    assert sum(strict.admits("127.0.0.1", 0.0, known=False) for _ in range(200)) == 60


# A node under a flood


def flood(world: World, target: Peer, count: int) -> None:
    """Send `count` valid pings, each with a new key and from another address."""
    for number in range(count):
        sealer = Sealer(X25519PrivateKey.from_private_bytes(world.chance.randbytes(32)), "test", world.chance.randbytes)
        payload = b"\x00" + world.chance.randbytes(8) + b"\x00\x01" + messages.encode(messages.Ping())
        source = (f"{1 + number % 200}.{number // 200 % 256}.9.9", 4000)
        world.carry(sealer.seal(target.contact.key, payload), source, (target.contact.ip, target.contact.port))


def test_attack_a_node_flooded_by_unknown_keys_answers_known_peers_and_drops_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rate_limits, "STRANGERS_IN_ALL", Rate(20, 50))
    world = World(1)

    async def story() -> None:
        node = await start(world, "198.51.100.1", network=PUBLIC)
        friend = await start(world, "203.0.113.1", network=PUBLIC)
        assert await friend.protocol.ping(node.contact) is not None
        flood(world, node, 500)  # ten times what it may open
        await asyncio.sleep(0.02)
        for _ in range(20):
            assert await friend.protocol.ping(node.contact) is not None
        assert await node.protocol.ping(friend.contact) is not None
        await asyncio.sleep(1)
        assert node.protocol.rate_limited >= 400

    world.play(story())


def test_attack_new_keys_dont_make_a_node_forget_the_peers_it_works_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overlay.wire.sealed_datagram.HEARD", 20)
    world = World(2)

    async def story() -> None:
        node = await start(world, "198.51.100.1", network=PUBLIC)
        friend = await start(world, "203.0.113.1", network=PUBLIC)
        await node.protocol.ping(friend.contact)  # in the table from here on
        flood(world, node, 60)
        await asyncio.sleep(1)
        assert friend.contact.key in node.protocol.sealer._pairs
        assert len(node.protocol.sealer._heard) == 20

    world.play(story())


def test_attack_one_addresss_slow_requests_leave_room_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overlay.wire.rpc.TASKS_OF_ADDRESS", 5)
    world = World(3)

    async def story() -> None:
        node = await start(world, "198.51.100.1", network=PUBLIC)
        greedy = await start(world, "203.0.113.1", network=PUBLIC)
        other = await start(world, "192.0.2.1", network=PUBLIC)
        store = messages.Store(node.token_for(greedy), 1, KEY, b"x", [], 60.0)
        asked = [greedy.protocol.call(node.contact, replace_data(store, bytes([n])), patience=5) for n in range(20)]
        mine = other.protocol.call(node.contact, messages.Store(node.token_for(other), 1, KEY, b"y", [], 60.0))
        *theirs, ours = await asyncio.gather(*asked, mine, return_exceptions=True)
        busy = [answer for answer in theirs if isinstance(answer, Refused) and answer.code == Code.BUSY]
        assert len(busy) >= 5
        assert ours == messages.Done()
        again = await greedy.protocol.call(node.contact, replace_data(store, b"z"))
        assert again == messages.Done()

    world.play(story())


def replace_data(store: messages.Store, data: bytes) -> messages.Store:
    return messages.Store(store.token, store.kind, store.key, data, store.deleters, store.ttl)


# The reply cache


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30), st.integers(0, 400)), max_size=300),
)
def test_kept_answers_are_bounded_in_all_and_for_each_peer(asked: list[tuple[int, int, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for bound, value in {"KEPT": 20, "BYTES": 4000, "KEPT_OF_PEER": 8, "BYTES_OF_PEER": 1500}.items():
            patch.setattr(reply_cache, bound, value)
        kept = ReplyCache()
        for peer, number, size in asked:
            name = (bytes([peer]), "192.0.2.1", bytes([number]))
            kept.keep(name, [bytes(size)] if size else [])
            assert kept.get(name) == ([bytes(size)] if size else [])
            names = [(bytes([p]), "192.0.2.1", bytes([n])) for p in range(4) for n in range(31)]
            there = [each for each in names if each in kept]
            assert len(there) == len(kept) <= 20
            sizes = {p: sum(len(d) for n in there if n[0][0] == p for d in kept.get(n) or []) for p in range(4)}
            assert sum(sizes.values()) <= 4000 and max(sizes.values()) <= 1500
            assert all(sum(n[0][0] == p for n in there) <= 8 for p in range(4))


def test_attack_a_peer_that_asks_much_makes_nobody_elses_answers_forgotten() -> None:
    kept = ReplyCache()
    kept.keep((b"quiet", "192.0.2.1", b"1"), [b"an answer"])
    for number in range(5000):
        kept.keep((b"loud", "192.0.2.2", number.to_bytes(4, "big")), [bytes(1000)])
    assert kept.get((b"quiet", "192.0.2.1", b"1")) == [b"an answer"]
    assert kept.get((b"loud", "192.0.2.2", (4999).to_bytes(4, "big"))) == [bytes(1000)]


# Stamps


def made(bits: int, now: float = EPOCH) -> bytes:
    stamp = mint(KEY, DIGEST, bits, now, threading.Event())
    assert stamp is not None
    return stamp


def test_ordinary_mail_costs_nothing_and_a_flood_more_and_more() -> None:
    asked = [bits_asked(fullness / 100) for fullness in range(101)]
    assert asked[:50] == [0] * 50
    assert asked[50] == FEWEST and asked[100] == MOST
    assert asked == sorted(asked)


@pytest.mark.parametrize("bits", [1, 8, 14])
def test_a_stamp_is_worth_what_was_paid_for_it(bits: int) -> None:
    assert bits_of(made(bits), KEY, DIGEST, EPOCH) >= bits


def test_attack_a_stamp_for_another_inbox_notification_or_day_is_worth_nothing() -> None:
    stamp = made(12)
    worth = [bits_of(stamp, bytes(20), DIGEST, EPOCH), bits_of(stamp, KEY, bytes(32), EPOCH)]
    assert max(worth) < 12
    assert bits_of(stamp, KEY, DIGEST, EPOCH + GOOD_FOR * HOUR) >= 12
    assert bits_of(stamp, KEY, DIGEST, EPOCH + (GOOD_FOR + 1) * HOUR) == 0
    assert bits_of(stamp, KEY, DIGEST, EPOCH - (GOOD_FOR + 1) * HOUR) == 0
    assert bits_of(b"", KEY, DIGEST, EPOCH) == bits_of(stamp + b"x", KEY, DIGEST, EPOCH) == 0


def test_a_stamp_is_what_the_document_says() -> None:
    stamp = made(10)
    tried = pbkdf2_hmac("sha256", stamp[4:], b"p2pmail stamp 2\0" + KEY + DIGEST + stamp[:4], 128, 8)
    assert leading_zero_bits(tried) >= 10 - 8
    assert bits_of(stamp, KEY, DIGEST, EPOCH) == leading_zero_bits(tried) + 8
    assert int.from_bytes(stamp[:4], "big") == EPOCH // 3600


def test_minting_stops_when_nobody_waits() -> None:
    stop = threading.Event()
    stop.set()
    assert mint(KEY, DIGEST, 200, EPOCH, stop) is None


async def test_one_stamp_is_made_for_all_replicas() -> None:
    mint = StampPayer(lambda: EPOCH)
    first, second = await asyncio.gather(mint.pay(KEY, DIGEST, 10), mint.pay(KEY, DIGEST, 8))
    assert first is not None and first == second == mint.stamp(KEY, DIGEST)
    assert await mint.pay(KEY, DIGEST, MOST + 1) is None


@pytest.mark.parametrize("size", [100, 20_000], ids=["by datagram", "over HTTP"])
def test_an_inbox_that_fills_up_takes_mail_that_is_paid_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(inboxes, "MAX_INBOX_NOTIFICATIONS", 10)
    monkeypatch.setattr("overlay.limits.stamps.FEWEST", 6)
    monkeypatch.setattr("overlay.limits.stamps.MOST", 8)
    paid: list[int] = []

    async def story(place: LocalNetwork) -> None:
        mint = place.overlay._node_client._stamp_payer
        real = mint.pay

        async def pay(key: bytes, digest: bytes, bits: int) -> bytes | None:
            paid.append(bits)
            return await real(key, digest, bits)

        monkeypatch.setattr(mint, "pay", pay)
        for number in range(10):
            outcome = await place.overlay.append_inbox(INBOX, bytes([number]) * size, ttl=60.0)
            assert outcome.have == NETWORK.k
            assert bool(paid) == (number >= 5)
        (bits_first, *_), bits_last = paid, paid[-1]
        assert bits_first == 6 and bits_last > 6

    async def begin() -> None:
        async with local_network(tmp_path, 4) as place:
            await story(place)

    run(begin)


def test_attack_a_sender_that_doesnt_pay_is_told_the_price_and_keeps_no_other_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inboxes, "MAX_INBOX_NOTIFICATIONS", 10)

    async def begin() -> None:
        async with local_network(tmp_path, 4) as place:
            (at,) = await place.overlay.closest(INBOX, 1)
            client = place.client.protocol
            for number in range(5):
                await client.call(at.contact, messages.AppendInbox(at.token, INBOX, bytes([number]), 60.0))
            with pytest.raises(Refused) as refused:
                await client.call(at.contact, messages.AppendInbox(at.token, INBOX, b"more", 60.0))
            assert (refused.value.code, refused.value.bits) == (Code.STAMP_NEEDED, FEWEST)
            with pytest.raises(Refused):
                await client.call(at.contact, messages.AppendInbox(at.token, INBOX, b"more", 60.0, bytes(12)))
            # A repeat of a stored notification is accepted, as always.
            answer = await client.call(at.contact, messages.AppendInbox(at.token, INBOX, bytes([1]), 60.0))
            assert answer == messages.Done()

    run(begin)


def test_a_price_that_nobody_may_ask_is_not_paid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def begin() -> None:
        async with local_network(tmp_path, 1) as place:
            node_client = NodeClient(place.client.protocol, None, place.client.http_client)
            (at,) = await place.overlay.closest(INBOX, 1)

            async def call(*_: object) -> messages.Answer:
                raise Refused(Code.STAMP_NEEDED, "pay", 60)

            monkeypatch.setattr(node_client, "_call", call)
            with pytest.raises(Refused) as refused:
                await node_client.append_inbox(at, INBOX, b"x", 60.0)
            assert refused.value.bits == 60

    run(begin)


def test_one_peers_stores_end_at_its_share_and_the_others_go_on(tmp_path: Path) -> None:
    async def begin() -> None:
        async with local_network(tmp_path, 1, quota=4 << 20) as place:
            (at,) = await place.overlay.closest(KEY, 1)
            node_client = NodeClient(place.client.protocol, None, place.client.http_client)
            stored = 0
            with pytest.raises(Refused) as refused:
                for number in range(100):
                    await node_client.store(at, StoreRequest.of(1, number.to_bytes(20, "big"), bytes(8000), 60.0))
                    stored += 1
            assert refused.value.code == Code.FULL
            assert 0.8 < stored * 8512 / ((4 << 20) / 8) <= 1
            node = place.nodes[0]
            assert node.service is not None
            other = Contact(bytes(31) + b"\x01", "127.0.0.1", 1)
            await node.service.store(StoreRequest.of(1, KEY, b"x", 60.0), other)

    run(begin)
