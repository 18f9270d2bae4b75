"""A real process on a real terminal that goes away: what was being written is kept, and the process ends."""

from __future__ import annotations

import os
import pty
import select
import sys
import time
from pathlib import Path

import pytest

from mail.mailbox import Mailbox, Profile

PATIENCE = 60.0


def read_until(terminal: int, marker: bytes) -> None:
    """Read what the program draws until `marker` is among it."""
    seen, end = b"", time.monotonic() + PATIENCE
    while marker not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"no {marker!r} in {seen[-500:]!r}"
        seen += os.read(terminal, 65536)


DEAF = ["/bin/sh", "-c", 'trap "" HUP; "$@"; exit 0', "sh"]
"""A parent that is told of the terminal's end and tells nobody, as make is."""


@pytest.mark.real
@pytest.mark.parametrize("parent", [[], DEAF], ids=["of a shell", "of a parent that says nothing"])
def test_what_was_being_written_is_kept_when_the_terminal_goes_away(root: Path, parent: list[str]) -> None:
    process, terminal = pty.fork()
    if process == 0:
        os.environ["TERM"] = "xterm-256color"
        arguments = [*parent, sys.executable, "-m", "tui", "--profile", str(root)]
        os.execv(arguments[0], arguments)
    try:
        read_until(terminal, b"Saturday")
        os.write(terminal, b"c")
        read_until(terminal, b"New message")
        os.write(terminal, b"precious@village.example")
        read_until(terminal, b"example")
    finally:
        os.close(terminal)
    end = time.monotonic() + PATIENCE
    while os.waitpid(process, os.WNOHANG) == (0, 0):
        assert time.monotonic() < end, "the process didn't end"
        time.sleep(0.05)
    mailbox = Mailbox(Profile(root))
    mailbox.refresh()
    drafts = [mailbox.open_draft(row) for row in mailbox.rows(mailbox.ids("Drafts"))]
    assert [draft.to for draft in drafts] == ["precious@village.example"]
