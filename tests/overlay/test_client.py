"""The replicated primitives over real nodes with sockets, HTTP servers and stores on disk, in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from overlay.client import Overlay
from overlay.errors import NotFound, Offline, Refused, Unreachable
from overlay.identity.card import make_card
from overlay.identity.ownership import Owner, decode_delete_proof, deleter_named, proves_delete
from overlay.ids import Kind, body_key, certificate_key, deleter_hash, inbox_key, revocations_key
from overlay.primitives.requests import DeleteRequest, FetchRequest
from overlay.primitives.service import StoredContent
from overlay.protocol_limits import ENCRYPTION_KEY_SIZE
from overlay.replication.node_client import NodeClient
from overlay.wire import messages
from overlay.wire.messages import Code
from overlay.wire.rpc import Handled, RemotePeer
from storage.limits import MAX_INBOX_NOTIFICATIONS
from storage.store_request import StoreRequest
from tests.overlay.issuing import NOW
from tests.overlay.local_network import ISSUER, LOOPBACK, NETWORK, LocalNetwork, local_network, new_node, run

PERSON = ISSUER.person("alice@village.example", 100)
ALICE = Owner(PERSON.certificate, PERSON.sign)
STRANGER = ISSUER.person("eve@village.example", 101)
EVE = Owner(STRANGER.certificate, STRANGER.sign)
SALT = bytes(range(16))
KEY, INBOX = body_key("<1@village.example>"), inbox_key("alice@village.example")
HOUR = 3600.0
K = NETWORK.k

SIZES = [0, 1, 8192, 8193, 70_000, 1_000_000]


def play(folder: Path, story: Callable[[LocalNetwork], Awaitable[None]], count: int = 8, quota: int = 1 << 26) -> None:
    async def begin() -> None:
        async with local_network(folder, count, quota=quota) as place:
            await story(place)

    run(begin)


def test_an_object_of_any_size_is_kept_at_the_k_closest_and_comes_back_the_same(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        for size in SIZES:
            data = sha256(str(size).encode()).digest() * (size // 32 + 1)
            data, key = data[:size], body_key(f"<{size}@village.example>")
            outcome = await place.overlay.store(Kind.BODY, key, data, ttl=HOUR)
            assert (outcome.want, outcome.have, outcome.refusals) == (K, K, ())
            assert await place.holders(Kind.BODY, key) == place.nearest(key, K)
            assert await place.overlay.fetch(Kind.BODY, key, digest=sha256(data).digest()) == data

    play(tmp_path, story)


def test_storing_twice_is_storing_once(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        for _ in range(2):
            assert (await place.overlay.store(Kind.BODY, KEY, b"data", ttl=HOUR)).have == K
        usage = [await node.store.usage() for node in place.nodes if node.store is not None]
        assert sum(used.objects for used in usage) == K

    play(tmp_path, story)


def test_a_node_uses_the_overlay_as_a_client_does_and_counts_itself(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        nearest = place.nearest(KEY, 1)[0]
        overlay = Overlay(nearest)
        large = bytes(200_000)
        assert (await overlay.store(Kind.BODY, KEY, large, ttl=HOUR)).have == K
        assert await place.holders(Kind.BODY, KEY) == place.nearest(KEY, K)
        assert await overlay.fetch(Kind.BODY, KEY) == large
        await overlay.append_inbox(INBOX, b"hello", ttl=HOUR)
        for reading in await overlay.read_inbox(INBOX, ALICE):
            assert await overlay.acknowledge_inbox(INBOX, reading, ALICE)
        outcome = await overlay.delete(Kind.BODY, KEY, SALT, ALICE)
        assert outcome.have == K
        deleter = deleter_hash(KEY, SALT, ALICE.certificate)
        assert set(await overlay.tombstones(Kind.BODY, KEY, {deleter: bool})) == {deleter}

    play(tmp_path, story)


def test_a_client_is_in_nobodys_table(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        await place.overlay.store(Kind.BODY, KEY, b"data", ttl=HOUR)
        assert all(node.protocol.router.get(place.client.id) is None for node in place.nodes)
        assert place.client.id not in {at.contact.id for at in await place.overlay.closest(KEY, 20)}

    play(tmp_path, story)


class ForgingStore:
    """A store that answers every fetch with forged content."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.asked = 0

    async def fetch(self, request: FetchRequest) -> StoredContent:
        self.asked += 1
        return StoredContent(request.digest or sha256(self.content).digest(), len(self.content), self.content)


