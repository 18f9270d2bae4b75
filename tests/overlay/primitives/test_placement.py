"""Which node gives which copies to which: the k closest, before and after a node joins or leaves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from overlay.identity.contact import Contact
from overlay.ids import distance
from overlay.primitives.placement import (
    GIVERS,
    NEIGHBOURS,
    SHARED_BY,
    missing_replicas,
    nearer,
    successor,
    tombstone_peer,
)

KEY = bytes(20)
ids = st.lists(st.binary(min_size=32, max_size=32), min_size=2, max_size=30, unique=True)


def ring(keys: list[bytes]) -> list[Contact]:
    return sorted((Contact(key, "10.0.0.1", 1) for key in keys), key=lambda contact: distance(contact.id, KEY))


@given(ids, st.integers(1, 20), st.integers(0, 29))
def test_a_newcomer_among_the_k_closest_is_given_to_by_the_two_nearest_others(
    keys: list[bytes], k: int, at: int
) -> None:
    nodes = ring(keys)
    newcomer = nodes[at % len(nodes)]
    givers = []
    for node in nodes:
        near = [other for other in nodes if other != node][: k + GIVERS]
        if node != newcomer and newcomer in missing_replicas(KEY, k, node.id, near, {newcomer.id}):
            givers.append(node)
    others = [node for node in nodes if node != newcomer]
    assert givers == (others[:GIVERS] if nodes.index(newcomer) < k else [])


@given(ids, st.integers(1, 20), st.integers(0, 29))
def test_who_leaves_hands_on_to_the_one_that_comes_among_the_k_closest(keys: list[bytes], k: int, at: int) -> None:
    nodes = ring(keys)
    leaver = nodes[at % len(nodes)]
    near = [other for other in nodes if other != leaver][:k]
    after = [node for node in nodes if node != leaver][:k]
    come = [node for node in after if node not in nodes[:k]]
    heir = successor(KEY, k, leaver.id, near)
    assert ([heir] if heir else []) == come


@given(ids, st.integers(0, 29))
def test_in_a_small_network_the_nearer_nodes_are_counted(keys: list[bytes], at: int) -> None:
    nodes = ring(keys[:NEIGHBOURS])
    own = nodes[at % len(nodes)]
    assert nearer(KEY, own.id, [node.id for node in nodes if node != own]) == nodes.index(own)


def test_in_a_large_one_they_are_taken_to_lie_as_densely_as_around_this_node() -> None:
    own, step = (60 << 150).to_bytes(20, "big"), 1 << 150
    around = sorted(((60 + number) * step for number in range(1, 17)), key=lambda node: node ^ 60 * step)
    neighbours = [node.to_bytes(20, "big") for node in around]
    assert nearer(KEY, own, neighbours) == 16 * 60 / (around[-1] ^ 60 * step) * step


@given(ids)
def test_every_node_of_the_nearer_half_is_asked_for_deletes_in_its_turn(keys: list[bytes]) -> None:
    near = ring(keys)
    assert {tombstone_peer(near, turn) for turn in range(SHARED_BY)} == set(near[: SHARED_BY // 2])
    assert tombstone_peer([], 1) is None
