"""Which copies move where, as decisions: the ring of the k closest, before and after somebody comes or goes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from overlay.contact import Contact
from overlay.handoff import GIVERS, heirs, nearer, successor
from overlay.ids import distance

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
        if node != newcomer and newcomer in heirs(KEY, k, node.id, near, {newcomer.id}):
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


@given(ids, st.integers(1, 30), st.integers(0, 29))
def test_nearer_nodes_are_counted_as_far_as_they_were_looked_up(keys: list[bytes], asked: int, at: int) -> None:
    nodes = ring(keys)
    own = nodes[at % len(nodes)]
    others = [node.id for node in nodes if node != own]
    rank = nodes.index(own)
    reckoned = nearer(KEY, own.id, others[:asked], asked)
    assert reckoned == rank if rank < asked or len(others) < asked else reckoned >= asked


def test_nodes_beyond_those_that_were_looked_up_are_taken_to_lie_as_densely() -> None:
    own, step = (60 << 150).to_bytes(20, "big"), 1 << 150
    found = [(number * step).to_bytes(20, "big") for number in range(1, 17)]
    assert nearer(KEY, own, found, 16) == 60
