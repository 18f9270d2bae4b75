"""Attacks by hostile nodes, each with its name, and what honest nodes and clients still achieve."""

from __future__ import annotations

from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from overlay.client import Overlay
from overlay.identity.card import make_card, open_card
from overlay.identity.certificates import CertificateError
from overlay.identity.contact import Contact, node_id, puzzle_bits
from overlay.ids import Kind, body_key, certificate_key, distance
from overlay.kademlia.disjoint_lookup import disjoint_lookup
from overlay.kademlia.inbox_read import InboxRead, withholding
from overlay.kademlia.lookup import Located
from overlay.kademlia.reputation import DISTRUSTED, HALF_LIFE, KEPT, WITHHELD, WRONG_BYTES, Reputation
from overlay.kademlia.routing import Table
from overlay.node.node import new_key
from overlay.protocol_limits import ENCRYPTION_KEY_SIZE
from tests.overlay.peers import closest, found, grow, host, start, start_liar
from tests.simulation.hostile_network import PERSON, HostileNetwork, attack_network
from tests.simulation.world import World

KEY = body_key("<1@hostile.example>")


def test_attack_a_fifth_of_all_nodes_hostile_hides_nothing_from_a_client(tmp_path: Path) -> None:
    fared = attack_network(1, tmp_path, nodes=30, share=0.2, trials=12, k=6)
    assert (fared.honest, fared.complete, fared.right) == (12, 12, 12)
    assert fared.lies > 100


def test_paths_are_disjoint_and_find_the_same_nodes_as_one() -> None:
    world = World(3)

    async def story() -> None:
        peers = await grow(world, 60)
        asker = peers[0]
        for number in range(5):
            key = world.chance.randbytes(20)
            asked: list[Contact] = []
            real = asker.protocol.send_find

            def ask(contact: Contact, *arguments: object, **options: object) -> object:
                asked.append(contact)  # noqa: B023 - called before the next round
                return real(contact, *arguments, **options)  # type: ignore[arg-type]  # noqa: B023

            asker.protocol.send_find = ask  # type: ignore[method-assign, assignment]
            seeds = asker.protocol.router.closest(key, 20)
            located, count = await disjoint_lookup(asker.protocol, key, 10, seeds=seeds, own_id=asker.protocol.own_id)
            asker.protocol.send_find = real  # type: ignore[method-assign]
            assert [at.contact for at in located] == closest(peers[1:], key, 10), number
            assert len(asked) == len(set(asked)) == count <= 20  # the 10, and whom else each path meets

    world.play(story())


def test_attack_nodes_that_answer_lookups_with_themselves_only_hide_nobody() -> None:
    world = World(4)

    async def story() -> None:
        honest = await grow(world, 40)
        gang: list[Contact] = []
        for number in range(10):
            liar = await start_liar(world, host(900 + number), lambda sender, request: found(gang))
            gang.append(liar.contact)
        asker = await start(world, host(999), server_mode=False)
        mixed = [contact for pair in zip(gang, [peer.contact for peer in honest[:10]], strict=True) for contact in pair]
        for _ in range(10):
            key = world.chance.randbytes(20)
            seeds = sorted(mixed, key=lambda contact: distance(contact.id, key))
            located, _ = await disjoint_lookup(asker.protocol, key, 10, seeds=seeds, own_id=asker.protocol.own_id)
            true = closest(honest, key, 10)
            there = {at.contact for at in located}
            nearer = [contact for contact in gang if distance(contact.id, key) < distance(true[-1].id, key)]
            assert set(true[: 10 - len(nearer)]) <= there

    world.play(story())


def test_attack_sybils_with_chosen_ids_cost_a_puzzle_each() -> None:
    bits, tries = 6, 0
    for _ in range(5):
        while True:
            tries += 1
            key = X25519PrivateKey.generate().public_key().public_bytes_raw()
            if puzzle_bits(node_id(key)) >= bits:
                break
    assert tries > 5 * 2**bits / 8  # on average 2**bits each
    assert puzzle_bits(node_id(new_key(bits).public_key().public_bytes_raw())) >= bits


def test_attack_an_eclipse_from_one_range_gets_two_places_near_its_victim() -> None:
    """However many ids are made for it: a bucket takes two of a /24, a table ten."""
    now = 0.0
    victim = node_id(bytes(32))
    table = Table(victim, lambda: now, private_addresses=False)
    for number in range(20):
        table.answered(Contact(bytes([1, number]) * 16, f"20.{number}.0.1", 4000))
    honest = len(table)
    sybils = [Contact(number.to_bytes(32, "big"), f"192.0.2.{number % 254 + 1}", 4000) for number in range(1, 2000)]
    for sybil in sorted(sybils, key=lambda contact: distance(contact.id, victim)):
        table.answered(sybil)
    mine = [entry for entry in table if entry.contact.ip.startswith("192.0.2.")]
    assert len(table) - len(mine) == honest
    assert len(mine) <= 10
    near = table.closest(victim, 20)
    assert sum(contact.ip.startswith("192.0.2.") for contact in near) <= 10


