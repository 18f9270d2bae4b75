"""Sealed bodies: what goes in comes out, and nothing that was changed on the way does."""

from __future__ import annotations

import hashlib
import io
import random
import tracemalloc
import zlib
from collections.abc import Sequence
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from mail.sealed import body as sealing
from mail.sealed.body import (
    FRAME_CONTENT,
    FRAME_SIZE,
    ORIGINAL_LIMIT,
    SALT_SIZE,
    SEALED_LIMIT,
    BodyDamaged,
    BodyTooLong,
    Opener,
    SealingError,
    TooLarge,
    seal_body,
    sealed_length,
)
from mail.sealed.padding import MINIMUM, padded_length
from mail.sealed.segments import (
    MAX_SEGMENTS,
    SEGMENT_SIZE,
    Segment,
    describe,
    segment_count,
    segment_identifier,
    segment_size,
)

KEY = bytes(range(32))


def seal(message: bytes, key: bytes = KEY) -> list[bytes]:
    return [data for _, data in seal_body(io.BytesIO(message), key)]


def open_(segments: Sequence[bytes], size: int, key: bytes = KEY) -> bytes:
    target = io.BytesIO()
    opener = Opener(key, size, target)
    for data in segments:
        opener.feed(data)
    assert opener.finish() == opener.written == size
    return target.getvalue()


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def handmade(frames: Sequence[bytes], *, last: int | None = None, key: bytes = KEY) -> bytes:
    """A body whose frames hold anything."""
    salt = bytes(SALT_SIZE)
    aead = AESGCM(HKDF(SHA256(), 32, salt, b"p2pmail body 1").derive(key))
    last = len(frames) - 1 if last is None else last
    return salt + b"".join(
        aead.encrypt(number.to_bytes(11, "big") + bytes([number == last]), frame, None)
        for number, frame in enumerate(frames)
    )


def padded(data: bytes) -> bytes:
    return data + bytes(padded_length(len(data)) - len(data))


def cut(data: bytes) -> list[bytes]:
    return [data[start : start + FRAME_CONTENT] for start in range(0, len(data), FRAME_CONTENT)]


@given(st.binary(max_size=5000))
def test_a_message_comes_back_as_it_was(message: bytes) -> None:
    assert open_(seal(message), len(message)) == message


@pytest.mark.parametrize("size", [0, 1, FRAME_CONTENT, 3 * FRAME_SIZE, SEGMENT_SIZE, 2 * SEGMENT_SIZE + 12_345])
def test_a_large_message_comes_back_as_it_was(size: int) -> None:
    message = noise(size)
    segments = seal(message)
    assert all(len(data) == SEGMENT_SIZE for data in segments[:-1])
    assert 0 < len(segments[-1]) <= SEGMENT_SIZE
    assert open_(segments, size) == message


def test_segments_are_described_by_size_and_digest() -> None:
    sealed = list(seal_body(io.BytesIO(noise(2_500_000)), KEY))
    total = sum(len(data) for _, data in sealed)
    assert segment_count(total) == len(sealed) == 3
    for index, (segment, data) in enumerate(sealed):
        assert segment == Segment(index, segment_size(index, total), hashlib.sha256(data).digest())
        assert segment == describe(index, data)


def test_one_segment_lies_under_the_message_id_and_several_under_its_parts() -> None:
    assert segment_identifier("<1@a>", 0, False) == "<1@a>"
    assert segment_identifier("<1@a>", 2, True) == "<1@a>#2"


def test_an_interrupted_sending_goes_on_with_the_same_bytes() -> None:
    message = noise(1_500_000) + b"text " * 100_000
    assert seal(message) == seal(message)


class Trickle(io.BytesIO):
    """A file that reads in odd small pieces, as a pipe does."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, 1237))


def test_how_a_file_reads_makes_no_difference() -> None:
    message = b"some text " * 30_000 + noise(100_000)
    assert [data for _, data in seal_body(Trickle(message), KEY)] == seal(message)


def test_no_two_messages_or_keys_share_a_frame_key() -> None:
    salts = {seal(message, key)[0][:SALT_SIZE] for message in (b"a", b"b") for key in (KEY, bytes(32))}
    assert len(salts) == 4


def test_another_zlib_gets_another_frame_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = seal(b"message")[0]
    monkeypatch.setattr(zlib, "ZLIB_RUNTIME_VERSION", "9.9")
    assert seal(b"message")[0][:SALT_SIZE] != before[:SALT_SIZE]


class Changing(io.BytesIO):
    """A file that somebody writes to while it is read."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        if self.tell():
            self.getbuffer()[0] ^= 1
        return super().seek(offset, whence)


def test_a_file_that_changes_is_not_sealed() -> None:
    with pytest.raises(SealingError, match="changed"):
        list(seal_body(Changing(b"message"), KEY))


