"""How far a command's work is, on one line of a terminal that is written over; nothing where standard error is none."""

from __future__ import annotations

import sys
from typing import TextIO

from mail.events import Progress
from mail.mime import sanitize

CLEAR = "\r\x1b[K"
WIDTH = 60
"""Characters of the work's name that are shown: the line must not be broken."""


class ProgressLine:
    """The line; whoever prints something else clears it first."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._shown = False

    def show(self, progress: Progress) -> None:
        """Write how far it is; work that is done goes from the line."""
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
        """Leave an empty line."""
        if self._shown:
            self._out.write(CLEAR)
            self._out.flush()
            self._shown = False
