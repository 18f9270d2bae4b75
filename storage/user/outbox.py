"""The outbox: what the user has sent, and what is known of each recipient's copy, until the user has seen how it ended.

Sending is mail/send/sender.py's work. The state of a copy is derived from facts in storage/user/outbox_entry.py.

Theory of operation
-------------------
A message is a file beside the database, and rows: one for the message, one for each recipient, one for each segment of
its sealed body. It goes through these states:

    accepted   `accept` returned: file and rows are durable, and the secrets that the body is sealed with are drawn.
    due        The next attempt has come (`due`). The sender notes facts (`record`), how the body was made
               (`save_secrets`), and when to try again (`record_attempt`).
    at rest    `next_attempt` is NEVER: nothing is asked about any recipient's copy. `record` puts the message there or
               wakes it, as the facts say; `retry` begins again for copies that failed or expired.
    collected  Every recipient has signed a delete. The file, the keys, the segments and the sealed notifications are
               removed. The proofs stay.
    forgotten  `forget` removed the rows. Only a settled message can be forgotten.

`accept` writes the file first and the rows second. If it dies between the two, a file is left that no row names, and
`sweep` removes it after a day. If the commit fails, `accept` looks whether the row is there: with the row the message
is accepted, without it the file is removed, and when this can't be read it raises AcceptanceUnknown.

A copy for the folder Sent is named in the same commit (`copy`), and struck out once it is there (`mark_copied`). A
crash in between leaves it in `missing_sent_copies`. In the same way `unreported` lists ends that the user may not have
been told.

Invariants:

- When `accept` returns, the message survives a power cut; when it raises an Exception other than AcceptanceUnknown,
  nothing was accepted.
- One Message-ID is one message: the same one for the same recipients again changes nothing, any other is refused.
- A retry sends the same bytes. Session key, coding and segments don't change once they are set.
- A proof is never unlearnt.
- A file is removed only after the commit that makes it needless. What a crash leaves behind is swept.
- `sweep` and `accept` exclude each other by a lock on the folder, among processes too: a file without a row may belong
  to a message that is being accepted.
- A clock that was ahead delays nothing: an attempt that was put off at a time later than now is due at once.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from storage import durable
from storage.durable_db import DurableDB
from storage.errors import DATA, TEMPORARY, P2PMailError
from storage.folder_lock import exclusive_lock, shared_lock
from storage.user.outbox_entry import (
    GROUP_SECRET_SIZE,
    SESSION_KEY_SIZE,
    Envelope,
    OutboxEntry,
    Recipient,
    Secrets,
    State,
    state_of,
)
from storage.user.outbox_schema import SCHEMA, UPGRADES, VERSION, load, note_facts, recipients_of

__all__ = [
    "AcceptanceUnknown",
    "AlreadySent",
    "Envelope",
    "NotSettled",
    "Outbox",
    "OutboxEntry",
    "OutboxError",
    "Recipient",
    "Secrets",
    "State",
    "state_of",
]

STALE = 86400.0
"""Seconds after which a message file without an entry belongs to an acceptance that died."""

NEVER = float("inf")
"""When a message that is settled is due: so years of sent mail cost an attempt nothing."""


class OutboxError(P2PMailError):
    """The outbox refuses; the message says why, and what was kept."""

    exit_code = DATA


class AlreadySent(OutboxError):
    """Another message with this Message-ID is in the outbox."""


class NotSettled(OutboxError):
    """A message that isn't settled can't be forgotten."""


class AcceptanceUnknown(OutboxError):
    """Whether the message was accepted can't be said: the disk failed at the one moment that decides it."""

    exit_code = TEMPORARY

    def __init__(self, message_id: str, error: Exception) -> None:
        super().__init__(
            f"Whether the message was accepted isn't known ({error}). Look for {message_id} in `p2pmail outbox` before"
            " you send it again; with this Message-ID it isn't sent twice."
        )


