"""storage/node/objects.py: what is taken, what replaces what, and that deleted means deleted."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.database import connect
from storage.node import collector, inboxes, objects
from storage.node.inboxes import OfferedNotification
from storage.node.objects import (
    MAX_UNITED_DELETERS,
    MAX_VARIANTS,
    Deleted,
    NoSpace,
    Offer,
    PutOutcome,
    Stale,
    StoredObject,
    StoreRefused,
    Tombstone,
    TooManyVariants,
    charge_of,
)
from storage.node.schema import SCHEMA

BODY, CERTIFICATE = 1, 2
KEY = b"k" * 20
ALICE, BOB, CAROL = (name * 32 for name in (b"a", b"b", b"c"))
MONTH = 30 * 86400.0
QUOTA = 1 << 20


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = connect(tmp_path / "store.sqlite", SCHEMA)
    yield connection
    connection.close()


def offer(
    content: bytes = b"body",
    *deleters: bytes,
    key: bytes = KEY,
    kind: int = BODY,
    ttl: float = 1000.0,
    sequence: int | None = None,
) -> Offer:
    digest = hashlib.sha256(content).digest()
    return Offer(kind, key, digest, len(content), content, frozenset(deleters), ttl, sequence)


def put(rows: sqlite3.Connection, offered: Offer, now: float = 0.0, quota: int = QUOTA) -> PutOutcome:
    return objects.put(rows, offered, now=now, retention=MONTH, quota=quota)


def add_tombstone(
    rows: sqlite3.Connection,
    deleter: bytes,
    now: float = 0.0,
    *,
    proof: bytes = b"signed",
    ttl: float = 1000.0,
    key: bytes = KEY,
    quota: int = QUOTA,
) -> int:
    return objects.add_tombstone(rows, Tombstone(BODY, key, deleter, proof, now + ttl), now=now, quota=quota)[0]


def held(rows: sqlite3.Connection, now: float = 0.0, kind: int = BODY) -> list[StoredObject]:
    return [one for one in objects.page(rows, b"", 1000, now) if one.kind == kind]


def content(rows: sqlite3.Connection, digest: bytes | None = None, now: float = 0.0, kind: int = BODY) -> bytes | None:
    found = objects.get(rows, kind, KEY, digest, now)
    if found is None:
        return None
    assert isinstance(found[3], bytes)
    return found[3]


def sums_are_right(rows: sqlite3.Connection) -> bool:
    kept = rows.execute("SELECT objects, tombstones, bytes, inbox_bytes FROM totals").fetchone()
    counted = rows.execute(
        "SELECT (SELECT count(*) FROM objects), (SELECT count(*) FROM tombstones),"
        " (SELECT coalesce(sum(charge), 0) FROM (SELECT charge FROM objects UNION ALL SELECT charge FROM tombstones"
        "  UNION ALL SELECT charge FROM notifications UNION ALL SELECT charge FROM acknowledged)),"
        " (SELECT coalesce(sum(charge), 0) FROM (SELECT charge FROM notifications"
        "  UNION ALL SELECT charge FROM acknowledged))"
    ).fetchone()
    return bool(kept == counted)


def test_what_was_put_is_found_by_key_and_by_digest(rows: sqlite3.Connection) -> None:
    kept = put(rows, offer(b"body", ALICE, BOB), now=5.0).object
    assert kept == StoredObject(
        BODY, KEY, hashlib.sha256(b"body").digest(), 4, None, 5.0, 1005.0, frozenset({ALICE, BOB})
    )
    assert held(rows) == [kept]
    assert content(rows) == content(rows, kept.digest) == b"body"
    assert content(rows, b"?" * 32) is None
    assert content(rows, kind=CERTIFICATE) is None


def test_the_same_object_again_unites_the_deleters_and_lengthens_its_time(rows: sqlite3.Connection) -> None:
    put(rows, offer(b"body", ALICE, ttl=1000), now=0.0)
    again = put(rows, offer(b"body", BOB, ttl=1000), now=500.0)
    assert not again.taken
    assert again.object.deleters == {ALICE, BOB}
    assert (again.object.created, again.object.expires) == (0.0, 1500.0)
    assert held(rows) == [again.object]
    shorter = put(rows, offer(b"body", BOB, ttl=10), now=500.0)
    assert shorter.object.expires == 1500.0
    assert sums_are_right(rows)


def test_repeating_a_store_never_keeps_it_beyond_its_retention(rows: sqlite3.Connection) -> None:
    put(rows, offer(b"body", ALICE, ttl=10 * MONTH), now=0.0)
    assert held(rows)[0].expires == MONTH
    for day in range(1, 30):
        put(rows, offer(b"body", ALICE, ttl=float("inf")), now=day * 86400.0)
    assert held(rows)[0].expires == MONTH
    assert content(rows, now=MONTH) is None


def test_variants_of_a_key_are_bounded_and_the_oldest_stay(rows: sqlite3.Connection) -> None:
    for number in range(MAX_VARIANTS):
        put(rows, offer(b"variant %d" % number, ALICE))
    with pytest.raises(TooManyVariants):
        put(rows, offer(b"one more", ALICE))
    assert len(held(rows)) == MAX_VARIANTS
    assert content(rows) == b"variant 0"
    put(rows, offer(b"variant 3", BOB))  # one that is here already is still welcome
    put(rows, offer(b"other kind", ALICE, kind=CERTIFICATE))
    put(rows, offer(b"later", ALICE), now=1000.0)  # when they have expired there is room


def test_a_newer_sequence_replaces_and_an_older_is_stale(rows: sqlite3.Connection) -> None:
    put(rows, offer(b"card 2", ALICE, sequence=2))
    with pytest.raises(Stale):
        put(rows, offer(b"card 1", ALICE, sequence=1))
    with pytest.raises(Stale):
        put(rows, offer(b"another 2", ALICE, sequence=2))
    assert not put(rows, offer(b"card 2", ALICE, sequence=2)).taken
    put(rows, offer(b"card 3", BOB, sequence=3))
    assert [(one.sequence, one.deleters) for one in held(rows)] == [(3, frozenset({BOB}))]
    assert content(rows) == b"card 3"
    assert sums_are_right(rows)


def test_a_replaced_body_file_is_handed_back_for_removal(rows: sqlite3.Connection) -> None:
    first = Offer(BODY, KEY, b"1" * 32, 100_000, "aa11", frozenset({ALICE}), 1000.0, 1)
    second = Offer(BODY, KEY, b"2" * 32, 100_000, "bb22", frozenset({ALICE}), 1000.0, 2)
    assert put(rows, first).dropped == []
    assert put(rows, second).dropped == ["aa11"]


def test_an_expired_object_isnt_served_nor_in_the_way(rows: sqlite3.Connection) -> None:
    put(rows, offer(b"body", ALICE, ttl=10), now=0.0)
    assert content(rows, now=9.9) == b"body"
    assert content(rows, now=10.0) is None
    assert put(rows, offer(b"body", BOB, ttl=10), now=10.0).taken
    assert held(rows, now=11.0)[0].deleters == {BOB}


@pytest.mark.parametrize("ttl", [0.0, -5.0, float("nan"), float("-inf")])
def test_an_object_that_has_expired_already_is_refused(ttl: float) -> None:
    with pytest.raises(StoreRefused, match="expired"):
        offer(ttl=ttl)


@pytest.mark.parametrize("sequence", [-1, 2**63, 2**200])
def test_a_sequence_out_of_range_is_refused(sequence: int) -> None:
    with pytest.raises(StoreRefused, match="sequence"):
        offer(sequence=sequence)


def test_too_many_deleters_are_refused_at_once_and_little_by_little(rows: sqlite3.Connection) -> None:
    hashes = [number.to_bytes(32, "big") for number in range(MAX_UNITED_DELETERS + 1)]
    with pytest.raises(StoreRefused, match="deleters"):
        offer(b"body", *hashes)
    put(rows, offer(b"body", *hashes[:-1]))
    with pytest.raises(StoreRefused, match="deleters"):
        put(rows, offer(b"body", hashes[-1]))


def test_the_last_delete_drops_the_object(rows: sqlite3.Connection) -> None:
    put(rows, offer(b"body", ALICE, BOB))
    assert add_tombstone(rows, ALICE) == 0
    assert held(rows)[0].deleters == {BOB}
    assert content(rows) == b"body"
    assert add_tombstone(rows, BOB) == 1
    assert content(rows) is None
    assert sums_are_right(rows)


def test_a_strangers_delete_drops_nothing(rows: sqlite3.Connection) -> None:
    put(rows, offer(b"body", ALICE))
    assert add_tombstone(rows, CAROL) == 0
    assert content(rows) == b"body"


def test_a_delete_takes_the_hash_off_every_variant(rows: sqlite3.Connection) -> None:
    put(rows, offer(b"one", ALICE))
    put(rows, offer(b"two", ALICE, BOB))
    put(rows, offer(b"three", BOB))
    assert add_tombstone(rows, ALICE) == 1
    assert {one.deleters for one in held(rows)} == {frozenset({BOB})}
    assert len(held(rows)) == 2


def test_a_deleted_object_never_comes_back(rows: sqlite3.Connection) -> None:
    put(rows, offer(b"body", ALICE, BOB))
    add_tombstone(rows, ALICE)
    add_tombstone(rows, BOB)
    for deleters in ([ALICE], [BOB], [ALICE, BOB]):
        with pytest.raises(Deleted):
            put(rows, offer(b"body", *deleters), now=999.0)
        with pytest.raises(Deleted):
            put(rows, offer(b"forged", *deleters), now=999.0)
    assert content(rows, now=999.0) is None


def test_a_copy_that_comes_after_its_delete_is_refused(rows: sqlite3.Connection) -> None:
    assert add_tombstone(rows, ALICE) == 0
    with pytest.raises(Deleted):
        put(rows, offer(b"body", ALICE))
    assert put(rows, offer(b"body", ALICE, BOB)).object.deleters == {BOB}


def test_storing_again_doesnt_give_a_deleter_back(rows: sqlite3.Connection) -> None:
    put(rows, offer(b"body", ALICE, BOB))
    add_tombstone(rows, ALICE)
    assert put(rows, offer(b"body", ALICE, BOB)).object.deleters == {BOB}
    assert add_tombstone(rows, BOB) == 1


def test_a_tombstone_lasts_as_long_as_what_it_met(rows: sqlite3.Connection) -> None:
    put(rows, offer(b"body", ALICE, ttl=5000))
    add_tombstone(rows, ALICE, ttl=10)
    with pytest.raises(Deleted):
        put(rows, offer(b"body", ALICE), now=4999.0)
    stone = objects.find_tombstone(rows, BODY, KEY, ALICE, 4999.0)
    assert stone == Tombstone(BODY, KEY, ALICE, b"signed", 5000.0)
    assert objects.find_tombstone(rows, BODY, KEY, ALICE, 5000.0) is None
    assert objects.find_tombstone(rows, BODY, KEY, BOB, 0.0) is None


def test_the_first_proof_stays_and_its_time_only_grows(rows: sqlite3.Connection) -> None:
    add_tombstone(rows, ALICE, proof=b"first", ttl=100)
    add_tombstone(rows, ALICE, proof=b"second", ttl=200)
    add_tombstone(rows, ALICE, proof=b"third", ttl=50)
    assert objects.find_tombstone(rows, BODY, KEY, ALICE, 0.0) == Tombstone(BODY, KEY, ALICE, b"first", 200.0)
    add_tombstone(rows, ALICE, now=300.0, proof=b"after it had expired")
    stone = objects.find_tombstone(rows, BODY, KEY, ALICE, 300.0)
    assert stone is not None and stone.proof == b"after it had expired"
    assert sums_are_right(rows)


def test_what_nobody_may_delete_cant_be_made_deletable_by_storing_it_again(rows: sqlite3.Connection) -> None:
    put(rows, offer(b"revocation list"))
    assert put(rows, offer(b"revocation list", CAROL)).object.deleters == frozenset()
    assert add_tombstone(rows, CAROL) == 0
    assert content(rows) == b"revocation list"


def test_nor_by_storing_it_first(rows: sqlite3.Connection) -> None:
    put(rows, offer(b"revocation list", CAROL))
    assert put(rows, offer(b"revocation list")).object.deleters == frozenset()
    assert add_tombstone(rows, CAROL) == 0
    assert content(rows) == b"revocation list"


def test_a_strangers_tombstone_doesnt_bar_the_recipients_copy(rows: sqlite3.Connection) -> None:
    add_tombstone(rows, CAROL)
    put(rows, offer(b"body", ALICE))
    assert content(rows) == b"body"


def test_beyond_the_quota_nothing_is_taken_and_the_shortage_is_told(rows: sqlite3.Connection) -> None:
    charge = charge_of(4, 1)
    put(rows, offer(b"body", ALICE), quota=charge)
    with pytest.raises(NoSpace) as caught:
        put(rows, offer(b"more", ALICE), quota=2 * charge - 7)
    assert caught.value.missing == 7
    put(rows, offer(b"more", ALICE), quota=2 * charge)
    with pytest.raises(NoSpace):
        put(rows, offer(b"body", BOB), quota=2 * charge)  # a deleter more takes room too


def test_a_newer_version_fits_where_the_older_was(rows: sqlite3.Connection) -> None:
    quota = charge_of(4, 1)
    put(rows, offer(b"old.", ALICE, sequence=1), quota=quota)
    assert put(rows, offer(b"new.", ALICE, sequence=2), quota=quota).taken


def test_a_delete_works_on_a_full_node_and_an_early_one_needs_room(rows: sqlite3.Connection) -> None:
    quota = charge_of(4, 2)
    put(rows, offer(b"body", ALICE, BOB), quota=quota)
    with pytest.raises(NoSpace):
        add_tombstone(rows, CAROL, quota=quota)
    assert add_tombstone(rows, ALICE, quota=quota) == 0
    assert add_tombstone(rows, BOB, quota=quota) == 1


def test_early_tombstones_of_one_key_are_bounded(rows: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "MAX_TOMBSTONES", 2)
    add_tombstone(rows, ALICE)
    add_tombstone(rows, BOB)
    with pytest.raises(StoreRefused):
        add_tombstone(rows, CAROL)
    add_tombstone(rows, CAROL, key=b"o" * 20)
    put(rows, offer(b"body", CAROL))
    assert add_tombstone(rows, CAROL) == 1  # one that meets its object is kept nevertheless


def test_pages_show_every_object_once(rows: sqlite3.Connection) -> None:
    for key in range(7):
        for variant in range(1 + key % 3):
            put(rows, offer(b"%d" % variant, ALICE, key=bytes([key]) * 20))
    for limit in (1, 2, 3, 100):
        seen: list[StoredObject] = []
        while page := objects.page(rows, seen[-1].key if seen else b"", limit, 0.0):
            seen += page
        assert seen == objects.page(rows, b"", 1000, 0.0)
        assert len(seen) == 13


_keys = st.sampled_from([b"k" * 20, b"l" * 20])
_deleters = st.sampled_from([ALICE, BOB, CAROL])
_times = st.integers(0, 40)
_steps = st.one_of(
    st.tuples(st.just("put"), _keys, st.sets(_deleters), st.sampled_from([b"x", b"yy"]), st.sampled_from([None, 1, 2])),
    st.tuples(st.just("add_tombstone"), _keys, _deleters),
    st.tuples(st.just("append"), _keys, st.sampled_from([b"n", b"mm"])),
    st.tuples(st.just("acknowledge"), _keys, st.sampled_from([b"n", b"mm"])),
    st.tuples(st.just("expire")),
)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(_times, _steps), max_size=25))
def test_the_sums_are_those_of_the_rows_and_the_dead_stay_dead(
    steps: list[tuple[int, tuple[object, ...]]],
) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("PRAGMA foreign_keys=ON")
    connection.executescript(SCHEMA)
    now = 0.0
    for pause, step in steps:
        now += pause
        connection.execute("BEGIN")
        try:
            match step:
                case ("put", bytes(key), set(deleters), bytes(data), sequence):
                    assert sequence is None or isinstance(sequence, int)
                    new = offer(data, *deleters, key=key, ttl=50, sequence=sequence)
                    kept = objects.put(connection, new, now=now, retention=100, quota=3000).object
                    for deleter in kept.deleters:
                        assert objects.find_tombstone(connection, BODY, key, deleter, now) is None
                case ("add_tombstone", bytes(key), bytes(deleter)):
                    objects.add_tombstone(
                        connection, Tombstone(BODY, key, deleter, b"p", now + 50), now=now, quota=3000
                    )
                    assert objects.find_tombstone(connection, BODY, key, deleter, now) is not None
                case ("append", bytes(key), bytes(data)):
                    new_one = OfferedNotification(key, hashlib.sha256(data).digest(), data, now + 50)
                    inboxes.append(connection, new_one, now=now, quota=3000)
                case ("acknowledge", bytes(key), bytes(data)):
                    inboxes.acknowledge(connection, key, [hashlib.sha256(data).digest()], until=now + 60)
                case _:
                    collector.expire(connection, now)
        except StoreRefused:
            connection.execute("ROLLBACK")
        else:
            connection.execute("COMMIT")
        assert sums_are_right(connection)
        orphans = connection.execute("SELECT count(*) FROM contents WHERE id NOT IN (SELECT id FROM objects)")
        assert orphans.fetchone() == (0,)
        boxes = "SELECT key, count(*), sum(size) FROM notifications GROUP BY key ORDER BY key"
        assert connection.execute(boxes).fetchall() == connection.execute("SELECT * FROM inboxes").fetchall()
    connection.close()
