"""Certificates: those of the network are accepted; all others raise CertificateError and nothing else."""

from __future__ import annotations

import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from overlay.identity import certificates
from overlay.identity.certificates import (
    SMTP_UTF8_MAILBOX,
    CertificateError,
    TrustStore,
    address_name,
    parse_certificate,
)
from tests.overlay.issuing import DAY, NOW, Issuer, seeded

ISSUER = Issuer()
ALICE = ISSUER.person("alice@example.org")
ALICE_KEY = ALICE.private_key.public_key()
ALICE_NAME = [address_name("alice@example.org")]


@pytest.fixture
def trust() -> TrustStore:
    return TrustStore([ISSUER.der])


def test_a_good_certificate_tells_its_address_and_key(trust: TrustStore) -> None:
    certificate = trust.verify(ALICE.certificate, NOW)
    assert certificate.address == "alice@example.org"
    assert certificate.public_key == ALICE_KEY
    assert certificate.serial == 7
    assert (certificate.not_before, certificate.not_after) == (NOW - DAY, NOW + 365 * DAY)
    assert certificate == parse_certificate(ALICE.certificate)
    assert trust.fingerprint == hashlib.sha256(ISSUER.der).hexdigest()


def test_an_address_that_is_not_ascii_is_carried_as_rfc_9598_says(trust: TrustStore) -> None:
    for address in ("jürgen@xn--mller-kva.de", "ü" * 32 + "@" + "a" * 60 + ".org"):
        person = ISSUER.person(address)
        assert trust.verify(person.certificate, NOW).address == address


def test_several_authorities_are_trusted_each() -> None:
    other = Issuer(2)
    trust = TrustStore([ISSUER.der, other.der])
    assert trust.verify(other.person("bob@example.org").certificate, NOW).address == "bob@example.org"
    assert trust.verify(ALICE.certificate, NOW).address == "alice@example.org"
    assert trust.fingerprint == hashlib.sha256(ISSUER.der).hexdigest()


def test_a_certificate_of_another_authority_of_the_same_name_is_refused(trust: TrustStore) -> None:
    with pytest.raises(CertificateError, match="not from an authority"):
        trust.verify(Issuer(2).person("alice@example.org").certificate, NOW)


def test_an_authority_s_own_certificate_is_not_a_user_s(trust: TrustStore) -> None:
    with pytest.raises(CertificateError):
        trust.verify(ISSUER.der, NOW)


def test_validity_is_checked_again_for_a_certificate_that_is_remembered(trust: TrustStore) -> None:
    trust.verify(ALICE.certificate, NOW)
    with pytest.raises(CertificateError, match="expired"):
        trust.verify(ALICE.certificate, NOW + 366 * DAY)
    with pytest.raises(CertificateError, match="not valid yet"):
        trust.verify(ALICE.certificate, NOW - 2 * DAY)


def test_nothing_is_valid_after_its_authority() -> None:
    person = ISSUER.person("alice@example.org", end=NOW + 5000 * DAY)
    with pytest.raises(CertificateError, match="authority has expired"):
        TrustStore([ISSUER.der]).verify(person.certificate, NOW + 4000 * DAY)


@pytest.mark.parametrize(
    "der",
    [
        ISSUER.issue([], ALICE_KEY),
        ISSUER.issue([*ALICE_NAME, address_name("eve@example.org")], ALICE_KEY),
        ISSUER.issue([x509.DNSName("example.org")], ALICE_KEY),
        ISSUER.issue([x509.RFC822Name("Alice@example.org")], ALICE_KEY),
        ISSUER.issue([x509.RFC822Name("alice")], ALICE_KEY),
        ISSUER.issue([x509.OtherName(SMTP_UTF8_MAILBOX, b"\x0c\x11alice@example.org")], ALICE_KEY),
        ISSUER.issue([x509.OtherName(SMTP_UTF8_MAILBOX, b"\x04\x08\xc3\xbc@ab.de")], ALICE_KEY),
        ISSUER.issue([x509.OtherName(SMTP_UTF8_MAILBOX, b"\x0c\x02\xc3\x28")], ALICE_KEY),
        ISSUER.issue([x509.OtherName(SMTP_UTF8_MAILBOX, b"\x05\x00")], ALICE_KEY),
        ISSUER.issue(ALICE_NAME, ALICE_KEY, signing=False),
        ISSUER.issue(ALICE_NAME, ALICE_KEY, purpose=ExtendedKeyUsageOID.SERVER_AUTH),
        ISSUER.issue(ALICE_NAME, ALICE_KEY, ca=True),
        ISSUER.issue(ALICE_NAME, ALICE_KEY, extra=x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"x")),
        ISSUER.issue(ALICE_NAME, ALICE_KEY, extra=x509.InhibitAnyPolicy(1)),
        ISSUER.issue(ALICE_NAME, ec.generate_private_key(ec.SECP256R1()).public_key()),
        ISSUER.issue(ALICE_NAME, Ed448PrivateKey.generate().public_key()),
        ALICE.certificate + b"\0",
        ALICE.certificate[:-1],
        b"",
        b"0" * 100_000,
    ],
)
def test_a_certificate_that_is_not_for_one_address_s_mail_is_refused(trust: TrustStore, der: bytes) -> None:
    with pytest.raises(CertificateError):
        trust.verify(der, NOW)
    with pytest.raises(CertificateError):
        parse_certificate(der)