class Outbox:
    """The outbox at `path`; messages lie beside it. For worker threads, from several processes too."""

    def __init__(
        self, path: Path, *, now: Callable[[], float] = time.time, random: Callable[[int], bytes] = os.urandom
    ) -> None:
        """Open or create it. Raises database.DatabaseError (the message files are not touched then)."""
        self.folder = path.parent
        self._now = now
        self._random = random
        self._db = DurableDB(path, SCHEMA, VERSION, upgrades=UPGRADES)
        self._settle_all()
        self._draw_missing()
        self.sweep()

    @classmethod
    def to_read(cls, path: Path) -> tuple[Outbox, bool]:
        """The outbox without writing to its disk, and whether it shows everything that was written.

        Raises DatabaseError, also for an older version: open that one for writing.
        """
        outbox = cls.__new__(cls)
        outbox.folder = path.parent
        outbox._db, whole = DurableDB.to_read(path, VERSION)
        return outbox, whole

    def close(self) -> None:
        """Close it."""
        self._db.close()

    # -- taking and letting go

    def accept(
        self, message: bytes | Path, envelope: Envelope, *, consume: bool = False, copy: str | None = None
    ) -> bool:
        """Take responsibility for a message: it and its recipients are on disk when this returns.

        A Path is copied, or with `consume` moved where that is possible (it must not be written to any more). The
        message's secrets are drawn here, so that it is sealed to the same bytes whatever copy of the outbox it is sent
        from, a restored backup too. `copy` names the copy that is to appear in Sent (`missing_sent_copies`). Returns
        False when the same message for the same recipients is here already. Another message with its Message-ID is
        refused (AlreadySent). Raises OSError, DatabaseError, OutboxError; nothing was accepted then, unless it is
        AcceptanceUnknown.
        """
        envelope = replace(envelope, recipients=tuple(dict.fromkeys(envelope.recipients)))
        if not envelope.recipients:
            raise OutboxError("A message without recipients can't be sent; it was not accepted.")
        file = self.folder / f"{secrets.token_hex(16)}.eml"
        with shared_lock(self.folder):
            try:
                size, digest = _write_message(message, file, consume=consume)
                drawn = Secrets(self._random(SESSION_KEY_SIZE), group_secret=self._random(GROUP_SECRET_SIZE))
                accepted = _Accepted(envelope, size, digest, file.name, drawn, copy)
                new = self._db.write(lambda connection: _insert(connection, accepted))
            except BaseException as error:
                # The commit may fail after the row was written: then it is accepted, and its file stays.
                there = self._has(envelope.message_id, file.name)
                if there is False:
                    file.unlink(missing_ok=True)
                if there is None and isinstance(error, Exception):
                    raise AcceptanceUnknown(envelope.message_id, error) from error
                if not there or not isinstance(error, Exception):
                    raise
                return True
            if not new:
                file.unlink(missing_ok=True)
            return new

    def missing_sent_copies(self) -> list[tuple[str, str, Path]]:
        """Messages whose copy in Sent may not have its name yet: Message-ID, the copy's name, the message's file."""
        sql = "SELECT message_id, copy, file FROM letter WHERE copy IS NOT NULL"
        rows = self._db.read(lambda connection: connection.execute(sql).fetchall())
        return [(message_id, copy, self.folder / file) for message_id, copy, file in rows]

    def mark_copied(self, message_id: str) -> None:
        """Note that the copy is in Sent. Raises DatabaseError."""
        sql = "UPDATE letter SET copy = NULL WHERE message_id = ?"
        self._db.write(lambda connection: connection.execute(sql, (message_id,)))

    def forget(self, message_id: str) -> None:
        """Drop a message that is settled for everybody. Raises NotSettled, DatabaseError."""

        def drop(connection: sqlite3.Connection) -> OutboxEntry | None:
            entry = self._one(connection, message_id)
            if entry is not None:
                if not entry.settled:
                    raise NotSettled("It isn't settled yet; the outbox keeps it.")
                connection.execute("DELETE FROM letter WHERE message_id = ?", (message_id,))
            return entry

        entry = self._db.write(drop)
        if entry is not None:
            with suppress(OSError):  # swept later
                entry.file.unlink()

    def sweep(self) -> None:
        """Remove files over a day old that no message needs (of an acceptance that died, say)."""
        sql = "SELECT file FROM letter WHERE message_id IN (SELECT message_id FROM recipient WHERE proof IS NULL)"
        with exclusive_lock(self.folder) as undisturbed:
            # While a message is being accepted its file has no row yet; and the clock may have jumped meanwhile.
            known = self._db.read(lambda connection: {name for (name,) in connection.execute(sql)})
            for file in [*self.folder.glob("*.eml"), *self.folder.glob(".*.tmp")] if undisturbed else []:
                with suppress(FileNotFoundError):
                    if file.name not in known and self._now() - file.stat().st_mtime > STALE:
                        file.unlink()

    # -- asking

    def entries(self) -> list[OutboxEntry]:
        """All messages, newest first."""
        return self._db.read(lambda connection: load(connection, self.folder, "ORDER BY created DESC, rowid DESC"))

    def change_marker(self) -> tuple[object, ...]:
        """Something that is another one when a message may have changed, by this process or another one."""

        def read(connection: sqlite3.Connection) -> tuple[object, ...]:
            (others,) = connection.execute("PRAGMA data_version").fetchone()
            return self, others, connection.total_changes  # another Outbox counts from its own beginning

        return self._db.read(read)

    def entry(self, message_id: str) -> OutboxEntry | None:
        """One message, or None."""
        return self._db.read(lambda connection: self._one(connection, message_id))

    def due(self, now: float, everything: bool = False) -> list[OutboxEntry]:
        """Messages that don't rest and whose next attempt has come (or all of them), oldest first.

        One that was put off under a clock that was ahead of `now` is due too (OutboxEntry.due).
        """
        moment = sys.float_info.max if everything else now
        where = "WHERE next_attempt <= ?1 OR (next_attempt < ?2 AND scheduled > ?1) ORDER BY created, rowid"
        return self._db.read(lambda connection: load(connection, self.folder, where, moment, NEVER))

    def next_due(self) -> float | None:
        """When (epoch seconds) the next attempt is due; None when every message rests."""
        sql = "SELECT min(iif(scheduled > ?1, ?1, next_attempt)) FROM letter WHERE next_attempt < ?2"
        values = (self._now(), NEVER)
        (due,) = self._db.read(lambda connection: connection.execute(sql, values).fetchone())
        return None if due is None else float(due)

    # -- learning

    def save_secrets(self, message_id: str, kept: Secrets) -> None:
        """Keep how the body is coded and for whom it was begun, then what its segments are.

        Nothing but for whom changes any more, nor the session key (OutboxError): it would be another body under the
        same Message-ID.
        """

        def keep(connection: sqlite3.Connection) -> None:
            entry = self._one(connection, message_id)
            if entry is None:
                return
            before = entry.secrets
            if before is not None and before.session_key != kept.session_key:
                raise OutboxError(f"{message_id} has another session key; it was not changed.")
            if before is not None and before.coding and before.coding != kept.coding:
                raise OutboxError(f"{message_id} was coded in another way before; what was kept was not changed.")
            if before is not None and before.segments and list(before.segments) != list(kept.segments):
                raise OutboxError(f"{message_id} was sealed to other bytes before; what was kept was not changed.")
            sql = "UPDATE letter SET coding = ?, begun = ? WHERE message_id = ?"
            connection.execute(sql, (kept.coding or None, kept.begun or None, message_id))
            connection.executemany(
                "INSERT OR IGNORE INTO segment VALUES(?, ?, ?, ?)",
                [(message_id, number, size, digest) for number, (size, digest) in enumerate(kept.segments)],
            )

        self._db.write(keep)

    def record(self, facts: Sequence[tuple[str, Recipient]]) -> list[Recipient]:
        """Note what is known of recipients' copies now (each with the Message-ID), all of it in one commit.

        Returns what is noted. A proof is never unlearnt. A message that is settled by it rests.
        """

        def note(connection: sqlite3.Connection) -> tuple[list[Recipient], list[Path]]:
            noted = [note_facts(connection, message_id, known) for message_id, known in facts]
            needless = []
            for message_id in dict.fromkeys(message_id for message_id, _ in facts):
                file = self._settle(connection, message_id)
                if file is not None:
                    needless.append(file)
            return noted, needless

        noted, needless = self._db.write(note)
        for file in needless:
            with suppress(OSError):  # swept later
                file.unlink()
        return noted

    def record_attempt(self, message_id: str, next_attempt: float, *, answered: bool = True) -> None:
        """Note that an attempt was made, and when (epoch seconds) the next one is due, unless the message rests.

        One at which nobody `answered`, or under a clock that can't be right, isn't counted: it says nothing about the
        message. A message that was written under a clock that was ahead is as old as this attempt.
        """
        sql = (
            "UPDATE letter SET attempts = attempts + ?5, next_attempt = iif(next_attempt = ?1, ?1, ?2), scheduled = ?3,"
            " created = iif(?5, min(created, ?3), created) WHERE message_id = ?4"
        )
        values = (NEVER, next_attempt, self._now(), message_id, answered)
        self._db.write(lambda connection: connection.execute(sql, values))

    def make_due(self, message_ids: Collection[str], now: float) -> None:
        """Make these messages due `now`, unless they rest."""
        sql = "UPDATE letter SET next_attempt = ?1, scheduled = ?1 WHERE message_id = ?2 AND next_attempt < ?3"
        values = [(now, message_id, NEVER) for message_id in message_ids]
        self._db.write(lambda connection: connection.executemany(sql, values))

    def restart_lifetime(self, message_id: str) -> None:
        """Count the message's time from now on: nodes have only now taken it."""
        sql = "UPDATE letter SET created = ? WHERE message_id = ?"
        self._db.write(lambda connection: connection.execute(sql, (self._now(), message_id)))

    def unreported(self) -> list[OutboxEntry]:
        """Messages that may have ended for somebody without the user having been told: the process died."""
        ended = "SELECT message_id FROM recipient WHERE (failed OR expired) AND NOT reported AND proof IS NULL"
        where = f"WHERE message_id IN ({ended}) ORDER BY created, rowid"
        return self._db.read(lambda connection: load(connection, self.folder, where))

    def mark_reported(self, message_id: str, addresses: Collection[str]) -> None:
        """Note that the user was told how it ended for these."""
        sql = "UPDATE recipient SET reported = 1 WHERE message_id = ? AND address = ?"
        values = [(message_id, address) for address in addresses]
        self._db.write(lambda connection: connection.executemany(sql, values) and None)

    def retry(self, message_id: str, now: float) -> bool:
        """Begin again for those for whom it failed or expired; False when there are none.

        What nodes had of it counts for nothing, and is brought anew: the message's time runs from `now`.
        """

        def again(connection: sqlite3.Connection) -> bool:
            entry = self._one(connection, message_id)
            ended = [r for r in entry.recipients if r.state in (State.FAILED, State.EXPIRED)] if entry else []
            connection.executemany(
                "UPDATE recipient SET bodies_have = 0, notifications_have = 0, failed = 0, expired = 0, reason = '',"
                " unknown_since = NULL, gone_since = NULL, reported = 0"
                " WHERE message_id = ? AND address = ?",
                [(message_id, recipient.address) for recipient in ended],
            )
            if ended:
                new = "created = ?1, attempts = 0, next_attempt = ?1, scheduled = ?1, begun = NULL"
                sql = f"UPDATE letter SET {new} WHERE message_id = ?2"  # noqa: S608 - a constant
                connection.execute(sql, (now, message_id))
            return bool(ended)

        return self._db.write(again)

    # -- inside

    def _one(self, connection: sqlite3.Connection, message_id: str) -> OutboxEntry | None:
        return next(iter(load(connection, self.folder, "WHERE message_id = ?", message_id)), None)

    def _settle(self, connection: sqlite3.Connection, message_id: str) -> Path | None:
        """Let a message rest when it is settled for every recipient, or wake it. Returns its file when nobody needs it
        any more.

        Of one that everybody has collected the means to send it again, its session key among them, are forgotten too.
        """
        without = False
        for _, recipient in recipients_of(connection, "WHERE message_id = ? AND proof IS NULL", message_id):
            if not recipient.dormant:  # most often the first: a list of 1,000 isn't read for each who collects
                wake = "UPDATE letter SET next_attempt = ? WHERE message_id = ? AND next_attempt = ?"
                connection.execute(wake, (self._now(), message_id, NEVER))
                return None
            without = True
        connection.execute("UPDATE letter SET next_attempt = ? WHERE message_id = ?", (NEVER, message_id))
        if without:
            return None  # it can be tried again for them
        gone = "session_key = NULL, group_secret = NULL, coding = NULL, begun = NULL"
        connection.execute(f"UPDATE letter SET {gone} WHERE message_id = ?", (message_id,))  # noqa: S608 - a constant
        connection.execute("DELETE FROM segment WHERE message_id = ?", (message_id,))
        sql = "UPDATE recipient SET salt = NULL, certificate = NULL, notification = NULL WHERE message_id = ?"
        connection.execute(sql, (message_id,))
        found = connection.execute("SELECT file FROM letter WHERE message_id = ?", (message_id,)).fetchone()
        return None if found is None else self.folder / str(found[0])

    def _settle_all(self) -> None:
        """Let those rest that an earlier version had no rest for."""
        settled = [entry.message_id for entry in self.due(0.0, everything=True) if entry.dormant]
        if settled:
            self._db.write(lambda connection: [self._settle(connection, name) for name in settled])

    def _draw_missing(self) -> None:
        """Draw the secrets of messages that an earlier version accepted without them."""
        sql = (
            "SELECT message_id FROM letter WHERE (session_key IS NULL OR group_secret IS NULL)"
            " AND EXISTS (SELECT 1 FROM recipient WHERE message_id = letter.message_id AND proof IS NULL)"
        )
        update = (
            "UPDATE letter SET session_key = coalesce(session_key, ?), group_secret = coalesce(group_secret, ?)"
            " WHERE message_id = ?"
        )
        without = self._db.read(lambda connection: connection.execute(sql).fetchall())
        if without:
            drawn = [(self._random(SESSION_KEY_SIZE), self._random(GROUP_SECRET_SIZE), name) for (name,) in without]
            self._db.write(lambda connection: connection.executemany(update, drawn))

    def _has(self, message_id: str, name: str) -> bool | None:
        """Whether the message is here with the file of that name; None when that can't be said."""
        try:
            entry = self.entry(message_id)
        except Exception:
            return None
        return entry is not None and entry.file.name == name


