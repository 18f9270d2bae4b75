"""What a node has acknowledged after kill -9, and after a power cut at a random write: 500 rounds of each.

For kill -9 a process of its own (bench/crashing.py) works on a store and says on a pipe what has been acknowledged; it
is killed at a random moment, and the store is opened again and held against what it said, round after round the same
store. The power cuts are those of tests/simulation/power_cuts.py: the disk keeps what was synced, and of the rest
what it likes. Those of tests/simulation/agent_power_cuts.py take a user's computer, at each write there is.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.crashing import inbox_of
from bench.figure import Figure
from storage.node.store import NodeStore, open_node_store
from tests.simulation import agent_power_cuts
from tests.simulation.power_cuts import broken_promises, play

ROUNDS = 500
LONGEST = 0.25
"""Seconds that a process works before it is killed, at the most."""
CUTS_A_RUN = 10
QUOTA = 1 << 34


def measure() -> list[Figure]:
    """Acknowledged things that are lost, and databases that didn't open; the bar is none."""
    killed, checked, damaged = asyncio.run(_kill())
    broken, cuts = _cut()
    lost, at_agents = _cut_at_agents()
    return [
        Figure(f"{ROUNDS} rounds of kill -9: acknowledged objects lost", killed, "", 0, "lower", {"checked": checked}),
        Figure(f"{ROUNDS} rounds of kill -9: databases that didn't open", damaged, "", 0, "lower"),
        Figure(f"{cuts} power cuts at a random write: promises broken", broken, "", 0, "lower"),
        Figure(f"{at_agents} power cuts at a desk, at each write: letters lost or doubled", lost, "", 0, "lower"),
    ]


async def _kill() -> tuple[int, int, int]:
    chance = random.Random(1)
    lost = checked = damaged = 0
    with tempfile.TemporaryDirectory(prefix="p2pmail-bench-") as folder:
        root = Path(folder)
        for number in range(ROUNDS):
            said = root / "said"
            with said.open("wb") as out:
                command = [sys.executable, "-m", "bench.crashing", str(root / "node"), str(number)]
                process = subprocess.Popen(command, stdout=out, cwd=Path(__file__).parent.parent)
                while not said.stat().st_size and process.poll() is None:  # it has begun
                    time.sleep(0.005)
                time.sleep(chance.uniform(0, LONGEST))
                if process.poll() is not None:
                    raise RuntimeError(f"round {number} ended by itself before it could be killed")
                process.kill()
                process.wait()
            store = open_node_store(root / "node", quota=QUOTA)
            damaged += store.set_aside is not None
            try:
                lines = said.read_bytes().split(b"\n")[1:-1]  # the last one may be half
                for line in lines:
                    kind, _, name = line.partition(b" ")
                    checked += 1
                    lost += not await _there(store, inbox_of(number), kind, bytes.fromhex(name.decode()))
            finally:
                store.close()
    return lost, checked, damaged


async def _there(store: NodeStore, inbox: bytes, kind: bytes, name: bytes) -> bool:
    if kind == b"append":
        return (await store.known(inbox, [name])) == [True]
    found = await store.fetch(1, name)
    if kind == b"delete":
        return found is None
    content = None if found is None else found[1]
    data = content.read_bytes() if isinstance(content, Path) else content
    return data is not None and hashlib.sha256(data).digest()[:20] == name


def _cut() -> tuple[int, int]:
    broken = cuts = seed = 0
    with tempfile.TemporaryDirectory(prefix="p2pmail-bench-") as folder:
        while cuts < ROUNDS:
            for cut in play(Path(folder) / str(seed), seed, cuts=CUTS_A_RUN):
                cuts += 1
                broken += len(broken_promises(cut))
            seed += 1
    return broken, cuts


def _cut_at_agents() -> tuple[int, int]:
    lost = cuts = 0
    whose: tuple[agent_power_cuts.Who, ...] = ("alice", "bob")
    with tempfile.TemporaryDirectory(prefix="p2pmail-bench-") as folder:
        for who in whose:
            for moment in agent_power_cuts.moments(Path(folder), who)[:ROUNDS]:
                fate = agent_power_cuts.play(Path(folder), who, moment)
                cuts += fate.moments >= moment  # else the play had fewer writes than the one that was counted
                lost += len(fate.broken)
    return lost, cuts
