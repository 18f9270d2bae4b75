"""The peer for lookups: the `kademlia` package as it ships, as many nodes, the same k, in the same run.

Answers are compared with the truth (all node ids are known here). Only the peer is measured here; ours stands in
bench_lookup.py, which calls `measure` for the peer's side of its table.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kademlia.crawling import NodeSpiderCrawl
from kademlia.network import Server
from kademlia.node import Node

from bench.figure import quantile

ABREAST = 4
"""Lookups at once when nodes are dead. They only wait then (5 s for each dead one), so this shortens the run and
not the lookups; one after the other they would take five minutes."""


@dataclass(frozen=True, slots=True)
class Lookups:
    """Many lookups: recall of the true k closest (0 to 1), and how long they took (seconds)."""

    recalls: tuple[float, ...]
    seconds: tuple[float, ...]

    @property
    def recall(self) -> float:
        """Mean recall."""
        return sum(self.recalls) / len(self.recalls)

    @property
    def median(self) -> float:
        """Median duration, seconds."""
        return quantile(self.seconds, 0.5)

    @property
    def p95(self) -> float:
        """95th percentile of the duration, seconds."""
        return quantile(self.seconds, 0.95)


@dataclass(frozen=True, slots=True)
class KademliaFigures:
    """The package's lookups with all nodes alive, and with a share of them dead."""

    alive: Lookups
    dead: Lookups


def measure(
    *,
    nodes: int = 100,
    k: int = 10,
    dead_share: float = 0.2,
    lookups: int = 60,
    dead_lookups: int = 20,
    seed: int = 1,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> KademliaFigures:
    """Run `nodes` nodes of the package on loopback and look random keys up, then again with some nodes dead.

    `loop_factory` gives the peer the event loop that we run on (uvloop.new_event_loop); asyncio's own without it.
    Takes about a minute, nearly all of it waiting for the dead.
    """
    for name in ("kademlia", "rpcudp"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(
            _measure(
                nodes, k, dead_share=dead_share, lookups=lookups, dead_lookups=dead_lookups, chance=random.Random(seed)
            )
        )


async def _measure(
    nodes: int, k: int, *, dead_share: float, lookups: int, dead_lookups: int, chance: random.Random
) -> KademliaFigures:
    servers = await _network(nodes, k, chance)
    try:
        alive = [await _lookup(chance.choice(servers), servers, k, chance.randbytes(20)) for _ in range(lookups)]
        dead = chance.sample(servers, int(nodes * dead_share))
        for server in dead:
            server.stop()
        left = [server for server in servers if server not in dead]
        gate = asyncio.Semaphore(ABREAST)

        async def one(key: bytes) -> tuple[float, float]:
            async with gate:
                return await _lookup(chance.choice(left), left, k, key)

        hindered = await asyncio.gather(*(one(chance.randbytes(20)) for _ in range(dead_lookups)))
        return KademliaFigures(_lookups(alive), _lookups(hindered))
    finally:
        for server in servers:
            server.stop()


async def _network(nodes: int, k: int, chance: random.Random) -> list[Server]:
    """Nodes on free ports of loopback, each having joined through one of those before it."""
    servers: list[Server] = []
    ports: list[int] = []
    for _ in range(nodes):
        server = Server(ksize=k, node_id=chance.randbytes(20))
        await server.listen(0, "127.0.0.1")
        if ports:
            await server.bootstrap([("127.0.0.1", chance.choice(ports))])
        servers.append(server)
        assert server.transport is not None
        ports.append(server.transport.get_extra_info("sockname")[1])
    return servers


async def _lookup(asker: Server, alive: Sequence[Server], k: int, key: bytes) -> tuple[float, float]:
    """Recall and seconds of one lookup of `key`, as Server.set and Server.get do it."""
    target = Node(key)
    assert asker.protocol is not None
    start = time.perf_counter()
    near = asker.protocol.router.find_neighbors(target)
    found = await NodeSpiderCrawl(asker.protocol, target, near, asker.ksize, asker.alpha).find()
    seconds = time.perf_counter() - start
    others = [server.node for server in alive if server is not asker]
    closest = sorted(others, key=lambda node: int(node.long_id) ^ int(target.long_id))[:k]
    truth = {node.id for node in closest}
    return len(truth & {node.id for node in found}) / len(truth), seconds


def _lookups(measured: Sequence[tuple[float, float]]) -> Lookups:
    return Lookups(tuple(recall for recall, _ in measured), tuple(seconds for _, seconds in measured))


if __name__ == "__main__":
    figures = measure()
    for label, found in (("all alive", figures.alive), ("20% dead", figures.dead)):
        print(
            f"{label}: recall {found.recall:.3f} (min {min(found.recalls):.2f}), "
            f"median {found.median * 1000:,.1f} ms, p95 {found.p95 * 1000:,.1f} ms"
        )
