"""A process that works on a store until it is killed: `python -m bench.crashing FOLDER ROUND`.

Says what has been acknowledged, one line each: `store KEY`, `append SHA-256`, `delete KEY`. A key is the beginning of
its content's SHA-256. Each round has an inbox of its own: what a kill leaves unacknowledged would fill one in time.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import sys
from pathlib import Path

from storage.node.store import NodeStore, open_node_store
from storage.store_request import StoreRequest

AT_ONCE = 8


def inbox_of(number: int) -> bytes:
    """The inbox of a round."""
    return number.to_bytes(20, "big")


async def _work(store: NodeStore, inbox: bytes, chance: random.Random) -> None:
    while True:
        await asyncio.gather(*(_one(store, inbox, chance) for _ in range(AT_ONCE)))


async def _one(store: NodeStore, inbox: bytes, chance: random.Random) -> None:
    if chance.random() < 0.4:
        notification = chance.randbytes(200)
        digest = hashlib.sha256(notification).digest()
        await store.append(inbox, notification, 3600)
        _say("append", digest)
        await store.acknowledge(inbox, [digest])  # it stays known
        return
    data = chance.randbytes(chance.choice((100, 5_000, 80_000)))
    digest = hashlib.sha256(data).digest()
    key = digest[:20]
    await store.store(StoreRequest(1, key, data, digest, 3600, [b"d" * 32]), lambda _: True)
    if chance.random() < 0.7:
        _say("store", key)
        return
    await store.delete(1, key, b"d" * 32, b"proof", 3600)
    _say("delete", key)


def _say(what: str, name: bytes) -> None:
    os.write(1, f"{what} {name.hex()}\n".encode())


if __name__ == "__main__":
    opened = open_node_store(Path(sys.argv[1]), quota=1 << 34)
    os.write(1, b"begun\n")
    asyncio.run(_work(opened, inbox_of(int(sys.argv[2])), random.Random(f"{sys.argv[2]} {os.getpid()}")))
