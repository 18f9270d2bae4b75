"""What lies on a real disk, sent from one profile to another: each file once as inline text and once as an attachment.

Several files are one message, so that tens of thousands take minutes. Every message's bytes are compared at the end.
"""

from __future__ import annotations

import base64
import hashlib
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from email.utils import formatdate
from pathlib import Path

from tests.real.journey.claims import Claim, Claims
from tests.real.journey.desk import JourneyUserAgent
from tests.real.journey.story import JourneyOutcome, judge, outcome, settle
from tests.real.process_network import ProcessNetwork

A_MESSAGE = 4_000_000
"""Bytes of files after which the next message begins."""
FILES_A_MESSAGE = 150
NODES = 6
AT_ONCE = 3
PATIENCE = 420.0
PASSED_OVER = frozenset({".git", ".venv", "__pycache__", "site-packages"})

Part = Callable[[str, bytes], bytes]


def inline(name: str, data: bytes) -> bytes:
    """A file as text to be read: its bytes as they are, whatever they are."""
    disposition = f'Content-Disposition: inline; filename="{name}"'
    return f"Content-Type: text/plain\nContent-Transfer-Encoding: binary\n{disposition}\n\n".encode() + data


def attached(name: str, data: bytes) -> bytes:
    """A file as mail programs attach it."""
    head = f'Content-Type: application/octet-stream\nContent-Disposition: attachment; filename="{name}"\n'
    return head.encode() + b"Content-Transfer-Encoding: base64\n\n" + base64.encodebytes(data)


def files(folders: Sequence[Path]) -> Iterator[Path]:
    """Every file under these folders, in the order of their names; links aren't followed."""
    for folder in folders:
        for place, names, leaves in os.walk(folder):
            names[:] = sorted(name for name in names if name not in PASSED_OVER)
            for leaf in sorted(leaves):
                path = Path(place) / leaf
                if path.is_file() and not path.is_symlink():
                    yield path


def messages(paths: Iterator[Path], part: Part) -> Iterator[tuple[int, bytes]]:
    """How many files are in it, and the MIME body of each message."""
    parts: list[bytes] = []
    size = 0
    for path in paths:
        name = path.name.encode("ascii", "replace").decode().replace('"', "_").replace("\\", "_")
        parts.append(part(name, path.read_bytes()))
        size += len(parts[-1])
        if size >= A_MESSAGE or len(parts) >= FILES_A_MESSAGE:
            yield len(parts), _joined(parts)
            parts, size = [], 0
    if parts:
        yield len(parts), _joined(parts)


def _joined(parts: Sequence[bytes]) -> bytes:
    boundary = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest().encode()
    head = b'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="' + boundary + b'"\n\n'
    return head + b"".join(b"--" + boundary + b"\n" + part + b"\n" for part in parts) + b"--" + boundary + b"--\n"


def send_files(folder: Path, folders: Sequence[Path]) -> JourneyOutcome:
    """Send all of it from one profile to another over six nodes, and compare."""
    begun = time.monotonic()
    claims = Claims()
    folder.mkdir(parents=True)
    network = ProcessNetwork(folder)
    user_agents: list[JourneyUserAgent] = []
    counts = Counter[str]()
    try:
        network.start(NODES)
        for name in ("alice", "bob"):
            aside = folder / f"{name}-aside"
            aside.mkdir()
            profile = network.member(name)
            user_agents.append(JourneyUserAgent(f"{name}@village.example", profile, aside, claims, random.Random(name)))
        for user_agent in user_agents:
            user_agent.begin()
        _send_all(claims, user_agents, folders, counts)
        for user_agent in user_agents:
            user_agent.stop_watching()
        settle(claims, user_agents, PATIENCE)
        wrong = judge(claims, user_agents)
    finally:
        for user_agent in user_agents:
            user_agent.end()
        network.stop()
    return outcome(
        0, claims, counts + user_agents[0].counts, left_out=[], wrong=wrong, seconds=time.monotonic() - begun
    )


def _send_all(
    claims: Claims, user_agents: Sequence[JourneyUserAgent], folders: Sequence[Path], counts: Counter[str]
) -> None:
    """Hand everything in, some messages at once."""
    sender, recipient = user_agents
    waiting: list[tuple[Claim, Path]] = []
    for part in (inline, attached):
        for number, body in messages(files(folders), part):
            name = f"{part.__name__}{counts['letters']}"
            path = sender.aside / f"{name}.eml"
            path.write_bytes(
                f"From: {sender.address}\nTo: {recipient.address}\nDate: {formatdate()}\nSubject: {name}\n"
                f"Message-ID: <{name}@files.example>\n".encode()
                + body
            )
            claim = claims.hand_in(f"{name}@files.example", sender.address, [recipient.address], path)
            waiting.append((claim, path))
            counts["letters"] += 1
            counts[f"files {part.__name__}"] += number
            if len(waiting) == AT_ONCE:
                sender.send(waiting)
                waiting = []
    if waiting:
        sender.send(waiting)
