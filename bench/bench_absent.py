"""900 messages to one who is absent: how long until all are stored, and does the sender's screen stand still?
 Her inbox holds 1,000 notifications; from 500 on nodes ask a stamp for each (overlay/limits/stamps.py). The sender is
a process of its own, its agent in a thread as behind the screen, with an event loop beside it that wants to be woken
every few milliseconds; the nodes are this process."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from asyncio.subprocess import PIPE
from pathlib import Path

import msgspec

from bench.figure import Figure
from bench.overlay import private_overlay
from mail.agent import Agent
from mail.identity import Identity
from overlay import event_loop
from storage.user.outbox import Envelope, State
from storage.user.profile import Profile

MESSAGES = 900
NODES = 12
SECONDS, STALL = 60, 50
TICK = 0.005
RECIPIENT = "bob@bench.example"


class SenderReport(msgspec.Struct):
    """What the sender saw: seconds until its run was over, messages stored, the longest stall beside it (ms)."""

    seconds: float
    stored: int
    stall: float


def measure() -> list[Figure]:
    """The messages that are stored, the seconds, the worst stall."""
    return event_loop.run(_measure(MESSAGES, NODES))


async def _measure(messages: int, nodes: int) -> list[Figure]:
    async with private_overlay(nodes) as place:
        for who in ("alice", "bob"):
            agent = await place.agent(f"{who}@bench.example", Profile(place.folder / who))
            await agent.close()
        report = await _send(place.folder / "alice", messages)
    name = f"{messages} letters to one absent recipient, {nodes} nodes"
    return [
        Figure(f"{name}: stored", report.stored, "", messages, "higher"),
        Figure(f"{name}: sending all", report.seconds, "s", SECONDS, "lower"),
        Figure(f"{name}: longest stall of the sender's screen", report.stall, "ms", STALL, "lower"),
    ]


async def _send(profile: Path, messages: int) -> SenderReport:
    command = [sys.executable, "-m", "bench.bench_absent", str(profile), str(messages)]
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, cwd=Path(__file__).parent.parent)
    out, _ = await process.communicate()
    return msgspec.json.decode(out, type=SenderReport)


def _sender(profile: Profile, messages: int) -> SenderReport:
    ended = threading.Event()
    result: list[SenderReport] = []

    def work() -> None:
        try:
            result.append(asyncio.run(_work(profile, messages)))
        finally:
            ended.set()

    thread = threading.Thread(target=work)
    thread.start()
    stall = asyncio.run(_watch(ended))
    thread.join()
    return msgspec.structs.replace(result[0], stall=stall)


async def _watch(ended: threading.Event) -> float:
    """By how many milliseconds the worst tick of this loop came late."""
    worst = 0.0
    while not ended.is_set():
        before = time.perf_counter()
        await asyncio.sleep(TICK)
        worst = max(worst, time.perf_counter() - before - TICK)
    return worst * 1000


async def _work(profile: Profile, messages: int) -> SenderReport:
    agent = await Agent.open(profile, Identity.open(profile, None))
    try:
        sender = agent.identity.address
        for number in range(messages):
            head = f"From: {sender}\nTo: {RECIPIENT}\nSubject: {number}\nMessage-ID: <{number}@bench.example>\n"
            data = f"{head}\nHello, number {number}.\n".encode()
            agent.outbox.accept(
                data,
                Envelope(
                    f"{number}@bench.example",
                    subject=str(number),
                    sender=sender,
                    recipients=[RECIPIENT],
                    created=time.time(),
                ),
            )
        begun = time.perf_counter()
        await agent.send()
        seconds = time.perf_counter() - begun
        states = [recipient.state for entry in agent.outbox.entries() for recipient in entry.recipients]
        return SenderReport(seconds, states.count(State.STORED), 0.0)
    finally:
        await agent.close()


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(_sender(Profile(Path(sys.argv[1])), int(sys.argv[2]))))
