"""A private overlay in this process: real nodes on loopback, an authority, members. For demo, tests and bench.

Sockets, stores on disk and certificates are real. All files are in one folder, which the caller removes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mail.agent import Agent
from mail.events import Event
from mail.identity import Identity
from mail.membership.authority import Authority, create_authority
from overlay.identity.address import normalise_address
from overlay.identity.network import Network, write_network
from overlay.node.config import NodeConfig
from overlay.node.node import Node, new_key
from overlay.protocol_limits import DEFAULT_K
from storage import durable
from storage.node.store import open_node_store
from storage.user.keyring import IdentityKey as CertifiedIdentity
from storage.user.keyring import Keyring
from storage.user.profile import Profile

LOOPBACK = "127.0.0.1"
QUOTA = 1 << 30
JOIN_AT = 3
"""Places to join in a member's network file."""


class PrivateOverlay:
    """A network with its files under `folder`."""

    def __init__(self, folder: Path, name: str, k: int = DEFAULT_K, now: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self._now = now
        self.authority: Authority = create_authority(folder / "authority", name, now=now)
        self.network = Network(name=name, k=k, private_addresses=True, authorities=(self.authority.certificate,))
        self.nodes: list[Node] = []

    async def start(self, nodes: int, tell: Callable[[int], None] = lambda _: None) -> None:
        """Start `nodes` nodes that join at the first. `tell` gets the count so far. Raises CantListen, OSError."""
        for number in range(nodes):
            await self._start_node(self.folder / "nodes" / str(number))
            tell(number + 1)
        self.network = self.network.joined_at(*(node.place for node in self.nodes[:JOIN_AT]))

    async def stop(self) -> None:
        """Stop all nodes."""
        await asyncio.gather(*(node.stop() for node in self.nodes))
        self.nodes.clear()
        self.authority.close()

    def member(self, address: str, profile: Profile) -> Identity:
        """Make `profile` the profile of a new member with its own keys and a certificate for `address`."""
        profile.create()
        key = Ed25519PrivateKey.generate()
        address = normalise_address(address)
        certificate = self.authority.issue(address, key.public_key().public_bytes_raw())
        keyring = Keyring.create(profile.keyring_file, None)
        keyring.set_identity(CertifiedIdentity(address, key.private_bytes_raw(), certificate.der))
        durable.write(profile.network_file, write_network(self.network))
        identity = Identity(keyring)
        identity.rotate(self._now())
        return identity

    async def agent(self, address: str, profile: Profile, tell: Callable[[Event], None] = lambda _: None) -> Agent:
        """Open a new member's agent as a client, and publish its card."""
        self.member(address, profile)
        agent = await self.agent_of(profile, tell)
        await agent.publish_card()
        return agent

    async def agent_of(self, profile: Profile, tell: Callable[[Event], None] = lambda _: None) -> Agent:
        """Open the agent of an existing member."""
        return await Agent.open(profile, Identity.open(profile, None), tell=tell, now=self._now)

    async def _start_node(self, folder: Path) -> Node:
        durable.make_folder(folder)
        node = Node(
            NodeConfig(
                self.network, new_key(), store=open_node_store(folder, quota=QUOTA, now=self._now), now=self._now
            )
        )
        await node.listen(0, LOOPBACK)
        await node.join([self.nodes[0].place] if self.nodes else [])
        self.nodes.append(node)
        return node
