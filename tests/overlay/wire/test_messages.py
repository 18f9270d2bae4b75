from __future__ import annotations

import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import Malformed
from overlay.identity.contact import WireContact
from overlay.protocol_limits import MAX_DELETERS, MAX_K
from overlay.wire import messages as m

TOKEN, KEY, SALT, DIGEST, SIGNATURE = bytes(16), bytes(20), bytes(16), bytes(32), bytes(64)
CONTACT = WireContact(bytes(32), bytes([192, 0, 2, 1]), 4000)

REQUESTS: list[m.Request] = [
    m.Ping(),
    m.Find(KEY, 20, bytes(100)),
    m.Store(TOKEN, 1, KEY, b"data", [DIGEST, DIGEST], 3600.0),
    m.Fetch(TOKEN, 1, KEY),
    m.Fetch(TOKEN, 1, KEY, DIGEST),
    m.Delete(TOKEN, 1, KEY, SALT, b"certificate", SIGNATURE),
    m.AppendInbox(TOKEN, KEY, b"notification", 3600.0),
    m.ReadInbox(TOKEN, KEY, b"certificate", SIGNATURE),
    m.AcknowledgeInbox(TOKEN, KEY, [DIGEST], b"certificate", SIGNATURE),
    m.AskTombstones(TOKEN, 1, KEY, [DIGEST]),
    m.HandTombstone(TOKEN, 1, KEY, b"proof", 3600.0),
    m.Have(TOKEN, 1, KEY),
    m.Have(TOKEN, 1, KEY, DIGEST),
    m.Have(TOKEN, 1, KEY, b"", DIGEST),
    m.HaveNotifications(TOKEN, KEY, [DIGEST]),
    m.Recheck(TOKEN, 0, KEY),
    m.AskAdmission(m.ADMISSION_PADDING),
    m.DialBack(TOKEN, DIGEST),
]
ANSWERS: list[m.Answer] = [
    m.Pong(CONTACT.ip, 4000),
    m.Found([CONTACT] * MAX_K, TOKEN, 4000, DIGEST),
    m.Found([], TOKEN, 0, b""),
    m.Done(3),
    m.Object(b"data", 4),
    m.Notifications([b"one", b"two"], True),
    m.Tombstones([b"proof", b""]),
    m.Refusal(m.Code.NO_SPACE),
    m.Refusal(m.Code.STAMP_NEEDED, 16),
    m.Held([DIGEST], [m.WireTombstone(b"proof", 60.0)], True),
    m.Held([DIGEST], [], False, True),
    m.Known([True, False]),
    m.Admitted(b"certificate", SIGNATURE),
    m.Dialled(True, False),
]
NAMES = {type(message).__name__.lower(): message for message in [*REQUESTS, *ANSWERS]}


def raw(message: m.Request | m.Answer) -> list[Any]:
    """The message as an array whose elements a test can change."""
    decoded = msgspec.msgpack.decode(m.encode(message))
    assert isinstance(decoded, list)
    return decoded


def refused(array: object, *, answer: bool = False) -> None:
    with pytest.raises(Malformed):
        (m.decode_answer if answer else m.decode_request)(msgspec.msgpack.encode(array))


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: type(r).__name__)
def test_requests_survive_the_wire_and_are_no_answers(request_: m.Request) -> None:
    assert m.decode_request(m.encode(request_)) == request_
    with pytest.raises(Malformed):
        m.decode_answer(m.encode(request_))


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda a: type(a).__name__)
def test_answers_survive_the_wire_and_are_no_requests(answer: m.Answer) -> None:
    assert m.decode_answer(m.encode(answer)) == answer
    with pytest.raises(Malformed):
        m.decode_request(m.encode(answer))


def test_every_code_has_words_for_a_user() -> None:
    codes = {value for name, value in vars(m.Code).items() if name.isupper()}
    assert codes == set(m.WORDS)


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(data: bytes) -> None:
    for decode in (m.decode_request, m.decode_answer):
        try:
            message = decode(data)
        except Malformed:
            continue
        assert m.encode(message)  # a few short strings are messages: a ping is two bytes


NOTHINGS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=40),
    lambda children: st.lists(children, max_size=6) | st.dictionaries(st.text(max_size=4), children, max_size=3),
    max_leaves=20,
)


@given(NOTHINGS, st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 9, 101, 102, 103, 104, 105, 106, 107]))
def test_nonsense_under_a_known_tag_is_refused_or_exactly_a_message(nonsense: object, tag: int) -> None:
    array = [tag, *nonsense] if isinstance(nonsense, list) else [tag, nonsense]
    data = msgspec.msgpack.encode(array)
    for decode in (m.decode_request, m.decode_answer):
        try:
            message = decode(data)
        except Malformed:
            continue
        assert raw(message)[: len(array)] == array


@pytest.mark.parametrize("depth", [10, 1000, 100_000])
@pytest.mark.parametrize("opening", [b"\x91", b"\x92\x01", b"\x81\xa1a", b"\x92\x03", b"\x95\x66"])
def test_nested_msgpack_is_refused(opening: bytes, depth: int) -> None:
    for decode in (m.decode_request, m.decode_answer):
        with pytest.raises(Malformed):
            decode(opening * depth)


