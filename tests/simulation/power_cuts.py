"""Power cuts at a random write of a node's store: everything that was acknowledged must be there afterwards.

Used by tests/storage/node/test_power_cut.py for some rounds and by bench/bench_crash.py for many.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from storage.node.store import NodeStore, open_node_store
from storage.store_request import StoreRequest
from tests.simulation.disk import Disk, watched

NOW = 1_700_000_000.0
QUOTA = 1 << 30
HOUR = 3600.0
ALICE, BOB = b"a" * 32, b"b" * 32
READER = b"r" * 32
INBOX = b"i" * 20


@dataclass
class Promised:
    """What the store has said yes to."""

    objects: dict[bytes, bytes] = field(default_factory=dict)
    deleted: set[bytes] = field(default_factory=set)
    waiting: set[bytes] = field(default_factory=set)
    acknowledged: set[bytes] = field(default_factory=set)
    unknown: set[bytes] = field(default_factory=set)
    """Keys and notifications of what is under way: it may be there or not."""

    def copy(self) -> Promised:
        return Promised(
            dict(self.objects), set(self.deleted), set(self.waiting), set(self.acknowledged), set(self.unknown)
        )

    def and_still(self, later: Promised) -> Promised:
        """What held from this moment to the later one; what changed between them is unknown."""
        return Promised(
            {key: data for key, data in self.objects.items() if key in later.objects},
            set(self.deleted),
            self.waiting & later.waiting,
            set(self.acknowledged),
            self.unknown | later.unknown,
        )


@dataclass(frozen=True)
class Cut:
    """A folder as a power cut left it, and what had been promised by then."""

    folder: Path
    promised: Promised


def play(root: Path, seed: int, operations: int = 40, cuts: int = 5) -> list[Cut]:
    """Work on a store, and cut the power at so many random writes of it; each cut leaves a copy to be looked at."""
    return asyncio.run(_play(root, seed, operations, cuts))


async def _play(root: Path, seed: int, operations: int, cuts: int) -> list[Cut]:
    chance = random.Random(seed)
    folder = root / "node"
    folder.mkdir(parents=True)
    disk, promised, made = Disk(folder), Promised(), list[Cut]()
    moments = {chance.randrange(1, 12 * operations) for _ in range(cuts)}
    writes = 0

    def on_write() -> None:
        nonlocal writes
        writes += 1
        if writes in moments:
            target = root / f"cut{len(made)}"
            before = promised.copy()
            disk.cut(target, chance)
            made.append(Cut(target, before.and_still(promised)))

    disk.on_write = on_write
    with watched(disk):
        store = NodeStore(folder, quota=QUOTA, now=lambda: NOW)
        try:
            for _ in range(operations):
                some = [_operation(store, promised, chance) for _ in range(chance.randrange(1, 5))]
                await asyncio.gather(*some)
        finally:
            store.close()
            disk.close()
    return made


async def _operation(store: NodeStore, promised: Promised, chance: random.Random) -> None:
    settled = [key for key in promised.objects if key not in promised.unknown]
    waiting = [one for one in promised.waiting if one not in promised.unknown]
    match chance.choice(("store", "store", "large", "append", "append", "delete", "acknowledge")):
        case "delete" if settled:
            key = chance.choice(sorted(settled))
            promised.unknown.add(key)
            await store.delete(1, key, ALICE, b"proof", HOUR)
            promised.objects.pop(key, None)
            promised.deleted.add(key)
            promised.unknown.discard(key)
        case "acknowledge" if waiting:
            one = chance.choice(sorted(waiting))
            promised.unknown.add(one)
            await store.acknowledge(INBOX, [hashlib.sha256(one).digest()])
            promised.waiting.discard(one)
            promised.acknowledged.add(one)
            promised.unknown.discard(one)
        case "append":
            one = chance.randbytes(100)
            promised.unknown.add(one)
            await store.append(INBOX, one, HOUR)
            promised.waiting.add(one)
            promised.unknown.discard(one)
        case kind:
            key, data = chance.randbytes(20), chance.randbytes(70_000 if kind == "large" else 500)
            promised.unknown.add(key)
            digest = hashlib.sha256(data).digest()
            await store.store(StoreRequest(1, key, data, digest, HOUR, [ALICE]), lambda _: True)
            promised.objects[key] = data
            promised.unknown.discard(key)


def broken_promises(cut: Cut) -> list[str]:
    """Open the store that a cut left, and hold it against what was promised. The folder is removed."""
    try:
        return asyncio.run(_broken(cut))
    finally:
        shutil.rmtree(cut.folder)


async def _broken(cut: Cut) -> list[str]:
    broken = []
    store = open_node_store(cut.folder, quota=QUOTA, now=lambda: NOW)
    promised = cut.promised
    try:
        if store.set_aside is not None:
            broken.append("the database was damaged")
        for key, data in promised.objects.items():
            found = await store.fetch(1, key)
            there = None if found is None else found[1]
            content = there.read_bytes() if isinstance(there, Path) else there
            if content != data and key not in promised.unknown:
                broken.append(f"an object of {len(data)} bytes is {'lost' if content is None else 'changed'}")
        for key in promised.deleted:
            gone = await store.fetch(1, key) is None and await store.proofs(1, key, [ALICE]) != [b""]
            broken += [] if gone else ["a deleted object came back"]
        handed, more = await store.read(INBOX, READER, limit=1 << 30)
        assert not more
        if lost := promised.waiting - set(handed) - promised.unknown:
            broken.append(f"{len(lost)} notifications are lost")
        if risen := promised.acknowledged & set(handed):
            broken.append(f"{len(risen)} acknowledged notifications came back")
    finally:
        store.close()
    return broken
