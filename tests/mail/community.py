"""A small network on loopback with an authority that answers, for tests of joining: real nodes and stores, a clock that
only moves when it is told to."""

from __future__ import annotations

import random as seeded_random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from mail.membership.authority_service import AuthorityService
from mail.membership.create_network import create_network, make_invite
from overlay.client import Overlay
from overlay.identity.network import Network
from overlay.node.config import NodeConfig
from overlay.node.node import Node, new_key
from storage.node.store import open_node_store
from storage.user.profile import Profile

NOW = 1_800_000_000.0


class Community:
    """`folder` is the authority's, `nodes` are its system nodes, `told` is what was told to people."""

    def __init__(self, folder: Path, nodes: list[Node], network: Network) -> None:
        self.folder = folder
        self.nodes = nodes
        self.network = network
        self.time = NOW
        self.told: list[str] = []
        self.random = seeded_random.Random(1).randbytes

    def now(self) -> float:
        return self.time

    def profile(self, name: str) -> Profile:
        return Profile(self.folder.parent / name, environ={})

    def overlay(self) -> Overlay:
        return Overlay(self.nodes[0])

    def invite(self, address: str) -> str:
        return make_invite(self.folder, address, now=self.now)

    def service(self) -> AuthorityService:
        return AuthorityService(
            self.folder, join=[self.nodes[0].place], now=self.now, random=self.random, tell=self.told.append
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[AuthorityService]:
        service = self.service()
        await service.start()
        try:
            yield service
        finally:
            await service.stop()

    def waiting_for(self, service: AuthorityService) -> Callable[[float], Awaitable[None]]:
        """A pause in which the authority looks into its inbox."""

        async def pause(seconds: float) -> None:
            await service.run_once()
            self.time += seconds

        return pause

    async def idle(self, seconds: float) -> None:
        """A pause in which nothing happens."""
        self.time += seconds


@asynccontextmanager
async def community(tmp_path: Path, count: int = 3) -> AsyncIterator[Community]:
    """A network of `count` system nodes and an authority that isn't at work yet."""
    folder = tmp_path / "authority"
    world = Community(folder, [], Network("unfounded"))
    network = create_network(folder, "campus", now=world.now, random=world.random)
    async with AsyncExitStack() as stack:
        for number in range(count):
            store = open_node_store(tmp_path / f"node{number}", quota=1 << 24, now=world.now)
            node = Node(NodeConfig(network, new_key(), store=store, now=world.now))
            stack.push_async_callback(node.stop)
            await node.listen(0, "127.0.0.1")
            await node.join([world.nodes[0].place] if world.nodes else [])
            world.nodes.append(node)
        world.network = network
        yield world
