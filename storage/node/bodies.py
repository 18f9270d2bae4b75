"""The files of bodies too big for a row: where they lie, how they come in durably, and which belong to nobody.

A file has a random name of its own, which one row names: so a file that is removed late is never one that came in
anew. Between file and row the order is always: file durable, row committed; row gone, file removed. A crash leaves
at most files without a row, and `sweep` removes those at the next start.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from storage import durable

log = logging.getLogger(__name__)

INLINE_LIMIT = 64 * 1024
"""Bytes up to which a content lies in the database: there a small one costs no fsync of its own."""


class Bodies:
    """The folders bodies/ (256 fan-out folders by the first two hex digits) and spool/ below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "bodies"
        self.spool_folder = folder / "spool"
        durable.make_folder(self.folder)
        durable.make_folder(self.spool_folder)

    def path(self, name: str) -> Path:
        """Where the body file of that name lies."""
        return self.folder / name[:2] / name

    def spool(self) -> Path:
        """A fresh path in the spool folder; nothing is there yet."""
        return self.spool_folder / secrets.token_hex(16)

    def take(self, content: bytes | Path) -> bytes | str:
        """Make a content ready to be named by a row: the name of a durable file, or a small one's bytes.

        A Path is a closed spool file, which is moved in when it is large, and left where it is otherwise.
        """
        if isinstance(content, bytes):
            return content if len(content) <= INLINE_LIMIT else self.write(content)
        return content.read_bytes() if content.stat().st_size <= INLINE_LIMIT else self.adopt(content)

    def adopt(self, spooled: Path) -> str:
        """Move a closed spool file in, durably; returns its name. Raises OSError."""
        durable.sync_file(spooled)
        name, target = self._place()
        durable.move(spooled, target)
        return name

    def write(self, content: bytes) -> str:
        """Write a body file durably; returns its name. Raises OSError."""
        name, target = self._place()
        durable.write(target, content)
        return name

    def _place(self) -> tuple[str, Path]:
        name = secrets.token_hex(16)
        target = self.path(name)
        durable.make_folder(target.parent)
        return name, target

    def remove(self, names: Iterable[str]) -> None:
        """Remove files that no row names any more. Not synced: one that a power cut brings back is swept."""
        for name in names:
            try:
                self.path(name).unlink(missing_ok=True)
            except OSError as error:
                log.warning("The body file %s could not be removed (%s); the next start tries again.", name, error)

    def has_files(self) -> bool:
        """Whether there is any body file."""
        return next(self.folder.glob("??/*"), None) is not None

    def sweep(self, wanted: Mapping[str, int]) -> set[str]:
        """Empty the spool folder, remove files that aren't `wanted` ({name: size}).

        Returns the names whose file is missing or has another size: their objects are lost to damage from outside.
        Run before anything is stored. Raises OSError.
        """
        for leftover in self.spool_folder.iterdir():
            leftover.unlink()
        missing = set(wanted)
        orphans = 0
        for file in self.folder.glob("??/*"):  # also the temporary files of an interrupted write
            size = wanted.get(file.name)
            if size is None:
                file.unlink()
                orphans += 1
            elif file.stat().st_size == size:
                missing.discard(file.name)
        if orphans:
            log.info("Removed %d body files that were never acknowledged or were deleted already.", orphans)
        return missing


def digest_of(content: bytes | Path) -> bytes:
    """SHA-256 of the bytes or of the file, read in pieces. Raises OSError."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).digest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
