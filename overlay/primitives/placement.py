"""Which copies move where: to newcomers that are nearer, to the next in line when a node stops (paper, section 2.3).
 "Always available from the k closest nodes" is kept up by those who hold a copy. Decisions only;
overlay/replication/repair.py carries them out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from overlay.identity.contact import Contact
from overlay.ids import Kind, distance
from overlay.protocol_limits import INBOX, MAX_WIDTH

REPAIRED = frozenset({INBOX, Kind.BODY, Kind.CERTIFICATE, Kind.REVOCATIONS, Kind.ENROLMENT, Kind.SHARE})
"""What is looked after. Never probes: they measure how many of the nodes that took a copy are still there."""

FULL_ROUND_EVERY = 24
"""Every so many rounds: a look at a key of which there are only old deletes (newcomers are given them, and who kept a
copy asks), and at where a share lies (a network doesn't grow threefold in a day, and half of them may be lacking)."""

RECENT = 6 * 3600.0
"""Seconds for which a delete is taken to the k closest every round, unless all were found to have it before: of a
letter to many each has heard of some."""

SHARED_BY = MAX_WIDTH
"""The closest nodes among which the shares of one key lie, each at one of them
(overlay/replication/share_placement.py). A share is handed on when its holder stops or isn't among them any more:
given to newcomers as well, there would soon be too many."""

NEIGHBOURS = 16
"""The nodes nearest to this one, which it knows all of: how densely they lie tells about how far out a share is."""

GIVERS = 2
"""Holders that give to a newcomer: the nearest, and one more should the nearest be dead, empty or a liar."""


@dataclass(frozen=True, slots=True)
class ObjectCopy:
    """An object under a key, as it is given on: who may delete it, and the seconds that it has left."""

    digest: bytes
    deleters: Sequence[bytes]
    ttl: float


@dataclass(frozen=True, slots=True)
class NotificationCopy:
    """A notification in an inbox, as it is given on. `id` is its place in the order of arrival."""

    id: int
    hash: bytes
    data: bytes
    ttl: float


def missing_replicas(
    key: bytes, k: int, own_id: bytes, near: Sequence[Contact], newcomers: Collection[bytes]
) -> list[Contact]:
    """The newcomers (by id) that this node gives its copies of `key` to.

    `near` are the k + GIVERS (or more) contacts closest to the key that it knows, newcomers among them. Given to are
    those among the k closest of all, by the nearest GIVERS of the others.
    """
    ring = sorted([*(contact.id for contact in near), own_id], key=lambda node: distance(node, key))
    settled = [node for node in ring if node not in newcomers]
    if own_id not in settled[:GIVERS]:
        return []
    closest = set(ring[:k])
    return [contact for contact in near if contact.id in newcomers and contact.id in closest]


def successor(key: bytes, k: int, own_id: bytes, near: Sequence[Contact]) -> Contact | None:
    """Who comes among the k closest to `key` when this node leaves, or None when nobody does.

    `near` are the k (or more) contacts closest to the key that it knows.
    """
    if len(near) < k or distance(own_id, key) > distance(near[k - 1].id, key):
        return None
    return near[k - 1]


def tombstone_peer(near: Sequence[Contact], turn: int) -> Contact | None:
    """Whom to ask in the `turn`-th round what was deleted of a share; `near`: the SHARED_BY nodes nearest to its key.

    All of them heard of it. One of the nearer half, and the next time another one: who was away then hasn't.
    """
    half = near[: SHARED_BY // 2]
    return half[turn % len(half)] if half else None


def nearer(key: bytes, own_id: bytes, neighbours: Sequence[bytes]) -> float:
    """About how many nodes are nearer to `key` than this one, from the ids of its NEIGHBOURS, nearest to it first.

    Ids lie as densely around the key as around this node; fewer neighbours than that are all there are.
    """
    mine = distance(own_id, key)
    if len(neighbours) < NEIGHBOURS:
        return sum(distance(node, key) < mine for node in neighbours)
    return len(neighbours) * mine / distance(neighbours[-1], own_id)
