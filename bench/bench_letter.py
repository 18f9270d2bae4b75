"""A message of 2 KB from `send` until it is filed in the recipient's Maildir: the whole path, on 50 nodes.

Both ends act at once, as they would without polling: the sender's agent sends, then the recipient's collects. Bodies
and notifications are durable at ten nodes each meanwhile, and the message is checked before it is filed.
"""

from __future__ import annotations

import io
import time

from bench.figure import Figure, quantile
from bench.overlay import K, private_overlay
from mail.agent import Agent
from mail.events import Event, NewMail
from mail.mime.addresses import Address
from mail.write.compose import Draft, compose
from overlay import event_loop
from storage.user.outbox import Envelope
from storage.user.profile import Profile

NODES = 50
MESSAGES = 40
WARM_UP = 2
SIZE = 2048
"""Bytes of the message with its header."""


def measure() -> list[Figure]:
    """One message after the other, each waited for. Ten seconds."""
    to_filed, to_stored = event_loop.run(_measure())
    name = f"a 2 KB letter, {NODES} nodes, k={K}"
    return [
        Figure(f"{name}: send to filed, median", quantile(to_filed, 0.5) * 1000, "ms", 300, "lower"),
        Figure(f"{name}: send to filed, p95", quantile(to_filed, 0.95) * 1000, "ms", None, "lower"),
        Figure(f"{name}: of it sending, median", quantile(to_stored, 0.5) * 1000, "ms", None, "lower"),
    ]


async def _measure() -> tuple[list[float], list[float]]:
    """Seconds from accepting a message until it is filed, and until it is stored at the nodes."""
    filed: list[tuple[str, float]] = []

    def tell(event: Event) -> None:
        if isinstance(event, NewMail):
            filed.append((event.message_id, time.perf_counter()))

    async with private_overlay(NODES) as place:
        folder = place.folder
        alice = await place.agent("alice@bench.example", Profile(folder / "alice"))
        bob = await place.agent("bob@bench.example", Profile(folder / "bob"), tell)
        to_filed, to_stored = [], []
        try:
            for number in range(WARM_UP + MESSAGES):
                message_id, message = _message(number)
                start = time.perf_counter()
                alice.outbox.accept(
                    message,
                    Envelope(
                        message_id,
                        subject=f"Letter {number}",
                        sender="alice@bench.example",
                        recipients=["bob@bench.example"],
                        created=time.time(),
                    ),
                )
                await alice.send()
                stored = time.perf_counter()
                await bob.sync()
                assert filed[-1][0] == message_id, "the letter didn't arrive"
                to_filed.append(filed[-1][1] - start)
                to_stored.append(stored - start)
                assert message in _inbox(bob), "the letter arrived changed"
        finally:
            await alice.close()
            await bob.close()
    return to_filed[WARM_UP:], to_stored[WARM_UP:]


def _message(number: int) -> tuple[str, bytes]:
    """A message of SIZE bytes and its Message-ID."""
    out = io.BytesIO()
    text = ("All of this is filler, and every line of it has its end. " * 2 + "\n") * 40
    draft = Draft(
        Address("Alice", "alice@bench.example"),
        (Address("Bob", "bob@bench.example"),),
        subject=f"Letter {number}",
        text=text,
    )
    message_id = compose(out, draft)
    return message_id, out.getvalue()[: SIZE - 2] + b"\r\n"


def _inbox(agent: Agent) -> list[bytes]:
    """Every message of the Inbox as it lies on disk."""
    folder = agent.profile.folders().folder("Inbox")
    return [path.read_bytes() for subdir in ("new", "cur") for path in (folder / subdir).iterdir()]
