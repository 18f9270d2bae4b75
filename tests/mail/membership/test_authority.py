"""The authority: an address has one holder at a time, a code works once, and OpenSSL agrees with us."""

from __future__ import annotations

import hashlib
import random as seeded_random
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from mail.membership.authority import (
    INVITE_LIFE,
    RENEWAL,
    RESIGN,
    AddressTaken,
    AlreadyFounded,
    Authority,
    AuthorityDamaged,
    AuthorityError,
    InviteRefused,
    KeyRevoked,
    NothingToRenew,
    WrongAuthorityPassphrase,
    create_authority,
)
from overlay.identity.address import AddressError
from overlay.identity.certificates import Certificate, CertificateError, TrustStore, certificate_pem

NOW = 1_800_000_000.0
DAY = 86_400.0
ALICE = "alice@example.org"


def key(number: int) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big")).public_key().public_bytes_raw()


class SeededClock:
    """A clock that a test sets, and seeded randomness."""

    def __init__(self) -> None:
        self.time = NOW
        self.random = seeded_random.Random(1)

    def now(self) -> float:
        return self.time

    def found(self, folder: Path, passphrase: bytes | None = None) -> Authority:
        return create_authority(folder, "campus", passphrase=passphrase, now=self.now, random=self.random.randbytes)

    def open(self, folder: Path, passphrase: bytes | None = None) -> Authority:
        return Authority(folder, passphrase=passphrase, now=self.now, random=self.random.randbytes)


@pytest.fixture
def world() -> SeededClock:
    return SeededClock()


@pytest.fixture
def authority(world: SeededClock, tmp_path: Path) -> Iterator[Authority]:
    authority = world.found(tmp_path / "authority")
    yield authority
    authority.close()


def trust(authority: Authority, now: float = NOW) -> TrustStore:
    store = TrustStore([authority.certificate])
    store.accept_revocations(authority.revocations(), now)
    return store


def test_what_it_issues_is_trusted(authority: Authority) -> None:
    certificate = authority.issue("Alice@Example.org", key(1))
    assert certificate.address == ALICE
    assert trust(authority).verify(certificate.der, NOW) == certificate
    assert certificate.public_key.public_bytes_raw() == key(1)
    assert 364 * DAY < certificate.not_after - NOW <= 365 * DAY
    assert authority.fingerprint == hashlib.sha256(authority.certificate).hexdigest()
    assert authority.name == "campus"


def test_its_root_is_good_for_ten_years(authority: Authority) -> None:
    root = x509.load_der_x509_certificate(authority.certificate)
    assert 3650 * DAY < root.not_valid_after_utc.timestamp() - NOW < 3655 * DAY


def test_its_files_are_private_and_it_opens_again(authority: Authority, world: SeededClock) -> None:
    folder = Path(authority._database.execute("PRAGMA database_list").fetchone()[2]).parent
    assert (folder / "authority.key").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o077 == 0
    issued = authority.issue(ALICE, key(1))
    again = world.open(folder)
    assert again.fingerprint == authority.fingerprint
    assert again.issue(ALICE, key(1)) == issued
    with pytest.raises(AddressTaken):
        again.issue(ALICE, key(2))
    again.close()


def test_a_key_file_under_a_passphrase_opens_with_it_alone(world: SeededClock, tmp_path: Path) -> None:
    world.found(tmp_path, b"correct horse").close()
    assert b"ENCRYPTED" in (tmp_path / "authority.key").read_bytes()
    for wrong in (None, b"", b"wrong"):
        with pytest.raises(WrongAuthorityPassphrase):
            world.open(tmp_path, wrong)
    world.open(tmp_path, b"correct horse").close()


def test_founding_does_not_touch_an_authority_that_is_there(world: SeededClock, tmp_path: Path) -> None:
    world.found(tmp_path).close()
    before = (tmp_path / "authority.key").read_bytes()
    with pytest.raises(AlreadyFounded):
        world.found(tmp_path)
    assert (tmp_path / "authority.key").read_bytes() == before


def test_a_founding_that_was_interrupted_can_be_repeated(world: SeededClock, tmp_path: Path) -> None:
    world.found(tmp_path).close()
    (tmp_path / "authority.pem").unlink()
    world.found(tmp_path).close()


@pytest.mark.parametrize("name", ["", "a" * 65, "a\nb", " a", "\x1b[2J"])
def test_a_network_s_name_is_printable_and_short(tmp_path: Path, name: str) -> None:
    with pytest.raises(AuthorityError):
        create_authority(tmp_path / "x", name)
    assert not (tmp_path / "x").exists()


