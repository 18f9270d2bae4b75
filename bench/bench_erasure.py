"""What a mail of 10 MB costs its network in copies and in shares, for the paper's p and a target of 99.9%.

A real agent sends it through real nodes on loopback, and what lies on their disks is counted. The mail is random, the
hardest to compress, so a byte of mail is a byte of body. p is handed to the agent as if probes had measured it. That
what is stored then survives as surely as was asked is tried by killing nodes by chance, on paper: a trial draws which
of the holders are up.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from bench.figure import Figure
from bench.overlay import private_overlay
from mail.agent import Agent
from mail.availability.erasure_code import ErasureCode
from mail.availability.estimate import OPERATIONS, Availability, copies
from mail.availability.probes import Probes
from mail.demo.private_overlay import PrivateOverlay
from mail.sealed.erasure_shares import CodingPlan, GatheredShares, make_shares
from mail.send.rules import segment_key
from overlay import event_loop
from overlay.ids import Kind
from storage.user.outbox import Envelope, State
from storage.user.profile import Profile

NODES = 64
SIZE = 10_000_000
TARGET = 0.999
CASES = (0.3, 0.5, 0.75, 0.9)
BAR = {0.5: 4.0}
OBSERVED = 1000
"""Copies of probes looked for: two days of them."""
TRIALS = 200_000
"""Bodies whose holders are drawn, for each p."""
SPEED_BYTES = 1 << 20


def measure() -> list[Figure]:
    """Both ways for each p; then how fast shares are made and joined."""
    figures: list[Figure] = []
    wanted = TARGET ** (1 / OPERATIONS)
    for p, coded, copied, code in event_loop.run(_measure()):
        name = f"10 MB mail, p={p}, target {TARGET:.1%}"
        figures += [
            Figure(
                f"{name}: bytes stored for each of its bytes, {code.m} of {code.n}",
                coded,
                "",
                BAR.get(p),
                "lower",
                {"copies": copied, "copies by equation (6), uncapped": copies(p, TARGET)},
            ),
            Figure(f"{name}: share of bodies that survive", _survived(p, code), "", wanted, "higher"),
        ]
    return [*figures, *_speed()]


async def _measure() -> list[tuple[float, float, float, ErasureCode]]:
    results = []
    async with private_overlay(NODES) as place:
        alice = await place.agent("alice@bench.example", Profile(place.folder / "alice"))
        bob = await place.agent("bob@bench.example", Profile(place.folder / "bob"))
        try:
            for p in CASES:
                known = Availability(OBSERVED * p, OBSERVED * (1 - p))
                code = _known(alice, known).code(NODES)
                coded = await _stored(place, alice, bob, f"shares-{p}@bench.example")
                alice._sending._code = None
                copied = await _stored(place, alice, bob, f"copies-{p}@bench.example")
                results.append((p, coded, copied, code))
        finally:
            await alice.close()
            await bob.close()
    return results


def _known(agent: Agent, known: Availability) -> Probes:
    probes = agent.probes
    probes.set(known)
    agent._sending._code = probes.code
    return probes


async def _stored(place: PrivateOverlay, alice: Agent, bob: Agent, message_id: str) -> float:
    """Send it, count what nodes keep of it, collect it: bytes on their disks for each byte of the mail."""
    sender, recipient = alice.identity.address, bob.identity.address
    head = f"From: {sender}\nTo: {recipient}\nSubject: 10 MB\nMessage-ID: <{message_id}>\n\n"
    message = head.encode() + os.urandom(SIZE)
    path = place.folder / "message.eml"
    path.write_bytes(message)
    alice.outbox.accept(
        path, Envelope(message_id, subject="10 MB", sender=sender, recipients=[recipient], created=time.time())
    )
    await alice.send()
    entry = alice.outbox.entry(message_id)
    assert entry is not None and entry.recipients[0].state is State.STORED, entry
    assert entry.secrets is not None
    stored = await _kept(place, message_id, len(entry.secrets.segments))
    assert await bob.sync() == 1
    _check(bob, message)
    await alice.sync()
    return stored / len(message)


def _check(bob: Agent, message: bytes) -> None:
    folders = bob.profile.folders()
    (found,) = folders.scan("Inbox")
    path: Path | None = folders.path("Inbox", found.unique)
    assert path is not None and path.read_bytes() == message
    path.unlink()


async def _kept(place: PrivateOverlay, message_id: str, segments: int) -> int:
    """Bytes that nodes keep of this mail. (Not of all: deletes of the one before may still be on their way.)"""
    keys = [segment_key(message_id, index, many=segments > 1) for index in range(segments)]
    stores = [node.store for node in place.nodes if node.store is not None]
    found = [await store.variants(kind, key) for store in stores for kind in (Kind.BODY, Kind.SHARE) for key in keys]
    return sum(kept.size for variants in found for kept in variants)


def _survived(p: float, code: ErasureCode) -> float:
    chance = random.Random(1)
    alive = sum(sum(chance.random() < p for _ in range(code.n)) >= code.m for _ in range(TRIALS))
    return alive / TRIALS


def _speed() -> list[Figure]:
    plan, key, segment = CodingPlan(17, 60, os.urandom(32)), bytes(20), os.urandom(SPEED_BYTES)
    start = time.perf_counter()
    shares = make_shares(segment, key, plan)
    made = time.perf_counter() - start
    gathered = GatheredShares(plan.coding, key, len(segment))
    start = time.perf_counter()
    for share in reversed(shares):  # the parity shares, which cost most to join
        if gathered.missing:
            gathered.take(share)
    assert gathered.segment() == segment
    joined = time.perf_counter() - start
    megabytes = SPEED_BYTES / 1e6
    return [
        Figure("17 of 60 shares made of a segment", megabytes / made, "MB/s", None, "higher"),
        Figure("a segment made of 17 of 60 shares", megabytes / joined, "MB/s", None, "higher"),
    ]
