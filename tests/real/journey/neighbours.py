"""Programs that p2pmail shares a computer with: neomutt and mbsync on its folders, libfaketime under its clock."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

FAKETIME = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/local/lib/faketime/libfaketimeMT.so.1")
PATIENCE = 60.0

NEOMUTT = """\
set folder = "{mail}"
set from = "{address}"
set delete = yes
set quit = yes
set confirmappend = no
set confirmcreate = no
set wait_key = no
set mark_old = no
set sort = date
set postponed = "+Drafts"
set postpone = yes
set copy = no
set editor = "true"
set abort_unmodified = no
set abort_nosubject = no
"""
MBSYNC = """\
MaildirStore near
Path {mail}/
Inbox {mail}/Inbox
SubFolders Verbatim

MaildirStore far
Path {far}/
Inbox {far}/Inbox
SubFolders Verbatim

Channel both
Far :far:
Near :near:
Patterns INBOX Archive Drafts Trash
Create Both
Expunge Both
SyncState {state}/
"""


class NeighbourFailed(AssertionError):
    """A neighbour failed; the message has what it said."""


def libfaketime() -> Path | None:
    """The library for programs with threads, where it is installed: the other one closes files of theirs."""
    return next((path for pattern in FAKETIME for path in sorted(Path("/").glob(pattern[1:]))), None)


class SettableClock:
    """A clock that can be set, as processes with `env` read it."""

    def __init__(self, file: Path, library: Path) -> None:
        self._file = file
        self.seconds = 0.0
        self.set(0)
        self.env = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_CACHE_DURATION": "1",  # seconds after which the file is read again
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def set(self, seconds: float) -> None:
        """Let it be so far from the true one."""
        self.seconds = seconds
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+.0f}s\n")
        fresh.rename(self._file)


class Neomutt:
    """neomutt on a profile's mail."""

    def __init__(self, program: str, mail: Path, address: str, folder: Path) -> None:
        """`folder`: for its settings."""
        folder.mkdir(parents=True)
        self._home = folder
        self._settings = folder / "neomuttrc"
        self._settings.write_text(NEOMUTT.format(mail=mail, address=address))
        self._command = [program, "-n", "-F", str(self._settings), "-f", str(mail / "Inbox")]

    def flag(self, entries: Sequence[int]) -> None:
        """Flag these messages of the Inbox, by their places in it from 1 on."""
        self._do("".join(f"{entry}<enter><flag-message>" for entry in entries))

    def read(self, entries: Sequence[int]) -> None:
        """Mark these messages as read."""
        self._do("".join(f"{entry}<enter><clear-flag>N" for entry in entries))

    def archive(self, entries: Sequence[int]) -> None:
        """Move these messages to Archive."""
        self._do("".join(f"{entry}<enter><save-message>=Archive<enter>" for entry in entries))

    def delete(self, entries: Sequence[int]) -> None:
        """Delete these messages."""
        self._do("".join(f"{entry}<enter><delete-message>" for entry in entries))

    def postpone(self, to: str, subject: str) -> None:
        """Begin a message and put it into Drafts."""
        self._do(f"<mail>{to}<enter>{subject}<enter><postpone-message>")

    def _do(self, keys: str) -> None:
        """Press these keys, and leave. Raises Failed."""
        process, terminal = pty.fork()
        if not process:
            os.environ.update(TERM="xterm", HOME=str(self._home), LINES="40", COLUMNS="120", LC_ALL="C.UTF-8")
            os.execv(self._command[0], [*self._command, "-e", f'push "{keys}<quit>"'])
        said = bytearray()
        deadline = time.monotonic() + PATIENCE
        try:
            while time.monotonic() < deadline:
                if select.select([terminal], [], [], 1)[0]:
                    try:
                        piece = os.read(terminal, 1 << 16)
                    except OSError:  # Linux's way to say that nobody has the other end any more
                        break
                    said += piece
            else:
                os.kill(process, signal.SIGKILL)
        finally:
            os.close(terminal)
        _, status = os.waitpid(process, 0)
        if status:
            raise NeighbourFailed(f"neomutt ended with {os.waitstatus_to_exitcode(status)} at {keys}: {said[-800:]!r}")


class Mbsync:
    """mbsync between a profile's mail and a mirror of it."""

    def __init__(self, program: str, mail: Path, folder: Path) -> None:
        """`folder`: for its settings, its state and the mirror."""
        self.far = folder / "far"
        state = folder / "state"
        for path in (self.far, state):
            path.mkdir(parents=True)
        self._settings = folder / "mbsyncrc"
        self._settings.write_text(MBSYNC.format(mail=mail, far=self.far, state=state))
        self._program = program

    def run(self) -> None:
        """Bring both to the same. Raises Failed."""
        ended = subprocess.run(
            [self._program, "-c", self._settings, "-a", "-q"],
            capture_output=True,
            text=True,
            timeout=PATIENCE * 2,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if ended.returncode or ended.stderr:
            raise NeighbourFailed(f"mbsync ended with {ended.returncode}: {ended.stderr[-800:]}")

    def flag_at_the_mirror(self, count: int) -> None:
        """Flag messages as a program does that sees the mirror alone."""
        for path in sorted((self.far / "Inbox" / "cur").glob("*:2,*"))[:count]:
            name, _, flags = path.name.partition(":2,")
            path.rename(path.with_name(f"{name}:2,{''.join(sorted({*flags, 'F', 'S'}))}"))


def program(name: str) -> str | None:
    """The path of a program, where it is installed."""
    return shutil.which(name)
