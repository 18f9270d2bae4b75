"""The tables of a node's store.sqlite, and the triggers that keep its accounts.

The sums (how much is stored, how full an inbox is) are kept by triggers, so that they can't drift from the rows
whatever is rolled back. Who writes what into the tables is in objects.py, inboxes.py and collector.py.
"""

from __future__ import annotations

VERSION = 2
"""Kept in PRAGMA user_version: a later version refuses or converts, and never guesses."""

UPGRADE_1 = """
ALTER TABLE objects ADD COLUMN peer BLOB;
ALTER TABLE objects ADD COLUMN span BLOB;
ALTER TABLE notifications ADD COLUMN peer BLOB;
ALTER TABLE notifications ADD COLUMN span BLOB;
"""
"""What makes version 2 of version 1, before SCHEMA. What was kept then counts for nobody's share."""


SCHEMA = """
-- One line: what everything below takes from the quota (the sum of all `charge`), and what the inboxes take of it.
CREATE TABLE IF NOT EXISTS totals (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    objects INTEGER NOT NULL, tombstones INTEGER NOT NULL, bytes INTEGER NOT NULL, inbox_bytes INTEGER NOT NULL
);
INSERT OR IGNORE INTO totals VALUES (1, 0, 0, 0, 0);

-- `deleters`: 32-byte hashes, sorted, one after the other. `file`: the name of the body file, NULL: in `contents`.
CREATE TABLE IF NOT EXISTS objects (
    id INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL, kind INTEGER NOT NULL, digest BLOB NOT NULL,
    size INTEGER NOT NULL, sequence INTEGER, created REAL NOT NULL, expires REAL NOT NULL, used REAL NOT NULL,
    deleters BLOB NOT NULL, file TEXT, charge INTEGER NOT NULL, peer BLOB, span BLOB,
    UNIQUE (key, kind, digest)
);
CREATE INDEX IF NOT EXISTS objects_by_expiry ON objects (expires);
CREATE INDEX IF NOT EXISTS objects_by_use ON objects (used);
CREATE TABLE IF NOT EXISTS contents (
    id INTEGER PRIMARY KEY REFERENCES objects (id) ON DELETE CASCADE, data BLOB NOT NULL
);
CREATE TRIGGER IF NOT EXISTS object_in AFTER INSERT ON objects BEGIN
    UPDATE totals SET objects = objects + 1, bytes = bytes + new.charge;
END;
CREATE TRIGGER IF NOT EXISTS object_changed AFTER UPDATE OF charge ON objects BEGIN
    UPDATE totals SET bytes = bytes + new.charge - old.charge;
END;
CREATE TRIGGER IF NOT EXISTS object_out AFTER DELETE ON objects BEGIN
    UPDATE totals SET objects = objects - 1, bytes = bytes - old.charge;
END;

CREATE TABLE IF NOT EXISTS tombstones (
    key BLOB NOT NULL, kind INTEGER NOT NULL, deleter BLOB NOT NULL, proof BLOB NOT NULL, expires REAL NOT NULL,
    charge INTEGER NOT NULL,
    PRIMARY KEY (key, kind, deleter)
);
CREATE INDEX IF NOT EXISTS tombstones_by_expiry ON tombstones (expires);
CREATE TRIGGER IF NOT EXISTS tombstone_in AFTER INSERT ON tombstones BEGIN
    UPDATE totals SET tombstones = tombstones + 1, bytes = bytes + new.charge;
END;
CREATE TRIGGER IF NOT EXISTS tombstone_out AFTER DELETE ON tombstones BEGIN
    UPDATE totals SET tombstones = tombstones - 1, bytes = bytes - old.charge;
END;

-- How full each inbox is that holds anything: notifications, bytes.
CREATE TABLE IF NOT EXISTS inboxes (
    key BLOB PRIMARY KEY, count INTEGER NOT NULL, bytes INTEGER NOT NULL
) WITHOUT ROWID;
-- AUTOINCREMENT: the id is the order of arrival, and none is used twice while a lease may still name it.
CREATE TABLE IF NOT EXISTS notifications (
    id INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL, hash BLOB NOT NULL, expires REAL NOT NULL,
    size INTEGER NOT NULL, charge INTEGER NOT NULL, data BLOB NOT NULL, peer BLOB, span BLOB,
    UNIQUE (key, hash)
);
CREATE INDEX IF NOT EXISTS notifications_by_expiry ON notifications (expires);
CREATE TRIGGER IF NOT EXISTS notification_in AFTER INSERT ON notifications BEGIN
    UPDATE totals SET bytes = bytes + new.charge, inbox_bytes = inbox_bytes + new.charge;
    INSERT INTO inboxes VALUES (new.key, 1, new.size)
        ON CONFLICT (key) DO UPDATE SET count = count + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER IF NOT EXISTS notification_out AFTER DELETE ON notifications BEGIN
    UPDATE totals SET bytes = bytes - old.charge, inbox_bytes = inbox_bytes - old.charge;
    UPDATE inboxes SET count = count - 1, bytes = bytes - old.size WHERE key = old.key;
    DELETE FROM inboxes WHERE key = old.key AND count = 0;
END;
-- Acknowledged: not taken again before `expires`.
CREATE TABLE IF NOT EXISTS acknowledged (
    key BLOB NOT NULL, hash BLOB NOT NULL, expires REAL NOT NULL, charge INTEGER NOT NULL,
    PRIMARY KEY (key, hash)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS acknowledged_by_expiry ON acknowledged (expires);
CREATE TRIGGER IF NOT EXISTS acknowledged_in AFTER INSERT ON acknowledged BEGIN
    UPDATE totals SET bytes = bytes + new.charge, inbox_bytes = inbox_bytes + new.charge;
END;
CREATE TRIGGER IF NOT EXISTS acknowledged_out AFTER DELETE ON acknowledged BEGIN
    UPDATE totals SET bytes = bytes - old.charge, inbox_bytes = inbox_bytes - old.charge;
END;

-- What is kept for whom: bytes of the quota by peer and by address range (quota_shares.py).
CREATE TABLE IF NOT EXISTS shares (who BLOB PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS object_share_in AFTER INSERT ON objects WHEN new.peer IS NOT NULL BEGIN
    INSERT INTO shares SELECT who, new.charge FROM (SELECT new.peer AS who UNION SELECT new.span)
        WHERE who IS NOT NULL ON CONFLICT (who) DO UPDATE SET bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER IF NOT EXISTS object_share_out AFTER DELETE ON objects WHEN old.peer IS NOT NULL BEGIN
    UPDATE shares SET bytes = bytes - old.charge WHERE who IN (old.peer, old.span);
    DELETE FROM shares WHERE who IN (old.peer, old.span) AND bytes <= 0;
END;
CREATE TRIGGER IF NOT EXISTS object_share_changed AFTER UPDATE OF charge ON objects WHEN new.peer IS NOT NULL BEGIN
    UPDATE shares SET bytes = bytes + new.charge - old.charge WHERE who IN (new.peer, new.span);
END;
CREATE TRIGGER IF NOT EXISTS notification_share_in AFTER INSERT ON notifications WHEN new.peer IS NOT NULL BEGIN
    INSERT INTO shares SELECT who, new.charge FROM (SELECT new.peer AS who UNION SELECT new.span)
        WHERE who IS NOT NULL ON CONFLICT (who) DO UPDATE SET bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER IF NOT EXISTS notification_share_out AFTER DELETE ON notifications WHEN old.peer IS NOT NULL BEGIN
    UPDATE shares SET bytes = bytes - old.charge WHERE who IN (old.peer, old.span);
    DELETE FROM shares WHERE who IN (old.peer, old.span) AND bytes <= 0;
END;
"""