def test_damaged_files_are_reported_and_left(world: SeededClock, tmp_path: Path) -> None:
    world.found(tmp_path / "a").close()
    world.found(tmp_path / "b").close()
    for name in ("authority.key", "authority.pem", "authority.sqlite"):
        folder = tmp_path / f"without {name}"
        shutil.copytree(tmp_path / "a", folder)
        (folder / name).unlink()
        with pytest.raises(AuthorityDamaged):
            world.open(folder)
        assert not (folder / name).exists()
        (folder / name).write_bytes(b"damaged" * 1000)
        with pytest.raises(AuthorityDamaged):
            world.open(folder)
    shutil.copy(tmp_path / "a" / "authority.pem", tmp_path / "b" / "authority.pem")
    with pytest.raises(AuthorityDamaged, match="belong together"):
        world.open(tmp_path / "b")


def test_an_address_is_issued_only_once_at_a_time(authority: Authority, world: SeededClock) -> None:
    first = authority.issue(ALICE, key(1))
    with pytest.raises(AddressTaken):
        authority.issue("ALICE@example.org", key(2))
    assert authority.issue(ALICE, key(1)) == first
    assert authority.issue("bob@example.org", key(2)).address == "bob@example.org"
    world.time = first.not_after + 60 * DAY - 1
    with pytest.raises(AddressTaken, match="belongs to somebody with another key until"):
        authority.issue(ALICE, key(2))
    world.time += 1
    assert authority.issue(ALICE, key(2)).public_key.public_bytes_raw() == key(2)


def test_the_same_key_renews_when_the_end_is_near(authority: Authority, world: SeededClock) -> None:
    first = authority.issue(ALICE, key(1))
    world.time = first.not_after - RENEWAL + 1
    second = authority.issue(ALICE, key(1))
    assert second.serial != first.serial
    assert second.not_after > first.not_after
    assert authority.issue(ALICE, key(1)) == second
    with pytest.raises(AddressTaken):
        authority.issue(ALICE, key(2))


def test_a_certificate_issued_while_the_clock_was_a_year_ahead_keeps_nobody_waiting(
    authority: Authority, world: SeededClock
) -> None:
    world.time = NOW + 400 * DAY
    ahead = authority.issue(ALICE, key(1))
    world.time = NOW
    invitation = authority.invite(ALICE)
    good = authority.redeem(ALICE, key(1), invitation.code)
    assert good.not_before <= NOW < good.not_after < ahead.not_after
    assert authority.issue(ALICE, key(1)) == good
    with pytest.raises(AddressTaken):
        authority.issue(ALICE, key(2))


def test_a_certificate_ends_with_its_root(authority: Authority, world: SeededClock) -> None:
    root_end = x509.load_der_x509_certificate(authority.certificate).not_valid_after_utc.timestamp()
    world.time = root_end - 10 * DAY
    assert authority.issue(ALICE, key(1)).not_after == root_end


def test_revoking_frees_the_address_for_another_key_and_not_for_the_old_one(
    authority: Authority, world: SeededClock
) -> None:
    old = authority.issue(ALICE, key(1))
    assert authority.revoke("Alice@example.org") == 1
    with pytest.raises(KeyRevoked):
        authority.issue(ALICE, key(1))
    new = authority.issue(ALICE, key(2))
    store = trust(authority)
    with pytest.raises(CertificateError, match="revoked"):
        store.verify(old.der, NOW)
    assert store.verify(new.der, NOW).address == ALICE
    book = {(line.serial, line.revoked is None) for line in authority.issued()}
    assert book == {(old.serial, False), (new.serial, True)}


def test_revoking_takes_all_certificates_of_a_renewed_key(authority: Authority, world: SeededClock) -> None:
    first = authority.issue(ALICE, key(1))
    world.time = first.not_after - RENEWAL + 1
    second = authority.issue(ALICE, key(1))
    assert authority.revoke(ALICE) == 2
    store = trust(authority, world.time)
    for certificate in (first, second):
        with pytest.raises(CertificateError, match="revoked"):
            store.verify(certificate.der, world.time)


def test_revoking_what_is_not_there_says_so(authority: Authority) -> None:
    with pytest.raises(AuthorityError, match="no valid certificate"):
        authority.revoke(ALICE)


def test_the_revocation_list_is_signed_anew_only_when_it_must(authority: Authority, world: SeededClock) -> None:
    def number() -> int:
        crl = x509.load_der_x509_crl(authority.revocations())
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number

    assert authority.revocations() == authority.revocations()
    assert number() == 1
    authority.issue(ALICE, key(1))
    assert number() == 1
    authority.revoke(ALICE)
    assert number() == 2
    world.time += RESIGN + 1
    assert number() == 3
    world.time -= 3 * RESIGN
    assert number() == 4