def test_attack_nodes_that_take_stores_and_forget_lose_nothing_while_others_keep(tmp_path: Path) -> None:
    hostile_network = HostileNetwork(5, tmp_path, 20, 0.3, k=6)

    async def story(overlay: Overlay) -> None:
        for number in range(10):
            key, data = hostile_network.world.chance.randbytes(20), f"{number}".encode()
            await overlay.store(Kind.BODY, key, data, ttl=600.0)
            honest = [at for at in await overlay.closest(key, 6) if at.contact.id not in hostile_network.hostile]
            assert (await overlay.held(Kind.BODY, key, _digest(data))).have >= min(len(honest), 1)
            assert await overlay.fetch(Kind.BODY, key, digest=_digest(data)) == data

    hostile_network.play(story)


def test_attack_old_cards_are_outvoted_by_any_node_that_has_the_newer(tmp_path: Path) -> None:
    hostile_network = HostileNetwork(6, tmp_path, 20, 0.3, k=6)

    async def story(overlay: Overlay) -> None:
        key = certificate_key("alice@hostile.example")
        stamp = int(hostile_network.world.wall() * 1000)
        for sequence in (stamp, stamp + 1):
            card = make_card(PERSON, bytes([sequence % 2]) * ENCRYPTION_KEY_SIZE, sequence)
            await overlay.store(Kind.CERTIFICATE, key, card, ttl=600.0)
        variants = await overlay.fetch_variants(Kind.CERTIFICATE, key, max_ops=6)
        trust = hostile_network.client.trust
        assert trust is not None
        sequences = []
        for data in variants:
            with suppress(CertificateError):  # made up by a liar
                sequences.append(open_card(data, trust, hostile_network.world.wall()).sequence)
        assert max(sequences) == stamp + 1

    hostile_network.play(story)


def test_a_node_that_lies_again_and_again_is_asked_last_and_leaves_the_table(tmp_path: Path) -> None:
    hostile_network = HostileNetwork(7, tmp_path, 20, 0.2, k=6)

    async def story(overlay: Overlay) -> None:
        router = overlay.node.protocol.router
        for number in range(40):
            key, data = hostile_network.world.chance.randbytes(20), f"{number}".encode()
            await overlay.store(Kind.BODY, key, data, ttl=600.0)
            await overlay.fetch(Kind.BODY, key, digest=_digest(data))
        reputation = overlay.node.protocol.reputation
        caught = {contact.id for contact in hostile_network.gang if not reputation.trusted(contact.key)}
        assert caught and caught <= hostile_network.hostile
        assert not any(router.get(identifier) for identifier in caught)
        near = await overlay.closest(next(iter(caught)), 6)  # a key that one of them is the nearest to
        assert near[0].contact.id not in caught

    hostile_network.play(story)


def test_one_offence_is_not_enough_and_offences_are_forgotten() -> None:
    now = 0.0
    reputation = Reputation(lambda: now)
    reputation.penalise(b"a", WRONG_BYTES)
    assert reputation.trusted(b"a")
    reputation.penalise(b"a", WRONG_BYTES)
    assert not reputation.trusted(b"a")
    now += HALF_LIFE
    assert reputation.trusted(b"a")
    for _ in range(int(DISTRUSTED / WITHHELD) - 1):
        reputation.penalise(b"newcomer", WITHHELD)
    assert reputation.trusted(b"newcomer")


def test_what_is_remembered_of_offences_is_bounded() -> None:
    reputation = Reputation(lambda: 0.0)
    for number in range(KEPT + 100):
        reputation.penalise(number.to_bytes(4, "big"), 10.0)
    assert len(reputation) == KEPT


def test_a_replica_that_lacks_what_most_have_is_noticed_and_one_with_more_to_tell_is_not() -> None:
    def reading(number: int, *notifications: bytes, more: bool = False) -> InboxRead:
        contact = Contact(bytes([number]) * 32, "10.0.0.1", number)
        return InboxRead(Located(contact, bytes(16), 0, b""), notifications, more)

    full = [reading(n, b"x", b"y") for n in range(1, 4)]
    empty, busy, far = reading(4), reading(5, more=True), reading(6)
    near = {one.node.contact.id for one in [*full, empty, busy]}
    assert withholding([*full, empty, busy, far], near) == [empty]
    assert withholding([reading(7, b"only here"), *full], near) == []


def _digest(data: bytes) -> bytes:
    return sha256(data).digest()
