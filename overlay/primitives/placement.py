"""Decides which node gives which copies to which other node (paper, section 2.3). No I/O.

"Always available from the k closest nodes" is kept true by the nodes that have a copy: overlay/replication/repair.py
carries out what is decided here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from overlay.identity.contact import Contact
from overlay.ids import Kind, distance
from overlay.protocol_limits import INBOX, MAX_WIDTH

REPAIRED = frozenset({INBOX, Kind.BODY, Kind.CERTIFICATE, Kind.REVOCATIONS, Kind.ENROLMENT, Kind.SHARE})
"""The kinds that are repaired. Never probes: they measure how many of the nodes that took a copy are still there."""

FULL_ROUND_EVERY = 24
"""Rounds between two repairs of a key that has only old tombstones (newcomers are given them, and a node with a copy
asks for them), and between two checks whether this node is still among the closest to a share's key (a network doesn't
grow threefold in a day, and half of the shares may be missing)."""

RECENT = 6 * 3600.0
"""Seconds for which a delete is given to the k closest in every round, until all have it. Each holder of a message to
many recipients may have heard of other deletes."""

SHARED_BY = MAX_WIDTH
"""The closest nodes among which the shares of one key lie, one share at a node
(overlay/replication/share_placement.py). A share is handed on only when its holder stops or leaves this set: giving
shares to newcomers too would soon make too many copies."""

NEIGHBOURS = 16
"""Nodes nearest to this one, all of which it knows; their density tells about how many nodes are nearer to a key."""

GIVERS = 2
"""Holders that give copies to a newcomer: the nearest, and one more in case the nearest is dead, empty or hostile."""


@dataclass(frozen=True, slots=True)
class ObjectCopy:
    """An object to be given to another holder; `ttl`: the seconds that it has left."""

    digest: bytes
    deleters: Sequence[bytes]
    ttl: float


@dataclass(frozen=True, slots=True)
class NotificationCopy:
    """A notification to be given to another holder; `id`: its number in the order of arrival."""

    id: int
    hash: bytes
    data: bytes
    ttl: float


def missing_replicas(
    key: bytes, k: int, own_id: bytes, near: Sequence[Contact], newcomers: Collection[bytes]
) -> list[Contact]:
    """The newcomers that lack a copy of `key` and get it from this node.

    `near`: the k + GIVERS (or more) closest contacts to the key that this node knows, newcomers included; `newcomers`:
    their ids. A newcomer among the k closest lacks a copy; the GIVERS nearest nodes that aren't newcomers give it.
    """
    ring = sorted([*(contact.id for contact in near), own_id], key=lambda node: distance(node, key))
    settled = [node for node in ring if node not in newcomers]
    if own_id not in settled[:GIVERS]:
        return []
    closest = set(ring[:k])
    return [contact for contact in near if contact.id in newcomers and contact.id in closest]


def successor(key: bytes, k: int, own_id: bytes, near: Sequence[Contact]) -> Contact | None:
    """The node that becomes one of the k closest to `key` when this node leaves, or None.

    `near`: the k (or more) closest contacts to the key that this node knows.
    """
    if len(near) < k or distance(own_id, key) > distance(near[k - 1].id, key):
        return None
    return near[k - 1]


def tombstone_peer(near: Sequence[Contact], turn: int) -> Contact | None:
    """The node to ask in round `turn` for deletes of a share; `near`: the SHARED_BY closest nodes to its key.

    Each of them is told of each delete, but a node that was offline then missed it: another one is asked each round.
    """
    half = near[: SHARED_BY // 2]
    return half[turn % len(half)] if half else None


def nearer(key: bytes, own_id: bytes, neighbours: Sequence[bytes]) -> float:
    """About how many nodes are nearer to `key` than this one. `neighbours`: ids of the NEIGHBOURS nearest to this node.

    Assumes that ids are as dense around the key as around this node. Fewer neighbours than that are the whole network.
    """
    mine = distance(own_id, key)
    if len(neighbours) < NEIGHBOURS:
        return sum(distance(node, key) < mine for node in neighbours)
    return len(neighbours) * mine / distance(neighbours[-1], own_id)
