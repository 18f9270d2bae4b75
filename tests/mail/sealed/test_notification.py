"""Notifications: opened by whom they were written to, from whom they name, and by nobody else."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mail.sealed.header_limits import clean, cut, most_recent
from mail.sealed.keys import SEAL_OVERHEAD, KeyMaterialError, KeyPair, generate_pair, open_sealed, seal
from mail.sealed.notification import (
    BUCKETS,
    Forged,
    MalformedNotification,
    NotForUs,
    Notification,
    NotificationError,
    Untrusted,
    open_notification,
    seal_notification,
)
from mail.sealed.segments import MAX_SEGMENTS, SEGMENT_SIZE, Segment
from overlay.identity.certificates import TrustStore
from overlay.protocol_limits import MAX_NOTIFICATION
from tests.overlay.issuing import DAY, NOW, Issuer, Person

ISSUER = Issuer()
TRUST = TrustStore([ISSUER.der])
ALICE = ISSUER.person("alice@example.org", 100, serial=7)
EVE = ISSUER.person("eve@example.org", 101, serial=8)
BOB = "bob@example.org"
PAIR = generate_pair(NOW, random.Random(1).randbytes)
PAIRS = {PAIR.key_id: PAIR}
PURPOSE = b"p2pmail notification 1\0"

MESSAGE = Notification(
    session_key=bytes(range(32)),
    message_id="<1@example.org>",
    segments=(Segment(0, 2000, b"d" * 32),),
    original_size=3000,
    sender="alice@example.org",
    sender_name="Alice Müller",
    recipient=BOB,
    to=("Bob <bob@example.org>",),
    cc=("carol@example.org",),
    left_out=0,
    subject="Grüße aus Darmstadt 🏳️‍🌈",
    date=NOW,
    references=("<0@example.org>", "<0.5@example.org>"),
    deleter_salt=bytes(16),
)


def segments(count: int) -> tuple[Segment, ...]:
    full = [Segment(index, SEGMENT_SIZE, bytes([index % 256]) * 32) for index in range(count - 1)]
    return (*full, Segment(count - 1, 4321, b"l" * 32))


def opened(data: bytes) -> Notification:
    return open_notification(data, PAIRS, BOB, TRUST, NOW)[0]


def sealed(message: Notification = MESSAGE, owner: Person = ALICE) -> bytes:
    return seal_notification(message, owner, PAIR.public)


SEALED = sealed()


def test_the_recipient_reads_what_the_sender_wrote() -> None:
    message, certificate = open_notification(SEALED, PAIRS, BOB, TRUST, NOW)
    assert message == MESSAGE
    assert certificate.address == "alice@example.org"
    assert certificate.der == ALICE.certificate


def test_the_right_one_of_several_keys_is_taken() -> None:
    other = generate_pair(NOW, random.Random(2).randbytes)
    pairs = {other.key_id: other, **PAIRS}
    assert open_notification(SEALED, pairs, BOB, TRUST, NOW)[0] == MESSAGE


def test_a_key_that_is_gone_opens_nothing() -> None:
    with pytest.raises(NotForUs):
        open_notification(SEALED, {}, BOB, TRUST, NOW)


def test_a_key_under_another_s_id_opens_nothing() -> None:
    other = generate_pair(NOW, random.Random(2).randbytes)
    with pytest.raises(MalformedNotification):
        open_notification(SEALED, {PAIR.key_id: other}, BOB, TRUST, NOW)


def test_a_recipient_can_not_pass_it_on_as_if_it_were_sent_to_somebody_else() -> None:
    """Carol seals what Alice signed for her to Bob's key: the signature is right, and it is still not for Bob."""
    carol = generate_pair(NOW, random.Random(3).randbytes)
    to_carol = seal_notification(replace(MESSAGE, recipient="carol@example.org"), ALICE, carol.public)
    content = _content(to_carol, carol)
    passed_on = PAIR.key_id + seal(content, PAIR.public, PURPOSE)
    with pytest.raises(NotForUs, match="somebody else"):
        opened(passed_on)


