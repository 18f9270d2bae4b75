from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.identity.contact import Contact, address_range
from overlay.ids import distance
from overlay.kademlia.routing import (
    BUCKET,
    FAILURES,
    FAILURES_ALONE,
    RANGE_IN_BUCKET,
    RANGE_IN_TABLE,
    REPLACEMENTS,
    Table,
)
from tests.clock import Clock

OWN = bytes(20)


def table(clock: Callable[[], float] | None = None, *, private: bool = True) -> Table:
    return Table(OWN, clock or Clock(0.0), private_addresses=private)


def contact(number: int, ip: str = "10.0.0.1", port: int = 4000) -> Contact:
    return Contact(random.Random(number).randbytes(32), ip, port)


def in_bucket(of: Table, index: int, count: int, ip: Callable[[int], str] = lambda n: "10.0.0.1") -> list[Contact]:
    """Different contacts that all belong into one bucket."""
    found: list[Contact] = []
    number = 0
    while len(found) < count:
        one = contact(number, ip(len(found)))
        number += 1
        if of.bucket_of(one.id) is of.buckets[index]:
            found.append(one)
    return found


def fill(of: Table, contacts: Iterable[Contact]) -> None:
    for one in contacts:
        of.answered(one)


@settings(max_examples=50)
@given(st.integers(0, 300), st.binary(min_size=20, max_size=20), st.integers(1, 40), st.integers(0, 2**32))
def test_the_closest_of_a_table_are_exactly_the_closest(count: int, key: bytes, k: int, seed: int) -> None:
    of = table()
    fill(of, (contact(seed + number) for number in range(count)))
    held = [entry.contact for entry in of]
    true = sorted(held, key=lambda one: distance(one.id, key))
    assert of.closest(key, k) == true[:k]
    assert of.find_neighbors(Contact(bytes(32), "10.0.0.1", 1), k) == of.closest(Contact(bytes(32), "", 0).id, k)


def test_neighbours_leave_out_who_asks() -> None:
    of = table()
    fill(of, (contact(number) for number in range(30)))
    asking = of.closest(OWN, 1)[0]
    neighbours = of.find_neighbors(asking, 5, exclude=asking)
    assert len(neighbours) == 5
    assert asking not in neighbours


@given(st.binary(min_size=20, max_size=20))
def test_an_id_belongs_to_the_bucket_of_its_shared_prefix(identifier: bytes) -> None:
    of = table()
    bits = f"{int.from_bytes(identifier, 'big'):0160b}"
    shared = len(bits) - len(bits.lstrip("0"))
    assert of.bucket_of(identifier) is of.buckets[min(shared, 159)]


def test_a_node_isnt_in_its_own_table() -> None:
    me = contact(1)
    of = Table(me.id, Clock(0.0), private_addresses=True)
    assert not of.wants(me)
    assert not of.answered(me)
    assert len(of) == 0


def test_a_flood_of_chosen_ids_doesnt_grow_the_table() -> None:
    of = table()
    flood = in_bucket(of, 0, 1000)
    fill(of, flood)
    assert len(of) == BUCKET
    assert len(of.buckets) == 160
    assert len(of.buckets[0].replacements) == REPLACEMENTS
    assert not of.wants(contact(1)) or of.bucket_of(contact(1).id) is not of.buckets[0]


def test_who_was_there_first_stays_while_it_answers() -> None:
    of = table()
    contacts = in_bucket(of, 0, BUCKET + 5)
    fill(of, contacts)
    assert {entry.contact.id for entry in of} == {one.id for one in contacts[:BUCKET]}


def spread(count: int, ip: Callable[[int], str]) -> list[Contact]:
    return [contact(number, ip(number)) for number in range(count)]


@pytest.mark.parametrize("form", ["1.2.3.{}", "2a00:1:2:3{:02x}::1"])
def test_one_range_gets_two_places_in_a_bucket_and_ten_in_the_table(form: str) -> None:
    of = table(private=False)
    fill(of, spread(2000, lambda n: form.format(n % 256)))
    assert max(len(bucket.entries) for bucket in of.buckets) == RANGE_IN_BUCKET
    assert len(of) <= RANGE_IN_TABLE
    other = contact(5000, "5.6.7.8")
    assert of.wants(other)
    assert of.answered(other)


def test_a_place_in_a_range_is_free_again_when_its_node_is_dropped() -> None:
    of = table(private=False)
    one, two, three = in_bucket(of, 0, 3, lambda n: "1.2.3.4")
    fill(of, [one, two])
    assert not of.wants(three)
    for _ in range(FAILURES_ALONE):
        of.failed(one)
    assert of.wants(three)
    assert of.answered(three)
    of.flush()
    assert len(of) == 0
    assert of.answered(one)


def test_loopback_and_private_ranges_are_exempt_where_the_network_says_so() -> None:
    of = table(private=True)
    fill(of, in_bucket(of, 0, BUCKET))
    assert len(of) == BUCKET
    strict = table(private=True)
    fill(strict, in_bucket(strict, 0, BUCKET, lambda n: "1.2.3.4"))
    assert len(strict) == RANGE_IN_BUCKET


def test_one_failure_keeps_a_contact_out_of_answers_but_in_the_table() -> None:
    of = table()
    one = contact(1)
    of.answered(one)
    assert of.failed(one) is None
    assert of.closest(OWN, 1, healthy=True) == []
    assert of.closest(OWN, 1) == [one]
    of.answered(one)
    assert of.closest(OWN, 1, healthy=True) == [one]


