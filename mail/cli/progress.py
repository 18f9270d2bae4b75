"""Shows a command's progress on one line of the terminal. Prints nothing if standard error isn't a terminal."""

from __future__ import annotations

import sys
from typing import TextIO

from mail.events import Progress
from mail.mime import sanitize

CLEAR = "\r\x1b[K"
WIDTH = 60
"""Most characters of the work's name: the text must fit into one line."""


class ProgressLine:
    """The progress line. Call `clear` before printing anything else."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._shown = False

    def show(self, progress: Progress) -> None:
        """Show the progress; clear the line if the work is done."""
        if not self._out.isatty():
            return
        if progress.done >= progress.total > 0:
            self.clear()
            return
        share = f" {100 * progress.done // progress.total}%" if progress.total else ""
        what = sanitize.line(progress.what)
        what = what if len(what) <= WIDTH else what[: WIDTH - 1] + "\N{HORIZONTAL ELLIPSIS}"
        self._out.write(f"{CLEAR}{what}{share}")
        self._out.flush()
        self._shown = True

    def clear(self) -> None:
        """Clear the line."""
        if self._shown:
            self._out.write(CLEAR)
            self._out.flush()
            self._shown = False
