"""A network that was cut in two for so long that each half forgot the other grows together again."""

from __future__ import annotations

import asyncio
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from overlay.identity.network import Network
from tests.simulation.inline import databases
from tests.simulation.nodes import Hub, SimNode
from tests.simulation.story import ISSUER
from tests.simulation.world import World


def test_halves_that_forgot_each_other_find_each_other_again(tmp_path: Path) -> None:
    world = World(58)
    hub = Hub(world)
    network = Network("halves", private_addresses=True, authorities=(ISSUER.der,))

    async def story() -> None:
        nodes: list[SimNode] = []
        for number in range(8):
            key = X25519PrivateKey.from_private_bytes(world.chance.randbytes(32))
            node = SimNode(hub, network, f"10.0.0.{number + 1}", key, tmp_path / str(number))
            await node.start([nodes[0].place] if nodes else [])
            nodes.append(node)
        one, other = nodes[:4], nodes[4:]
        world.part([node.place_ip for node in one])
        await asyncio.sleep(3600)
        assert not any(node.protocol.router.get(far.id) for node in one for far in other)
        world.part()
        await asyncio.sleep(600)
        for node in nodes:
            assert {entry.contact.id for entry in node.protocol.router} == {n.id for n in nodes if n is not node}
        for node in nodes:
            await node.crash()

    with databases():
        world.play(story())
