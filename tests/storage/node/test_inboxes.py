"""storage/node/inboxes.py: duplicates, bounds, leases with a clock of their own, acknowledgements."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.database import connect
from storage.limits import MAX_INBOX_NOTIFICATIONS
from storage.node import inboxes
from storage.node.collector import expire
from storage.node.inboxes import InboxFull, Leases, OfferedNotification
from storage.node.objects import NoSpace
from storage.node.schema import SCHEMA

KEY, OTHER = b"k" * 20, b"o" * 20
DESK, PHONE = b"d" * 32, b"p" * 32
QUOTA = 1 << 30


class Inboxes:
    """The functions with a clock that the test sets."""

    def __init__(self, rows: sqlite3.Connection) -> None:
        self.rows = rows
        self.leases = Leases()
        self.now = 1000.0

    def append(self, data: bytes, key: bytes = KEY, *, ttl: float = 500.0, quota: int = QUOTA) -> bool:
        new = OfferedNotification(key, hashlib.sha256(data).digest(), data, self.now + ttl)
        return inboxes.append(self.rows, new, now=self.now, quota=quota)

    def read(self, reader: bytes = DESK, key: bytes = KEY, limit: int = 1000) -> tuple[list[bytes], bool]:
        until = self.now + 60
        return inboxes.read(self.rows, self.leases, key, reader, limit=limit, now=self.now, until=until)

    def acknowledge(self, *data: bytes, key: bytes = KEY) -> int:
        hashes = [hashlib.sha256(one).digest() for one in data]
        return inboxes.acknowledge(self.rows, key, hashes, until=self.now + 2000)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Inboxes]:
    connection = connect(tmp_path / "store.sqlite", SCHEMA)
    yield Inboxes(connection)
    connection.close()


def test_notifications_are_read_in_the_order_they_came(box: Inboxes) -> None:
    for data in (b"c", b"a", b"b"):
        assert box.append(data)
    box.append(b"hers", OTHER)
    assert box.read() == ([b"c", b"a", b"b"], False)
    assert box.read(key=b"e" * 20) == ([], False)


def test_a_duplicate_is_taken_once(box: Inboxes) -> None:
    assert box.append(b"a")
    assert not box.append(b"a")
    assert box.append(b"a", OTHER)
    assert box.read() == ([b"a"], False)


def test_reading_deletes_nothing(box: Inboxes) -> None:
    box.append(b"a")
    assert box.read() == ([b"a"], False)
    assert box.read() == ([b"a"], False)


def test_as_many_bytes_as_asked_for_and_whether_more_wait(box: Inboxes) -> None:
    for data in (b"1" * 10, b"2" * 10, b"3" * 10):
        box.append(data)
    assert box.read(limit=20) == ([b"1" * 10, b"2" * 10], True)
    assert box.read(limit=29) == ([b"1" * 10, b"2" * 10], True)
    assert box.read(limit=30) == ([b"1" * 10, b"2" * 10, b"3" * 10], False)
    box.acknowledge(b"1" * 10, b"2" * 10)
    assert box.read(limit=20) == ([b"3" * 10], False)


def test_one_notification_is_handed_out_however_small_the_limit(box: Inboxes) -> None:
    box.append(b"1" * 10)
    box.append(b"2" * 10)
    assert box.read(limit=0) == ([b"1" * 10], True)


def test_a_second_reader_doesnt_see_what_is_leased_until_the_lease_ends(box: Inboxes) -> None:
    box.append(b"a")
    assert box.read(DESK) == ([b"a"], False)
    assert box.read(PHONE) == ([], False)
    box.now += 59.9
    assert box.read(PHONE) == ([], False)
    box.now += 0.2
    assert box.read(PHONE) == ([b"a"], False)
    assert box.read(DESK) == ([], False)  # the lease is the other's now


def test_what_comes_during_a_lease_goes_to_whoever_reads_next(box: Inboxes) -> None:
    box.append(b"a")
    box.read(DESK)
    box.append(b"b")
    assert box.read(PHONE) == ([b"b"], False)
    assert box.read(DESK) == ([b"a"], False)


def test_two_readers_share_a_long_inbox(box: Inboxes) -> None:
    for data in (b"1" * 10, b"2" * 10, b"3" * 10):
        box.append(data)
    assert box.read(DESK, limit=10) == ([b"1" * 10], True)
    assert box.read(PHONE, limit=10) == ([b"2" * 10], True)
    assert box.read(PHONE, limit=1000) == ([b"2" * 10, b"3" * 10], False)


def test_reading_again_renews_the_lease(box: Inboxes) -> None:
    box.append(b"a")
    box.read(DESK)
    box.now += 50
    box.read(DESK)
    box.now += 50
    assert box.read(PHONE) == ([], False)


def test_a_lease_ends_when_the_clock_is_put_back_behind_its_beginning(box: Inboxes) -> None:
    box.append(b"a")
    box.read(DESK)
    box.now -= 5
    assert box.read(PHONE) == ([b"a"], False)


def test_leases_that_have_ended_are_forgotten(box: Inboxes) -> None:
    box.append(b"a")
    box.append(b"b")
    box.read(DESK)
    assert len(box.leases) == 2
    box.leases.expire(box.now + 59)
    assert len(box.leases) == 2
    box.leases.expire(box.now + 60)
    assert len(box.leases) == 0


def test_what_is_acknowledged_is_gone_for_every_reader(box: Inboxes) -> None:
    box.append(b"a")
    box.append(b"b")
    box.read(DESK)
    assert box.acknowledge(b"a") == 1
    assert box.read(DESK) == ([b"b"], False)
    box.now += 61
    assert box.read(PHONE) == ([b"b"], False)
    assert box.acknowledge(b"a", b"b") == 1


def test_an_acknowledgement_touches_no_other_inbox(box: Inboxes) -> None:
    box.append(b"a")
    assert box.acknowledge(b"a", key=OTHER) == 0
    assert box.read() == ([b"a"], False)


def test_what_was_acknowledged_isnt_taken_again(box: Inboxes) -> None:
    box.append(b"a")
    box.acknowledge(b"a")
    assert not box.append(b"a")
    box.now += 1999
    assert not box.append(b"a")
    box.now += 1
    assert box.append(b"a")


def test_what_was_acknowledged_before_it_came_isnt_taken(box: Inboxes) -> None:
    assert box.acknowledge(b"read at another node") == 0
    assert not box.append(b"read at another node")


def test_hashes_of_what_never_came_are_bounded(box: Inboxes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inboxes, "MAX_REMEMBERED", 2)
    box.append(b"here")
    box.acknowledge(b"1", b"2", b"3", b"here")
    assert not box.append(b"2")
    assert not box.append(b"here")  # one that was here is always remembered
    assert box.append(b"3")


def test_an_expired_notification_isnt_handed_out_nor_in_the_way(box: Inboxes) -> None:
    box.append(b"a", ttl=10)
    box.now += 10
    assert box.read() == ([], False)
    assert box.append(b"a")
    assert box.read() == ([b"a"], False)


def test_an_inbox_is_bounded_in_count(box: Inboxes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inboxes, "MAX_INBOX_NOTIFICATIONS", 3)
    for number in range(3):
        box.append(b"%d" % number, ttl=10 if number else 500)
    with pytest.raises(InboxFull):
        box.append(b"3")
    assert not box.append(b"2")  # one that is here is still only a duplicate
    assert box.append(b"3", OTHER)
    box.now += 10
    assert box.append(b"3")
    assert box.read() == ([b"0", b"3"], False)


def test_an_inbox_is_bounded_in_bytes(box: Inboxes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inboxes, "MAX_INBOX_BYTES", 100)
    box.append(b"1" * 60)
    with pytest.raises(InboxFull):
        box.append(b"2" * 41)
    assert box.append(b"2" * 40)
    box.acknowledge(b"1" * 60)
    assert box.append(b"3" * 60)


def test_the_bounds_are_those_agreed() -> None:
    assert (MAX_INBOX_NOTIFICATIONS, inboxes.MAX_INBOX_BYTES) == (1000, 16 * 1024 * 1024)


def test_inboxes_take_no_more_than_their_share_of_the_quota(box: Inboxes) -> None:
    size = inboxes.NOTIFICATION_OVERHEAD + 100
    box.append(b"1" * 100, quota=4 * size)
    box.append(b"2" * 100, OTHER, quota=4 * size)
    with pytest.raises(NoSpace) as caught:
        box.append(b"3" * 100, b"t" * 20, quota=4 * size)
    assert caught.value.missing == size
    assert not caught.value.objects  # dropping objects wouldn't help


def test_expiry_takes_notifications_and_hashes(box: Inboxes) -> None:
    box.append(b"a", ttl=10)
    box.append(b"b", ttl=100)
    box.acknowledge(b"c")
    assert expire(box.rows, box.now + 10).count == 1
    assert expire(box.rows, box.now + 2000).count == 2
    assert box.rows.execute("SELECT bytes, inbox_bytes FROM totals").fetchone() == (0, 0)
    assert box.rows.execute("SELECT count(*) FROM inboxes").fetchone() == (0,)