@pytest.mark.parametrize("forged", [b"forged", b"", bytes(50_000)], ids=["small", "empty", "large"])
def test_a_fetch_goes_on_to_the_next_node_when_the_digest_is_wrong(tmp_path: Path, forged: bytes) -> None:
    async def story(place: LocalNetwork) -> None:
        await place.overlay.store(Kind.BODY, KEY, b"true", ttl=HOUR)
        stores = []
        for node in place.nearest(KEY, K - 1):
            assert node.service is not None
            stores.append(ForgingStore(forged))
            node.service.backend = stores[-1]  # type: ignore[assignment]
        assert await place.overlay.fetch(Kind.BODY, KEY, digest=sha256(b"true").digest()) == b"true"
        assert all(store.asked for store in stores)

    play(tmp_path, story)


def test_a_fetch_goes_on_to_the_next_node_when_one_has_nothing(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        far = place.nearest(KEY, 7)[-1]
        assert far.store is not None
        await far.store.store(StoreRequest.of(Kind.BODY, KEY, b"x", HOUR), lambda key: True)
        assert await place.overlay.fetch(Kind.BODY, KEY) == b"x"

    play(tmp_path, story)


def test_what_nobody_has_is_not_found(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        with pytest.raises(NotFound):
            await place.overlay.fetch(Kind.BODY, KEY)
        with pytest.raises(NotFound):
            await place.overlay.fetch_variants(Kind.CERTIFICATE, KEY)
        await place.overlay.store(Kind.BODY, KEY, b"x", ttl=HOUR)
        with pytest.raises(NotFound):
            await place.overlay.fetch(Kind.BODY, KEY, digest=bytes(32))

    play(tmp_path, story, count=5)


def test_who_holds_a_copy_is_known_by_name_and_never_this_node(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        nearest = place.nearest(KEY, K)
        overlay = Overlay(nearest[0])
        digest = sha256(b"probe").digest()
        await overlay.store(Kind.PROBE, KEY, b"probe", ttl=HOUR)
        assert await overlay.holders(Kind.PROBE, KEY, digest) == {node.id for node in nearest[1:]}
        await nearest[1].vanish()
        assert await overlay.holders(Kind.PROBE, KEY, digest) == {node.id for node in nearest[2:]}
        assert await overlay.holders(Kind.PROBE, KEY, bytes(32)) == set()

    play(tmp_path, story)


def test_dead_nodes_cost_copies_no_data_and_no_success(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        await place.overlay.store(Kind.BODY, KEY, b"before", ttl=HOUR)
        await asyncio.gather(*(node.vanish() for node in place.nearest(KEY, K - 1)))
        assert await place.overlay.fetch(Kind.BODY, KEY, digest=sha256(b"before").digest()) == b"before"
        outcome = await place.overlay.store(Kind.BODY, KEY, b"after", ttl=HOUR)
        assert outcome.have == K

    play(tmp_path, story, count=10)


def test_no_network_is_an_error_with_words(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        await asyncio.gather(*(node.vanish() for node in place.nodes))
        for call in (
            place.overlay.store(Kind.BODY, KEY, b"x", ttl=HOUR),
            place.overlay.append_inbox(INBOX, b"x", ttl=HOUR),
            place.overlay.delete(Kind.BODY, KEY, SALT, ALICE),
        ):
            with pytest.raises(Offline, match="offline"):
                await call
        with pytest.raises(Unreachable):
            await place.overlay.fetch(Kind.BODY, KEY)
        with pytest.raises(Unreachable):
            await place.overlay.read_inbox(INBOX, ALICE)
        await place.overlay.refresh_revocations()

    play(tmp_path, story, count=3)


def test_full_nodes_are_passed_over_and_counted(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        outcome = await place.overlay.store(Kind.BODY, KEY, bytes(100_000), ttl=HOUR)
        assert (outcome.want, outcome.have) == (K, 0)
        assert any("space" in reason for reason in outcome.refusals)

    play(tmp_path, story, quota=50_000)


def test_max_ops_and_max_connections_are_kept_to(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        outcome = await place.overlay.store(Kind.BODY, KEY, b"x", ttl=HOUR, max_ops=2, max_connections=3)
        assert (outcome.want, outcome.have) == (2, 2)
        assert len(await place.holders(Kind.BODY, KEY)) == 2
        outcome = await place.overlay.store(Kind.STATE, KEY, b"x", ttl=HOUR, max_ops=2, max_connections=3)
        assert outcome.have == 0

    play(tmp_path, story)


def test_the_owner_deletes_everywhere_and_leaves_a_tombstone(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        deleter = deleter_hash(KEY, SALT, ALICE.certificate)
        await place.overlay.store(Kind.BODY, KEY, b"x", deleters=[deleter], ttl=HOUR)
        assert (await place.overlay.delete(Kind.BODY, KEY, SALT, EVE)).have == K  # leaves a tombstone and the object
        assert len(await place.holders(Kind.BODY, KEY)) == K
        assert (await place.overlay.delete(Kind.BODY, KEY, SALT, ALICE)).have == K
        assert await place.holders(Kind.BODY, KEY) == []
        assert set(await place.overlay.tombstones(Kind.BODY, KEY, {deleter: bool})) == {deleter}
        stores = [node.store for node in place.nearest(KEY, K) if node.store is not None]
        tombstones = [tombstone for store in stores for tombstone in await store.tombstones(Kind.BODY, KEY)]
        proofs = [decode_delete_proof(tombstone.proof) for tombstone in tombstones if tombstone.deleter == deleter]
        assert len(proofs) == K
        assert all(proves_delete(proof, PERSON.private_key.public_key()) for proof in proofs)
        again = await place.overlay.store(Kind.BODY, KEY, b"x", deleters=[deleter], ttl=HOUR)
        assert again.have < K  # the nodes that deleted it refuse it
        assert all(node not in place.nearest(KEY, K) for node in await place.holders(Kind.BODY, KEY))

    play(tmp_path, story)


def test_an_inbox_is_read_as_a_superset_and_is_empty_once_acknowledged(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        await place.overlay.append_inbox(INBOX, b"everywhere", ttl=HOUR)
        lonely = place.nearest(INBOX, K + 2)[-1]
        assert lonely.store is not None
        await lonely.store.append(INBOX, b"at a node beyond k", HOUR)
        readings = await place.overlay.read_inbox(INBOX, ALICE)
        assert {n for reading in readings for n in reading.notifications} == {b"everywhere", b"at a node beyond k"}
        again = await place.overlay.read_inbox(INBOX, ALICE)  # the same reader gets them until they are acknowledged
        assert {n for reading in again for n in reading.notifications} == {b"everywhere", b"at a node beyond k"}
        for reading in readings:
            assert await place.overlay.acknowledge_inbox(INBOX, reading, ALICE)
        assert all(not reading.notifications for reading in await place.overlay.read_inbox(INBOX, ALICE))

    play(tmp_path, story)


def test_somebody_elses_inbox_cant_be_read(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        await place.overlay.append_inbox(INBOX, b"secret", ttl=HOUR)
        with pytest.raises(Unreachable, match="permit"):
            await place.overlay.read_inbox(INBOX, EVE)

    play(tmp_path, story, count=5)


@pytest.mark.parametrize(("count", "size"), [(300, 8), (40, 2_000), (3, 60_000), (MAX_INBOX_NOTIFICATIONS, 1)])
def test_an_inbox_of_any_shape_is_collected_whole(tmp_path: Path, count: int, size: int) -> None:
    sent = {number.to_bytes(8, "big").lstrip(b"\0").rjust(size, b"x") for number in range(count)}

    async def story(place: LocalNetwork) -> None:
        nodes = place.nearest(INBOX, K)
        for node in nodes:
            assert node.store is not None
            await asyncio.gather(*(node.store.append(INBOX, notification, HOUR) for notification in sent))
        seen: set[bytes] = set()
        for _ in range(20):
            readings = await place.overlay.read_inbox(INBOX, ALICE)
            for reading in readings:
                seen |= set(reading.notifications)
                assert await place.overlay.acknowledge_inbox(INBOX, reading, ALICE)
            if not any(reading.more for reading in readings):
                break
        assert seen == sent
        usage = [await node.store.usage() for node in nodes if node.store is not None]
        assert all(used.inboxes == 0 for used in usage)

    play(tmp_path, story, count=K)


@pytest.mark.parametrize("size", [10, 9_000, 64 * 1024])
def test_a_notification_of_any_size_reaches_the_inbox(tmp_path: Path, size: int) -> None:
    async def story(place: LocalNetwork) -> None:
        assert (await place.overlay.append_inbox(INBOX, bytes(size), ttl=HOUR)).have == K
        readings = await place.overlay.read_inbox(INBOX, ALICE)
        assert {n for reading in readings for n in reading.notifications} == {bytes(size)}

    play(tmp_path, story, count=5)


def test_the_newest_card_is_among_the_variants_though_one_node_slept(tmp_path: Path) -> None:
    key = certificate_key("alice@village.example")
    old = make_card(PERSON, b"o" * ENCRYPTION_KEY_SIZE, int(NOW * 1000))
    new = make_card(PERSON, b"n" * ENCRYPTION_KEY_SIZE, int(NOW * 1000) + 1)

    async def story(place: LocalNetwork) -> None:
        assert (await place.overlay.store(Kind.CERTIFICATE, key, old, ttl=HOUR)).have == K
        assert (await place.overlay.store(Kind.CERTIFICATE, key, new, ttl=HOUR, max_ops=2)).have == 2
        assert set(await place.overlay.fetch_variants(Kind.CERTIFICATE, key)) == {old, new}

    play(tmp_path, story, count=5)


def test_a_published_revocation_list_is_found_and_taken_over(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        assert place.client.trust is not None
        key = revocations_key(place.client.trust.fingerprint)
        crl = ISSUER.revoke([4242], 5)
        assert (await place.overlay.store(Kind.REVOCATIONS, key, crl, ttl=HOUR)).have == K
        other = new_node(2000, None)
        await other.listen(0, LOOPBACK)
        try:
            await other.join([place.nodes[0].place])
            await Overlay(other).refresh_revocations()
            assert other.trust is not None
            assert other.trust.revocations() == crl
        finally:
            await other.stop()

    play(tmp_path, story, count=5)


def test_a_token_that_has_run_out_is_renewed_once(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        node_client = NodeClient(place.client.protocol, None, place.client.http_client)
        (at,) = await place.overlay.closest(KEY, 1)
        stale = replace(at, token=bytes(16))
        await node_client.store(stale, StoreRequest.of(Kind.BODY, KEY, b"small", HOUR))
        await node_client.store(stale, StoreRequest.of(Kind.BODY, KEY, bytes(20_000), HOUR))
        assert await node_client.fetch(stale, FetchRequest(Kind.BODY, KEY, sha256(b"small").digest())) == b"small"
        assert await node_client.fetch(stale, FetchRequest(Kind.BODY, KEY, sha256(bytes(20_000)).digest())) == bytes(
            20_000
        )
        await node_client.append_inbox(stale, INBOX, b"x", HOUR)
        assert await node_client.read_inbox(stale, INBOX, ALICE) == ([b"x"], False)
        assert await node_client.acknowledge_inbox(stale, INBOX, ALICE, [sha256(b"x").digest()]) == 1
        assert await node_client.delete(stale, DeleteRequest(Kind.BODY, KEY, SALT), ALICE) == 0
        hers = deleter_hash(KEY, SALT, ALICE.certificate)
        others = [number.to_bytes(32, "big") for number in range(450)]
        assert await node_client.proofs(stale, Kind.BODY, KEY, others) == [b""] * 450
        none, proof = await node_client.proofs(stale, Kind.BODY, KEY, [bytes(32), hers])
        assert none == b""
        assert deleter_named(proof, KEY) == hers

    play(tmp_path, story, count=3)


def test_an_object_deleted_while_it_is_read_at_home_is_refused_and_no_crash(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        node = place.nodes[0]
        node_client = NodeClient(node.protocol, node.service, node.http_client)
        assert node.service is not None

        class Gone:
            async def fetch(self, request: FetchRequest) -> StoredContent:
                return StoredContent(bytes(32), 5, tmp_path / "no such file")

        node.service.backend = Gone()  # type: ignore[assignment]
        with pytest.raises(Refused) as caught:
            await node_client.fetch(node.located(), FetchRequest(Kind.BODY, KEY))
        assert caught.value.code == Code.NOT_FOUND

    play(tmp_path, story, count=1)


def test_a_cancelled_call_leaves_no_task_behind(tmp_path: Path) -> None:
    async def story(place: LocalNetwork) -> None:
        def silence(sender: RemotePeer, request: messages.Request) -> Handled:
            return asyncio.get_running_loop().create_future()

        for node in place.nearest(KEY, K):
            assert node.transport is not None
            node.protocol.handle = silence  # type: ignore[method-assign]
        await asyncio.sleep(0.01)
        before = len(asyncio.all_tasks())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(place.overlay.fetch(Kind.BODY, KEY), 0.05)
        await asyncio.sleep(0)
        for node in place.nodes:  # these nodes wait for futures that never complete
            for task in node.protocol._tasks:
                task.cancel()
        await asyncio.sleep(0.01)
        assert len(asyncio.all_tasks()) == before

    play(tmp_path, story, count=K)
