"""A node under a flood: does its memory stay flat, and is mail delivered through it meanwhile?

One node is a process of its own, as an operator starts it, in a network of a few others; it is flooded for ten minutes
by other processes with random bytes and with datagrams that are well formed, at a rate that is many times what it can
open. Messages go from Alice to Bob all the while, and the flooded node is asked for pings by a peer that it knows.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from pathlib import Path

from bench.figure import Figure
from bench.overlay import private_overlay
from mail.agent import Agent
from mail.demo.private_overlay import PrivateOverlay
from overlay.identity.contact import Contact, parse_join
from overlay.identity.network import write_network
from overlay.node.config import NodeConfig
from overlay.node.node import Node, new_key
from storage.user.outbox import Envelope, State
from storage.user.profile import Profile
from tests.workload import draw

SECONDS = 600.0
WARM_UP = 60.0
NODES = 4
RANDOM_RATE, FORMED_RATE = 4000, 2000
"""Datagrams a second of each kind; both senders together use a core."""
MESSAGE_EVERY = 5.0
PING_EVERY = 0.5
LARGEST = 100_000
"""Bytes of the largest message: each is waited for."""
MB = 1e6


def measure() -> list[Figure]:
    """Memory after the warm-up and at the end, messages delivered, pings answered."""
    return asyncio.run(_measure())


async def _measure() -> list[Figure]:
    async with private_overlay(NODES) as place:
        node = _start_node(place)
        try:
            where = await _place_of(place, node)
            alice = await place.agent("alice@bench.example", Profile(place.folder / "alice"))
            bob = await place.agent("bob@bench.example", Profile(place.folder / "bob"))
            known = await _known_peer(place, where)
            flood = [
                _start_flood(where, place.network.name, "random", RANDOM_RATE),
                _start_flood(where, place.network.name, "formed", FORMED_RATE),
            ]
            pings = asyncio.create_task(_ping(known, where))
            messages = asyncio.create_task(_write(alice, bob))
            await asyncio.sleep(WARM_UP)
            before = _memory(node.pid)
            await asyncio.sleep(SECONDS - WARM_UP)
            after = _memory(node.pid)
            sent = sum([int((await asyncio.to_thread(process.communicate))[0]) for process in flood])
            answered, asked = await pings
            delivered, written = await messages
            alive = node.poll() is None
            for closing in (alice.close(), bob.close(), known.stop()):
                await closing
        finally:
            node.terminate()
            await asyncio.to_thread(node.wait)
    assert alive, "the node ended under the flood"
    name = f"a node under a flood of {sent / SECONDS:,.0f} datagrams a second for {SECONDS / 60:.0f} min"
    return [
        Figure(f"{name}: memory grows by", 100 * (after - before) / before, "%", 5, "lower", {"MB": after / MB}),
        Figure(f"{name}: letters delivered meanwhile", delivered / written, "", 1, "higher", {"letters": written}),
        Figure(f"{name}: pings of a known peer answered", answered / asked, "", 0.95, "higher", {"pings": asked}),
    ]


def _start_node(place: PrivateOverlay) -> subprocess.Popen[str]:
    network = place.folder / "network.toml"
    network.write_bytes(write_network(place.network))
    command = [sys.executable, "-m", "tui", "--node-only", "--profile", str(place.folder / "flooded")]
    command += ["--network", str(network), "--listen", "127.0.0.1:0", "--join", place.nodes[0].place]
    with _log(place).open("wb") as log:  # no pipe: nobody would empty it
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, text=True)


def _log(place: PrivateOverlay) -> Path:
    return place.folder / "flooded.log"


async def _place_of(place: PrivateOverlay, node: subprocess.Popen[str]) -> str:
    """HOST:PORT/KEY, as it says on standard error that others join there."""
    while node.poll() is None:
        _, found, after = _log(place).read_text().partition("others join at ")
        if found and "\n" in after:
            return after.partition("\n")[0].strip()
        await asyncio.sleep(0.05)
    raise RuntimeError("the node didn't start")


async def _known_peer(place: PrivateOverlay, where: str) -> Node:
    node = Node(NodeConfig(place.network, new_key()))
    await node.listen(0, "127.0.0.1")
    await node.join([where])
    return node


def _start_flood(where: str, network: str, kind: str, rate: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.flooder", where, network, str(SECONDS), str(rate), kind]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent)


async def _ping(known: Node, where: str) -> tuple[int, int]:
    host, port, key = parse_join(where)
    assert key is not None
    answered = asked = 0
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        asked += 1
        answered += await known.protocol.ping(Contact(key, host, port)) is not None
        await asyncio.sleep(PING_EVERY)
    return answered, asked


async def _write(alice: Agent, bob: Agent) -> tuple[int, int]:
    """Messages of the workload, one after the other until the flood ends; how many arrived, how many there were."""
    sender, recipient = alice.identity.address, bob.identity.address
    delivered = written = 0
    end, chance = time.monotonic() + SECONDS, random.Random(1)
    while time.monotonic() < end:
        written += 1
        shape = draw(chance, largest=LARGEST, most_recipients=1)
        message_id = shape.message_id("bench.example")
        message = shape.message(sender, [recipient], message_id=message_id)
        alice.outbox.accept(
            message,
            Envelope(message_id, subject=str(written), sender=sender, recipients=[recipient], created=time.time()),
        )
        await alice.send()
        delivered += await bob.sync()
        await asyncio.sleep(MESSAGE_EVERY)
    await alice.send()
    delivered += await bob.sync()
    assert all(r.state is not State.FAILED for entry in alice.outbox.entries() for r in entry.recipients)
    return delivered, written


def _memory(pid: int) -> int:
    """Bytes that are resident."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise OSError("no VmRSS")