def _content(data: bytes, pair: KeyPair = PAIR) -> bytes:
    return open_sealed(data[8:], pair, PURPOSE)


def forge(change: Callable[[list[object]], object], *, bucket: int = 8192, tail: bytes = b"") -> bytes:
    """A notification whose payload's fields were changed before Alice signed it."""
    content = _content(SEALED)
    signed = msgspec.msgpack.decode(content[4 : 4 + int.from_bytes(content[:4], "big")])
    fields: list[object] = msgspec.msgpack.decode(signed[0])
    replaced = change(fields)
    payload = msgspec.msgpack.encode(fields if replaced is None else replaced)
    data = msgspec.msgpack.encode([payload, ALICE.sign(PURPOSE + payload)])
    content = len(data).to_bytes(4, "big") + data + tail
    content += bytes(bucket - 8 - SEAL_OVERHEAD - len(content))
    return PAIR.key_id + seal(content, PAIR.public, PURPOSE)


def put(index: int, value: object, fields: list[object]) -> None:
    fields[index] = value


def test_the_tool_that_forges_makes_good_ones_too() -> None:
    assert opened(forge(lambda fields: None)) == MESSAGE


def test_a_false_signature_is_forged() -> None:
    with pytest.raises(Forged, match="false signature"):
        opened(sealed(owner=Person(ALICE.certificate, EVE.private_key)))


def test_a_sender_who_is_not_in_the_certificate_is_forged() -> None:
    with pytest.raises(Forged, match=r"eve@example\.org"):
        opened(sealed(owner=EVE))


@pytest.mark.parametrize("sender", ["Alice@example.org", "alice", "", "\x1b[2J@example.org", BOB])
def test_any_other_sender_than_the_certificate_s_is_forged(sender: str) -> None:
    with pytest.raises(Forged) as caught:
        opened(forge(partial(put, 9, sender)))
    assert str(caught.value).isprintable()


def test_a_certificate_of_another_authority_is_untrusted() -> None:
    with pytest.raises(Untrusted):
        opened(sealed(owner=Issuer(2).person("alice@example.org")))


def test_a_revoked_or_expired_sender_is_untrusted() -> None:
    trust = TrustStore([ISSUER.der])
    trust.accept_revocations(ISSUER.revoke([7], number=1), NOW)
    with pytest.raises(Untrusted, match="revoked"):
        open_notification(SEALED, PAIRS, BOB, trust, NOW)
    with pytest.raises(Untrusted, match="expired"):
        open_notification(SEALED, PAIRS, BOB, TRUST, NOW + 400 * DAY)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (0, 2),
        (0, None),
        (2, b"x" * 5000),
        (3, bytes(31)),
        (4, bytes(17)),
        (5, ""),
        (5, "<a\nb@c>"),
        (5, "x" * 600),
        (6, 0),
        (6, -1),
        (6, 1 << 62),
        (6, 3 * SEGMENT_SIZE),
        (7, b""),
        (7, bytes(64)),
        (8, -1),
        (8, 1 << 62),
        (8, 1.5),
        (10, 7),
        (11, ["x" * 3000]),
        (11, [["a"]]),
        (13, -1),
        (14, None),
        (15, math.nan),
        (15, math.inf),
        (15, -1.0),
        (15, 1e300),
        (16, ["\x00"]),
        (16, [1]),
        (17, b"\x02"),
        (17, b"\x02\x03" + bytes(31)),
        (17, b"\x01\x03" + bytes(32)),
        (17, b"\x04\x03" + bytes(32)),
        (17, bytes(35)),
        (17, "x"),
    ],
)
def test_nonsense_that_is_signed_is_malformed(field: int, value: object) -> None:
    with pytest.raises(MalformedNotification):
        opened(forge(partial(put, field, value)))


