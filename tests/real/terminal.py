"""A program in a terminal of its own, in tmux: keys go in, the screen's text comes out."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.programs import need_program
from tests.real.programs import GivenUp, environment, until

WITHIN = 60.0
"""Seconds until a screen that doesn't come is given up."""
ENDED = "[it ended with "


class Terminal:
    """One program in a tmux server of its own; leaving the `with` ends that server and what runs in it."""

    def __init__(
        self,
        arguments: Sequence[str | Path],
        *,
        columns: int = 80,
        rows: int = 24,
        socket: Path,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start `arguments` on a screen of this size. `socket`: where tmux may have its own (a short path)."""
        self._tmux = [need_program("tmux"), "-u", "-S", str(socket), "-f", "/dev/null"]
        program = shlex.join(map(str, arguments))
        size = ["-x", str(columns), "-y", str(rows)]
        ended = subprocess.run(
            [*self._tmux, "new-session", "-d", *size, f"{program}; echo; echo '{ENDED}'$?]; exec cat"],
            env=environment(LC_ALL="C.UTF-8", SHELL="/bin/sh", ESCDELAY="25", **(env or {})),
            capture_output=True,
            timeout=30,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr

    @property
    def screen(self) -> str:
        """What stands on the screen now."""
        return self._do("capture-pane", "-p")

    def shows(self, pattern: str) -> str:
        """Wait until the screen has this (a regular expression over its lines); the screen then. Raises GivenUp."""

        def look() -> str | None:
            screen = self.screen
            return screen if re.search(pattern, screen, re.MULTILINE) else None

        try:
            return until(look, f"{pattern!r} on the screen", WITHIN)
        except GivenUp as error:
            raise GivenUp(f"{error}; there is\n{self.screen}") from None

    def shows_not(self, pattern: str) -> None:
        """Wait until the screen no longer has this. Raises GivenUp."""
        try:
            until(
                lambda: not re.search(pattern, self.screen, re.MULTILINE), f"{pattern!r} gone from the screen", WITHIN
            )
        except GivenUp as error:
            raise GivenUp(f"{error}; there is\n{self.screen}") from None

    def drawn(self, row: int) -> str:
        """One row with its colours, as escape sequences: what shows where the cursor is."""
        return self._do("capture-pane", "-p", "-e").splitlines()[row]

    def press(self, *keys: str) -> None:
        """Press keys, in tmux's names for them: "Enter", "C-q", "j"."""
        self._do("send-keys", *keys)

    def write(self, text: str) -> None:
        """Type text as it is."""
        self._do("send-keys", "-l", text)

    def ended(self) -> int:
        """Wait until the program has ended; its exit code."""
        found = re.search(re.escape(ENDED) + r"(\d+)\]", self.shows(re.escape(ENDED)))
        assert found is not None
        return int(found[1])

    def close(self) -> None:
        """End it: the terminal goes away under whatever runs in it."""
        subprocess.run([*self._tmux, "kill-server"], capture_output=True, timeout=30, check=False)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _do(self, *arguments: str) -> str:
        done = subprocess.run([*self._tmux, *arguments], capture_output=True, text=True, timeout=30, check=True)
        return done.stdout
