"""How long a program takes to paint, and how much memory it takes, in a real terminal (tmux, 120 x 34).

The time is from the start of the program to the first screen that has the text that is waited for; the memory is the
peak of the resident set of the program and its children. What programs are started is each benchmark's business.
"""

from __future__ import annotations

import os
import secrets
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

COLUMNS, LINES = 120, 34
LOOK_EVERY = 0.01
"""Seconds between two looks at the screen: the grain of what is measured."""
END_WITHIN = 10.0
"""Seconds that a program gets for ending in good order."""


class NotPainted(Exception):
    """The text didn't appear in time; the message has the last screen."""


@dataclass(frozen=True, slots=True)
class Painted:
    """Seconds to the paint, peak resident memory in bytes, and the screen as it was."""

    seconds: float
    peak: int
    screen: str


def paint(
    command: Sequence[str],
    shows: Callable[[str], bool],
    *,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    patience: float = 120.0,
    settle: float = 0.0,
) -> Painted:
    """Run `command` in a new terminal until `shows(screen)`, then end it.

    `settle` seconds go by between the paint and the look at the memory. Raises NotPainted after `patience` seconds,
    or when the program ended.
    """
    socket = f"p2pmail-bench-{secrets.token_hex(4)}"  # a server of its own: the last one may still be on its way out
    settings = [f"{name}={value}" for name, value in (environment or {}).items()]
    line = shlex.join(["env", "TERM=tmux-256color", *settings, *command])
    # An idle pane first, so that starting tmux itself isn't measured; it stays when the program ends, with its words.
    tmux(socket, "new-session", "-d", "-x", str(COLUMNS), "-y", str(LINES), "sleep", "3600")
    tmux(socket, "set-option", "-g", "remain-on-exit", "on")
    pid = 0
    try:
        start = time.perf_counter()
        tmux(socket, "respawn-pane", "-k", "-c", str(cwd or Path.cwd()), f"exec {line}")
        pid = int(tmux(socket, "list-panes", "-F", "#{pane_pid}"))
        while True:
            screen = tmux(socket, "capture-pane", "-p")
            seconds = time.perf_counter() - start
            if shows(screen):
                break
            ended = tmux(socket, "list-panes", "-F", "#{pane_dead}").strip() == "1"
            if ended or seconds > patience:
                raise NotPainted(f"{'ended' if ended else 'nothing'} after {seconds:.1f} s:\n{screen}")
            time.sleep(LOOK_EVERY)
        time.sleep(settle)
        return Painted(seconds, peak_of_tree(pid), screen)
    finally:
        if pid:
            end(pid)
        tmux(socket, "kill-server")


def end(pid: int) -> None:
    """End a program, by force if it must be, before its files go or it is started again."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        until = time.perf_counter() + END_WITHIN
        while runs(pid) and time.perf_counter() < until:
            time.sleep(LOOK_EVERY)
        if not runs(pid):
            return


def runs(pid: int) -> bool:
    """Whether there is such a process that hasn't ended; one that waits for its parent to notice has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def tmux(socket: str, *arguments: str) -> str:
    """Run a tmux command in a server of our own, without the user's configuration; its output."""
    command = ["tmux", "-L", socket, "-f", "/dev/null", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def peak_of_tree(pid: int) -> int:
    """Peak resident memory of a process and its children together, bytes (an upper bound: peaks may differ in time)."""
    own = 0
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            own = int(line.split()[1]) * 1024
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return own + sum(peak_of_tree(int(child)) for child in children)