@dataclass(frozen=True, slots=True)
class _Accepted:
    """A message whose file is durable, ready to be inserted. `digest`: SHA-256 of the file."""

    envelope: Envelope
    size: int
    digest: bytes
    file: str
    secrets: Secrets
    copy: str | None


def _insert(connection: sqlite3.Connection, new: _Accepted) -> bool:
    """Insert a message; False when it is there already. Raises AlreadySent for another one of the same Message-ID."""
    envelope = new.envelope
    message_id = envelope.message_id
    found = connection.execute("SELECT digest FROM letter WHERE message_id = ?", (message_id,)).fetchone()
    if found is not None:
        sql = "SELECT address FROM recipient WHERE message_id = ?"
        known = {address for (address,) in connection.execute(sql, (message_id,))}
        if found[0] == new.digest and known == set(envelope.recipients):
            return False
        raise AlreadySent(
            f"Another message with the Message-ID {message_id} is in the outbox, and this one was not accepted."
            " Send it with a Message-ID of its own."
        )
    connection.execute(
        "INSERT INTO letter"
        "(message_id, subject, sender, created, size, digest, file, session_key, group_secret, attempts, next_attempt,"
        " scheduled, copy) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?)",
        (
            message_id,
            envelope.subject,
            envelope.sender,
            envelope.created,
            new.size,
            new.digest,
            new.file,
            new.secrets.session_key,
            new.secrets.group_secret,
            envelope.created,
            envelope.created,
            new.copy,
        ),
    )
    connection.executemany(
        "INSERT INTO recipient (message_id, number, address, bodies_have, bodies_want, notifications_have,"
        " notifications_want, failed, expired, reason) VALUES (?, ?, ?, 0, 0, 0, 0, 0, 0, '')",
        [(message_id, number, address) for number, address in enumerate(envelope.recipients)],
    )
    return True


def _write_message(message: bytes | Path, target: Path, *, consume: bool) -> tuple[int, bytes]:
    """Put the message's bytes at `target` durably; their count and SHA-256."""
    if isinstance(message, bytes):
        durable.write(target, message)
    elif not (consume and _move_in(message, target)):
        with durable.writing(target) as file, message.open("rb") as source:
            shutil.copyfileobj(source, file)
    with target.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
        return file.tell(), digest


def _move_in(source: Path, target: Path) -> bool:
    """Move a file durably; False where it must be copied: to another file system. Raises OSError."""
    durable.sync_file(source)
    try:
        durable.move(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return False
    return True
