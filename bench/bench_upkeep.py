"""What a network spends on keeping up one mail of 10 MB that waits, and on remembering that it was collected; and what
it costs to be online.

The nodes are real, their network is simulated and loses nothing. Counted are datagrams, both ways, of the hourly
rounds of all nodes in a day, less those that as many idle seconds have. Copies: as many as the network's k. A reader is
a client that reads its inbox every minute.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import defaultdict
from pathlib import Path

from bench.figure import Figure
from overlay.client import Overlay
from overlay.ids import Kind, deleter_hash, inbox_key
from tests.simulation.hostile_network import ADDRESS, ALICE, HostileNetwork
from tests.simulation.world import Address

NODES = 200
SEGMENTS = 10
SHARES = 60
DAY = 24
"""Rounds."""
SETTLING = 600.0
HOUR = 3600.0
SALT = bytes(16)
TTL = 30 * 86400.0


def measure() -> list[Figure]:
    """Datagrams an hour, of a mail in shares beside one in copies."""
    spent: dict[Kind, tuple[float, float, float]] = {}
    for kind in (Kind.SHARE, Kind.BODY):
        with tempfile.TemporaryDirectory(prefix="p2pmail-bench-") as folder:
            spent[kind] = _spent(kind, HostileNetwork(1, Path(folder), NODES, 0.0))
    name = f"simulated: {NODES} nodes, a mail of {SEGMENTS} segments"
    states = zip(("waiting", "just collected", "collected a day ago"), spent[Kind.SHARE], spent[Kind.BODY], strict=True)
    figures = [
        Figure(f"{name}, {state}, in {SHARES} shares: datagrams an hour", shares, "", None, "lower", {"copies": bodies})
        for state, shares, bodies in states
    ]
    with tempfile.TemporaryDirectory(prefix="p2pmail-bench-") as folder:
        reader, node = _online(HostileNetwork(1, Path(folder), NODES, 0.0))
    name = f"simulated: {NODES} nodes, nothing to do"
    return [
        *figures,
        Figure(f"{name}: a reader's datagrams, in and out", reader, "MB/h", None, "lower"),
        Figure(f"{name}: a node's datagrams, in and out", node, "MB/h", None, "lower"),
    ]


def _spent(kind: Kind, hostile_network: HostileNetwork) -> tuple[float, float, float]:
    keys = [hostile_network.world.chance.randbytes(20) for _ in range(SEGMENTS)]
    spent: list[float] = []

    async def day() -> float:
        begun, before = hostile_network.world.time(), hostile_network.world.sent
        for _ in range(DAY):
            for node in hostile_network.nodes:
                assert node.server is not None
                await node.server.repair.run_round()
        took, after = hostile_network.world.time() - begun, hostile_network.world.sent
        await asyncio.sleep(took)
        return (2 * after - before - hostile_network.world.sent) / DAY

    async def story(overlay: Overlay) -> None:
        await asyncio.sleep(SETTLING)
        for key in keys:
            deleters = [deleter_hash(key, SALT, ALICE.certificate)]
            if kind == Kind.SHARE:
                pieces = [hostile_network.world.chance.randbytes(100) for _ in range(SHARES)]
                await overlay.spread(kind, key, pieces, deleters=deleters, ttl=TTL)
            else:
                await overlay.store(kind, key, hostile_network.world.chance.randbytes(100), deleters=deleters, ttl=TTL)
        spent.append(await day())
        for key in keys:
            await overlay.delete(kind, key, SALT, ALICE, max_ops=SHARES if kind == Kind.SHARE else None)
        spent.append(await day())
        wall = hostile_network.world.wall
        hostile_network.world.wall = lambda: wall() + DAY * HOUR  # type: ignore[method-assign]
        await asyncio.sleep(SETTLING)  # a clock that jumps is a computer that slept
        spent.append(await day())

    hostile_network.play(story)
    waiting, collected, remembered = spent
    return waiting, collected, remembered


def _online(hostile_network: HostileNetwork) -> tuple[float, float]:
    """Megabytes of datagrams an hour, without the headers of UDP and IP: of a client that reads, of a node."""
    carried: dict[str, int] = defaultdict(int)

    def count(source: Address, target: Address, data: bytes) -> bool:
        for host, _ in (source, target):
            carried[host] += len(data)
        return True

    async def story(overlay: Overlay) -> None:
        await asyncio.sleep(SETTLING)
        hostile_network.world.watch = count
        end = hostile_network.world.time() + HOUR
        while hostile_network.world.time() < end:
            await overlay.read_inbox(inbox_key(ADDRESS), ALICE)
            await asyncio.sleep(60)

    hostile_network.play(story)
    return carried[hostile_network.client.place_ip] / 1e6, carried[hostile_network.nodes[NODES // 2].place_ip] / 1e6
