"""Lookups of 100 real nodes in one process: do they find the true k closest, and how fast, also when nodes are dead.

The peer is the `kademlia` package as it ships, in the same run (bench/peer_kademlia.py), by turns with ours, so that a
machine that gets slower favours nobody. It is measured on uvloop, where we run, and on asyncio's own loop; the faster
of the two is our bar. OpenDHT is measured after them, where Debian's python3-opendht is installed.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import uvloop

from bench import peer_kademlia, peer_opendht
from bench.figure import Figure, quantile
from bench.overlay import K, private_overlay
from bench.peer_kademlia import KademliaFigures, Lookups
from overlay import event_loop
from overlay.ids import distance
from overlay.node.node import Node

NODES = 100
LOOKUPS = 300
"""In each round; random askers and keys."""
DEAD_LOOKUPS = 60
PEER_DEAD_LOOKUPS = 20
SHARES = (0.2, 0.5)
SYSTEM_PYTHON = "/usr/bin/python3"
"""What Debian's python3-opendht belongs to."""
OPENDHT_PATIENCE = 300
SEEDS = (1, 2, 3)
"""One for each round, which has a village and a network of the peer of its own."""


@dataclass(slots=True)
class _Measured:
    recalls: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(self, more: Lookups) -> None:
        self.recalls += more.recalls
        self.seconds += more.seconds

    @property
    def lookups(self) -> Lookups:
        return Lookups(tuple(self.recalls), tuple(self.seconds))


def measure() -> list[Figure]:
    """Three rounds; three minutes, most of them spent waiting for the dead."""
    measured = {share: _Measured() for share in (0.0, *SHARES)}
    on_uvloop, on_asyncio = _Measured(), _Measured()
    for seed in SEEDS:
        event_loop.run(_private_overlay(seed, measured))
        on_uvloop.add(_peer(seed, uvloop.new_event_loop, 0).alive)
        on_asyncio.add(_peer(seed, asyncio.new_event_loop, 0).alive)
    peer_dead = _peer(SEEDS[0], uvloop.new_event_loop, PEER_DEAD_LOOKUPS).dead
    alive, fifth, half = (measured[share].lookups for share in (0.0, *SHARES))
    peer = min(on_uvloop.lookups, on_asyncio.lookups, key=lambda lookups: lookups.median)
    opendht = _opendht()
    medians = {"kademlia": _ms(on_uvloop.lookups.median), "on asyncio": _ms(on_asyncio.lookups.median)} | opendht[0.0]
    dead = {"kademlia": _ms(peer_dead.median)}
    name = f"lookup, {NODES} nodes, k={K}"
    return [
        Figure(f"{name}: recall", alive.recall, "", 0.999, "higher", {"kademlia": peer.recall}),
        Figure(f"{name}: recall, 20% dead", fifth.recall, "", 0.99, "higher", {"kademlia": peer_dead.recall}),
        Figure(f"{name}: recall, 50% dead", half.recall, "", 0.99, "higher"),
        Figure(f"{name}: median", _ms(alive.median), "ms", _ms(peer.median), "lower", medians),
        Figure(f"{name}: p95", _ms(alive.p95), "ms", None, "lower", {"kademlia": _ms(peer.p95)}),
        Figure(f"{name}: median, 20% dead", _ms(fifth.median), "ms", 200, "lower", dead | opendht[0.2]),
        Figure(f"{name}: p95, 20% dead", _ms(fifth.p95), "ms", 1000, "lower", {"kademlia": _ms(peer_dead.p95)}),
        Figure(f"{name}: median, 50% dead", _ms(half.median), "ms", 600, "lower", opendht[0.5]),
        Figure(f"{name}: p95, 50% dead", _ms(half.p95), "ms", None, "lower"),
    ]


def _opendht() -> dict[float, dict[str, float]]:
    """OpenDHT's medians for each share of dead nodes, as figures' peers; nothing where its package isn't installed."""
    command = [SYSTEM_PYTHON, str(Path(peer_opendht.__file__)), str(NODES), str(DEAD_LOOKUPS)]
    try:
        out = subprocess.run(command, capture_output=True, check=True, timeout=OPENDHT_PATIENCE).stdout
    except (OSError, subprocess.SubprocessError) as error:
        print(f"OpenDHT isn't measured: {SYSTEM_PYTHON} doesn't run it ({type(error).__name__})", file=sys.stderr)
        return {share: {} for share in (0.0, *SHARES)}
    measured: dict[str, list[float]] = msgspec.json.decode(out)
    return {float(share): {"OpenDHT": _ms(quantile(seconds, 0.5))} for share, seconds in measured.items()}


def _peer(seed: int, loop: Callable[[], asyncio.AbstractEventLoop], dead_lookups: int) -> KademliaFigures:
    return peer_kademlia.measure(
        nodes=NODES,
        k=K,
        dead_share=SHARES[0],
        lookups=LOOKUPS,
        dead_lookups=dead_lookups,
        seed=seed,
        loop_factory=loop,
    )


async def _private_overlay(seed: int, measured: dict[float, _Measured]) -> None:
    """One village's lookups, alive and then with ever more nodes dead; askers learn of a death by their lookups."""
    chance = random.Random(seed)
    async with private_overlay(NODES) as place:
        for share, into in measured.items():
            for node in chance.sample(_alive(place.nodes), int(share * NODES) - NODES + len(_alive(place.nodes))):
                await node.vanish()
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
    """Those whose sockets are open; the others went without a word, as after kill -9."""
    return [node for node in nodes if node.port]


def _ms(seconds: float) -> float:
    return seconds * 1000
