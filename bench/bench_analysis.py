"""The paper's section 4 held against the real overlay: equation (5) beside what nodes of a simulated world do.

The nodes' own code (protocol, table, lookup, service, replicated store and fetch) runs on a virtual clock; stores are
in memory. An action is two objects stored and two fetched (paper: her inbox and her message). Nodes die in between, and
nobody repairs anything. For each action others die, and a client asks that knows nothing of earlier deaths: keys share
holders, so that actions after the same deaths would succeed and fail together and tell little. What is measured is kept
in mail/analysis/measured.toml, which `p2pmail analyse` shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from bench.figure import Figure
from mail.analysis.measured import FILE, Case, Measurements, encode
from mail.availability.estimate import OPERATIONS, success
from overlay.client import Overlay
from overlay.errors import NotFound, Unreachable
from overlay.ids import Kind
from overlay.node.config import NodeConfig
from overlay.node.node import Node
from overlay.protocol_limits import DEFAULT_K
from storage import durable
from tests.overlay.peers import PRIVATE, Peer, grow, host, new_key, start
from tests.simulation.world import Address, World

NODES = 100
WORLDS = 10
"""For each case; nodes and keys are others in each."""
ACTIONS = 100
"""In each world."""
CASES = ((0.3, 5), (0.3, 10), (0.5, 5), (0.5, 10), (0.75, 5), (0.9, 3), (0.9, 5))
"""p and k: Table 2's k = 5, the network's own 10, and what the product takes at p = 0.9 for 99%."""
HALF_WORLDS = 60
COMMAND = "make bench (bench/bench_analysis.py)"
WHERE = Path(__file__).parent.parent / "mail" / "analysis" / FILE
HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class _Deaths:
    """Who dies: each node by itself with 1 - p, or exactly so many of all, drawn at random."""

    p: float
    exactly: bool = False

    def chosen(self, world: World, peers: list[Peer]) -> list[Peer]:
        if self.exactly:
            return world.chance.sample(peers, round((1 - self.p) * len(peers)))
        return [peer for peer in peers if world.chance.random() >= self.p]


def measure() -> list[Figure]:
    """All cases and half of all nodes killed; some minutes."""
    cases = [_case(p, k, _Deaths(p), WORLDS, first=1000 * number) for number, (p, k) in enumerate(CASES)]
    half = _case(0.5, DEFAULT_K, _Deaths(0.5, exactly=True), HALF_WORLDS, first=100_000)
    kept = Measurements(datetime.now(UTC).date().isoformat(), COMMAND, NODES, OPERATIONS, cases, half)
    durable.write(WHERE, encode(kept), mode=0o644)
    name = f"half of {NODES} nodes killed at once, k={half.k}: {_name(half)}"
    promised = success(0.5, half.k)
    return [*map(_figure, cases), Figure(name, half.measured.share, "", promised, "higher", {"equation (5)": promised})]


def _case(p: float, k: int, deaths: _Deaths, worlds: int, first: int) -> Case:
    done = sum(_world(World(seed), k, deaths) for seed in range(first, first + worlds))
    return Case(p, k, done, worlds * ACTIONS)


def _world(world: World, k: int, deaths: _Deaths) -> int:
    """Actions that succeed, of ACTIONS."""

    async def story() -> int:
        peers = await grow(world, NODES)
        writer = await _client(world, peers, k, NODES + 1)
        done = 0
        for action in range(ACTIONS):
            contents = [world.chance.randbytes(64) for _ in range(OPERATIONS)]
            keys = [world.chance.randbytes(20) for _ in contents]
            for key, content in zip(keys, contents, strict=True):
                outcome = await writer.store(Kind.BODY, key, content, ttl=HOUR)
                assert outcome.have == k, outcome
            reader = await _client(world, peers, k, NODES + 2 + action)
            _silence(world, {peer.contact.address for peer in deaths.chosen(world, peers)})
            done += all([await _fetched(reader, key, content) for key, content in zip(keys, contents, strict=True)])
            _silence(world, set())
        return done

    return world.play(story())


def _silence(world: World, dead: set[Address]) -> None:
    """Nothing comes from these addresses or gets there."""
    world.watch = lambda source, target, data: source not in dead and target not in dead


async def _client(world: World, peers: list[Peer], k: int, number: int) -> Overlay:
    """The overlay as a client at host `number` sees it that has met every node."""
    client = await start(world, host(number), server_mode=False)
    for other in world.chance.sample(peers, len(peers)):
        client.protocol.router.answered(other.contact)
    node = Node(NodeConfig(PRIVATE, new_key(world), now=world.wall, random=world.chance.randbytes))
    node.protocol = client.protocol
    return Overlay(node, lambda: k)


async def _fetched(overlay: Overlay, key: bytes, content: bytes) -> bool:
    try:
        return await overlay.fetch(Kind.BODY, key, digest=sha256(content).digest(), repair=False) == content
    except (NotFound, Unreachable):
        return False


def _figure(case: Case) -> Figure:
    promised = success(case.p, case.k)
    name = f"p={case.p} k={case.k}: {_name(case)}"
    return Figure(name, case.measured.share, "", None, "higher", {"equation (5)": promised})


def _name(case: Case) -> str:
    return f"success of a collect ({case.done} of {case.trials})"