def test_an_expired_certificate_leaves_the_revocation_list(authority: Authority, world: SeededClock) -> None:
    certificate = authority.issue(ALICE, key(1))
    authority.revoke(ALICE)
    assert len(x509.load_der_x509_crl(authority.revocations())) == 1
    world.time = certificate.not_after + 59 * DAY  # mail that it signed may be on its way
    assert len(x509.load_der_x509_crl(authority.revocations())) == 1
    world.time = certificate.not_after + 67 * DAY
    assert len(x509.load_der_x509_crl(authority.revocations())) == 0


def test_an_invite_in_the_last_60_days_is_for_the_key_that_holds_the_address(
    authority: Authority, world: SeededClock
) -> None:
    first = authority.issue(ALICE, key(1))
    world.time = first.not_after - 60 * DAY - 1
    with pytest.raises(AddressTaken, match="can be renewed from"):
        authority.invite(ALICE)
    for world.time in (first.not_after - 60 * DAY, first.not_after + 1, first.not_after + 59 * DAY):
        invitation = authority.invite(ALICE)
        with pytest.raises(AddressTaken):
            authority.redeem(ALICE, key(2), invitation.code)
    renewed = authority.redeem(ALICE, key(1), invitation.code)
    assert renewed.public_key.public_bytes_raw() == key(1)
    assert renewed.not_after == world.time + 365 * DAY


def test_the_key_that_holds_an_address_renews_without_an_invite(authority: Authority, world: SeededClock) -> None:
    first = authority.issue(ALICE, key(1))
    assert authority.renew(ALICE, key(1)) == first
    world.time = first.not_after - 60 * DAY
    second = authority.renew("Alice@example.org", key(1))
    assert second.serial != first.serial and second.not_after == world.time + 365 * DAY
    assert authority.renew(ALICE, key(1)) == second
    world.time = second.not_after + 59 * DAY
    assert authority.renew(ALICE, key(1)).not_after == world.time + 365 * DAY


def test_attack_renewing_the_certificate_of_somebody_else(authority: Authority, world: SeededClock) -> None:
    first = authority.issue(ALICE, key(1))
    authority.issue("mallory@example.org", key(2))
    for world.time in (NOW, first.not_after - DAY, first.not_after + 59 * DAY):
        with pytest.raises(AddressTaken):
            authority.renew(ALICE, key(2))
    world.time = first.not_after + 61 * DAY
    for who in (1, 2):
        with pytest.raises(NothingToRenew):
            authority.renew(ALICE, key(who))
    with pytest.raises(NothingToRenew):
        authority.renew("nobody@example.org", key(2))
    assert {line.address for line in authority.issued()} == {ALICE, "mallory@example.org"}


def test_attack_renewing_a_certificate_that_was_revoked(authority: Authority, world: SeededClock) -> None:
    first = authority.issue(ALICE, key(1))
    world.time = first.not_after + DAY
    assert authority.revoke(ALICE) == 1
    with pytest.raises(KeyRevoked):
        authority.renew(ALICE, key(1))
    authority.issue(ALICE, key(2))
    with pytest.raises(KeyRevoked):
        authority.renew(ALICE, key(1))


def test_an_invite_works_once(authority: Authority) -> None:
    invitation = authority.invite("Alice@example.org")
    assert invitation.address == ALICE
    certificate = authority.redeem(ALICE, key(1), invitation.code)
    assert certificate.address == ALICE
    with pytest.raises(InviteRefused, match="used already"):
        authority.redeem(ALICE, key(2), invitation.code)


def test_a_repeated_request_of_the_same_key_gets_the_same_answer(authority: Authority, world: SeededClock) -> None:
    invitation = authority.invite(ALICE)
    certificate = authority.redeem(ALICE, key(1), invitation.code)
    world.time += INVITE_LIFE + 1
    assert authority.redeem(ALICE, key(1), invitation.code) == certificate


def test_a_code_is_for_its_address_and_time(authority: Authority, world: SeededClock) -> None:
    invitation = authority.invite(ALICE)
    with pytest.raises(InviteRefused):
        authority.redeem("eve@example.org", key(1), invitation.code)
    with pytest.raises(InviteRefused):
        authority.redeem(ALICE, key(1), b"guess")
    world.time += INVITE_LIFE + 1
    with pytest.raises(InviteRefused, match="expired"):
        authority.redeem(ALICE, key(1), invitation.code)


def test_a_refused_request_does_not_use_the_code_up(authority: Authority) -> None:
    invitation = authority.invite(ALICE)
    with pytest.raises(AuthorityError):
        authority.redeem(ALICE, b"no key", invitation.code)
    assert authority.redeem(ALICE, key(1), invitation.code).address == ALICE


