"""Dial-back decides between server and client mode. Real sockets on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from overlay.client import Overlay
from overlay.errors import Refused
from overlay.identity.contact import Contact
from overlay.ids import Kind, body_key
from overlay.node.config import NodeConfig
from overlay.node.node import Node
from overlay.reachability.verdict import FALL, RISE, Reachability
from overlay.replication.node_client import NodeClient
from overlay.wire import messages
from overlay.wire.messages import Code
from storage.node.store import open_node_store
from tests.overlay.issuing import NOW
from tests.overlay.local_network import LOOPBACK, NETWORK, LocalNetwork, key_of, local_network, run

KEY = body_key("<1@village.example>")


@pytest.fixture(autouse=True)
def _briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overlay.reachability.dial_back.UDP_PATIENCE", 0.3)


@asynccontextmanager
async def computer(folder: Path, place: LocalNetwork, *, server_mode: bool = False) -> AsyncIterator[Node]:
    """A user's computer, which is in server mode if others can reach it."""
    store = open_node_store(folder / "computer", quota=1 << 26, now=lambda: NOW)
    reach = Reachability(server_mode=server_mode, fixed=False)
    node = Node(NodeConfig(NETWORK, key_of(500), store=store, now=lambda: NOW, reachability=reach))
    try:
        await node.listen(0, LOOPBACK)
        await node.join([place.nodes[0].place])
        yield node
    finally:
        await node.stop()


def behind_a_router(node: Node) -> None:
    """Datagrams come in only from addresses that it has sent to (RFC 4787, address and port dependent filtering)."""
    written: set[tuple[str, int]] = set()
    send, receive = node.protocol._send, node.protocol.datagram_received

    def sending(datagrams: list[bytes], ip: str, port: int) -> bool:
        written.add((ip, port))
        return send(datagrams, ip, port)

    def receiving(data: bytes, addr: tuple[Any, ...]) -> None:
        if addr[:2] in written:
            receive(data, addr)

    node.protocol._send = sending  # type: ignore[method-assign]
    node.protocol.datagram_received = receiving  # type: ignore[method-assign]


async def rounds(node: Node, count: int) -> None:
    assert node.server is not None and node.server.probe is not None
    for _ in range(count):
        await node.server.probe.ask()


async def shape(node: Node) -> tuple[str, bool | None]:
    status = await node.status()
    return status.mode, status.reachable


def test_who_is_reached_becomes_a_node_and_is_found(tmp_path: Path) -> None:
    async def story() -> None:
        async with local_network(tmp_path, 5) as place, computer(tmp_path, place) as node:
            assert await shape(node) == ("client", None)
            assert node.id not in {at.contact.id for at in await place.client.closest(node.id, 6)}
            assert node.id not in {at.contact.id for at in await node.closest(node.id, 6)}
            await rounds(node, RISE)
            assert await shape(node) == ("node", True)
            assert (await place.client.closest(node.id, 6))[0].contact.id == node.id

    run(story)


def test_who_is_behind_a_router_stays_a_client_and_works(tmp_path: Path) -> None:
    async def story() -> None:
        async with local_network(tmp_path, 5) as place, computer(tmp_path, place) as node:
            behind_a_router(node)
            await rounds(node, RISE + 1)
            assert await shape(node) == ("client", False)
            assert (await Overlay(node).store(Kind.BODY, KEY, b"mail", ttl=60.0)).have == NETWORK.k
            assert await Overlay(node).fetch(Kind.BODY, KEY) == b"mail"

    run(story)


def test_an_http_server_that_others_cant_reach_is_noticed_too(tmp_path: Path) -> None:
    async def story() -> None:
        async with local_network(tmp_path, 5) as place, computer(tmp_path, place) as node:
            assert node.server is not None and node.server.http is not None
            await node.server.http.server.stop()
            await rounds(node, RISE)
            assert await shape(node) == ("client", False)

    run(story)


def test_a_node_that_isnt_reached_any_more_hands_on_what_it_keeps_and_leaves_the_tables(tmp_path: Path) -> None:
    async def story() -> None:
        async with local_network(tmp_path, 5) as place, computer(tmp_path, place, server_mode=True) as node:
            await Overlay(node, lambda: 6).store(Kind.BODY, node.id, b"kept", ttl=60.0)
            stayed = place.nearest(node.id, 5)
            assert node.store is not None
            assert await node.store.fetch(Kind.BODY, node.id) is not None
            behind_a_router(node)
            await rounds(node, FALL)
            assert await shape(node) == ("client", False)
            for other in stayed:
                await other.protocol.ping(Contact(node.sealer.public, LOOPBACK, node.port))
                known = other.protocol.router.closest(node.id, 6, healthy=True)
                assert node.id not in {contact.id for contact in known}
            assert all([await other.store.fetch(Kind.BODY, node.id) for other in stayed if other.store])

    run(story)


def test_attack_no_address_is_dialled_that_isnt_proven(tmp_path: Path) -> None:
    async def story() -> None:
        async with local_network(tmp_path, 2) as place, computer(tmp_path, place) as node:
            there = Contact(place.nodes[0].sealer.public, LOOPBACK, place.nodes[0].port)
            with pytest.raises(Refused) as refused:
                await node.protocol.call(there, messages.DialBack(bytes(16), node.protocol.fingerprint))
            assert refused.value.code == Code.BAD_TOKEN
            with pytest.raises(Refused) as refused:
                at = Contact(place.client.sealer.public, LOOPBACK, place.client.port)
                await node.protocol.call(at, messages.DialBack(bytes(16), node.protocol.fingerprint))
            assert refused.value.code == Code.UNKNOWN_KIND

    run(story)


def test_attack_another_computers_http_server_doesnt_count(tmp_path: Path) -> None:
    """A computer that shares an IP address with a node can't claim the node's HTTP server as its own."""

    async def story() -> None:
        async with local_network(tmp_path, 2) as place, computer(tmp_path, place) as node:
            node_client = NodeClient(node.protocol, node.service, node.http_client)
            there = Contact(place.nodes[0].sealer.public, LOOPBACK, place.nodes[0].port)
            assert await node_client.dial_back(there, node.protocol.fingerprint)
            assert not await node_client.dial_back(there, bytes(32))

    run(story)
