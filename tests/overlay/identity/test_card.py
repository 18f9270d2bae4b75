"""Cards: those of make_card open; any others, or changed ones, don't."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.identity.card import key_id_of, make_card, open_card
from overlay.identity.certificates import CertificateError, TrustStore
from overlay.protocol_limits import ENCRYPTION_KEY_SIZE
from tests.overlay.issuing import DAY, NOW, Issuer, Person, seeded

ISSUER = Issuer()
ALICE = ISSUER.person("alice@example.org")
KEY = bytes(range(256)) * 4 + bytes(ENCRYPTION_KEY_SIZE - 1024)
SEQUENCE = int(NOW * 1000)
CARD = make_card(ALICE, KEY, SEQUENCE)
TRUST = TrustStore([ISSUER.der])


def test_a_card_opens() -> None:
    card = open_card(CARD, TRUST, NOW)
    assert card.certificate.address == "alice@example.org"
    assert card.encryption_key == KEY
    assert card.key_id == key_id_of(KEY)
    assert (card.sequence, card.raw) == (SEQUENCE, CARD)
    assert len(CARD) < 2048


def test_a_card_signed_by_somebody_else_is_refused() -> None:
    forged = make_card(Person(ALICE.certificate, seeded(666)), KEY, SEQUENCE)
    with pytest.raises(CertificateError, match="false signature"):
        open_card(forged, TRUST, NOW)


def test_a_card_of_another_authority_is_refused() -> None:
    with pytest.raises(CertificateError, match="not from an authority"):
        open_card(make_card(Issuer(2).person("alice@example.org"), KEY, SEQUENCE), TRUST, NOW)


def test_a_card_of_a_revoked_or_expired_certificate_is_refused() -> None:
    trust = TrustStore([ISSUER.der])
    open_card(CARD, trust, NOW)
    with pytest.raises(CertificateError, match="expired"):
        open_card(CARD, trust, NOW + 400 * DAY)
    trust.accept_revocations(ISSUER.revoke([7], number=1), NOW)
    with pytest.raises(CertificateError, match="revoked"):
        open_card(CARD, trust, NOW)


def test_a_card_from_the_future_can_not_lock_out_the_cards_to_come() -> None:
    open_card(make_card(ALICE, KEY, SEQUENCE + 3_600_000), TRUST, NOW)
    with pytest.raises(CertificateError, match="future"):
        open_card(make_card(ALICE, KEY, SEQUENCE + 2 * 86_400_000), TRUST, NOW)


def test_a_wrong_key_or_sequence_makes_no_card() -> None:
    for key, sequence in ((KEY[:-1], SEQUENCE), (b"", SEQUENCE), (KEY, -1), (KEY, 1 << 63)):
        with pytest.raises(CertificateError):
            make_card(ALICE, key, sequence)


def _card(*values: object) -> bytes:
    body = msgspec.msgpack.encode(values)
    return msgspec.msgpack.encode([body, ALICE.sign(b"p2pmail card\0" + body)])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        CARD[:-1],
        CARD + b"\0",
        b"\0" * 9000,
        b"\x91" * 5000,
        _card(ALICE.certificate, KEY),
        _card(ALICE.certificate, KEY, SEQUENCE, "more"),
        _card(ALICE.certificate, KEY[:-1], SEQUENCE),
        _card(ALICE.certificate, KEY, -1),
        _card(ALICE.certificate, KEY, "1"),
        _card(ALICE.certificate, KEY, float(SEQUENCE)),
        _card(b"", KEY, SEQUENCE),
        _card(ALICE.certificate[:-1], KEY, SEQUENCE),
        msgspec.msgpack.encode([msgspec.msgpack.decode(CARD)[0], b""]),
        msgspec.msgpack.encode([*msgspec.msgpack.decode(CARD), b""]),
    ],
)
def test_what_is_no_card_is_refused(data: bytes) -> None:
    with pytest.raises(CertificateError):
        open_card(data, TRUST, NOW)


def test_a_card_has_one_encoding() -> None:
    body, signature = msgspec.msgpack.decode(CARD)
    longer = b"\x92" + b"\xc6" + len(body).to_bytes(4, "big") + body + msgspec.msgpack.encode(signature)
    assert msgspec.msgpack.decode(longer) == msgspec.msgpack.decode(CARD)
    with pytest.raises(CertificateError, match="encoded"):
        open_card(longer, TRUST, NOW)


@given(st.binary(max_size=200) | st.recursive(st.binary(), st.lists).map(msgspec.msgpack.encode))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(CertificateError):
        open_card(data, TRUST, NOW)


@given(st.integers(0, len(CARD) - 1), st.integers(1, 255))
def test_a_changed_byte_is_noticed(position: int, change: int) -> None:
    altered = bytearray(CARD)
    altered[position] ^= change
    with pytest.raises(CertificateError):
        open_card(bytes(altered), TRUST, NOW)
