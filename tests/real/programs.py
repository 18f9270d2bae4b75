"""p2pmail's two programs as real processes: started, waited for, ended by their own id. No network is known here.

A process's output goes into files, so that nothing blocks on a full pipe and a failed test can show what was said.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0
"""Seconds after which a wait is given up. Against hanging only: what is waited for takes a tenth of it."""
LOOK_AGAIN = 0.05
CODE = {
    "p2pmail": "import sys; from mail.cli.main import main; sys.exit(main())",
    "p2pmail-tui": "import sys; from tui.__main__ import main; sys.exit(main())",
}


class GivenUp(AssertionError):
    """What was waited for didn't come; the message has what the process said until then."""


def until(
    look: Callable[[], T | None], what: str, within: float = PATIENCE, seen: Callable[[], object] = lambda: ""
) -> T:
    """The first answer of `look` that is true. Raises GivenUp after `within` seconds, with what `seen` says then."""
    deadline = time.monotonic() + within
    while not (found := look()):
        if time.monotonic() >= deadline:
            raise GivenUp(f"not within {within:.0f} s: {what}\n{seen()}")
        time.sleep(LOOK_AGAIN)
    return found


_namespace: ContextVar[str] = ContextVar("namespace", default="")


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Start programs in this network namespace while the block runs."""
    token = _namespace.set(namespace)
    try:
        yield
    finally:
        _namespace.reset(token)


def command(program: str) -> list[str]:
    """How `program` is started: as it was installed beside this Python, or from this source."""
    namespace = _namespace.get()
    into = ["ip", "netns", "exec", namespace] if namespace else []
    installed = Path(sys.executable).with_name(program)
    return [*into, str(installed)] if installed.exists() else [*into, sys.executable, "-c", CODE[program]]


def environment(**more: str) -> dict[str, str]:
    """What processes are given: this source, and nobody's own profile or screen settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("P2PMAIL_", "SSH_", "TEXTUAL"))}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | more


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command said, and how it ended."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """Its standard output as text."""
        return self.out.decode()


def run(
    program: str, *arguments: str | Path, stdin: bytes = b"", env: Mapping[str, str] | None = None, within: float = 120
) -> CommandResult:
    """Run a program to its end without a terminal. Raises subprocess.TimeoutExpired (it is killed then)."""
    ended = subprocess.run(
        [*command(program), *map(str, arguments)],
        input=stdin,
        capture_output=True,
        env=environment(**(env or {})),
        timeout=within,
        check=False,
    )
    return CommandResult(ended.returncode, ended.stdout, ended.stderr.decode())


class Process:
    """A program that runs until it is told to stop."""

    def __init__(self, program: str, *arguments: str | Path, log: Path, stdin: Path = Path(os.devnull)) -> None:
        """Start it; what it prints goes to `log`.out and `log`.err."""
        self._out, self._err = log.with_suffix(".out"), log.with_suffix(".err")
        with self._out.open("wb") as out, self._err.open("wb") as err, stdin.open("rb") as given:
            self._process = subprocess.Popen(
                [*command(program), *map(str, arguments)],
                stdin=given,
                stdout=out,
                stderr=err,
                env=environment(),
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def said(self) -> str:
        """All that it printed, errors too."""
        return self._out.read_text() + self._err.read_text()

    def line(self, pattern: str) -> re.Match[str]:
        """Wait for a whole line on its standard output. Raises GivenUp, also when it ends before."""

        def look() -> re.Match[str] | None:
            ended = self._process.poll() is not None  # first: what it said before it ended still counts
            found = re.search(rf"^{pattern}\n", self._out.read_text(), re.MULTILINE)
            if ended and not found:
                raise GivenUp(f"it ended with {self._process.returncode} without saying {pattern!r}:\n{self.said}")
            return found

        try:
            return until(look, f"the line {pattern!r}")
        except GivenUp as error:
            raise GivenUp(f"{error}\n{self.said}") from None

    def wait(self) -> int:
        """Wait until it ends by itself; its exit code. Raises subprocess.TimeoutExpired."""
        return self._process.wait(PATIENCE)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(PATIENCE)

    def terminate(self) -> int:
        """Ask it to stop in good order, and wait; its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(PATIENCE)

    def end(self) -> None:
        """Be sure that it is gone, however it is."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