@pytest.mark.parametrize(
    "data", [b"\xdd\xff\xff\xff\xff", b"\x93\x69\xdd\x7f\xff\xff\xff\xc4\x00", b"\x93\x68\xc6\xff\xff\xff\xff"]
)
def test_a_lying_length_costs_no_memory(data: bytes) -> None:
    tracemalloc.start()
    try:
        for decode in (m.decode_request, m.decode_answer):
            with pytest.raises(Malformed):
                decode(data)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("length", [0, 19, 21, 40])
def test_a_key_of_another_length_than_20_bytes_is_refused(length: int) -> None:
    for message in REQUESTS:
        array = raw(message)
        if KEY not in array:
            continue
        array[array.index(KEY)] = bytes(length)
        refused(array)


@pytest.mark.parametrize(
    "contact",
    [
        [bytes(32), bytes(4), 70000],
        [bytes(32), bytes(4), 0],
        [bytes(32), bytes(4), -1],
        [bytes(32), bytes(4), "4000"],
        [bytes(32), bytes(4), 4000.5],
        [bytes(32), b"\x7f\x01\x01", 4000],
        [bytes(32), bytes(17), 4000],
        [bytes(32), "192.0.2.1", 4000],
        [bytes(32), "localhost", 4000],
        [bytes(32), 2130706433, 4000],
        [bytes(31), bytes(4), 4000],
        [bytes(33), bytes(4), 4000],
        ["k" * 32, bytes(4), 4000],
        [bytes(32), bytes(4)],
        {"key": bytes(32), "ip": bytes(4), "port": 4000},
        None,
    ],
    ids=repr,
)
def test_a_contact_that_cant_be_is_refused(contact: object) -> None:
    refused([102, [contact], TOKEN, 4000, DIGEST], answer=True)


def test_more_contacts_than_were_ever_asked_for_are_refused() -> None:
    contact = [bytes(32), bytes(4), 4000]
    refused([102, [contact] * (MAX_K + 1), TOKEN, 4000, DIGEST], answer=True)


@pytest.mark.parametrize("ttl", ["1", None, b""])
def test_a_time_to_live_that_cant_be_is_refused(ttl: object) -> None:
    for message in (REQUESTS[2], REQUESTS[6]):
        array = raw(message)
        array[array.index(3600.0)] = ttl
        refused(array)


@pytest.mark.parametrize(("asked", "sent"), [(-1.0, 0.0), (0.0, 0.0), (5.0, 5.0), (2_592_000.1, 2_592_000.0)])
def test_a_request_never_asks_for_more_than_30_days(asked: float, sent: float) -> None:
    assert m.bounded(asked) == sent


@pytest.mark.parametrize("length", [1, 20, 31, 33])
def test_a_digest_has_32_bytes_or_there_is_none(length: int) -> None:
    refused([4, TOKEN, 1, KEY, bytes(length)])
    refused([102, [], TOKEN, 4000, bytes(length)], answer=True)
    refused([3, TOKEN, 1, KEY, b"data", [bytes(length)], 3600.0])


@pytest.mark.parametrize(
    "array",
    [
        [],
        [0],
        [10],
        [1, 1],
        ["1"],
        [2, KEY, MAX_K + 1, b""],
        [2, KEY, -1, b""],
        [2, KEY, 20, bytes(1025)],
        [2, KEY, 20, b"", b"more"],
        [3, TOKEN, 0, KEY, b"", [], 1.0],
        [3, TOKEN, 256, KEY, b"", [], 1.0],
        [3, bytes(15), 1, KEY, b"", [], 1.0],
        [3, TOKEN, 1, KEY, "text", [], 1.0],
        [3, TOKEN, 1, KEY, b"", [DIGEST] * (MAX_DELETERS + 1), 1.0],
        [5, TOKEN, 1, KEY, bytes(15), b"", SIGNATURE],
        [5, TOKEN, 1, KEY, SALT, b"", bytes(63)],
        [5, TOKEN, 1, KEY, SALT, bytes(5000), SIGNATURE],
        [8, TOKEN, KEY, [DIGEST] * 201, b"", SIGNATURE],
    ],
    ids=lambda array: str(array)[:40],
)
def test_requests_out_of_their_bounds_are_refused(array: list[object]) -> None:
    refused(array)


@given(st.integers(0, MAX_K))
def test_a_find_is_padded_so_that_its_answer_may_be_complete(k: int) -> None:
    size = 72 + len(m.encode(m.Find(KEY, k, m.find_padding(k))))
    assert size <= 1200
    assert m.affordable(size) >= k


@given(st.integers(0, 1200))
def test_an_answer_and_the_ping_that_goes_with_it_stay_within_three_times_the_request(size: int) -> None:
    contacts = min(m.affordable(size), MAX_K)
    found = m.Found([WireContact(b"\xff" * 32, b"\xff" * 16, 65535)] * contacts, TOKEN, 65535, DIGEST)
    answer = len(m.encode(found))
    datagrams = -(-answer // 1128)
    if size >= 99:  # the shortest Find that there can be
        assert answer + 72 * datagrams + 74 <= 3 * size
