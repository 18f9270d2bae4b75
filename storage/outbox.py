"""The outbox: every letter that was accepted, until its fate is known (design, section 5: states that are true).

A letter and how far it has come, in SQLite with synchronous=FULL; the message itself lies in a spool folder beside
it. A recipient's state is worked out from facts by `state_of`, never set: it can't be better than they are.
"""

# Note to helper S2: the lead wrote outbox.py and state.py; please review and test them instead of writing your own.

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import msgspec

from storage import durable
from storage.database import connect

SCHEMA = """
CREATE TABLE IF NOT EXISTS letters (
    message_id TEXT PRIMARY KEY,
    sender TEXT NOT NULL,
    subject TEXT NOT NULL,
    created REAL NOT NULL,
    file TEXT NOT NULL,
    next_attempt REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    done INTEGER NOT NULL DEFAULT 0,
    secrets BLOB
);
CREATE TABLE IF NOT EXISTS recipients (
    message_id TEXT NOT NULL REFERENCES letters ON DELETE CASCADE,
    position INTEGER NOT NULL,
    address TEXT NOT NULL,
    salt BLOB,
    certificate BLOB,
    notification BLOB,
    bodies_have INTEGER NOT NULL DEFAULT 0,
    bodies_want INTEGER NOT NULL DEFAULT 0,
    notifications_have INTEGER NOT NULL DEFAULT 0,
    notifications_want INTEGER NOT NULL DEFAULT 0,
    proof BLOB,
    failed INTEGER NOT NULL DEFAULT 0,
    expired INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (message_id, address)
);
CREATE INDEX IF NOT EXISTS waiting ON letters (done, next_attempt);
"""


class State(StrEnum):
    """What is known of a letter for one recipient."""

    QUEUED = "queued"
    STORED = "stored"
    COLLECTED = "collected"
    EXPIRED = "expired"
    FAILED = "failed"


class AlreadyAccepted(Exception):
    """A letter with this Message-ID is in the outbox already; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """The facts about one recipient. `bodies` and `notifications`: copies there are, of copies wanted.

    `proof` is her signed delete; `notification` the sealed bytes for her inbox, kept so that a retry repeats them.
    """

    address: str
    salt: bytes | None = None
    certificate: bytes | None = None
    notification: bytes | None = None
    bodies: tuple[int, int] = (0, 0)
    notifications: tuple[int, int] = (0, 0)
    proof: bytes | None = None
    failed: bool = False
    expired: bool = False
    reason: str = ""

    @property
    def state(self) -> State:
        """See `state_of`."""
        return state_of(self)

    @property
    def settled(self) -> bool:
        """Whether nothing more can happen."""
        return self.state in (State.COLLECTED, State.EXPIRED, State.FAILED)


def state_of(recipient: Recipient) -> State:
    """The one place where facts become a state: a proof beats everything, and "stored" needs a copy of both."""
    if recipient.proof is not None:
        return State.COLLECTED
    if recipient.failed:
        return State.FAILED
    if recipient.expired:
        return State.EXPIRED
    if recipient.bodies[0] > 0 and recipient.notifications[0] > 0:
        return State.STORED
    return State.QUEUED


class Secrets(msgspec.Struct, array_like=True, frozen=True):
    """What a retry needs to repeat the same bytes: the session key, and each segment's size and digest."""

    session_key: bytes
    segments: list[tuple[int, bytes]]


@dataclass(frozen=True, slots=True)
class Entry:
    """One letter of the outbox. `file` holds the message as it was accepted, byte for byte."""

    message_id: str
    sender: str
    subject: str
    created: float
    file: Path
    next_attempt: float
    attempts: int
    secrets: Secrets | None
    recipients: tuple[Recipient, ...]

    @property
    def settled(self) -> bool:
        """Whether every recipient's fate is known."""
        return all(recipient.settled for recipient in self.recipients)


