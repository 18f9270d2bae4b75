"""What is kept of messages that are being collected: known by its digest, bounded, and out of the way of others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mail.receive.segment_cache import SMALL_MARGIN, CachedSegments, SegmentCache
from mail.sealed.segments import describe

ONE, TWO, THREE = (bytes([number]) * 32 for number in (1, 2, 3))


class Disk:
    """Room for so many bytes in a spool, beside the margin."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size

    def __call__(self, folder: Path) -> int:
        assert folder == self.folder
        used = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        return SMALL_MARGIN + self.size - used


@pytest.fixture
def spool(tmp_path: Path) -> SegmentCache:
    return SegmentCache(tmp_path, Disk(tmp_path, 1000))


def kept(spool: SegmentCache, hash_: bytes, size: int, touched: int) -> CachedSegments:
    """Parts of a message, of so many bytes, last touched then."""
    parts = spool.parts(hash_)
    parts.keep(describe(0, bytes(size)), bytes(size))
    os.utime(parts.folder, (touched, touched))
    return parts


def test_a_segment_is_had_again_only_as_it_was(spool: SegmentCache) -> None:
    parts = spool.parts(ONE)
    segment, other = describe(0, b"sealed"), describe(1, b"sealed too")
    assert parts.load(segment) is None
    assert parts.have([segment, other]) == 0
    parts.keep(segment, b"sealed")
    again = spool.parts(ONE)
    assert again.load(segment) == b"sealed"
    assert again.load(other) is None
    assert again.have([segment, other]) == 6
    (file,) = parts.folder.iterdir()
    file.write_bytes(b"sealeD")
    assert again.load(segment) is None
    file.write_bytes(b"seal")
    assert again.have([segment]) == 0
    parts.drop()
    assert list(spool.folder.iterdir()) == []
    parts.drop()


def test_a_disk_that_refuses_only_costs_fetching_it_again(tmp_path: Path) -> None:
    (tmp_path / f"{ONE.hex()}.parts").write_bytes(b"in the way")
    segment = describe(0, b"sealed")
    parts = SegmentCache(tmp_path).parts(ONE)
    parts.keep(segment, b"sealed")
    assert parts.load(segment) is None


def test_there_is_room_for_exactly_what_is_free_less_the_margin(spool: SegmentCache) -> None:
    assert spool.make_room(1000, ())
    assert not spool.make_room(1001, ())
    kept(spool, ONE, 400, 1)
    assert spool.make_room(600, {ONE})
    assert not spool.make_room(601, {ONE})


def test_a_large_message_leaves_64_mib_free_and_a_small_one_1_mib(tmp_path: Path) -> None:
    mib = 1 << 20
    left = 0
    spool = SegmentCache(tmp_path, lambda _: left)
    for needed, margin in ((8 * mib - 1, mib), (8 * mib, 64 * mib)):
        left = needed + margin
        assert spool.make_room(needed, ())
        left -= 1
        assert not spool.make_room(needed, ())


def test_parts_of_messages_of_which_nothing_comes_make_way_the_longest_untouched_first(spool: SegmentCache) -> None:
    for hash_, touched in ((ONE, 30), (TWO, 10), (THREE, 20)):
        kept(spool, hash_, 300, touched)
    assert spool.make_room(100, ())
    assert len(list(spool.folder.iterdir())) == 3
    assert spool.make_room(101, ())
    assert not spool.parts(TWO).folder.exists()
    assert spool.make_room(700, {ONE})
    assert [path.name for path in spool.folder.iterdir()] == [f"{ONE.hex()}.parts"]


def test_parts_are_bounded_in_all(spool: SegmentCache) -> None:
    for hash_, touched in ((ONE, 30), (TWO, 10), (THREE, 20)):
        kept(spool, hash_, 300, touched)
    spool.trim((), 600)
    assert not spool.parts(TWO).folder.exists()
    spool.trim({THREE}, 299)
    assert [path.name for path in spool.folder.iterdir()] == [f"{THREE.hex()}.parts"]


def test_what_is_swept_is_what_nobody_wants_any_more(spool: SegmentCache) -> None:
    kept(spool, ONE, 1, 1)
    kept(spool, TWO, 1, 1)
    spool.target(ONE).write_bytes(b"half of it")
    (spool.folder / "forward-1.eml").write_bytes(b"somebody else's")
    spool.sweep({ONE}, 0.0)
    assert {path.name for path in spool.folder.iterdir()} == {f"{ONE.hex()}.parts", "forward-1.eml"}
    SegmentCache(spool.folder / "missing").sweep((), 0.0)


def test_what_an_acceptance_that_died_left_is_swept_after_36_hours(tmp_path: Path) -> None:
    names = ["0123456789abcdef.eml", "draft-0123456789abcdef.eml"]
    for name in names:
        (tmp_path / name).write_bytes(b"message")
        os.utime(tmp_path / name, (1000.0, 1000.0))
    SegmentCache(tmp_path).sweep((), 1000.0 + 36 * 3600)
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    SegmentCache(tmp_path).sweep((), 1001.0 + 36 * 3600)
    assert [path.name for path in tmp_path.iterdir()] == ["draft-0123456789abcdef.eml"]
