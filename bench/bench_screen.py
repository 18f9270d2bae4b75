"""How soon the reader shows 100,000 messages, beside neomutt on the same Maildir.

Both start warm (index and header cache made, files in the page cache), on a real terminal, the reader with a joined
profile in a small overlay that runs. What is measured is the whole program as a user starts it.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.figure import Figure, quantile
from bench.maildir import cached_maildir, copy_of
from bench.terminal import Painted, paint
from mail.demo.private_overlay import PrivateOverlay
from mail.mailbox import Mailbox
from storage.user.profile import Profile

COUNT = 100_000
RUNS = 7
NODES = 3
"""The reader's agent finds an overlay to join; its work goes on while the list is painted, as it would at home."""
ROWS_PAINTED = 10
"""Messages that must be on the screen before the list counts as painted; the reader below it leaves room for twelve."""
SETTLE = 2.0
"""Seconds from the paint to the look at the memory: the agent has started by then."""


def measure() -> list[Figure]:
    """Time to the first painted list (s, median) and peak memory (MB, highest) of p2pmail-tui; peer: neomutt."""
    if shutil.which("tmux") is None:
        raise SystemExit("bench_screen needs tmux.")
    with tempfile.TemporaryDirectory(prefix="p2pmail-bench-") as name:
        folder = Path(name)
        peers = neomutt(folder / "neomutt")
        ours = asyncio.run(in_an_overlay(folder))
    seconds = {program: quantile([run.seconds for run in runs], 0.5) for program, runs in peers.items()}
    memory = {program: max(run.peak for run in runs) / 1e6 for program, runs in peers.items()}
    own_seconds = quantile([run.seconds for run in ours], 0.5)
    own_memory = max(run.peak for run in ours) / 1e6
    return [
        Figure("first painted list, Maildir of 100,000", own_seconds, "s", 1.2, "lower", seconds),
        Figure("peak memory of it", own_memory, "MB", 150, "lower", memory),
    ]


async def in_an_overlay(folder: Path) -> list[Painted]:
    """Start a few nodes, let a member with the big Maildir have an index, then start the reader again and again."""
    private_overlay = PrivateOverlay(folder / "village", "bench")
    await private_overlay.start(NODES)
    try:
        profile = Profile(folder / "profile")
        private_overlay.member("alice@example.org", profile)
        return await asyncio.to_thread(reader, profile)
    finally:
        await private_overlay.stop()


def reader(profile: Profile) -> list[Painted]:
    """The runs of p2pmail-tui on `profile`, whose Inbox is filled first."""
    copy_of(cached_maildir(COUNT), profile.folder("Inbox"))
    mailbox = Mailbox(profile)
    mailbox.refresh()
    mailbox.close()
    command = [str(Path(sys.executable).with_name("p2pmail-tui")), "--profile", str(profile.root)]
    if not Path(command[0]).exists():  # not installed: from the source, which is the working directory
        command[:1] = [sys.executable, "-m", "tui"]
    return repeated(command)


def neomutt(folder: Path) -> dict[str, list[Painted]]:
    """The runs of neomutt with a header cache, sorted by date as our list is; none where it isn't installed."""
    if shutil.which("neomutt") is None:
        return {}
    maildir, cache = folder / "Inbox", folder / "cache"
    copy_of(cached_maildir(COUNT), maildir)
    cache.mkdir()
    settings = {
        "header_cache": cache,
        "folder": folder,
        "spoolfile": maildir,
        "mbox_type": "Maildir",
        "sort": "reverse-date",
        "mark_old": "no",
    }
    (folder / "rc").write_text("".join(f"set {name}={value}\n" for name, value in settings.items()))
    runs = repeated(["neomutt", "-n", "-F", str(folder / "rc"), "-f", str(maildir)])
    shutil.rmtree(folder)
    return {"neomutt": runs}


def repeated(command: Sequence[str]) -> list[Painted]:
    """RUNS starts of `command` after one that isn't counted, which fills caches."""
    return [paint(command, listed, settle=SETTLE) for _ in range(RUNS + 1)][1:]


def listed(screen: str) -> bool:
    """Whether the list is on the screen, not its frame alone."""
    return sum("Person " in line for line in screen.splitlines()) >= ROWS_PAINTED
