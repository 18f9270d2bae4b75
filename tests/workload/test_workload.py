"""The workload is what it says: every kind and size occurs, the same seed gives the same bytes, memory stays small."""

from __future__ import annotations

import io
import random
import tempfile
import tracemalloc
import zlib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings

from mail.write.submission import read_submission
from tests.workload import EDGES, BodyKind, Ending, Event, Happening, Head, Shape, WrittenMessage, draw, draw_story
from tests.workload.cutting import chunks
from tests.workload.strategies import chunkings, shapes

DRAWN = [draw(random.Random(f"draw {number}")) for number in range(4000)]


def test_every_kind_ending_and_head_is_drawn_often() -> None:
    assert min(Counter(shape.kind for shape in DRAWN).values()) > 4000 / len(BodyKind) / 2
    assert {shape.kind for shape in DRAWN} == set(BodyKind)
    assert min(Counter(shape.ending for shape in DRAWN)[ending] for ending in Ending) > 300
    assert min(Counter(shape.head for shape in DRAWN)[head] for head in Head if head is not Head.BARE) > 200


def test_each_decade_of_sizes_from_1_byte_to_1_gb_is_drawn_as_often_as_the_others() -> None:
    decades = Counter(len(str(shape.size)) for shape in DRAWN if shape.size)
    assert min(decades[digits] for digits in range(1, 10)) > 250
    assert max(shape.size for shape in DRAWN) > 500_000_000
    assert sum(shape.size == 0 for shape in DRAWN) > 80


def test_sizes_beside_each_edge_are_drawn() -> None:
    for edge in EDGES:
        assert sum(abs(shape.size - edge) <= 40 for shape in DRAWN) >= 10, edge


def test_recipients_are_from_1_to_5000_as_many_decades_each() -> None:
    decades = Counter(len(str(shape.recipients)) for shape in DRAWN)
    assert min(decades[digits] for digits in range(1, 5)) > 500
    assert max(shape.recipients for shape in DRAWN) > 4500


def test_what_the_caller_caps_is_capped() -> None:
    rng = random.Random(1)
    capped = [draw(rng, largest=70_000, most_recipients=3) for _ in range(500)]
    assert 60_000 < max(shape.size for shape in capped) <= 70_000
    assert {shape.recipients for shape in capped} == {1, 2, 3}
    assert draw(rng, largest=0, most_recipients=1).size == 0


def test_nothing_is_left_to_be_added_unless_that_is_asked_for() -> None:
    rng = random.Random(2)
    assert any(not draw(rng, complete=False).complete for _ in range(100))
    assert all(shape.complete for shape in DRAWN)


@pytest.mark.parametrize("kind", BodyKind)
def test_a_body_has_exactly_the_bytes_it_was_to_have(kind: BodyKind) -> None:
    for size in (0, 1, 3, 11, 500, 20_000, 70_001):
        for ending in Ending:
            message = Shape(3, kind, size, ending, Head.USUAL, 1).message()
            empty_line = b"\r\n\r\n" if ending is Ending.CRLF else b"\n\n"
            assert len(message.partition(empty_line)[2]) == size


COMPRESSED_TO = {
    BodyKind.RUN: (0.0, 0.02), BodyKind.LOG: (0.1, 0.3), BodyKind.PROSE: (0.3, 0.5), BodyKind.ONE_LINE: (0.3, 0.5),
    BodyKind.ATTACHMENT: (0.7, 0.8), BodyKind.ATTACHMENTS: (0.7, 0.8),
    BodyKind.COMPRESSED: (0.95, 1.01), BodyKind.RANDOM: (0.99, 1.01),
}  # fmt: skip


@pytest.mark.parametrize("kind", COMPRESSED_TO)
def test_each_kind_compresses_as_such_mail_does(kind: BodyKind) -> None:
    message = Shape(4, kind, 300_000, Ending.CRLF, Head.USUAL, 1).message()
    least, most = COMPRESSED_TO[kind]
    assert least <= len(zlib.compress(message)) / len(message) <= most


