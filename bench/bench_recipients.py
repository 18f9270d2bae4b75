"""One message to 5,000 recipients on 20 nodes: how fast, in how much memory, and whether its progress is told.

The sender is a process of its own (`python -m bench.bench_recipients PROFILE RECIPIENTS`), so that its memory is its
own; the nodes share the other one. Before that every recipient's card is put where it belongs, without the network.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import subprocess
import sys
import time
from asyncio.subprocess import PIPE
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.delivery_end import memory, reset_peak
from bench.figure import Figure
from bench.overlay import K, private_overlay
from mail.agent import Agent
from mail.cli.running import run_loop
from mail.demo.private_overlay import PrivateOverlay
from mail.events import Event, Progress
from mail.identity import Identity
from mail.membership.x509 import make_certificate
from mail.sealed.keys import generate_pair
from mail.send.enqueue import accept
from overlay import event_loop
from overlay.identity.card import make_card
from overlay.identity.ownership import Owner
from overlay.ids import Kind, certificate_key, distance
from storage.store_request import StoreRequest
from storage.user.outbox import State
from storage.user.profile import Profile

NODES = 20
RECIPIENTS = 5000
COLLECTORS = 3
"""Recipients who collect it in the end, as a proof that it is there."""
MB = 1_000_000
DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Sent:
    """How the sending went: seconds, the longest silence of its progress, bytes of memory that it took on top."""

    seconds: float
    silence: float
    growth: int
    stored: int


def measure() -> list[Figure]:
    """One message. Three minutes, of which one makes the recipients."""
    sent, grown, collected = event_loop.run(_measure())
    name = f"one message to {RECIPIENTS:,} recipients, {NODES} nodes, k={K}"
    return [
        Figure(f"{name}: recipients a second", sent.stored / sent.seconds, "/s", 40, "higher"),
        Figure(f"{name}: share that is stored", sent.stored / RECIPIENTS, "", 1, "higher"),
        Figure(f"{name}: share of some who collect it whole", collected / COLLECTORS, "", 1, "higher"),
        Figure(f"{name}: longest time without a word of progress", sent.silence, "s", 1, "lower"),
        Figure(f"{name}: sender's memory grows by", sent.growth / MB, "MB", 100, "lower"),
        Figure(f"{name}: memory of all nodes grows by", grown / MB, "MB", 100, "lower"),
    ]


async def _measure() -> tuple[Sent, int, int]:
    async with private_overlay(NODES) as place:
        for node in place.nodes:  # they have seen each other come: what they keep later isn't handed on for that
            if node.server is not None:
                await node.server.repair.work()
        collectors = []
        for number in range(COLLECTORS):
            profile = Profile(place.folder / f"reader{number}")
            agent = await place.agent(f"reader{number}@bench.example", profile)
            collectors.append(agent)
        sender = await place.agent("alice@bench.example", Profile(place.folder / "alice"))
        await sender.close()
        await _make_recipients(place, range(COLLECTORS, RECIPIENTS))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bench.bench_recipients",
            str(sender.profile.root),
            str(RECIPIENTS),
            stdin=PIPE,
            stdout=PIPE,
            cwd=Path(__file__).parent.parent,
        )
        reset_peak()
        before = memory("VmRSS")
        out, _ = await process.communicate()
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, "bench.bench_recipients")
        grown = memory("VmHWM") - before
        collected = 0
        for agent in collectors:
            collected += await agent.sync()
            await agent.close()
        return msgspec.json.decode(out, type=Sent), grown, collected


async def _make_recipients(place: PrivateOverlay, numbers: range) -> None:
    """A card for each of these recipients at the k closest nodes."""
    authority = place.authority

    def card(number: int) -> tuple[str, bytes]:
        address, key = f"reader{number}@bench.example", Ed25519PrivateKey.generate()
        now = time.time()
        der = make_certificate(
            authority.certificate, authority._key, address, key.public_key(), serial=1000 + number, now=now
        )
        return address, make_card(Owner(der, key.sign), generate_pair(now).public, int(now * 1000))

    async def put(number: int) -> None:
        address, data = await asyncio.to_thread(card, number)
        key = certificate_key(address)
        nearest = sorted(place.nodes, key=lambda node: distance(node.id, key))[:K]
        stores = [node.store for node in nearest if node.store is not None]
        digest, sequence = hashlib.sha256(data).digest(), int(time.time() * 1000)
        await asyncio.gather(
            *(
                store.store(StoreRequest(Kind.CERTIFICATE, key, data, digest, DAY, sequence=sequence), lambda _: True)
                for store in stores
            )
        )

    for start in range(numbers.start, numbers.stop, 200):
        await asyncio.gather(*(put(number) for number in numbers[start - numbers.start :][:200]))


async def send(root: Path, recipients: int) -> Sent:
    """Accept a message to so many, and send it."""
    told: list[float] = []

    def tell(event: Event) -> None:
        if isinstance(event, Progress):
            told.append(time.perf_counter())

    profile = Profile(root)
    identity = Identity.open(profile, None)
    agent = await Agent.open(profile, identity, tell=tell)
    try:
        people = [f"reader{number}@bench.example" for number in range(recipients)]
        message = profile.root / "message.eml"
        to = ",\r\n ".join(people)
        message.write_bytes(
            f"From: {identity.address}\r\nTo: {to}\r\nSubject: To all\r\nMessage-ID: <all@bench.example>\r\n"
            "Date: Tue, 01 Dec 2026 12:00:00 +0000\r\n\r\nHello everybody.\r\n".encode()
        )
        reset_peak()
        before, start = memory("VmRSS"), time.perf_counter()
        await asyncio.to_thread(
            accept,
            agent.outbox,
            profile.folders(),
            message,
            message_id="all@bench.example",
            subject="To all",
            sender=identity.address,
            recipients=people,
            now=time.time(),
            certificate=identity.owner.certificate,
        )
        await agent.send()
        end = time.perf_counter()
        entry = agent.outbox.entry("all@bench.example")
        assert entry is not None
        stored = sum(recipient.state is State.STORED for recipient in entry.recipients)
        moments = [start, *told, end]
        silence = max(later - earlier for earlier, later in itertools.pairwise(moments))
        return Sent(end - start, silence, memory("VmHWM") - before, stored)
    finally:
        await agent.close()


if __name__ == "__main__":
    report = run_loop(send(Path(sys.argv[1]), int(sys.argv[2])))
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
