"""Stores each share of an object on a different closest node, and fetches shares back.

What a share is, and how many are enough, is up to the caller (mail/sealed/erasure_shares.py): here they are bytes under
one key.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Protocol

from overlay.errors import NoAnswer, Refused
from overlay.kademlia.lookup import Located
from overlay.kademlia.quorum import replicate
from overlay.primitives.requests import FetchRequest
from overlay.replication.node_client import NodeClient
from storage.store_request import StoreRequest

SPARE = 2
"""Nodes asked at once beyond the number of missing shares: one may be slow."""
STORED_AT_ONCE = 16
FETCHED_AT_ONCE = 8
"""Nodes called at the same time. More doesn't make fetching faster, and each answer waits in memory."""


class ShareSink(Protocol):
    """Takes shares as they arrive (Gathered in mail/sealed/erasure_shares.py)."""

    @property
    def missing(self) -> int:
        """How many shares are still missing."""
        ...

    def take(self, share: bytes, /) -> bool:
        """Whether it is one of the wanted shares, new or not."""
        ...


async def spread(
    node_client: NodeClient,
    nodes: Sequence[Located],
    shares: Sequence[StoreRequest],
    *,
    again: bool,
) -> tuple[int, int, tuple[str, ...]]:
    """Store each share of one key at a different node: shares wanted, shares stored, and why nodes refused.

    `again`: the nodes are asked first what they have; a share that any of them has isn't stored elsewhere.
    """
    if not shares:
        return 0, 0, ()
    kind, key = shares[0].kind, shares[0].key
    there: set[bytes] = set()
    free = list(nodes)
    if again:
        told = await replicate(nodes, lambda at: node_client.digests(at, kind, key), len(nodes), len(nodes))
        ours = {share.digest for share in shares}
        busy = set()
        for at, held in told.done:
            if found := ours.intersection(held):
                there |= found
                busy.add(at.contact.id)
        free = [at for at, held in told.done if at.contact.id not in busy]
    missing = deque(share for share in shares if share.digest not in there)
    left = iter(free)
    refusals: dict[str, None] = {}

    async def worker() -> None:
        for at in left:
            if not missing:
                return
            share = missing.popleft()
            try:
                await node_client.store(at, share)
            except (NoAnswer, Refused) as error:
                refusals[str(error)] = None
                missing.appendleft(share)
            else:
                there.add(share.digest)

    await _workers(worker, min(STORED_AT_ONCE, len(missing)))
    return len(shares), len(there), tuple(refusals)


async def gather(
    node_client: NodeClient, nodes: Sequence[Located], kind: int, key: bytes, wanted: ShareSink
) -> set[bytes]:
    """Fetch shares from the nodes, nearest first, until none is missing. Returns the ids of those that answered."""
    left = iter(nodes)
    answered: set[bytes] = set()

    async def worker() -> None:
        for at in left:
            if not wanted.missing:
                return
            try:
                await _ask(node_client, at, kind, key, wanted)
            except Refused:
                pass
            except NoAnswer:
                continue
            answered.add(at.contact.id)

    most = min(FETCHED_AT_ONCE, wanted.missing + SPARE)
    await _workers(worker, most, until=lambda: not wanted.missing)
    return answered


async def _ask(node_client: NodeClient, at: Located, kind: int, key: bytes, wanted: ShareSink) -> None:
    if not wanted.take(await node_client.fetch(at, FetchRequest(kind, key))):
        # Something else was stored under this key before: look for our share beside it.
        for digest in await node_client.digests(at, kind, key):
            if wanted.take(await node_client.fetch(at, FetchRequest(kind, key, digest))):
                return


async def _workers(
    worker: Callable[[], Coroutine[None, None, None]], most: int, until: Callable[[], bool] = lambda: False
) -> None:
    running = {asyncio.create_task(worker()) for _ in range(most)}
    try:
        left = running
        while left and not until():
            done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:  # when one raised or enough has arrived, the others must not go on in the background
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