def test_one_line_has_no_line_end_and_languages_are_in_their_charsets() -> None:
    assert Shape(5, BodyKind.ONE_LINE, 200_000, Ending.LF, Head.USUAL, 1).message().count(b"\n") < 12
    for kind in (BodyKind.UTF_8, BodyKind.LATIN_1, BodyKind.GB18030, BodyKind.SHIFT_JIS, BodyKind.KOI8_R):
        body = Shape(5, kind, 50_000, Ending.LF, Head.USUAL, 1).message().partition(b"\n\n")[2]
        text = body.decode(kind.value, "ignore").encode(kind.value)
        assert len(text) >= len(body) - 4, "only the last character may be cut"
        assert sum(byte > 127 for byte in body) > 5000


def test_a_message_of_64_mb_is_written_within_a_megabyte_of_memory() -> None:
    class Nowhere(io.RawIOBase):
        def write(self, data: object) -> int:
            assert isinstance(data, bytes)
            return len(data)

    shape = Shape(6, BodyKind.RUN, 64 << 20, Ending.LF, Head.LONG, 1)
    shape.message("a@b.example", ["c@d.example"])
    tracemalloc.start()
    try:
        written = shape.write(Nowhere(), "a@b.example", ["c@d.example"])  # type: ignore[arg-type]
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert written > 64 << 20


def test_5000_recipients_are_not_told_in_the_header() -> None:
    everybody = [f"user{number}@workload.example" for number in range(5000)]
    message = Shape(7, BodyKind.PROSE, 10, Ending.LF, Head.USUAL, 5000).message(recipients=everybody)
    assert len(message) < 1000
    assert b"To: undisclosed-recipients:;\n" in message


@settings(max_examples=60)
@given(shape=shapes(largest=100_000, most_recipients=50))
def test_a_complete_message_is_accepted_as_it_was_written_and_is_the_same_each_time(shape: Shape) -> None:
    people = [f"user{number}@workload.example" for number in range(shape.recipients)]
    message = shape.message(recipients=people)
    assert message == shape.message(recipients=people)
    with tempfile.TemporaryDirectory() as folder:
        submission = read_submission(io.BytesIO(message), Path(folder) / "spool", people, "alice@workload.example")
        assert submission.path.read_bytes() == message
    assert submission.message_id == shape.message_id()
    assert len(submission.recipients) == shape.recipients


def test_a_story_has_its_messages_bursts_pairs_and_every_event() -> None:
    steps = draw_story(random.Random(8), messages=2000, users=20, largest=1000)
    messages = [step for step in steps if isinstance(step, WrittenMessage)]
    assert [message.number for message in messages] == list(range(2000))
    assert all(message.sender not in message.recipients for message in messages)
    assert all(len(set(message.recipients)) == message.shape.recipients <= 19 for message in messages)
    assert sum(message.burst for message in messages) > 500
    pairs = Counter((message.sender, message.recipients) for message in messages if message.shape.recipients == 1)
    assert pairs[0, (1,)] > 30
    assert pairs[1, (0,)] > 30
    events = Counter(step.event for step in steps if isinstance(step, Happening))
    assert min(events[event] for event in Event) > 10
    assert 300 < sum(events.values()) < 500


def test_a_story_of_two_without_events_is_messages_between_the_two() -> None:
    steps = draw_story(random.Random(9), messages=50, users=2, events=())
    assert all(isinstance(step, WrittenMessage) and step.recipients == (1 - step.sender,) for step in steps)


@given(lengths=chunkings())
def test_pieces_of_any_lengths_make_the_whole(lengths: tuple[int, ...]) -> None:
    data = bytes(range(256)) * 40
    cut = list(chunks(data, lengths))
    assert b"".join(cut) == data
    assert len(cut) <= 501
