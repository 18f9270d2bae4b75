"""What is kept of messages that are being collected: known by its digest, bounded, and out of the way of others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mail.receive.segment_cache import SMALL_MARGIN, CachedSegments, SegmentCache
from mail.sealed.segments import describe

ONE, TWO, THREE = (bytes([number]) * 32 for number in (1, 2, 3))


class LimitedSpace:
    """Room for so many bytes in a spool folder, besides the margin."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size

    def __call__(self, folder: Path) -> int:
        assert folder == self.folder
        used = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        return SMALL_MARGIN + self.size - used


@pytest.fixture
def cache(tmp_path: Path) -> SegmentCache:
    return SegmentCache(tmp_path, LimitedSpace(tmp_path, 1000))


def cache_one(cache: SegmentCache, hash_: bytes, size: int, touched: int) -> CachedSegments:
    """Cache a segment of `size` bytes, last touched at `touched`."""
    cached = cache.segments(hash_)
    cached.save(describe(0, bytes(size)), bytes(size))
    os.utime(cached.folder, (touched, touched))
    return cached


def test_a_segment_is_had_again_only_as_it_was(cache: SegmentCache) -> None:
    cached = cache.segments(ONE)
    segment, other = describe(0, b"sealed"), describe(1, b"sealed too")
    assert cached.load(segment) is None
    assert cached.size_of([segment, other]) == 0
    cached.save(segment, b"sealed")
    again = cache.segments(ONE)
    assert again.load(segment) == b"sealed"
    assert again.load(other) is None
    assert again.size_of([segment, other]) == 6
    (file,) = cached.folder.iterdir()
    file.write_bytes(b"sealeD")
    assert again.load(segment) is None
    file.write_bytes(b"seal")
    assert again.size_of([segment]) == 0
    cached.remove()
    assert list(cache.folder.iterdir()) == []
    cached.remove()


def test_a_disk_that_refuses_only_costs_fetching_it_again(tmp_path: Path) -> None:
    (tmp_path / f"{ONE.hex()}.parts").write_bytes(b"in the way")
    segment = describe(0, b"sealed")
    cached = SegmentCache(tmp_path).segments(ONE)
    cached.save(segment, b"sealed")
    assert cached.load(segment) is None


def test_there_is_room_for_exactly_what_is_free_less_the_margin(cache: SegmentCache) -> None:
    assert cache.make_room(1000, ())
    assert not cache.make_room(1001, ())
    cache_one(cache, ONE, 400, 1)
    assert cache.make_room(600, {ONE})
    assert not cache.make_room(601, {ONE})


def test_a_large_message_leaves_64_mib_free_and_a_small_one_1_mib(tmp_path: Path) -> None:
    mib = 1 << 20
    left = 0
    cache = SegmentCache(tmp_path, lambda _: left)
    for needed, margin in ((8 * mib - 1, mib), (8 * mib, 64 * mib)):
        left = needed + margin
        assert cache.make_room(needed, ())
        left -= 1
        assert not cache.make_room(needed, ())


def test_parts_of_messages_of_which_nothing_comes_make_way_the_longest_untouched_first(cache: SegmentCache) -> None:
    for hash_, touched in ((ONE, 30), (TWO, 10), (THREE, 20)):
        cache_one(cache, hash_, 300, touched)
    assert cache.make_room(100, ())
    assert len(list(cache.folder.iterdir())) == 3
    assert cache.make_room(101, ())
    assert not cache.segments(TWO).folder.exists()
    assert cache.make_room(700, {ONE})
    assert [path.name for path in cache.folder.iterdir()] == [f"{ONE.hex()}.parts"]


def test_parts_are_bounded_in_all(cache: SegmentCache) -> None:
    for hash_, touched in ((ONE, 30), (TWO, 10), (THREE, 20)):
        cache_one(cache, hash_, 300, touched)
    cache.trim((), 600)
    assert not cache.segments(TWO).folder.exists()
    cache.trim({THREE}, 299)
    assert [path.name for path in cache.folder.iterdir()] == [f"{THREE.hex()}.parts"]


def test_what_is_swept_is_what_nobody_wants_any_more(cache: SegmentCache) -> None:
    cache_one(cache, ONE, 1, 1)
    cache_one(cache, TWO, 1, 1)
    cache.target(ONE).write_bytes(b"half of it")
    (cache.folder / "forward-1.eml").write_bytes(b"somebody else's")
    cache.sweep({ONE}, 0.0)
    assert {path.name for path in cache.folder.iterdir()} == {f"{ONE.hex()}.parts", "forward-1.eml"}
    SegmentCache(cache.folder / "missing").sweep((), 0.0)


def test_what_an_acceptance_that_died_left_is_swept_after_36_hours(tmp_path: Path) -> None:
    names = ["0123456789abcdef.eml", "draft-0123456789abcdef.eml"]
    for name in names:
        (tmp_path / name).write_bytes(b"message")
        os.utime(tmp_path / name, (1000.0, 1000.0))
    SegmentCache(tmp_path).sweep((), 1000.0 + 36 * 3600)
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    SegmentCache(tmp_path).sweep((), 1001.0 + 36 * 3600)
    assert [path.name for path in tmp_path.iterdir()] == ["draft-0123456789abcdef.eml"]