def test_short_messages_look_the_same() -> None:
    sizes = {len(b"".join(seal(message))) for message in (b"", b"yes", b"no", b"x" * 300)}
    assert sizes == {sealed_length(0)}
    assert sealed_length(0) == SALT_SIZE + MINIMUM + 16


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_padding_adds_little_and_says_little(one: int, other: int) -> None:
    padded_one = padded_length(one)
    assert padded_one >= one
    assert padded_length(padded_one) == padded_one
    assert one < MINIMUM or padded_one <= one * 1.12
    assert (one <= other) <= (padded_one <= padded_length(other))


def test_padme_is_that_of_the_paper() -> None:
    assert [padded_length(n) for n in (1024, 1025, 9_999, 65_537, 1_000_001)] == [1024, 1088, 10_240, 67_584, 1_015_808]


def test_the_largest_message_fits_even_if_it_can_not_be_compressed() -> None:
    stored = ORIGINAL_LIMIT + ORIGINAL_LIMIT // 1000 + 64
    assert sealed_length(stored) <= SEALED_LIMIT == MAX_SEGMENTS * SEGMENT_SIZE


def test_a_larger_message_is_refused_before_anything_is_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "ORIGINAL_LIMIT", 1000)
    with pytest.raises(TooLarge):
        next(seal_body(io.BytesIO(bytes(1001)), KEY))


def test_a_wrong_key_opens_nothing() -> None:
    with pytest.raises(BodyDamaged):
        open_(seal(b"message"), 7, bytes(32))
    for key in (b"", b"short", bytes(33)):
        with pytest.raises(SealingError):
            seal(b"message", key)
        with pytest.raises(SealingError):
            Opener(key, 7, io.BytesIO())


MESSAGE = noise(3 * FRAME_CONTENT - 10_000)
SEALED = b"".join(seal(MESSAGE))


def test_frames_cut_off_doubled_swapped_or_left_out_are_noticed() -> None:
    head, body = SEALED[:SALT_SIZE], SEALED[SALT_SIZE:]
    frames = [body[start : start + FRAME_SIZE] for start in range(0, len(body), FRAME_SIZE)]
    assert len(frames) == 3
    one, two, three = frames
    for wrong in ([], [one], [one, two], [one, three], [two, one, three], [one, two, two], [one, two, three, three]):
        with pytest.raises(BodyDamaged):
            open_([head + b"".join(wrong)], len(MESSAGE))


@settings(max_examples=50)
@given(st.integers(0, len(SEALED) - 1))
def test_a_truncated_body_is_noticed(length: int) -> None:
    with pytest.raises(BodyDamaged):
        open_([SEALED[:length]], len(MESSAGE))


@settings(max_examples=50)
@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_a_changed_byte_is_noticed(position: int, change: int) -> None:
    altered = bytearray(SEALED)
    altered[position] ^= change
    with pytest.raises(BodyDamaged):
        open_([bytes(altered)], len(MESSAGE))


@settings(max_examples=30)
@given(st.lists(st.integers(0, len(SEALED)), max_size=8))
def test_it_does_not_matter_how_a_body_is_cut(places: list[int]) -> None:
    edges = [0, *sorted(places), len(SEALED)]
    pieces = [SEALED[start:end] for start, end in pairwise(edges)]
    assert open_(pieces, len(MESSAGE)) == MESSAGE


@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(0, 1000))
def test_any_bytes_are_damaged(pieces: list[bytes], size: int) -> None:
    with pytest.raises(BodyDamaged):
        open_(pieces, size)


@given(st.lists(st.binary(max_size=2000), min_size=1, max_size=3), st.integers(0, 5000))
def test_any_contents_of_good_frames_are_damaged(contents: list[bytes], size: int) -> None:
    with pytest.raises(BodyDamaged):
        open_([handmade(contents)], size)


def test_a_message_of_another_size_than_announced_is_refused() -> None:
    with pytest.raises(BodyTooLong):
        open_(seal(b"message"), 6)
    with pytest.raises(BodyDamaged, match="announced"):
        open_(seal(b"message"), 8)


@pytest.mark.parametrize("size", [-1, ORIGINAL_LIMIT + 1, 1 << 70])
def test_an_impossible_size_is_refused(size: int) -> None:
    with pytest.raises(SealingError):
        Opener(KEY, size, io.BytesIO())


class Counter:
    """Counts what is written, and keeps nothing."""

    def __init__(self) -> None:
        self.count = 0

    def write(self, data: bytes) -> None:
        self.count += len(data)