class Outbox:
    """All letters that were accepted. Synchronous and thread-safe; durable when a method returns."""

    def __init__(self, path: Path, spool: Path) -> None:
        """`path`: the database; `spool`: the folder of the messages. Raises DatabaseError, OSError."""
        durable.make_folder(spool)
        self._spool = spool
        self._connection = connect(path, SCHEMA)
        self._connection.row_factory = sqlite3.Row
        self._lock = threading.RLock()  # protects the connection, and makes each method one transaction
        self._sweep()

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._connection.close()

    def spool_file(self, name: str) -> Path:
        """A place in the spool for a message that is being written; `accept` takes it from there."""
        return self._spool / f"{name}.new"

    def accept(
        self, message: Path | bytes, message_id: str, subject: str, sender: str, recipients: Sequence[str], now: float
    ) -> None:
        """Take responsibility for a letter: when this returns, it is on disk and due at once.

        `message` as a Path from `spool_file` is moved in. Raises AlreadyAccepted, OSError, sqlite3.Error; then
        nothing was accepted.
        """
        name = msgspec.msgpack.encode(message_id).hex()[-64:] + f".{int(now * 1000)}.eml"
        target = self._spool / name
        if self.entry(message_id) is not None:
            raise AlreadyAccepted(f"A message with the Message-ID {message_id} is in the outbox already.")
        if isinstance(message, bytes):
            durable.write(target, message)
        else:
            _sync(message)
            durable.move(message, target)
        try:
            with self._writing() as connection:
                connection.execute(
                    "INSERT INTO letters (message_id, sender, subject, created, file, next_attempt)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    (message_id, sender, subject, now, name, now),
                )
                connection.executemany(
                    "INSERT INTO recipients (message_id, position, address) VALUES (?, ?, ?)",
                    [(message_id, i, address) for i, address in enumerate(dict.fromkeys(recipients))],
                )
        except sqlite3.IntegrityError as error:
            durable.remove(target)
            raise AlreadyAccepted(f"A message with the Message-ID {message_id} is in the outbox already.") from error

    def entries(self, limit: int = 1000) -> list[Entry]:
        """Letters, newest first."""
        return self._select("ORDER BY created DESC LIMIT ?", limit)

    def entry(self, message_id: str) -> Entry | None:
        """One letter."""
        found = self._select("WHERE message_id = ?", message_id)
        return found[0] if found else None

    def due(self, now: float, everything: bool = False) -> list[Entry]:
        """Letters that aren't settled and whose next attempt is due (or all of them), oldest first."""
        moment = float("inf") if everything else now
        return self._select("WHERE done = 0 AND next_attempt <= ? ORDER BY created", moment)

    def next_due(self) -> float | None:
        """When the next attempt is due, or None when nothing waits."""
        with self._lock:
            row = self._connection.execute("SELECT MIN(next_attempt) FROM letters WHERE done = 0").fetchone()
        return None if row[0] is None else float(row[0])

    def keep_secrets(self, message_id: str, secrets: Secrets) -> None:
        """Remember what a retry must repeat."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE letters SET secrets = ? WHERE message_id = ?", (msgspec.msgpack.encode(secrets), message_id)
            )

    def learn(self, message_id: str, recipient: Recipient) -> Recipient:
        """Take over new facts about a recipient; a proof of collection once seen is never lost again."""
        with self._writing() as connection:
            known = next((r for r in self._recipients(message_id) if r.address == recipient.address), recipient)
            if known.proof is not None:
                recipient = replace(recipient, proof=known.proof)
            connection.execute(
                "UPDATE recipients SET salt = ?, certificate = ?, notification = ?, bodies_have = ?, bodies_want = ?,"
                " notifications_have = ?, notifications_want = ?, proof = ?, failed = ?, expired = ?, reason = ?"
                " WHERE message_id = ? AND address = ?",
                (
                    recipient.salt,
                    recipient.certificate,
                    recipient.notification,
                    *recipient.bodies,
                    *recipient.notifications,
                    recipient.proof,
                    recipient.failed,
                    recipient.expired,
                    recipient.reason,
                    message_id,
                    recipient.address,
                ),
            )
        return recipient

    def attempted(self, message_id: str, next_attempt: float) -> None:
        """An attempt has ended; a settled letter isn't tried again, and its message and secrets are let go."""
        entry = self.entry(message_id)
        if entry is None:
            return
        with self._writing() as connection:
            connection.execute(
                "UPDATE letters SET attempts = attempts + 1, next_attempt = ?, done = ?,"
                " secrets = CASE WHEN ? THEN NULL ELSE secrets END WHERE message_id = ?",
                (next_attempt, entry.settled, entry.settled, message_id),
            )
        if entry.settled and not any(r.state is State.FAILED for r in entry.recipients):
            durable.remove(entry.file)

    def retry(self, message_id: str, now: float) -> bool:
        """Try the failed and expired recipients of a letter again, on the user's word; False if there are none."""
        with self._writing() as connection:
            changed = connection.execute(
                "UPDATE recipients SET failed = 0, expired = 0, reason = '' WHERE message_id = ? AND proof IS NULL"
                " AND (failed OR expired)",
                (message_id,),
            ).rowcount
            if changed:
                connection.execute(
                    "UPDATE letters SET done = 0, attempts = 0, next_attempt = ? WHERE message_id = ?",
                    (now, message_id),
                )
        return bool(changed)

    def forget(self, message_id: str) -> None:
        """Take a letter off the list, on the user's word."""
        entry = self.entry(message_id)
        if entry is not None:
            with self._writing() as connection:
                connection.execute("DELETE FROM letters WHERE message_id = ?", (message_id,))
            durable.remove(entry.file)

    def _select(self, where: str, parameter: object) -> list[Entry]:
        with self._lock:
            rows = self._connection.execute(f"SELECT * FROM letters {where}", (parameter,)).fetchall()  # noqa: S608
            return [self._entry(row) for row in rows]

    def _entry(self, row: sqlite3.Row) -> Entry:
        secrets = None if row["secrets"] is None else msgspec.msgpack.decode(row["secrets"], type=Secrets)
        return Entry(
            row["message_id"],
            row["sender"],
            row["subject"],
            row["created"],
            self._spool / row["file"],
            row["next_attempt"],
            row["attempts"],
            secrets,
            tuple(self._recipients(row["message_id"])),
        )

    def _recipients(self, message_id: str) -> list[Recipient]:
        rows = self._connection.execute(
            "SELECT * FROM recipients WHERE message_id = ? ORDER BY position", (message_id,)
        ).fetchall()
        return [
            Recipient(
                row["address"],
                row["salt"],
                row["certificate"],
                row["notification"],
                (row["bodies_have"], row["bodies_want"]),
                (row["notifications_have"], row["notifications_want"]),
                row["proof"],
                bool(row["failed"]),
                bool(row["expired"]),
                row["reason"],
            )
            for row in rows
        ]

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _sweep(self) -> None:
        """Remove messages that no letter names: a crash came before their acceptance, or after they were let go."""
        named = {row["file"] for row in self._connection.execute("SELECT file FROM letters")}
        for file in self._spool.iterdir():
            if file.suffix == ".eml" and file.name not in named:
                durable.remove(file)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
