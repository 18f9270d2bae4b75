"""Real nodes on loopback in one process, each with a real store on disk, for tests of whole overlays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from overlay.client import Overlay
from overlay.identity.network import Network
from overlay.node.config import NodeConfig
from overlay.node.node import Node
from storage.node.store import open_node_store
from tests.overlay.issuing import NOW, Issuer

LOOPBACK = "127.0.0.1"
ISSUER = Issuer(1)
NETWORK = Network("test", k=4, private_addresses=True, authorities=(ISSUER.der,))


def key_of(number: int) -> X25519PrivateKey:
    """A fixed key for each number, so that distances are the same in every run."""
    return X25519PrivateKey.from_private_bytes(number.to_bytes(32, "big"))


def new_node(number: int, folder: Path | None, *, network: Network = NETWORK, quota: int = 1 << 26) -> Node:
    """A node that doesn't listen yet; without a folder a client. Its clock stands at NOW."""

    def clock() -> float:
        return NOW

    store = None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        store = open_node_store(folder, quota=quota, now=clock)
    return Node(NodeConfig(network, key_of(number), store=store, now=clock))


class LocalNetwork:
    """Some nodes that know each other, and one client."""

    def __init__(self, nodes: list[Node], client: Node) -> None:
        self.nodes, self.client = nodes, client
        self.overlay = Overlay(client)

    def nearest(self, key: bytes, count: int) -> list[Node]:
        distance = int.from_bytes(key, "big")
        return sorted(self.nodes, key=lambda node: int.from_bytes(node.id, "big") ^ distance)[:count]

    async def holders(self, kind: int, key: bytes) -> list[Node]:
        found = []
        for node in self.nearest(key, len(self.nodes)):
            assert node.store is not None
            if await node.store.fetch(kind, key) is not None:
                found.append(node)
        return found


@asynccontextmanager
async def local_network(
    folder: Path, count: int = 8, *, network: Network = NETWORK, quota: int = 1 << 26
) -> AsyncIterator[LocalNetwork]:
    """Nodes 1 to `count` below `folder`, and a client; all are stopped at the end."""
    nodes = [new_node(n, folder / str(n), network=network, quota=quota) for n in range(1, count + 1)]
    client = new_node(1000, None, network=network)
    try:
        for node in nodes:
            await node.listen(0, LOOPBACK)
            await node.join([nodes[0].place] if node is not nodes[0] else [])
        await client.listen(0, LOOPBACK)
        await client.join([node.place for node in nodes[:2]])
        yield LocalNetwork(nodes, client)
    finally:
        await asyncio.gather(*(node.stop() for node in [client, *nodes]))


def run(story: Callable[[], Awaitable[None]], loop: Callable[..., None] = asyncio.run) -> None:
    """Run a test; fails if the loop's exception handler was called or a task is left."""
    errors: list[dict[str, Any]] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        await story()
        await asyncio.sleep(0)
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert not left, left

    loop(watched())
    assert not errors, errors
