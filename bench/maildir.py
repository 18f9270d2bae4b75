"""A Maildir of many synthetic messages with threads, the same every time, kept in the temporary folder between runs.

The benchmarks of the screen and the index read it. They get a copy of the tree (hard links: cheap), because mail
programs rename the files that they open.
"""

from __future__ import annotations

import email.utils
import os
import random
import shutil
import tempfile
from pathlib import Path

WORDS = [
    "river",
    "stone",
    "budget",
    "launch",
    "server",
    "quarter",
    "mail",
    "review",
    "draft",
    "invoice",
    "travel",
    "meeting",
    "garden",
    "error",
    "report",
    "node",
    "replica",
    "lookup",
    "key",
]
PEOPLE = 200
FIRST_DATE = 1_700_000_000
"""Seconds since 1970 of message 0; one comes every minute."""
UNSEEN_TAIL = 50
"""The newest messages lie in new/, where no reader has seen them."""


def cached_maildir(count: int) -> Path:
    """A Maildir of `count` messages, made on first use (some 20 s for 100,000). Read it, don't write to it."""
    folder = Path(tempfile.gettempdir()) / f"p2pmail-bench-{os.getuid()}" / f"maildir-{count}"
    if not folder.is_dir():
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=folder.parent))
        make_maildir(unfinished, count)
        unfinished.rename(folder)
    return folder


def copy_of(maildir: Path, target: Path) -> None:
    """Lay a copy of `maildir` at `target` that may be renamed in and deleted from: hard links where that works."""

    def link(source: str, destination: str) -> str:
        try:
            os.link(source, destination)
        except OSError:
            shutil.copy2(source, destination)
        return destination

    shutil.copytree(maildir, target, copy_function=link, dirs_exist_ok=True)


def make_maildir(folder: Path, count: int) -> None:
    """Fill `folder` with `count` messages: three in five of them replies, most of them read, the last in new/."""
    chance = random.Random(7)
    for name in ("cur", "new", "tmp"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    ids: list[str] = []
    for number in range(count):
        message_id = f"<{number:08x}.{chance.getrandbits(48):x}@example.org>"
        answers = chance.choice(ids[-500:]) if ids and chance.random() < 0.6 else None
        ids.append(message_id)
        content = message(chance, number, message_id, answers)
        unique = f"{FIRST_DATE + number * 60}.M{number}P1.host"
        if number >= count - UNSEEN_TAIL:
            path = folder / "new" / unique
        else:
            path = folder / "cur" / (unique + (":2,S" if chance.random() < 0.9 else ":2,"))
        path.write_bytes(content)


def message(chance: random.Random, number: int, message_id: str, answers: str | None) -> bytes:
    """Message `number` (RFC 5322, CRLF), a reply when it `answers` the Message-ID of another."""
    who = chance.randrange(PEOPLE)
    subject = ("Re: " if answers else "") + " ".join(chance.choices(WORDS, k=5))
    head = [
        f"From: Person {who} <p{who}@example.org>",
        "To: alice@example.org",
        f"Subject: {subject}",
        f"Date: {email.utils.formatdate(FIRST_DATE + number * 60)}",
        f"Message-ID: {message_id}",
    ]
    if answers:
        head += [f"In-Reply-To: {answers}", f"References: {answers}"]
    head += ["MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8"]
    body = [" ".join(chance.choices(WORDS, k=12)) for _ in range(chance.randrange(5, 40))]
    return "\r\n".join([*head, "", *body, ""]).encode()
