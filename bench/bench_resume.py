"""A process that is killed in the middle of a large message: how much goes over the network again.

The nodes are this process and count what they take and hand out. They stop at half of what another sender sends, or
another recipient fetches, undisturbed; then `p2pmail sync` is killed (SIGKILL), and started again.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

from bench.anonymous import Peak
from bench.figure import Figure
from bench.overlay import private_overlay
from overlay import event_loop
from overlay.http.server_limits import Pace
from storage.user.outbox import Envelope, Outbox, State
from storage.user.profile import Profile
from tests.mail.user_agents import plain_message

NODES = 50
"""So many that the message goes in shares: of whole copies these would keep less, from one sender."""
SIZE = 500_000_000
AGAIN = 0.05
"""Share of the message that may be fetched again."""
MEMORY = 150
"""MB of anonymous memory (bench/anonymous.py) that a recipient's process may have, whatever the size of the message."""
ATTEMPTS = 3
COMMAND = "from mail.cli.main import main; raise SystemExit(main())"
MB = 1e6


def measure() -> list[Figure]:
    """The sender's half, and the recipient's."""
    return [*event_loop.run(_sending()), *event_loop.run(_collecting())]


async def _sending() -> list[Figure]:
    async with private_overlay(NODES) as place:
        profiles = {}
        for who in ("alice", "bob", "carol"):
            agent = await place.agent(f"{who}@bench.example", Profile(place.folder / who))
            await agent.close()
            profiles[who] = agent.profile
        content = os.urandom(SIZE)
        for who in ("alice", "carol"):
            sender, to, name = f"{who}@bench.example", ["bob@bench.example"], f"of-{who}@bench.example"
            outbox = Outbox(profiles[who].outbox_file)
            outbox.accept(
                plain_message(sender, to, name, content, "Large"),
                Envelope(name, subject="Large", sender=sender, recipients=to, created=time.time()),
            )
            outbox.close()
        with _taken() as undisturbed:
            await _send(profiles["carol"])
        with _taken(undisturbed.bytes / 2) as first:
            await _killed(profiles["alice"], first)
        with _taken() as second:
            await _send(profiles["alice"])
        stored = [_stored(profiles[who]) for who in ("alice", "carol")]
        again = max(0.0, first.bytes + second.bytes - undisturbed.bytes) / undisturbed.bytes
        name = f"{SIZE / MB:,.0f} MB, sender killed at half"
        return [
            Figure(f"{name}: share sent again", again, "", AGAIN, "lower"),
            Figure(f"{name}: stored", float(all(stored)), "", 1, "higher"),
        ]


async def _collecting() -> list[Figure]:
    async with private_overlay(NODES) as place:
        alice = await place.agent("alice@bench.example", Profile(place.folder / "alice"))
        people = []
        for who in ("bob", "carol"):
            agent = await place.agent(f"{who}@bench.example", Profile(place.folder / who))
            await agent.close()
            people.append(agent.profile)
        bob, carol = people
        to = ["bob@bench.example", "carol@bench.example"]
        message = plain_message("alice@bench.example", to, "large@bench.example", os.urandom(SIZE), "Large")
        alice.outbox.accept(
            message,
            Envelope(
                "large@bench.example", subject="Large", sender="alice@bench.example", recipients=to, created=time.time()
            ),
        )
        await alice.send()
        entry = alice.outbox.entry("large@bench.example")
        assert entry is not None
        assert [r.state for r in entry.recipients] == [State.STORED] * 2, entry.recipients[0].reason
        await alice.close()
        with _handed_out() as undisturbed:
            memory = await _collected(carol)
        with _handed_out(undisturbed.bytes / 2) as first:
            await _killed(bob, first)
        with _handed_out() as second:
            memory = max(memory, await _collected(bob))
        same = _inbox(bob) == _inbox(carol) == message
        again = max(0.0, first.bytes + second.bytes - undisturbed.bytes) / undisturbed.bytes
        name = f"{SIZE / MB:,.0f} MB, recipient killed at half"
        return [
            Figure(f"{name}: share fetched again", again, "", AGAIN, "lower"),
            Figure(f"{name}: arrived identical", float(same), "", 1, "higher"),
            Figure(f"{name}: recipient's memory at most", memory / MB, "MB", MEMORY, "lower"),
        ]


class _Count:
    """Bytes that went over the network; at `limit` of them everything waits, until the block ends."""

    def __init__(self, limit: float) -> None:
        self.bytes = 0
        self._limit = limit
        self.reached, self._ended = asyncio.Event(), asyncio.Event()

    async def add(self, size: int) -> None:
        """Count them, or wait."""
        if self.bytes >= self._limit:
            self.reached.set()
            await self._ended.wait()
        self.bytes += size

    def end(self) -> None:
        """Let go on what waits."""
        self._ended.set()


@contextmanager
def _taken(limit: float = math.inf) -> Iterator[_Count]:
    """Count the bytes of bodies that the nodes of this process take over HTTP meanwhile."""
    count = _Count(limit)
    real = Pace.read

    async def read(pace: Pace, reader: Callable[[], Awaitable[bytes]]) -> bytes:
        data = await real(pace, reader)
        await count.add(len(data))
        return data

    Pace.read = read  # type: ignore[assignment, method-assign]
    try:
        yield count
    finally:
        Pace.read = real  # type: ignore[method-assign]
        count.end()


async def _send(profile: Profile) -> None:
    """Send what waits; on a busy machine nodes may be too slow for one attempt."""
    for _ in range(ATTEMPTS):
        await (await _sync(profile)).wait()
        if _stored(profile):
            return


def _stored(profile: Profile) -> bool:
    outbox = Outbox(profile.outbox_file)
    try:
        return all(recipient.state is State.STORED for entry in outbox.entries() for recipient in entry.recipients)
    finally:
        outbox.close()


@contextmanager
def _handed_out(limit: float = math.inf) -> Iterator[_Count]:
    """Count the bytes that the nodes of this process hand out over HTTP meanwhile."""
    count = _Count(limit)
    real = web.StreamResponse.write

    async def write(response: web.StreamResponse, data: bytes | bytearray | memoryview) -> None:
        await count.add(len(data))
        await real(response, data)

    web.StreamResponse.write = write  # type: ignore[assignment, method-assign]
    try:
        yield count
    finally:
        web.StreamResponse.write = real  # type: ignore[method-assign]
        count.end()


async def _sync(profile: Profile) -> Process:
    arguments = [sys.executable, "-c", COMMAND, "sync", "--profile", str(profile.root)]
    return await asyncio.create_subprocess_exec(*arguments, stdin=DEVNULL, cwd=Path(__file__).parent.parent)


async def _killed(profile: Profile, count: _Count) -> None:
    """Start `p2pmail sync`, and kill it when so many bytes have gone over the network."""
    process = await _sync(profile)
    ended, reached = asyncio.create_task(process.wait()), asyncio.create_task(count.reached.wait())
    await asyncio.wait((ended, reached), return_when=asyncio.FIRST_COMPLETED)
    assert count.reached.is_set(), "it was done before it could be killed"
    process.send_signal(signal.SIGKILL)
    await ended


async def _collected(profile: Profile) -> int:
    """Collect what there is; the bytes of memory that it took."""
    process = await _sync(profile)
    peak = Peak(process.pid)
    assert await process.wait() == 0
    return peak.end().most


def _inbox(profile: Profile) -> bytes:
    """The only message in the Inbox."""
    folders = profile.folders()
    (entry,) = folders.scan("Inbox")
    return (folders.folder("Inbox") / entry.place).read_bytes()