@pytest.mark.parametrize("der", [Issuer(3, ca=False).der, ALICE.certificate, b"nonsense", ISSUER.der[:-1] + b"\0"])
def test_what_is_no_authority_s_certificate_founds_no_trust(der: bytes) -> None:
    with pytest.raises(CertificateError):
        TrustStore([der])


def test_trust_needs_an_authority() -> None:
    with pytest.raises(CertificateError):
        TrustStore([])


def test_a_revoked_certificate_is_refused_though_it_is_remembered(trust: TrustStore) -> None:
    trust.verify(ALICE.certificate, NOW)
    revocations = ISSUER.revoke([7, 8], number=3)
    assert trust.accept_revocations(revocations, NOW) == 3
    assert trust.revocations() == revocations
    with pytest.raises(CertificateError, match="revoked"):
        trust.verify(ALICE.certificate, NOW)
    bob = ISSUER.person("bob@example.org", 101, serial=9)
    assert trust.verify(bob.certificate, NOW).address == "bob@example.org"


def test_an_older_revocation_list_does_not_bring_a_revoked_certificate_back(trust: TrustStore) -> None:
    trust.accept_revocations(ISSUER.revoke([7], number=3), NOW)
    assert trust.accept_revocations(ISSUER.revoke([], number=2), NOW) == 3
    assert trust.accept_revocations(ISSUER.revoke([], number=3), NOW) == 3
    with pytest.raises(CertificateError, match="revoked"):
        trust.verify(ALICE.certificate, NOW)


def test_a_revocation_list_of_one_authority_does_not_touch_another_s() -> None:
    other = Issuer(2)
    trust = TrustStore([ISSUER.der, other.der])
    trust.accept_revocations(other.revoke([7], number=1), NOW)
    assert trust.verify(ALICE.certificate, NOW).serial == 7


def test_a_revocation_list_of_a_stranger_or_from_the_future_is_refused(trust: TrustStore) -> None:
    good = ISSUER.revoke([7], number=3)
    for bad in (
        Issuer(2).revoke([7], number=9),
        ISSUER.revoke([7], number=9, at=NOW + 2 * DAY),
        good[:-1],
        good + b"\0",
        b"",
        b"\0" * (2 << 20),
    ):
        with pytest.raises(CertificateError):
            trust.accept_revocations(bad, NOW)
    assert trust.revocations() is None
    assert trust.verify(ALICE.certificate, NOW).serial == 7


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "CACHE_LIMIT", 2)
    trust = TrustStore([ISSUER.der])
    for serial in range(1, 5):
        trust.verify(ISSUER.issue(ALICE_NAME, seeded(9).public_key(), serial=serial), NOW)
    assert len(trust._cache) == 2


def test_a_certificate_has_one_encoding_so_its_owner_has_one_deleter_hash(trust: TrustStore) -> None:
    """The parser accepted unused bits in the signature's BIT STRING: a second DER with the same valid signature."""
    for serial in range(1, 30):
        der = ISSUER.issue(ALICE_NAME, ALICE_KEY, serial=serial)
        revocations = ISSUER.revoke([serial], number=serial)
        for unused in range(1, 8):
            with pytest.raises(CertificateError):
                trust.verify(der[:-65] + bytes([unused]) + der[-64:], NOW)
            with pytest.raises(CertificateError):
                trust.accept_revocations(revocations[:-65] + bytes([unused]) + revocations[-64:], NOW)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(CertificateError):
        parse_certificate(data)
    with pytest.raises(CertificateError):
        TrustStore([ISSUER.der]).accept_revocations(data, NOW)


@given(st.integers(0, len(ALICE.certificate) - 1), st.integers(1, 255))
def test_a_changed_byte_makes_no_other_error_and_no_trust(position: int, change: int) -> None:
    altered = bytearray(ALICE.certificate)
    altered[position] ^= change
    try:
        parse_certificate(bytes(altered))
    except CertificateError as error:
        assert str(error)
    with pytest.raises(CertificateError):
        TrustStore([ISSUER.der]).verify(bytes(altered), NOW)


@given(st.data())
def test_a_changed_revocation_list_makes_no_other_error(data: st.DataObject) -> None:
    altered = bytearray(ISSUER.revoke([7], number=3))
    altered[data.draw(st.integers(0, len(altered) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CertificateError):
        TrustStore([ISSUER.der]).accept_revocations(bytes(altered), NOW)
