"""One end of a delivery in a process of its own, so that its memory is its own: `python -m bench.delivery_end`.

`send PROFILE RECIPIENT FILE` writes a message with that attachment and sends it, `collect PROFILE FOLDER` collects and
saves the attachment into the folder. Starts at a line on stdin, prints one JSON report. The profile, its keyring
without a passphrase, was made by whoever starts this; bench/bench_attachment.py does.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.anonymous import Peak
from mail.agent import Agent
from mail.cli.running import run_loop
from mail.events import Event, Progress, Trouble
from mail.identity import Identity
from mail.mime.addresses import Address
from mail.mime.attachments import save_attachment
from mail.mime.message import read_message
from mail.write.compose import Draft, Enclosure, compose
from storage.user.outbox import Envelope, State
from storage.user.profile import Profile


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """How the work went. Memory in bytes, anonymous (bench/anonymous.py): before it, and the most until it was done."""

    before: int
    peak: int
    seconds: float
    steps: int
    finished: bool
    digest: str
    troubles: tuple[str, ...]

    @property
    def growth(self) -> int:
        """Bytes that the work took on top."""
        return self.peak - self.before


def main(arguments: list[str]) -> None:
    """Do one of the two, and say how it went."""
    report = run_loop(_send(*arguments[1:]) if arguments[0] == "send" else _collect(*arguments[1:]))
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")


async def _send(profile: str, recipient: str, attachment: str) -> DeliveryReport:
    async with _agent(profile) as (agent, watch):
        await asyncio.to_thread(sys.stdin.readline)
        await agent.directory.card(recipient)
        watch.start()
        sender = agent.identity.address
        message = agent.profile.spool / "bench.eml"
        draft = Draft(
            Address("", sender), (Address("", recipient),), subject="25 MB", enclosures=(Enclosure(Path(attachment)),)
        )

        def write() -> str:
            message.parent.mkdir(parents=True, exist_ok=True)
            with message.open("wb") as out:
                message_id = compose(out, draft)
            agent.outbox.accept(
                message,
                Envelope(message_id, subject=draft.subject, sender=sender, recipients=[recipient], created=time.time()),
            )
            return message_id

        message_id = await asyncio.to_thread(write)
        await agent.send()
        entry = agent.outbox.entry(message_id)
        assert entry is not None and all(r.state is State.STORED for r in entry.recipients), entry
        return watch.report("")


async def _collect(profile: str, folder: str) -> DeliveryReport:
    async with _agent(profile) as (agent, watch):
        await asyncio.to_thread(sys.stdin.readline)
        watch.start()
        filed = await agent.sync()
        assert filed == 1, f"{filed} messages were filed: {watch.troubles}"

        def save() -> str:
            folders = agent.profile.folders()
            (unique,) = (found.unique for found in folders.scan("Inbox"))
            path = folders.path("Inbox", unique)
            assert path is not None
            (attachment,) = read_message(path).attachments
            with save_attachment(path, attachment.index, Path(folder)).open("rb") as saved:
                return hashlib.file_digest(saved, "sha256").hexdigest()

        return watch.report(await asyncio.to_thread(save))


class _Watch:
    """Time, memory and events, from `start` on."""

    def __init__(self) -> None:
        self.troubles: list[str] = []
        self._steps: list[Progress] = []
        self._peak: Peak | None = None
        self._start = 0.0

    def tell(self, event: Event) -> None:
        """What the agent tells."""
        if isinstance(event, Progress):
            self._steps.append(event)
        elif isinstance(event, Trouble):
            self.troubles.append(event.text)

    def start(self) -> None:
        """Begin to measure."""
        self._peak = Peak()
        self._start = time.perf_counter()

    def report(self, digest: str) -> DeliveryReport:
        """What came of it."""
        finished = any(step.done == step.total > 0 for step in self._steps)
        seconds = time.perf_counter() - self._start
        assert self._peak is not None, "it was started"
        peak = self._peak.end()
        return DeliveryReport(peak.before, peak.most, seconds, len(self._steps), finished, digest, tuple(self.troubles))


@contextlib.asynccontextmanager
async def _agent(profile: str) -> AsyncIterator[tuple[Agent, _Watch]]:
    watch = _Watch()
    place = Profile(Path(profile))
    agent = await Agent.open(place, Identity.open(place, None), tell=watch.tell)
    try:
        yield agent, watch
    finally:
        await agent.close()


def reset_peak() -> None:
    """Set the high-water mark (VmHWM) back to what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def memory(field: str) -> int:
    """Bytes of this process, from /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    main(sys.argv[1:])
