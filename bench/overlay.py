"""What the benches of the overlay share: a village for the length of a block, and its k.

Measuring is each bench_*.py's own; the village itself is mail/demo/private_overlay.py's.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mail.demo.private_overlay import PrivateOverlay

K = 10
"""Copies: the k of all figures of the overlay."""


@asynccontextmanager
async def private_overlay(nodes: int) -> AsyncIterator[PrivateOverlay]:
    """A private overlay of so many real nodes on loopback, in a folder that is gone afterwards."""
    logging.getLogger("overlay").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="p2pmail-bench-") as folder:
        place = PrivateOverlay(Path(folder), "bench", k=K)
        try:
            await place.start(nodes)
            yield place
        finally:
            await place.stop()
