"""A process that is killed in the middle of a large message: how much goes over the network again.

The nodes are this process and count what they take and hand out. One sender's `p2pmail sync` is killed (SIGKILL) when
half of what another one sends undisturbed has gone out, one recipient's when half of the message is on her disk; each
is started again.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop
from aiohttp import web

from bench.figure import Figure
from bench.overlay import village
from overlay.bulk_limits import Pace
from storage.outbox import Outbox, State
from storage.profile import Profile
from tests.mail.desks import letter

NODES = 50
"""So many that the message goes in shares: of whole copies these would keep less, from one sender."""
SIZE = 500_000_000
AGAIN = 0.05
"""Share of the message that may be fetched again."""
MEMORY = 400
"""MB that a recipient's process may have, whatever the size of the message."""
POLL = 0.02
ATTEMPTS = 3
COMMAND = "from mail.cli.main import main; raise SystemExit(main())"
MB = 1e6


def measure() -> list[Figure]:
    """The sender's half, and the recipient's."""
    return [*uvloop.run(_sending()), *uvloop.run(_collecting())]


async def _sending() -> list[Figure]:
    async with village(NODES) as place:
        profiles = {}
        for who in ("alice", "bob", "carol"):
            agent = await place.agent(f"{who}@bench.example", Profile(place.folder / who))
            await agent.close()
            profiles[who] = agent.profile
        content = os.urandom(SIZE)
        for who in ("alice", "carol"):
            sender, to, name = f"{who}@bench.example", ["bob@bench.example"], f"of-{who}@bench.example"
            outbox = Outbox(profiles[who].outbox_file)
            outbox.accept(letter(sender, to, name, content, "Large"), name, "Large", sender, to, time.time())
            outbox.close()
        with _taken() as undisturbed:
            await _send(profiles["carol"])
        with _taken() as first:
            process = await _sync(profiles["alice"])
            while first[0] < undisturbed[0] / 2:
                assert process.returncode is None, "it was sent before it could be killed"
                await asyncio.sleep(POLL)
            process.send_signal(signal.SIGKILL)
            await process.wait()
        with _taken() as second:
            await _send(profiles["alice"])
        stored = [_stored(profiles[who]) for who in ("alice", "carol")]
        again = max(0.0, first[0] + second[0] - undisturbed[0]) / undisturbed[0]
        name = f"{SIZE / MB:,.0f} MB, sender killed at half"
        return [
            Figure(f"{name}: share sent again", again, "", AGAIN, "lower"),
            Figure(f"{name}: stored", float(all(stored)), "", 1, "higher"),
        ]


async def _collecting() -> list[Figure]:
    async with village(NODES) as place:
        alice = await place.agent("alice@bench.example", Profile(place.folder / "alice"))
        people = []
        for who in ("bob", "carol"):
            agent = await place.agent(f"{who}@bench.example", Profile(place.folder / who))
            await agent.close()
            people.append(agent.profile)
        bob, carol = people
        to = ["bob@bench.example", "carol@bench.example"]
        message = letter("alice@bench.example", to, "large@bench.example", os.urandom(SIZE), "Large")
        alice.outbox.accept(message, "large@bench.example", "Large", "alice@bench.example", to, time.time())
        await alice.send()
        entry = alice.outbox.entry("large@bench.example")
        assert entry is not None
        assert [r.state for r in entry.recipients] == [State.STORED] * 2, entry.recipients[0].reason
        await alice.close()
        with _handed_out() as undisturbed:
            assert await (await _sync(carol)).wait() == 0
        with _handed_out() as first:
            process = await _sync(bob)
            while _kept(bob) < SIZE / 2:
                assert process.returncode is None, "it was collected before it could be killed"
                await asyncio.sleep(POLL)
            process.send_signal(signal.SIGKILL)
            await process.wait()
        with _handed_out() as second:
            assert await (await _sync(bob)).wait() == 0
        same = _inbox(bob) == _inbox(carol) == message
        again = max(0.0, first[0] + second[0] - undisturbed[0]) / undisturbed[0]
        name = f"{SIZE / MB:,.0f} MB, recipient killed at half"
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / MB
        return [
            Figure(f"{name}: share fetched again", again, "", AGAIN, "lower"),
            Figure(f"{name}: arrived identical", float(same), "", 1, "higher"),
            Figure(f"{name}: recipient's memory at most", memory, "MB", MEMORY, "lower"),
        ]


@contextmanager
def _taken() -> Iterator[list[int]]:
    """Count the bytes of bodies that the nodes of this process take over HTTP meanwhile."""
    count = [0]
    real = Pace.read

    async def read(pace: Pace, reader: Callable[[], Awaitable[bytes]]) -> bytes:
        data = await real(pace, reader)
        count[0] += len(data)
        return data

    Pace.read = read  # type: ignore[assignment, method-assign]
    try:
        yield count
    finally:
        Pace.read = real  # type: ignore[method-assign]


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
def _handed_out() -> Iterator[list[int]]:
    """Count the bytes that the nodes of this process hand out over HTTP meanwhile."""
    count = [0]
    real = web.StreamResponse.write

    async def write(response: web.StreamResponse, data: bytes | bytearray | memoryview) -> None:
        count[0] += len(data)
        await real(response, data)

    web.StreamResponse.write = write  # type: ignore[assignment, method-assign]
    try:
        yield count
    finally:
        web.StreamResponse.write = real  # type: ignore[method-assign]


async def _sync(profile: Profile) -> Process:
    arguments = [sys.executable, "-c", COMMAND, "sync", "--profile", str(profile.root)]
    return await asyncio.create_subprocess_exec(*arguments, stdin=DEVNULL, cwd=Path(__file__).parent.parent)


def _kept(profile: Profile) -> int:
    """Bytes of the message that are on the disk of her who collects it."""
    return sum(file.stat().st_size for file in profile.spool.glob("*.parts/*"))


def _inbox(profile: Profile) -> bytes:
    """The only message in the Inbox."""
    folders = profile.folders()
    (entry,) = folders.scan("Inbox")
    return (folders.folder("Inbox") / entry.place).read_bytes()