def test_a_contact_is_dropped_after_five_failures_though_nobody_waits() -> None:
    of = table()
    one = contact(1)
    of.answered(one)
    for _ in range(FAILURES_ALONE - 1):
        of.failed(one)
    assert len(of) == 1
    of.failed(one)
    assert len(of) == 0


def test_who_waits_takes_the_place_of_one_that_failed_three_times() -> None:
    of = table()
    *first, spare = in_bucket(of, 0, BUCKET + 1)
    fill(of, [*first, spare])
    assert [of.failed(first[3]) for _ in range(FAILURES)] == [None, None, spare]
    assert of.answered(spare)
    assert first[3].id not in {entry.contact.id for entry in of}
    assert len(of) == BUCKET


def test_who_waits_for_a_place_isnt_asked_again_before_there_is_one() -> None:
    of = table()
    *first, spare, other = in_bucket(of, 0, BUCKET + 2)
    fill(of, first)
    assert not of.wants(spare)
    of.failed(first[3])
    assert of.wants(spare)
    assert not of.answered(spare)
    assert not of.wants(spare)
    assert of.wants(other)
    of.drop(first[0].id)
    assert of.wants(spare)


def test_a_healthy_contact_doesnt_give_way() -> None:
    of = table()
    *first, spare = in_bucket(of, 0, BUCKET + 1)
    fill(of, first)
    of.failed(first[0])
    assert not of.answered(spare)
    assert of.get(first[0].id) is not None


def test_a_known_node_that_answers_elsewhere_stays_where_it_is_known_while_it_answers_there() -> None:
    of = table()
    known, moved = contact(1, "10.0.0.1"), contact(1, "10.0.0.2")
    of.answered(known)
    of.answered(moved)
    entry = of.get(known.id)
    assert entry is not None
    assert entry.contact == known


def test_a_node_that_failed_where_it_is_known_is_taken_at_its_new_address() -> None:
    of = table()
    known, moved = contact(1, "10.0.0.1"), contact(1, "10.0.0.2")
    of.answered(known)
    of.failed(known)
    of.answered(moved)
    entry = of.get(known.id)
    assert entry is not None
    assert (entry.contact, entry.failures) == (moved, 0)
    assert len(of) == 1


def test_the_failure_of_a_false_address_isnt_held_against_the_node() -> None:
    of = table()
    known, false = contact(1, "10.0.0.1"), contact(1, "10.0.0.9")
    of.answered(known)
    assert of.failed(false) is None
    assert of.closest(OWN, 1, healthy=True) == [known]


def test_moving_is_no_way_round_the_limits_by_range() -> None:
    of = table(private=False)
    contacts = spread(40, lambda n: f"1.2.{n}.4")
    fill(of, contacts)
    for one in contacts:
        of.failed(one)
        of.answered(Contact(one.key, "9.9.9.9", 4000))
    there = [entry for entry in of if entry.contact.ip == "9.9.9.9"]
    assert 0 < len(there) <= RANGE_IN_TABLE
    assert all(sum(e.contact.ip == "9.9.9.9" for e in b.entries.values()) <= RANGE_IN_BUCKET for b in of.buckets)


def test_moving_within_a_full_range_is_allowed() -> None:
    of = table(private=False)
    one, two = in_bucket(of, 0, 2, lambda n: "1.2.3.4")
    fill(of, [one, two])
    of.failed(one)
    moved = Contact(one.key, "1.2.3.5", 4000)
    of.answered(moved)
    assert moved in [entry.contact for entry in of]
    assert sum(of._ranges.values()) == 2


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3), st.booleans()), max_size=200))
def test_the_count_of_ranges_is_true_after_any_history(steps: list[tuple[int, int, bool]]) -> None:
    of = table(private=False)
    for number, where, good in steps:
        one = contact(number, f"1.2.{where}.4")
        if good:
            of.answered(one)
        else:
            of.failed(one)
    assert of._ranges == Counter(address_range(entry.contact.ip) for entry in of)
    assert all(held <= RANGE_IN_TABLE for held in of._ranges.values())


def test_a_node_is_responsible_while_fewer_than_k_are_closer() -> None:
    of = table()
    fill(of, (contact(number) for number in range(200)))
    key = bytes([0x55]) * 20
    closer = sum(distance(entry.contact.id, key) < distance(OWN, key) for entry in of)
    assert of.responsible(key, closer + 1)
    assert not of.responsible(key, closer)


def test_the_quietest_contact_is_pinged_next() -> None:
    clock = Clock(0.0)
    of = table(clock)
    assert of.least_recently_seen() is None
    contacts = [contact(number) for number in range(10)]
    for clock.now, one in enumerate(contacts, 1):
        of.answered(one)
    for clock.now, one in enumerate(contacts[:-1], 20):
        least_recently_seen = of.least_recently_seen()
        assert least_recently_seen is not None
        assert least_recently_seen.contact == one
        of.answered(one)


def test_only_buckets_that_no_lookup_touched_for_long_are_refreshed() -> None:
    clock = Clock(0.0)
    of = table(clock)
    assert of.stale_buckets(-1.0) == []
    fill(of, (contact(number) for number in range(50)))
    deepest = max(i for i, bucket in enumerate(of.buckets) if bucket.entries)
    assert of.stale_buckets(-1.0) == list(range(deepest + 1))
    clock.now = 4000.0
    of.buckets[1].refreshed = 1000.0
    assert of.stale_buckets(3600.0) == [i for i in range(deepest + 1) if i != 1]
