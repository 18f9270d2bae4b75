from __future__ import annotations

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from overlay import ids
from overlay.protocol_limits import DIGEST_BYTES

KEYS = st.binary(min_size=20, max_size=20)


def test_keys_are_those_of_table_1() -> None:
    address = "alice@village.example"
    assert ids.inbox_key(address) == sha256(b"inbox\0alice@village.example").digest()[:20]
    assert ids.certificate_key(address) == sha256(b"certificate\0alice@village.example-certificate").digest()[:20]
    assert ids.body_key("<1@x>") == sha256(b"body\0<1@x>").digest()[:20]
    assert ids.revocations_key("ab") == sha256(b"revocations\0ab-revocations").digest()[:20]
    assert ids.probe_key("net", b"\x01") == sha256(b"probe\0net-probe-01").digest()[:20]


def test_a_message_id_falls_on_nobodys_inbox_or_certificate() -> None:
    address = "alice@village.example"
    made = {ids.body_key(address), ids.inbox_key(address), ids.certificate_key(address)}
    assert len(made | {ids.body_key(address + "-certificate")}) == 4


def test_a_deleter_hash_tells_nothing_without_the_salt() -> None:
    key, certificate = bytes(20), b"certificate"
    one, other = (ids.deleter_hash(key, salt * 16, certificate) for salt in (b"a", b"b"))
    assert one != other
    assert len(one) == DIGEST_BYTES


@given(KEYS, KEYS, KEYS)
def test_distance_is_a_metric(a: bytes, b: bytes, c: bytes) -> None:
    assert (ids.distance(a, b) == 0) == (a == b)
    assert ids.distance(a, b) == ids.distance(b, a)
    assert ids.distance(a, c) <= ids.distance(a, b) + ids.distance(b, c)


@given(st.binary(max_size=64))
def test_leading_zero_bits_are_those_of_the_written_number(data: bytes) -> None:
    written = "".join(f"{byte:08b}" for byte in data)
    assert ids.leading_zero_bits(data) == len(written) - len(written.lstrip("0"))