def test_a_newer_invite_replaces_an_older_one(authority: Authority) -> None:
    older, newer = authority.invite(ALICE), authority.invite(ALICE)
    with pytest.raises(InviteRefused):
        authority.redeem(ALICE, key(1), older.code)
    assert authority.redeem(ALICE, key(1), newer.code).address == ALICE


def test_a_code_of_before_a_revocation_opens_nothing_after_it(authority: Authority) -> None:
    invitation = authority.invite(ALICE)
    authority.redeem(ALICE, key(1), invitation.code)
    authority.revoke(ALICE)
    with pytest.raises(KeyRevoked):
        authority.redeem(ALICE, key(1), invitation.code)
    with pytest.raises(InviteRefused):
        authority.redeem(ALICE, key(2), invitation.code)
    assert authority.redeem(ALICE, key(2), authority.invite(ALICE).code).address == ALICE


def test_an_address_that_is_held_gets_no_invite(authority: Authority) -> None:
    authority.issue(ALICE, key(1))
    with pytest.raises(AddressTaken, match="revoke"):
        authority.invite(ALICE)


def test_codes_are_not_kept_in_the_clear(authority: Authority) -> None:
    code = authority.invite(ALICE).code
    assert all(code not in statement.encode() for statement in authority._database.iterdump())
    assert all(code.hex().upper() not in statement for statement in authority._database.iterdump())


@pytest.mark.parametrize("address", ["", "alice", "a@b@", "alice@example.org\nx"])
def test_what_is_no_address_gets_nothing(authority: Authority, address: str) -> None:
    for action in (authority.invite, authority.revoke):
        with pytest.raises(AddressError):
            action(address)
    with pytest.raises(AddressError):
        authority.issue(address, key(1))
    with pytest.raises(AddressError):
        authority.redeem(address, key(1), b"code")
    assert authority.issued() == []


def test_a_busy_or_full_database_is_a_refusal_and_not_a_yes(authority: Authority) -> None:
    path = authority._database.execute("PRAGMA database_list").fetchone()[2]
    authority._database.execute("PRAGMA busy_timeout=0")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(AuthorityError, match="nothing was done"):
        authority.issue(ALICE, key(1))
    other.execute("ROLLBACK")
    other.close()
    assert authority.issued() == []
    authority._database.execute("PRAGMA max_page_count=1")
    with pytest.raises(AuthorityError, match="nothing was done"):
        for number in range(1, 200):
            authority.issue(f"user{number}@example.org", key(number))


openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


def _verify(folder: Path, authority: Authority, certificate: Certificate, *options: str) -> str:
    (folder / "root.pem").write_bytes(certificate_pem(authority.certificate))
    (folder / "user.pem").write_bytes(certificate_pem(certificate.der))
    crl = x509.load_der_x509_crl(authority.revocations())
    (folder / "crl.pem").write_bytes(crl.public_bytes(Encoding.PEM))
    done = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-attime", str(int(NOW)), "-CAfile", "root.pem", *options, "user.pem"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    return f"{done.returncode} {done.stdout}{done.stderr}"


@openssl
@pytest.mark.parametrize("address", [ALICE, "jürgen@müller.de"])
def test_openssl_accepts_what_it_issues(authority: Authority, tmp_path: Path, address: str) -> None:
    certificate = authority.issue(address, key(1))
    assert _verify(tmp_path, authority, certificate) == "0 user.pem: OK\n"
    for options in (["-purpose", "smimesign"], ["-crl_check", "-CRLfile", "crl.pem"]):
        assert _verify(tmp_path, authority, certificate, *options) == "0 user.pem: OK\n"


@openssl
def test_openssl_reads_the_address(authority: Authority, tmp_path: Path) -> None:
    certificate = authority.issue(ALICE, key(1))
    assert _verify(tmp_path, authority, certificate, "-verify_email", ALICE) == "0 user.pem: OK\n"
    assert not _verify(tmp_path, authority, certificate, "-verify_email", "eve@example.org").startswith("0")


@openssl
def test_openssl_refuses_what_was_revoked_or_has_another_purpose(authority: Authority, tmp_path: Path) -> None:
    certificate = authority.issue(ALICE, key(1))
    assert "certificate purpose" in _verify(tmp_path, authority, certificate, "-purpose", "sslserver")
    authority.revoke(ALICE)
    answer = _verify(tmp_path, authority, certificate, "-crl_check", "-CRLfile", "crl.pem")
    assert "certificate revoked" in answer
    assert not answer.startswith("0")
