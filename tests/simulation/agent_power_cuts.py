"""Power cuts at a user agent, at any write or sync while it sends or collects: each accepted message arrives once.

Used by tests/mail/test_power_cut.py at some moments and by bench/bench_crash.py at every moment.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from overlay.errors import OverlayError
from tests.mail.user_agents import UserAgentNetwork
from tests.simulation.disk import Disk, watched
from tests.workload import BodyKind, Ending, Head, Shape

SHAPES = (
    Shape(1, BodyKind.PROSE, 0, Ending.LF, Head.NO_SUBJECT, 1),
    Shape(2, BodyKind.PROSE, 150_000, Ending.CRLF, Head.USUAL, 1),
    Shape(3, BodyKind.ATTACHMENT, 100_000, Ending.LF, Head.THREAD, 1),
)
MESSAGES = {
    f"{shape.seed}@example.org": shape.message(
        "alice@example.org", ["bob@example.org"], message_id=f"{shape.seed}@example.org"
    )
    for shape in SHAPES
}
Who: TypeAlias = Literal["alice", "bob"]
"""Whose power fails: Alice's while sending, or Bob's while collecting."""


@dataclass(frozen=True)
class PowerCutRun:
    """The number of writes and syncs, and what went wrong."""

    moments: int
    broken: list[str]


def play(folder: Path, who: Who, moment: int = 0) -> PowerCutRun:
    """Cut the power at write or sync number `moment` (0: never), and continue with what the disk kept."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        return asyncio.run(_play(Path(place), who, moment))


def moments(folder: Path, who: Who) -> range:
    """The numbers of all writes and syncs at which the power can fail."""
    return range(1, play(folder, who).moments + 1)


async def _play(folder: Path, who: Who, moment: int) -> PowerCutRun:
    world = UserAgentNetwork(folder)
    disk, seen = Disk(folder / who), 0
    promised = set[str]()
    promised_then: set[str] | None = None
    one_at_a_time = threading.Lock()

    def on_write() -> None:
        nonlocal seen, promised_then
        with one_at_a_time:  # no other thread writes meanwhile, so the copy is of one moment
            seen += 1
            if seen == moment:
                for node in world.nodes:  # this computer sends nothing any more
                    node.down = True
                promised_then = set(promised)
                disk.cut(folder / "left", random.Random(moment))

    with watched(disk):
        alice, bob = await world.user_agent("alice"), await world.user_agent("bob")
        disk.on_write = disk.on_sync = on_write if who == "alice" else _nothing
        for message_id, message in MESSAGES.items():
            alice.write(bob, message_id=message_id, message=message)
            promised.add(message_id)
        with suppress(OverlayError):
            await alice.send()
        disk.on_write = disk.on_sync = on_write if who == "bob" else _nothing
        with suppress(OverlayError):
            await bob.collect()
        disk.on_write = disk.on_sync = _nothing
        world.close()
        disk.close()
    if promised_then is None:  # the number of writes varies with the threads: this run may have had fewer
        promised_then = promised
    else:
        shutil.rmtree(folder / who)
        (folder / "left").rename(folder / who)
    world.set_down(down=False)
    alice.restart()
    bob.restart()
    for _ in range(2):
        await alice.send()
        await bob.collect()
    found = bob.everywhere()
    world.close()
    times = {message_id: found.count(message) for message_id, message in MESSAGES.items()}
    broken = [f"{message_id} is lost" for message_id in promised_then if not times[message_id]]
    broken += [f"{message_id} is there {count} times" for message_id, count in times.items() if count > 1]
    return PowerCutRun(seen, [f"{words} after a power cut at write {moment}" for words in broken])


def _nothing() -> None:
    """Handles the writes that aren't counted."""