@pytest.mark.parametrize("payload", [None, [], {}, "x", [1] * 17, [[[[]]]], {"version": 1}])
def test_a_payload_of_another_shape_is_malformed(payload: object) -> None:
    with pytest.raises(MalformedNotification):
        opened(forge(lambda fields: payload if payload is not None else {}))


def test_fields_left_out_or_added_are_malformed() -> None:
    for change in (lambda fields: fields[:-2], lambda fields: [*fields, 1]):  # the last one has a default
        with pytest.raises(MalformedNotification):
            opened(forge(change))


def test_something_hidden_in_the_padding_is_malformed() -> None:
    with pytest.raises(MalformedNotification, match="after its end"):
        opened(forge(lambda fields: None, tail=b"hidden"))


def test_a_lying_length_is_malformed() -> None:
    for length in (0, 1, 5000, 0xFFFFFFFF):
        content = bytearray(_content(SEALED))
        content[:4] = length.to_bytes(4, "big")
        with pytest.raises(MalformedNotification):
            opened(PAIR.key_id + seal(bytes(content), PAIR.public, PURPOSE))


def test_control_sequences_never_come_out_whoever_put_them_in() -> None:
    evil = "\x1b[2J\x9b31m pay\x07 \u202egnp.exe\r\nBcc: x"
    for data in (
        sealed(replace(MESSAGE, subject=evil, sender_name=evil, to=(evil,), cc=(evil,))),
        forge(lambda fields: [*fields[:10], evil, [evil], [evil], 0, evil, *fields[15:]]),
    ):
        message = opened(data)
        for text in (message.subject, message.sender_name, *message.to, *message.cc):
            assert text == "[2J 31m pay gnp.exe Bcc: x"


def test_lone_surrogates_are_no_error() -> None:
    assert opened(sealed(replace(MESSAGE, subject="a\ud800b"))).subject == "a b"


def test_an_ordinary_notification_stays_under_4_kib() -> None:
    people = tuple(f"Somebody With A Long Name <somebody{number}@department.example.org>" for number in range(200))
    message = replace(
        MESSAGE,
        subject="ü" * 5000,
        sender_name="n" * 5000,
        to=people,
        cc=people,
        references=tuple(f"<{number}.{'x' * 60}@example.org>" for number in range(100)),
        segments=segments(25),
    )
    data = sealed(message)
    assert len(data) == 4096
    read = opened(data)
    assert read.segments == message.segments
    assert read.to == people[: len(read.to)]
    assert len(read.to) + len(read.cc) + read.left_out == 400
    assert read.references == message.references[-len(read.references) :]
    assert len(read.subject.encode()) <= 256
    assert read.subject.endswith("…")
    assert len(SEALED) == 3072


def test_the_sizes_that_are_seen_are_few() -> None:
    sizes = {len(sealed(replace(MESSAGE, subject="x" * length))) for length in range(0, 250, 10)}
    assert sizes == {3072}
    assert len(sealed(replace(MESSAGE, segments=segments(100)))) in BUCKETS


def test_the_largest_body_can_be_announced() -> None:
    message = replace(MESSAGE, segments=segments(MAX_SEGMENTS), original_size=900 << 20)
    data = sealed(message)
    assert len(data) <= MAX_NOTIFICATION
    assert opened(data).segments == message.segments


def test_a_body_of_a_million_segments_is_refused() -> None:
    for many in (segments(MAX_SEGMENTS + 1), (MESSAGE.segments[0],) * 1_000_000):
        with pytest.raises(NotificationError, match="segments"):
            sealed(replace(MESSAGE, segments=many))


