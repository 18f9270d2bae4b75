"""What the benches of the overlay share: a village for the length of a block, and nodes that die.

Measuring is each bench_*.py's own; the village itself is mail/village.py's.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mail.village import Village
from overlay.node import Node

K = 10
"""Copies: the k of all figures of the overlay."""


@asynccontextmanager
async def village(nodes: int) -> AsyncIterator[Village]:
    """A private overlay of so many real nodes on loopback, in a folder that is gone afterwards."""
    logging.getLogger("overlay").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="p2pmail-bench-") as folder:
        place = Village(Path(folder), "bench", k=K)
        try:
            await place.start(nodes)
            yield place
        finally:
            await place.stop()


async def kill(node: Node) -> None:
    """End a node as kill -9 would: it does nothing any more, and its sockets close without a word to anybody."""
    tasks, node._background = node._background, []
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert node.transport is not None
    node.transport.abort()
    node.port = 0  # so that the village's stop() doesn't let it finish in good order
    if node._door is not None:
        await node._door.stop(0.0)


def is_dead(node: Node) -> bool:
    """Whether `kill` was here."""
    return node.port == 0
