"""An attachment of 25 MB through 50 nodes: does it arrive as it was, how long, and how much memory do both ends take.

Sender and recipient are processes of their own (bench/delivery_end.py), the nodes are this one. The attachment is
random, which is the hardest to compress: with base64 34 MB of message, sealed into 25 segments or so, each in shares.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import msgspec

from bench.delivery_end import DeliveryReport
from bench.figure import Figure, quantile
from bench.overlay import K, private_overlay
from overlay import event_loop
from storage.user.profile import Profile

NODES = 50
SIZE = 25_000_000
MEMORY = 64
"""MB that either end may grow by."""
ROUNDS = 3
MB = 1e6


def measure() -> list[Figure]:
    """Three attachments, with new processes at both ends for each; the worst memory, the median time."""
    rounds = [event_loop.run(_measure()) for _ in range(ROUNDS)]
    sent, collected = [send for send, _, _ in rounds], [collect for _, collect, _ in rounds]
    name = f"25 MB attachment, {NODES} nodes, k={K}"
    steps = min(report.steps if report.finished else 0 for report in [*sent, *collected])
    return [
        Figure(f"{name}: share that arrived identical", sum(same for _, _, same in rounds) / ROUNDS, "", 1, "higher"),
        Figure(f"{name}: sender's memory grows by", _growth(sent), "MB", MEMORY, "lower"),
        Figure(f"{name}: recipient's memory grows by", _growth(collected), "MB", MEMORY, "lower"),
        Figure(f"{name}: steps of progress told, up to the last", steps, "", 10, "higher"),
        Figure(f"{name}: sending, median", _seconds(sent), "s", None, "lower"),
        Figure(f"{name}: collecting and saving, median", _seconds(collected), "s", None, "lower"),
    ]


async def _measure() -> tuple[DeliveryReport, DeliveryReport, bool]:
    async with private_overlay(NODES) as place:
        attachment, saved = place.folder / "attachment.bin", place.folder / "saved"
        saved.mkdir()
        content = os.urandom(SIZE)
        attachment.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        del content
        profiles = {}
        for who in ("alice", "bob"):
            agent = await place.agent(f"{who}@bench.example", Profile(place.folder / who))
            await agent.close()
            profiles[who] = str(agent.profile.root)
        # Both are up before anything is measured, as they would be.
        collecting = await _start("collect", profiles["bob"], str(saved))
        sending = await _start("send", profiles["alice"], "bob@bench.example", str(attachment))
        sent = await _work(sending)
        collected = await _work(collecting)
        return sent, collected, collected.digest == digest


async def _start(*arguments: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.delivery_end",
        *arguments,
        stdin=PIPE,
        stdout=PIPE,
        cwd=Path(__file__).parent.parent,
    )


async def _work(process: Process) -> DeliveryReport:
    """Let it begin, wait for its end. Raises CalledProcessError when it failed, which it has then said on stderr."""
    out, _ = await process.communicate(b"\n")
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, "bench.delivery_end")
    return msgspec.json.decode(out, type=DeliveryReport)


def _growth(reports: list[DeliveryReport]) -> float:
    return max(report.growth for report in reports) / MB


def _seconds(reports: list[DeliveryReport]) -> float:
    return quantile([report.seconds for report in reports], 0.5)
