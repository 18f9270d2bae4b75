"""Headers, paths and small bodies over HTTP: what was encoded is decoded, and anything else is Malformed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from overlay.errors import Malformed
from overlay.http import headers as form
from overlay.identity.contact import Contact
from overlay.ids import CARD_SALT, Kind
from overlay.kademlia.lookup import Located
from overlay.protocol_limits import MAX_DELETERS, MAX_HTTP_HASHES, RETENTION
from overlay.wire.messages import WORDS
from overlay.wire.write_tokens import NOBODY
from storage.store_request import StoreRequest

KEY = bytes(range(20))
hashes = st.binary(min_size=32, max_size=32)


def headers(*pairs: tuple[str, str]) -> CIMultiDict[str]:
    return CIMultiDict(pairs)


@given(st.binary(max_size=70))
def test_base64url_is_read_as_it_was_written(data: bytes) -> None:
    text = form.base64url(data)
    assert form.parse_base64url(text, 70) == data
    assert form.parse_base64url(text + "=" * (-len(text) % 4), 70) == data


@given(st.one_of(st.text(max_size=60), st.text("AZaz09-_=+/ ", max_size=60)))
def test_base64url_has_one_spelling_for_one_value(text: str) -> None:
    try:
        data = form.parse_base64url(text, 40)
    except Malformed:
        return
    assert form.base64url(data) == text.rstrip("=")


@given(
    st.sampled_from(Kind),
    st.floats(0, RETENTION),
    hashes,
    st.one_of(st.lists(hashes, max_size=5), st.lists(hashes, min_size=600, max_size=MAX_DELETERS)),
)
def test_the_headers_of_a_store_are_read_as_they_were_written(
    kind: Kind, ttl: float, digest: bytes, deleters: list[bytes]
) -> None:
    written = form.store_headers(StoreRequest(kind, bytes(20), b"", digest, ttl, deleters))
    read = headers(*written)
    assert form.kind_of(read) == kind
    assert form.ttl_of(read) == pytest.approx(ttl, abs=0.001)
    assert form.content_digest_of(read) == digest
    assert form.deleters_of(read) == deleters
    assert max(len(value) for _, value in written) < 8000  # what HTTP servers take in one header


def test_what_is_not_given_has_the_defaults_that_curl_users_want() -> None:
    nothing = headers()
    assert form.kind_of(nothing) == Kind.BODY
    assert form.ttl_of(nothing) == RETENTION
    assert form.deleters_of(nothing) == []
    assert form.content_digest_of(nothing) is None
    assert form.asker_of(nothing) == NOBODY
    assert form.pragma_of(nothing) == form.pragma_of(headers(("Pragma", "no-cache"))) == ""
    assert form.salt_of(nothing, Kind.CERTIFICATE) == CARD_SALT
    assert form.digest_of(nothing) is None


def test_other_digests_beside_sha_256_are_passed_over() -> None:
    digest = bytes(range(32))
    both = headers(("Content-Digest", "sha-512=:AAAA:"), ("Content-Digest", form.digest_field(digest)))
    assert form.content_digest_of(both) == digest


@pytest.mark.parametrize(
    ("read", "pairs"),
    [
        (form.token_of, []),
        (form.token_of, [("P2pmail-Token", "00")]),
        (form.token_of, [("P2pmail-Token", "zz" * 16)]),
        (form.token_of, [("P2pmail-Token", "00" * 16), ("p2pmail-token", "00" * 16)]),
        (form.token_of, [("P2pmail-Token", "٠٠" * 16)]),
        (form.asker_of, [("P2pmail-Key", "AAAA")]),
        (form.kind_of, [("P2pmail-Kind", "letter")]),
        (form.kind_of, [("P2pmail-Kind", "")]),
        (form.ttl_of, [("P2pmail-TTL", "-1")]),
        (form.ttl_of, [("P2pmail-TTL", "1e9")]),
        (form.ttl_of, [("P2pmail-TTL", "nan")]),
        (form.ttl_of, [("P2pmail-TTL", "٣")]),
        (form.ttl_of, [("P2pmail-TTL", "9" * 400)]),
        (form.deleters_of, [("P2pmail-Deleters", "AAAA")]),
        (form.deleters_of, [("P2pmail-Deleters", "," * MAX_DELETERS)]),
        (form.content_digest_of, [("Content-Digest", "sha-512=:AAAA:")]),
        (form.content_digest_of, [("Content-Digest", "sha-256=:AAAA:")]),
        (form.pragma_of, [("Pragma", "append-inbx")]),
        (form.pragma_of, [("Pragma", "append-inbox"), ("Pragma", "read-inbox")]),
        (form.proof_of, [("P2pmail-Certificate", "AAAA")]),
        (form.proof_of, [("P2pmail-Certificate", "AAAA"), ("P2pmail-Signature", "AAAA")]),
        (form.proof_of, [("P2pmail-Certificate", "A" * 10_000), ("P2pmail-Signature", "A" * 86)]),
        (form.count_of, [("P2pmail-Count", "-3")]),
        (form.more_of, [("P2pmail-More", "perhaps")]),
        (form.k_of, [("k", "41")]),
        (form.k_of, [("k", "-1")]),
        (form.deleter_of, []),
    ],
)
def test_a_value_that_is_not_exactly_right_is_malformed(
    read: Callable[[CIMultiDict[str]], object], pairs: list[tuple[str, str]]
) -> None:
    with pytest.raises(Malformed):
        read(headers(*pairs))


def test_only_a_card_needs_no_salt() -> None:
    with pytest.raises(Malformed):
        form.salt_of(headers(), Kind.BODY)


def test_paths_are_a_key_or_a_lookup_of_one() -> None:
    assert form.parse_path(f"/{KEY.hex()}") == (KEY, False)
    assert form.parse_path(f"/closest/{KEY.hex().upper()}") == (KEY, True)


@pytest.mark.parametrize(
    "path", ["", "/", "/00", f"/{KEY.hex()}/", f"//{KEY.hex()}", f"/x/{KEY.hex()}", "/../etc/passwd"]
)
def test_any_other_path_is_malformed(path: str) -> None:
    with pytest.raises(Malformed):
        form.parse_path(path)


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_notifications_are_read_as_they_were_written(notifications: list[bytes]) -> None:
    assert form.decode_notifications(form.encode_notifications(notifications)) == notifications


@given(st.one_of(st.binary(max_size=200), st.just(b"\x91" * 100_000)))
def test_a_body_that_is_nonsense_is_malformed_or_read(data: bytes) -> None:
    for decode in (form.decode_notifications, form.decode_hashes, form.decode_closest):
        try:
            decode(data)
        except Malformed:
            continue


def test_hashes_lie_one_after_the_other() -> None:
    assert form.decode_hashes(bytes(32) + b"\1" * 32) == [bytes(32), b"\1" * 32]
    for wrong in (b"", bytes(31), bytes(32 * (MAX_HTTP_HASHES + 1))):
        with pytest.raises(Malformed):
            form.decode_hashes(wrong)


def test_an_answer_to_closest_is_read_as_it_was_written() -> None:
    http_server = Located(Contact(b"\1" * 32, "192.0.2.7", 4000), b"secret", 4001, b"\2" * 32)
    no_http_server = Located(Contact(b"\3" * 32, "2001:db8::1", 4000), b"", 0, b"")
    text = form.encode_closest(KEY, b"\4" * 16, [http_server, no_http_server])
    node, token, listed = form.decode_closest(text)
    assert (node, token) == (KEY, b"\4" * 16)
    assert [(one.id, one.wire, one.bulk_port, one.fingerprint) for one in listed] == [
        (located.contact.id, located.contact.wire, located.bulk_port, located.fingerprint)
        for located in (http_server, no_http_server)
    ]
    assert b"secret".hex().encode() not in text  # the tokens that this node got are its own


@pytest.mark.parametrize(
    "change", [(b'"port":4000', b'"port":70000'), (b'"192.0.2.7"', b'"example.org"'), (b'"id":"', b'"id":"00')]
)
def test_a_contact_that_lies_about_its_form_is_malformed(change: tuple[bytes, bytes]) -> None:
    text = form.encode_closest(KEY, b"\4" * 16, [Located(Contact(b"\1" * 32, "192.0.2.7", 4000), b"", 1, bytes(32))])
    with pytest.raises(Malformed):
        form.decode_closest(text.replace(*change))


def test_every_refusal_has_a_status() -> None:
    assert set(form.STATUS) == set(WORDS)
