"""Creating a network, inviting, and certifying by files: the contents of the authority's folder."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import CertificateSigningRequestBuilder, Name
from hypothesis import given
from hypothesis import strategies as st

from mail.identity import Identity
from mail.membership.authority import (
    AddressTaken,
    AlreadyFounded,
    AuthorityDamaged,
    AuthorityError,
    WrongAuthorityPassphrase,
    create_authority,
)
from mail.membership.create_network import (
    PUZZLE_BITS,
    create_network,
    is_protected,
    make_invite,
    network_file,
    open_authority,
    remember_places,
)
from mail.membership.csr import CertificateRequestError, read_csr, write_csr
from mail.membership.invite import read_invite
from mail.membership.messages import EnrolmentError
from mail.membership.offline import issue_offline, take_certificate, write_request
from mail.profile_node import read_network_file
from overlay.identity.certificates import CertificateError, TrustStore
from overlay.identity.network import NetworkFileError
from storage.user.keyring import Keyring
from storage.user.profile import Profile

NOW = 1_800_000_000.0
ALICE = "alice@network.example"


def now() -> float:
    return NOW


def resolve(host: str) -> list[str]:
    """A fake resolver."""
    known = {"node.example": ["8.8.4.4", "2001:4860:4860::8844"], "home.example": ["192.168.1.5"]}
    return {"localhost": ["127.0.0.1"], **known}.get(host, [])


def test_a_network_is_its_authority_and_where_to_join(tmp_path: Path) -> None:
    network = create_network(tmp_path / "a", "campus", ["node.example:4600"], now=now, resolve=resolve)
    assert read_network_file(network_file(tmp_path / "a")) == network
    assert network.join == ("node.example:4600",)
    authority, same = open_authority(tmp_path / "a", now=now)
    authority.close()
    assert same.authorities == (authority.certificate,)


@pytest.mark.parametrize(
    ("join", "private"),
    [
        ([], True),
        (["127.0.0.1:4600"], True),
        (["[::1]:4600"], True),
        (["10.1.2.3:4600"], True),
        (["localhost:4600"], True),
        (["box.local:4600"], True),
        (["8.8.8.8:4600"], False),
        (["node.example:4600"], False),
        (["home.example:4600"], True),
        (["nowhere.example:4600"], False),
        (["node.example:4600", "home.example:4600"], True),
        (["100.64.0.7:4600"], True),
        (["[fd00::1]:4600"], True),
        (["169.254.1.1:4600"], True),
    ],
)
def test_private_addresses_are_for_networks_that_begin_in_one(tmp_path: Path, join: list[str], private: bool) -> None:
    network = create_network(tmp_path, "campus", join, now=now, resolve=resolve)
    assert network.private_addresses is private
    assert network.puzzle_bits == (0 if private else PUZZLE_BITS)


def test_private_addresses_can_be_asked_for(tmp_path: Path) -> None:
    assert create_network(tmp_path, "campus", ["8.8.8.8:1"], private_addresses=True, now=now).private_addresses


def test_an_authority_is_never_written_over(tmp_path: Path) -> None:
    before = create_network(tmp_path, "campus", now=now)
    with pytest.raises(AlreadyFounded):
        create_network(tmp_path, "campus", now=now)
    assert read_network_file(network_file(tmp_path)) == before


def test_a_founding_that_was_interrupted_is_finished(tmp_path: Path) -> None:
    create_authority(tmp_path, "campus", now=now).close()
    with pytest.raises(AuthorityDamaged, match="authority init"):
        open_authority(tmp_path, now=now)
    with pytest.raises(AlreadyFounded, match="campus"):
        create_network(tmp_path, "other", now=now)
    network = create_network(tmp_path, "campus", now=now)
    open_authority(tmp_path, now=now)[0].close()
    assert TrustStore(network.authorities)


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(AuthorityError, match="not empty"):
        create_network(tmp_path, "campus", now=now)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_bad_place_founds_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        create_network(tmp_path / "a", "campus", ["nowhere"], now=now)
    assert not (tmp_path / "a").exists()


def test_a_network_file_of_another_authority_is_noticed(tmp_path: Path) -> None:
    create_network(tmp_path / "a", "campus", now=now)
    create_network(tmp_path / "b", "campus", now=now)
    network_file(tmp_path / "a").write_bytes(network_file(tmp_path / "b").read_bytes())
    with pytest.raises(AuthorityDamaged):
        open_authority(tmp_path / "a", now=now)
    network_file(tmp_path / "a").write_text("name = 3")
    with pytest.raises(NetworkFileError):
        open_authority(tmp_path / "a", now=now)


def test_an_invite_says_where_to_join_or_how_to_come_by_a_place(tmp_path: Path) -> None:
    network = create_network(tmp_path, "campus", now=now)
    with pytest.raises(AuthorityError, match="authority serve"):
        make_invite(tmp_path, ALICE, now=now)
    remember_places(tmp_path, network, ["127.0.0.1:4600"])
    invite = read_invite(make_invite(tmp_path, ALICE, now=now))
    assert invite.network.join == ("127.0.0.1:4600",)
    assert invite.address == ALICE


def test_a_protected_authority_asks_for_its_passphrase(tmp_path: Path) -> None:
    create_network(tmp_path, "campus", ["127.0.0.1:1"], "secret", now=now)
    assert is_protected(tmp_path)
    with pytest.raises(WrongAuthorityPassphrase):
        make_invite(tmp_path, ALICE, now=now)
    assert make_invite(tmp_path, ALICE, "secret", now=now)


def test_where_no_authority_is_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(AuthorityDamaged):
        is_protected(tmp_path)
    with pytest.raises(AuthorityDamaged):
        make_invite(tmp_path, ALICE, now=now)


# By files


def test_a_certificate_comes_by_files_as_well(tmp_path: Path) -> None:
    folder, profile = tmp_path / "authority", Profile(tmp_path / "alice", environ={})
    request, certificate = tmp_path / "alice.csr", tmp_path / "alice.pem"
    network = create_network(folder, "campus", now=now)
    write_request(profile, "Alice@network.example", request, None, now=now)
    issue_offline(folder, ALICE, request, certificate, now=now)
    assert take_certificate(profile, network_file(folder), certificate, None, now=now) == ALICE
    identity = Identity.open(profile, None)
    assert not identity.waiting
    assert TrustStore(network.authorities).verify(identity.owner.certificate, NOW).address == ALICE
    assert identity.card(NOW)
    assert read_network_file(profile.network_file) == network


def test_a_request_written_again_is_for_the_same_key(tmp_path: Path) -> None:
    profile = Profile(tmp_path / "alice", environ={})
    keys = []
    for name in ("one", "two"):
        write_request(profile, ALICE, tmp_path / name, None, now=now)
        keys.append(read_csr((tmp_path / name).read_bytes()))
    assert keys[0] == keys[1]


def test_a_certificate_for_somebody_else_is_not_taken(tmp_path: Path) -> None:
    folder = tmp_path / "authority"
    create_network(folder, "campus", now=now)
    alice, bob = (Profile(tmp_path / name, environ={}) for name in ("alice", "bob"))
    write_request(alice, ALICE, tmp_path / "alice.csr", None, now=now)
    write_request(bob, "bob@network.example", tmp_path / "bob.csr", None, now=now)
    issue_offline(folder, "bob@network.example", tmp_path / "bob.csr", tmp_path / "bob.pem", now=now)
    with pytest.raises(CertificateError, match="not for the request"):
        take_certificate(alice, network_file(folder), tmp_path / "bob.pem", None, now=now)
    assert Keyring.open(alice.keyring_file, None).identity is None
    with pytest.raises(CertificateError, match="PEM"):
        take_certificate(alice, network_file(folder), tmp_path / "alice.csr", None, now=now)


def test_a_certificate_without_a_request_is_not_taken(tmp_path: Path) -> None:
    create_network(tmp_path / "authority", "campus", now=now)
    profile = Profile(tmp_path / "alice", environ={})
    profile.create()
    with pytest.raises(EnrolmentError, match="no request"):
        take_certificate(profile, network_file(tmp_path / "authority"), tmp_path / "no.pem", None, now=now)


def test_an_address_is_certified_for_one_key_by_files_too(tmp_path: Path) -> None:
    create_network(tmp_path / "authority", "campus", now=now)
    for number in (1, 2):
        key = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
        (tmp_path / f"{number}.csr").write_bytes(write_csr(key, ALICE))
    issue_offline(tmp_path / "authority", ALICE, tmp_path / "1.csr", tmp_path / "1.pem", now=now)
    with pytest.raises(AddressTaken):
        issue_offline(tmp_path / "authority", ALICE, tmp_path / "2.csr", tmp_path / "2.pem", now=now)
    assert not (tmp_path / "2.pem").exists()


def test_a_request_that_openssl_made_is_read(tmp_path: Path, need_program: Callable[[str], str]) -> None:
    openssl = need_program("openssl")
    key, request = tmp_path / "key.pem", tmp_path / "request.pem"
    subprocess.run([openssl, "genpkey", "-algorithm", "ed25519", "-out", str(key)], check=True, capture_output=True)
    command = [openssl, "req", "-new", "-key", str(key), "-subj", "/CN=alice", "-out", str(request)]
    subprocess.run(command, check=True, capture_output=True)
    assert len(read_csr(request.read_bytes())) == 32
    folder = tmp_path / "authority"
    create_network(folder, "campus")
    issue_offline(folder, ALICE, request, tmp_path / "out.pem")
    verify = [openssl, "verify", "-CAfile", str(folder / "authority.pem"), str(tmp_path / "out.pem")]
    assert b"OK" in subprocess.run(verify, check=True, capture_output=True).stdout


def test_attack_a_file_request_signed_with_another_key() -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    good = CertificateSigningRequestBuilder(Name([])).sign(key, None).public_bytes(Encoding.DER)
    bad = good[:-1] + bytes([good[-1] ^ 1])
    assert read_csr(good) == key.public_key().public_bytes_raw()
    with pytest.raises(CertificateRequestError, match="not signed"):
        read_csr(bad)


def test_a_file_request_for_another_kind_of_key_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    data = CertificateSigningRequestBuilder(Name([])).sign(key, SHA256()).public_bytes(Encoding.PEM)
    with pytest.raises(CertificateRequestError, match="Ed25519"):
        read_csr(data)


@given(st.binary(max_size=300), st.booleans())
def test_whatever_a_file_holds_is_a_request_or_none(data: bytes, pem: bool) -> None:
    with pytest.raises(CertificateRequestError):
        read_csr(b"-----BEGIN CERTIFICATE REQUEST-----\n" + data if pem else data)
