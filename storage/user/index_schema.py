"""The tables of the index, and what opening, damage and age of its file mean.

The index holds nothing that isn't in the folders, so a damaged one is set aside and one of another version is
thrown away. What is asked of the tables is in storage/user/index.py.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

from storage.database import DatabaseDamaged, DatabaseError, check, connect
from storage.read_only_db import in_memory, open_to_read

VERSION = 2

SCHEMA = """
CREATE TABLE IF NOT EXISTS folder (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, new_changed INTEGER, cur_changed INTEGER);
CREATE TABLE IF NOT EXISTS message (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again: the text index keeps words of deleted rows
    folder INTEGER NOT NULL,
    place BLOB NOT NULL,                   -- path in the folder, in the bytes of the filesystem
    flags TEXT NOT NULL, unread INTEGER NOT NULL, date REAL NOT NULL, size INTEGER NOT NULL, changed INTEGER NOT NULL,
    attachments INTEGER NOT NULL, message_id TEXT NOT NULL, sender TEXT NOT NULL, recipients TEXT NOT NULL,
    subject TEXT NOT NULL, in_reply_to TEXT NOT NULL, refs TEXT NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS message_place ON message(folder, place);
CREATE INDEX IF NOT EXISTS message_date ON message(folder, date);
CREATE INDEX IF NOT EXISTS message_unread ON message(folder) WHERE unread = 1;
CREATE INDEX IF NOT EXISTS message_name ON message(message_id);
CREATE VIRTUAL TABLE IF NOT EXISTS text USING fts5(
    subject, sender, recipients, body, files, content='', tokenize='unicode61 remove_diacritics 2');
CREATE TABLE IF NOT EXISTS gone (count INTEGER NOT NULL);  -- one row: deleted messages since the text was made
INSERT INTO gone SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM gone);
"""


def open_index(path: Path) -> sqlite3.Connection:
    """A connection to the index at `path`, empty when it was of another version. Raises database.DatabaseError."""
    connection = connect(path, "")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version not in (0, VERSION):
        connection.close()
        for file in _files(path):
            file.unlink(missing_ok=True)
        connection = connect(path, "")
    if version != VERSION:
        connection.executescript(SCHEMA + f"PRAGMA user_version={VERSION};")
    # Losing the last moments in a power cut costs a look into the folders, so no commit waits for the disk.
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def open_copy(path: Path) -> sqlite3.Connection:
    """A copy of the index in memory, for where it can't be written; empty when there is none that can be read."""
    with suppress(sqlite3.Error, DatabaseError):
        source, _ = open_to_read(path)
        with closing(source):
            check(source, path)
            if source.execute("PRAGMA user_version").fetchone() == (VERSION,):
                return in_memory(source)
    memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    memory.executescript(SCHEMA)
    return memory


def set_aside(path: Path, now: float | None = None) -> Path:
    """Rename a damaged index, so that a new one can be made and the old one looked into. Returns where it is now."""
    aside = path.with_name(f"{path.name}.damaged-{int(time.time() if now is None else now)}")
    for file in _files(path):
        with suppress(FileNotFoundError):
            file.rename(aside.with_name(aside.name + file.name[len(path.name) :]))
    return aside


def is_damage(error: Exception) -> bool:
    """Whether the error says that the file is bad (and not, say, that the disk is full)."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return isinstance(error, DatabaseDamaged) or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _files(path: Path) -> list[Path]:
    """The database and what SQLite keeps beside it."""
    return [path.with_name(path.name + ending) for ending in ("", "-wal", "-shm")]
