"""Starting on a store that may be damaged: look before serving, and keep what is damaged out of the way.

A node must be able to start again after its disk went bad, and nothing may be dropped silently: the files are
renamed, never deleted, and the message says where they are. The one-process lock of the folder is here too, because
nobody may sweep or set aside what another process is using.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from storage import durable
from storage.database import DatabaseDamaged, DatabaseError, check, connect, explain
from storage.node.bodies import Bodies
from storage.node.schema import SCHEMA, UPGRADE_1, VERSION

log = logging.getLogger(__name__)

DATABASE_NAME = "store.sqlite"
STORE_NAMES = (DATABASE_NAME, f"{DATABASE_NAME}-wal", f"{DATABASE_NAME}-shm", "bodies")


class StoreBusy(DatabaseError):
    """Another process uses the folder."""


class StoreLock:
    """Holds `folder` for this process until `release`; the kernel releases it when the process ends."""

    def __init__(self, folder: Path) -> None:
        self._handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._handle)
            raise StoreBusy(
                f"{folder} is in use by another p2pmail process; stop that one, or give this one another profile."
            ) from error

    def release(self) -> None:
        """Let others have it. May be called again."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)


def inspect(folder: Path, bodies: Bodies) -> None:
    """Before anything is served: is the database sound, and do rows and body files agree? Sweeps what has no row.

    Raises DatabaseDamaged (`set_aside` helps), DatabaseError, OSError.
    """
    path = folder / DATABASE_NAME
    if bodies.has_files() and not (path.exists() and path.stat().st_size):
        # Swept now, every body would go: that isn't what a missing database means.
        raise DatabaseDamaged(f"{path} is missing or empty though body files are here; they were left as they are.")
    for made in (folder.parent, folder, bodies.folder):
        durable.sync_folder(made)  # a crash may have come between making a folder and syncing its name
    with closing(connect(path, "")) as connection:
        check(connection, path)
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version not in (0, 1, VERSION):
                raise DatabaseError(f"{path} was written by a newer p2pmail (format {version}); use that one.")
            if version != VERSION:
                upgrade = UPGRADE_1 if version == 1 else ""
                connection.executescript(f"BEGIN; {upgrade} {SCHEMA}; PRAGMA user_version={VERSION}; COMMIT;")
            found = connection.execute("SELECT file, id, size FROM objects WHERE file IS NOT NULL").fetchall()
            missing = bodies.sweep({name: size for name, _, size in found})
            lost = [(number,) for name, number, _ in found if name in missing]
            if lost:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany("DELETE FROM objects WHERE id = ?", lost)
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise explain(path, error, "can't be read", "it was left as it is") from error
    if lost:
        log.error(
            "%d bodies in %s are missing or have another size: something else removed or changed them. This node"
            " doesn't serve them any more; the other nodes have copies.",
            len(lost),
            bodies.folder,
        )


def set_aside(folder: Path, now: float) -> Path:
    """Move a node's damaged store (database and bodies) into folder/damaged-<time>/, durably; returns that folder.

    Raises StoreBusy, and DatabaseError when the disk refuses; interrupted, it can be called again for the rest.
    """
    lock = StoreLock(folder)
    try:
        stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%d-%H%M%S")
        target = folder / f"damaged-{stamp}"
        number = 2
        while target.exists():
            target = folder / f"damaged-{stamp}-{number}"
            number += 1
        durable.make_folder(target)
        for name in STORE_NAMES:
            if (folder / name).exists():
                durable.move(folder / name, target / name)
        return target
    except OSError as error:
        raise DatabaseError(f"The damaged store in {folder} can't be set aside ({error}).") from error
    finally:
        lock.release()