def test_a_decompression_bomb_is_stopped_at_the_announced_size() -> None:
    bomb = zlib.compress(bytes(50 << 20), 9)
    body = handmade(cut(padded(bomb)))
    target = Counter()
    opener = Opener(KEY, 100_000, target)
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLong):
            opener.feed(body)
            opener.finish()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert target.count <= 100_000
    assert peak < 1 << 20


def test_what_follows_the_message_must_be_the_right_padding() -> None:
    good = zlib.compress(b"message")
    assert open_([handmade([padded(good)])], 7) == b"message"
    for content in (good, padded(good) + b"\0", padded(good)[:-1] + b"x", padded(good + zlib.compress(b"more"))):
        with pytest.raises(BodyDamaged):
            open_([handmade([content])], 7)
    with pytest.raises(BodyDamaged):
        open_([handmade([padded(good), b"hidden"])], 7)


def test_memory_does_not_grow_with_the_message() -> None:
    class LargeSource(io.RawIOBase):
        """40 MB that nothing holds."""

        def __init__(self) -> None:
            self.place = 0
            self.block = noise(1 << 16)

        def seek(self, offset: int, whence: int = 0, /) -> int:
            self.place = offset
            return offset

        def read(self, size: int = -1, /) -> bytes:
            size = min(size, 40_000_000 - self.place)
            self.place += size
            return self.block[:size]

    target = Counter()
    opener = Opener(KEY, 40_000_000, target)
    tracemalloc.start()
    try:
        for _, data in seal_body(LargeSource(), KEY):  # type: ignore[arg-type]
            opener.feed(data)
        opener.finish()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert target.count == 40_000_000
    assert peak < 8 << 20


def log_lines(count: int) -> bytes:
    """A log: it deflates to a tenth, so that one frame's content inflates in many steps."""
    return b"".join(b"2026-12-01 %02d:%02d host cron[%d]: done\r\n" % (i // 60 % 24, i % 60, i) for i in range(count))


@pytest.mark.parametrize("lines", range(1_500, 12_000, 97))
def test_text_that_inflates_in_several_steps_opens_whatever_its_length(lines: int) -> None:
    """Text above 64 KB was lost in a third of all cases: what zlib leaves at its end was counted twice."""
    text = log_lines(lines)
    bodies = [data for _, data in seal_body(io.BytesIO(text), KEY)]
    assert open_(bodies, len(text)) == text


def test_the_numbers_of_the_format_are_those_of_the_protocol() -> None:
    """docs/protocol.md; another level of compression would change what a message is sealed to."""
    assert (sealing.SALT_SIZE, sealing.TAG_SIZE, sealing.FRAME_SIZE, sealing.LEVEL) == (32, 16, 65_536, 6)
    assert (SEGMENT_SIZE, MAX_SEGMENTS, MINIMUM) == (1_048_576, 1_024, 1_024)
    assert (sealing.ORIGINAL_LIMIT, sealing.SEALED_LIMIT) == (1_006_632_960, 1_073_741_824)


def test_the_largest_size_is_taken_and_one_byte_more_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    Opener(KEY, 1_006_632_960, io.BytesIO())
    with pytest.raises(SealingError):
        Opener(KEY, 1_006_632_961, io.BytesIO())
    monkeypatch.setattr(sealing, "ORIGINAL_LIMIT", 1_000)
    assert open_(seal(bytes(1_000)), 1_000) == bytes(1_000)
    with pytest.raises(sealing.TooLarge):
        seal(bytes(1_001))


def test_a_compressed_message_of_just_a_padded_length_gets_no_padding() -> None:
    sizes = [
        size for size in range(1_500, 20_000) if (length := len(zlib.compress(noise(size)))) == padded_length(length)
    ]
    assert len(sizes) > 50
    for size in sizes[:50]:
        assert open_(seal(noise(size)), size) == noise(size)


def test_a_stream_that_was_never_ended_is_damaged_though_all_its_bytes_are_there() -> None:
    """zlib's checksum stands at the end of the stream: without it nothing was checked."""
    deflate = zlib.compressobj(0)
    flushed = len(deflate.compress(b"") + deflate.flush(zlib.Z_SYNC_FLUSH))
    for size in range(1_024 - flushed - 20, 1_024 - flushed):
        deflate = zlib.compressobj(0)
        stream = deflate.compress(noise(size)) + deflate.flush(zlib.Z_SYNC_FLUSH)
        if len(stream) == 1_024:
            break
    assert len(stream) == 1_024
    with pytest.raises(BodyDamaged):
        open_([handmade([stream])], size)


def test_a_file_is_compressed_in_the_same_pieces_however_it_reads() -> None:
    class Dribble(io.BytesIO):
        """A file that never gives more than 1,000 bytes."""

        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, 1_000))

    assert [len(piece) for piece in sealing._chunks(Dribble(noise(150_000)))] == [65_536, 65_536, 18_928]