@pytest.mark.parametrize(
    "message",
    [
        replace(MESSAGE, message_id=""),
        replace(MESSAGE, message_id="<a\nb>"),
        replace(MESSAGE, message_id="x" * 513),
        replace(MESSAGE, message_id="\ud800"),
        replace(MESSAGE, session_key=b"short"),
        replace(MESSAGE, deleter_salt=b""),
        replace(MESSAGE, segments=()),
        replace(MESSAGE, segments=(Segment(0, 10, b"d" * 32),)),
        replace(MESSAGE, segments=(Segment(1, 2000, b"d" * 32),)),
        replace(MESSAGE, segments=(Segment(0, 2000, b"d" * 31),)),
        replace(MESSAGE, segments=(Segment(0, 2000, b"d" * 32), Segment(1, 2000, b"d" * 32))),
        replace(MESSAGE, original_size=-1),
        replace(MESSAGE, sender="Alice@example.org"),
        replace(MESSAGE, recipient="nobody"),
    ],
)
def test_what_could_not_be_read_is_not_written(message: Notification) -> None:
    with pytest.raises(NotificationError):
        sealed(message)


@pytest.mark.parametrize("date", [math.nan, math.inf, -1.0, 1e300])
def test_a_date_that_is_none_is_told_as_the_epoch(date: float) -> None:
    assert opened(sealed(replace(MESSAGE, date=date))).date == 0.0


def test_a_card_with_a_bad_key_is_a_clear_error() -> None:
    with pytest.raises(KeyMaterialError):
        seal_notification(MESSAGE, ALICE, b"\xff" * 1216)


@given(st.binary(max_size=100) | st.sampled_from(BUCKETS).flatmap(lambda size: st.binary(min_size=size, max_size=size)))
@settings(max_examples=50)
def test_any_bytes_are_refused_with_our_errors(data: bytes) -> None:
    for candidate in (data, PAIR.key_id + data[8:]):
        with pytest.raises((MalformedNotification, NotForUs)):
            opened(candidate)


@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_a_changed_byte_is_noticed(position: int, change: int) -> None:
    altered = bytearray(SEALED)
    altered[position] ^= change
    with pytest.raises((MalformedNotification, NotForUs)):
        opened(bytes(altered))


@given(
    st.recursive(
        st.none() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary(max_size=40) | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=20,
    ),
    st.integers(0, 16),
)
def test_any_document_that_is_signed_gives_a_notification_or_our_errors(value: object, field: int) -> None:
    try:
        message = opened(forge(partial(put, field, value)))
    except NotificationError as error:
        assert str(error).isprintable()
    else:
        assert message.sender == "alice@example.org"
        assert message.recipient == BOB


@given(st.text(), st.text(), st.lists(st.text(), max_size=5), st.lists(st.text(max_size=30), max_size=5), st.floats())
def test_any_header_texts_can_be_told(
    subject: str, name: str, people: list[str], references: list[str], date: float
) -> None:
    message = replace(
        MESSAGE, subject=subject, sender_name=name, to=tuple(people), references=tuple(references), date=date
    )
    data = sealed(message)
    read = opened(data)
    assert len(data) <= 4096
    assert read.subject == cut(subject, 256)
    assert set(read.references) <= set(references)
    assert replace(read, subject="", sender_name="", to=(), left_out=0, references=(), date=0.0) == replace(
        MESSAGE, subject="", sender_name="", to=(), left_out=0, references=(), date=0.0
    )


def test_bcc_has_no_place_in_a_notification() -> None:
    assert not [name for name in Notification.__dataclass_fields__ if "bcc" in name.lower()]


@given(st.text(max_size=300), st.integers(4, 300))
def test_cut_text_fits_and_is_clean(text: str, limit: int) -> None:
    short = cut(text, limit)
    assert len(short.encode()) <= limit
    assert clean(short) == short


def test_the_last_reference_is_always_kept() -> None:
    assert most_recent(["<a>", "<b>"], 0, 100) == ("<b>",)
    assert most_recent(["<a>", "<b>", "x" * 101, ""], 6, 100) == ("<a>", "<b>")
