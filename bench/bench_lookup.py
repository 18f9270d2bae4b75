"""Lookups of 100 real nodes in one process: do they find the true k closest, and how fast, also when nodes are dead.

The peer is the `kademlia` package as it ships, in the same run (bench/peer_kademlia.py); it lies between our two
villages, so that a machine that gets slower doesn't favour anybody.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

import uvloop

from bench import peer_kademlia
from bench.figure import Figure
from bench.overlay import K, is_dead, kill, village
from bench.peer_kademlia import Lookups
from overlay.ids import distance
from overlay.node import Node

NODES = 100
LOOKUPS = 300
"""For each state of each village; random askers and keys."""
DEAD_LOOKUPS = 100
SHARES = (0.2, 0.5)
SEEDS = (1, 2)


@dataclass(slots=True)
class _Measured:
    recalls: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def lookups(self) -> Lookups:
        return Lookups(tuple(self.recalls), tuple(self.seconds))


def measure() -> list[Figure]:
    """Two villages of ours with the peer between them; about a minute and a half, most of it the peer's."""
    measured = {share: _Measured() for share in (0.0, *SHARES)}
    uvloop.run(_village(SEEDS[0], measured))
    peer = peer_kademlia.measure(nodes=NODES, k=K, dead_share=SHARES[0], loop_factory=uvloop.new_event_loop)
    uvloop.run(_village(SEEDS[1], measured))
    alive, fifth, half = (measured[share].lookups for share in (0.0, *SHARES))
    name = f"lookup, {NODES} nodes, k={K}"
    return [
        Figure(f"{name}: recall", alive.recall, "", 0.999, "higher", {"kademlia": peer.alive.recall}),
        Figure(f"{name}: recall, 20% dead", fifth.recall, "", 0.99, "higher", {"kademlia": peer.dead.recall}),
        Figure(f"{name}: recall, 50% dead", half.recall, "", None, "higher"),
        Figure(
            f"{name}: median",
            _ms(alive.median),
            "ms",
            _ms(peer.alive.median),
            "lower",
            {"kademlia": _ms(peer.alive.median)},
        ),
        Figure(f"{name}: p95", _ms(alive.p95), "ms", None, "lower", {"kademlia": _ms(peer.alive.p95)}),
        Figure(f"{name}: median, 20% dead", _ms(fifth.median), "ms", 300, "lower", {"kademlia": _ms(peer.dead.median)}),
        Figure(f"{name}: p95, 20% dead", _ms(fifth.p95), "ms", 1000, "lower", {"kademlia": _ms(peer.dead.p95)}),
        Figure(f"{name}: median, 50% dead", _ms(half.median), "ms", None, "lower"),
        Figure(f"{name}: p95, 50% dead", _ms(half.p95), "ms", None, "lower"),
    ]


async def _village(seed: int, measured: dict[float, _Measured]) -> None:
    """One village's lookups, alive and then with ever more nodes dead; askers learn of a death by their lookups."""
    chance = random.Random(seed)
    async with village(NODES) as place:
        for share, into in measured.items():
            for node in chance.sample(_alive(place.nodes), int(share * NODES) - NODES + len(_alive(place.nodes))):
                await kill(node)
            alive = _alive(place.nodes)
            for _ in range(DEAD_LOOKUPS if share else LOOKUPS):
                await _lookup(chance.choice(alive), alive, chance.randbytes(20), into)


async def _lookup(asker: Node, alive: list[Node], key: bytes, into: _Measured) -> None:
    start = time.perf_counter()
    found = await asker.protocol.lookup(key, K)
    into.seconds.append(time.perf_counter() - start)
    others = sorted((node.id for node in alive if node is not asker), key=lambda id_: distance(id_, key))[:K]
    into.recalls.append(len({located.contact.id for located in found}.intersection(others)) / K)


def _alive(nodes: list[Node]) -> list[Node]:
    return [node for node in nodes if not is_dead(node)]


def _ms(seconds: float) -> float:
    return seconds * 1000
