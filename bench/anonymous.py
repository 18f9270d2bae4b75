"""The most anonymous memory that a process has: what it allocated itself, without the files that it has mapped.

The virus rules map the message that they scan. Such pages count as resident (VmRSS, VmHWM, ru_maxrss), but the kernel
takes them back whenever somebody needs the room: they are the page cache. RssAnon (proc(5)) is without them, and has no
high-water mark of its own, so that a thread looks at it every few milliseconds.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

EVERY = 0.005
"""Seconds between two looks."""


class Peak:
    """Watches a process (this one without `pid`) until `end`."""

    def __init__(self, pid: int | None = None) -> None:
        self._status = Path(f"/proc/{os.getpid() if pid is None else pid}/status")
        self._ended = threading.Event()
        self.before = anonymous(self._status)
        """Bytes at the beginning."""
        self.most = self.before
        """Bytes at the most until now."""
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)
        self._thread.start()

    def end(self) -> Peak:
        """Look once more, and no longer."""
        self._ended.set()
        self._thread.join()
        return self

    @property
    def growth(self) -> int:
        """Bytes at the most beyond those at the beginning."""
        return self.most - self.before

    def _watch(self) -> None:
        while not self._ended.wait(EVERY):
            self.most = max(self.most, anonymous(self._status))
        self.most = max(self.most, anonymous(self._status))


def anonymous(status: Path) -> int:
    """RssAnon in bytes; 0 of a process that has ended."""
    try:
        lines = status.read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)
