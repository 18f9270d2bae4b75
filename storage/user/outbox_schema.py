"""The tables of the outbox, and their rows as values. What is done with them is in storage/user/outbox.py.

The table `letter` holds one row for each message. Its name is part of the file format.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from storage.user.outbox_entry import OutboxEntry, Recipient, Secrets

VERSION = 12
SCHEMA = """
CREATE TABLE IF NOT EXISTS letter (
    message_id TEXT PRIMARY KEY, subject TEXT NOT NULL, sender TEXT NOT NULL, created REAL NOT NULL,
    size INTEGER NOT NULL, digest BLOB NOT NULL, file TEXT NOT NULL,
    session_key BLOB, attempts INTEGER NOT NULL, next_attempt REAL NOT NULL, coding BLOB, group_secret BLOB,
    scheduled REAL NOT NULL DEFAULT 0, copy TEXT, begun BLOB);
CREATE TABLE IF NOT EXISTS segment (
    message_id TEXT NOT NULL REFERENCES letter(message_id) ON DELETE CASCADE,
    number INTEGER NOT NULL, size INTEGER NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (message_id, number));
CREATE TABLE IF NOT EXISTS recipient (
    message_id TEXT NOT NULL REFERENCES letter(message_id) ON DELETE CASCADE,
    number INTEGER NOT NULL, address TEXT NOT NULL,
    bodies_have INTEGER NOT NULL, bodies_want INTEGER NOT NULL,
    notifications_have INTEGER NOT NULL, notifications_want INTEGER NOT NULL,
    salt BLOB, certificate BLOB, notification BLOB, proof BLOB,
    failed INTEGER NOT NULL, expired INTEGER NOT NULL, reason TEXT NOT NULL, unknown_since REAL,
    reported INTEGER NOT NULL DEFAULT 0, gone_since REAL, PRIMARY KEY (message_id, address));
CREATE INDEX IF NOT EXISTS letter_due ON letter(next_attempt);
"""
UPGRADES = {
    1: ("ALTER TABLE letter ADD COLUMN coding BLOB",),
    2: ("CREATE INDEX IF NOT EXISTS letter_due ON letter(next_attempt)",),
    3: ("ALTER TABLE letter ADD COLUMN group_secret BLOB",),
    4: ("ALTER TABLE letter ADD COLUMN scheduled REAL NOT NULL DEFAULT 0",),
    # What was called expired by the clock alone is asked about again.
    5: (
        "UPDATE letter SET next_attempt = 0 WHERE EXISTS"
        " (SELECT 1 FROM recipient WHERE message_id = letter.message_id AND expired AND proof IS NULL)",
    ),
    6: ("ALTER TABLE letter ADD COLUMN copy TEXT",),
    # Recipients' programs up to that version couldn't open some messages of over 64 KiB, and dropped the notifications,
    # which their inboxes don't take a second time: those who haven't collected such a message are notified anew, once.
    7: (
        "UPDATE recipient SET notification = NULL, notifications_have = 0"
        " WHERE notifications_have > 0 AND proof IS NULL AND NOT failed AND NOT expired"
        " AND message_id IN (SELECT message_id FROM letter WHERE size > 65536)",
        "UPDATE letter SET next_attempt = 0 WHERE message_id IN"
        " (SELECT message_id FROM recipient WHERE notification IS NULL AND notifications_want > 0 AND proof IS NULL)",
    ),
    8: ("ALTER TABLE recipient ADD COLUMN unknown_since REAL",),
    9: ("ALTER TABLE letter ADD COLUMN begun BLOB",),
    10: (
        "ALTER TABLE recipient ADD COLUMN reported INTEGER NOT NULL DEFAULT 0",
        "UPDATE recipient SET reported = 1 WHERE expired OR (failed AND (bodies_have = 0 OR notifications_have = 0))",
    ),
    11: ("ALTER TABLE recipient ADD COLUMN gone_since REAL",),
}


def load(connection: sqlite3.Connection, folder: Path, which: str, *parameters: object) -> list[OutboxEntry]:
    """Messages whose rows `which` (SQL, from WHERE on) selects; their files are in `folder`."""
    sql = f"SELECT message_id, subject, sender, created, size, file, attempts, next_attempt, session_key, coding, group_secret, scheduled, begun FROM letter {which}"  # noqa: S608, E501
    messages = connection.execute(sql, parameters).fetchall()
    those = f"WHERE message_id IN (SELECT message_id FROM letter {which}) ORDER BY message_id, number"  # noqa: S608
    segments: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
    rows = connection.execute(f"SELECT message_id, size, digest FROM segment {those}", parameters)  # noqa: S608
    for name, size, digest in rows:
        segments[name].append((size, digest))
    recipients: dict[str, list[Recipient]] = defaultdict(list)
    for name, recipient in recipients_of(connection, those, *parameters):
        recipients[name].append(recipient)
    return [
        OutboxEntry(
            name,
            subject,
            sender,
            created,
            size,
            folder / file,
            tries,
            due,
            None if key is None else Secrets(key, segments[name], coding or b"", secret or b"", begun or b""),
            tuple(recipients[name]),
            scheduled,
        )
        for name, subject, sender, created, size, file, tries, due, key, coding, secret, scheduled, begun in messages
    ]


def recipients_of(connection: sqlite3.Connection, which: str, *parameters: object) -> Iterator[tuple[str, Recipient]]:
    """What is known of those whose rows `which` selects, each with the Message-ID."""
    sql = f"SELECT message_id, address, bodies_have, bodies_want, notifications_have, notifications_want, salt, certificate, notification, proof, failed, expired, reason, unknown_since, reported, gone_since FROM recipient {which}"  # noqa: S608, E501
    rows = connection.execute(sql, parameters)
    for (
        name,
        address,
        a,
        b,
        c,
        d,
        salt,
        certificate,
        notification,
        proof,
        failed,
        expired,
        reason,
        since,
        reported,
        gone,
    ) in rows:
        facts = Recipient(
            address,
            (a, b),
            (c, d),
            salt,
            certificate,
            notification,
            proof,
            bool(failed),
            expired,
            reason,
            since,
            bool(reported),
            gone,
        )
        yield name, facts


def note_facts(connection: sqlite3.Connection, message_id: str, facts: Recipient) -> Recipient:
    """Note facts of one recipient, but keep a proof; what is noted now."""
    connection.execute(
        "UPDATE recipient SET bodies_have = ?, bodies_want = ?, notifications_have = ?, notifications_want = ?,"
        " salt = ?, certificate = ?, notification = ?, proof = coalesce(?, proof), failed = ?, expired = ?,"
        " reason = ?, unknown_since = ?, gone_since = ?, reported = reported AND ?"
        " WHERE message_id = ? AND address = ?",
        (
            *facts.bodies,
            *facts.notifications,
            facts.salt,
            facts.certificate,
            facts.notification,
            facts.proof,
            facts.failed,
            facts.expired,
            facts.reason,
            facts.unknown_since,
            facts.gone_since,
            facts.failed or facts.expired > 0,
            message_id,
            facts.address,
        ),
    )
    where = "WHERE message_id = ? AND address = ?"
    return next((known for _, known in recipients_of(connection, where, message_id, facts.address)), facts)
