"""What is sealed, cut, coded, told and carried comes back as it went, over the workload, however it is cut.

100,000 cases at length: python -m tests.workload.round_trips.
"""

from __future__ import annotations

import hashlib
import random
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mail.sealed.body import FRAME_CONTENT, Opener
from mail.sealed.erasure_shares import CodingPlan
from mail.sealed.segments import SEGMENT_SIZE
from overlay.http.headers import store_headers as headers_of_store
from overlay.ids import Kind
from overlay.primitives.requests import FetchRequest
from overlay.wire.write_tokens import NOBODY
from storage.store_request import StoreRequest
from tests.overlay.http_servers import KEY, hang_up, http_server
from tests.workload import Shape, draw
from tests.workload.cutting import chunks
from tests.workload.round_trips import RoundTripFailed, play, play_some, seal_and_open, share, store_headers, tell
from tests.workload.strategies import chunkings, shapes, sizes

SESSION_KEY = bytes(range(32))


@settings(max_examples=80)
@given(shape=shapes(largest=300_000, most_recipients=3), reads=chunkings(), feeds=chunkings())
def test_every_message_is_opened_as_it_was_sealed(shape: Shape, reads: tuple[int, ...], feeds: tuple[int, ...]) -> None:
    seal_and_open(shape.message(), SESSION_KEY, reads, lambda sealed: chunks(sealed, feeds))


@settings(max_examples=4)
@given(shape=shapes(largest=3_300_000, most_recipients=1).filter(lambda shape: shape.size > 900_000))
def test_every_message_of_some_segments_is_opened_as_it_was_sealed(shape: Shape) -> None:
    seal_and_open(shape.message(), SESSION_KEY, [70_001], lambda sealed: chunks(sealed, [1 << 20, 33]))


@pytest.mark.parametrize("frames", [1, 16])
@pytest.mark.parametrize("beyond", range(-9, 10))
def test_the_compressed_message_may_end_on_any_byte_around_the_end_of_a_frame(frames: int, beyond: int) -> None:
    """Its last four bytes, zlib's checksum, may be in the next frame, and so may the padding alone."""
    message = compressing_to(frames * FRAME_CONTENT + beyond)
    seal_and_open(message, SESSION_KEY, [1 << 16], lambda sealed: [sealed])
    seal_and_open(message, SESSION_KEY, [1000], lambda sealed: chunks(sealed, [999, 65_536]))


NOISE = random.Random(5).randbytes(17 * FRAME_CONTENT)


def compressing_to(length: int) -> bytes:
    """Bytes that can't be compressed, and are so many with what zlib adds."""
    size = length
    while (more := compressed(NOISE[:size]) - length) != 0:
        size -= more
    return NOISE[:size]


def compressed(data: bytes) -> int:
    deflate = zlib.compressobj(6)
    length = sum(len(deflate.compress(data[at : at + 65_536])) for at in range(0, len(data), 65_536))
    return length + len(deflate.flush())


@settings(max_examples=60)
@given(
    size=sizes(SEGMENT_SIZE), m=st.integers(2, 60), more=st.integers(0, 60), chance=st.randoms(use_true_random=False)
)
def test_any_m_of_n_shares_make_a_segment_of_any_size(size: int, m: int, more: int, chance: random.Random) -> None:
    segment = random.Random(size).randbytes(max(1, size))
    share(segment, bytes(20), CodingPlan(m, min(m + more, 120), bytes(32)), chance)


@settings(max_examples=60)
@given(
    shape=shapes(largest=20_000, most_recipients=200),
    chance=st.randoms(use_true_random=False),
)
def test_every_message_is_told_as_it_is(shape: Shape, chance: random.Random) -> None:
    people = [f"user{number}@workload.example" for number in range(shape.recipients)]
    message = shape.message(recipients=people)
    segments = seal_and_open(message, SESSION_KEY, [1 << 16], lambda sealed: [sealed])
    coding = CodingPlan(2, 5, bytes(32)).coding if shape.seed % 2 else None
    tell(message, [segment for segment, _ in segments], coding, chance)


@given(deleters=st.lists(st.binary(min_size=32, max_size=32), max_size=1000), ttl=st.floats(0.001, 30 * 86_400.0))
@settings(max_examples=30)
def test_the_headers_of_a_store_are_read_as_they_were_written(deleters: list[bytes], ttl: float) -> None:
    store_headers(b"body", deleters, ttl)


async def test_a_body_that_comes_in_pieces_of_any_length_is_kept_and_given_as_it_is(tmp_path: Path) -> None:
    chance = random.Random(11)
    async with http_server(tmp_path) as world:
        for number in range(12):
            body = draw(chance, largest=600_000, most_recipients=1).message()
            digest, key = hashlib.sha256(body).digest(), number.to_bytes(20, "big")
            fields = [
                f"{name}: {value}"
                for name, value in headers_of_store(StoreRequest(Kind.BODY, key, body, digest, 100.0))
            ]
            token = world.tokens.issue(NOBODY, "127.0.0.1").hex()
            head = [f"PUT /{key.hex()} HTTP/1.1", "Host: x", "Connection: close", f"P2pmail-Token: {token}", *fields]
            request = "\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body
            reader, writer = await world.connect()
            lengths = [int(10 ** chance.uniform(0, 5)) for _ in range(4)]
            for piece in chunks(request, lengths, most=60):
                writer.write(piece)
                await writer.drain()
            answer = await reader.read()
            await hang_up(writer)
            assert answer.startswith(b"HTTP/1.1 20"), answer
            assert await world.client.fetch(world.located, FetchRequest(Kind.BODY, key, digest), len(body)) == body
            target, there = tmp_path / f"{number}", chance.randint(0, len(body))
            target.write_bytes(body[:there])
            await world.client.fetch_to(world.located, FetchRequest(Kind.BODY, key, digest), len(body), target)
            assert target.read_bytes() == body


def test_cases_at_length_are_played_from_their_numbers() -> None:
    assert play_some(range(0, 120, 8))[1] == []
    assert play(7) == play(7)


def test_a_miscounted_end_of_the_compressed_message_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault that a million simulated messages missed."""
    real = Opener._unpack

    def unpack(self: Opener, content: bytes) -> bytes:
        left = real(self, content)
        self._compressed -= len(left) if left and self._inflate.unconsumed_tail else 0
        return left

    monkeypatch.setattr(Opener, "_unpack", unpack)
    _, failed = play_some(range(100))
    assert any("not padded" in words for words in failed)


def test_bytes_that_come_back_changed_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.workload.round_trips.make_shares", lambda segment, key, plan: [segment] * plan.n)
    with pytest.raises(RoundTripFailed, match="isn't taken"):
        share(b"segment", KEY, CodingPlan(2, 3, bytes(32)), random.Random(1))
    message = draw(random.Random(1), largest=1000).message()
    with pytest.raises(Exception, match="body"):
        seal_and_open(message, SESSION_KEY, [100], lambda sealed: [sealed[:-1]])
