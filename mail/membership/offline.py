"""Join without a network connection: request and certificate are passed on as files (`authority issue`).

For an authority whose key is kept offline. The request is PKCS #10 (mail/membership/csr.py), the certificate PEM.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate

from mail.membership.authority import Authority
from mail.membership.certificate_status import known_trust, remember_certificate
from mail.membership.csr import read_csr, write_csr
from mail.membership.messages import EnrolmentError
from mail.membership.pending import begin_offline, give_up, open_keyring
from mail.profile_node import read_network_file
from overlay.identity.address import normalise_address
from overlay.identity.certificates import Certificate, CertificateError, Revoked, TrustStore, certificate_pem
from overlay.identity.network import write_network
from overlay.protocol_limits import MAX_CERTIFICATE
from storage import durable
from storage.user.keyring import IdentityKey
from storage.user.profile import Profile

_FILE_LIMIT = 8 * MAX_CERTIFICATE + 1
"""Most bytes that are read of a file. A larger one is not ours."""


def write_request(
    profile: Profile,
    address: str,
    out_file: Path,
    passphrase: str | None,
    *,
    now: Callable[[], float] = time.time,
    random: Callable[[int], bytes] = os.urandom,
) -> None:
    """Make keys for `address` and write a request for its certificate. A repeated call uses the same keys.

    A profile that has a certificate for the address asks with its certified key, unless that key is known to be
    revoked. Raises EnrolmentError if the profile has another address, AddressError, KeyringError, ProfileError,
    OSError, DatabaseError.
    """
    address = normalise_address(address)
    profile.create()
    with profile.lock("join"):
        keyring = open_keyring(profile, passphrase, random)
        renewed = keyring.identity
        if renewed is not None and renewed.address != address:
            raise EnrolmentError(f"This profile belongs to {renewed.address} already; nothing was changed.")
        if renewed is not None and _revoked(profile, renewed, now()):
            give_up(keyring, renewed)
            renewed = None
        key = begin_offline(keyring, address, now(), random, renewed=renewed)
    durable.write(out_file, write_csr(key, address), 0o644)


def issue_offline(
    folder: Path,
    address: str,
    request_file: Path,
    out_file: Path,
    passphrase: str | None = None,
    *,
    now: Callable[[], float] = time.time,
) -> Certificate:
    """Certify the key in a request file for `address`, and write the certificate (PEM) to `out_file`.

    The caller decides the address; the one in the request is ignored. Raises CertificateRequestError, AuthorityError
    (AddressTaken, KeyRevoked, WrongAuthorityPassphrase), AddressError, OSError.
    """
    with request_file.open("rb") as file:
        public_key = read_csr(file.read(_FILE_LIMIT))
    with closing(Authority(folder, passphrase=passphrase.encode() if passphrase else None, now=now)) as authority:
        certificate = authority.issue(address, public_key)
    durable.write(out_file, certificate_pem(certificate.der), 0o644)
    return certificate


def take_certificate(
    profile: Profile,
    network_file: Path,
    certificate_file: Path,
    passphrase: str | None,
    *,
    now: Callable[[], float] = time.time,
) -> str:
    """Finish what `write_request` began: store the certificate and the network file. Returns the address.

    The agent publishes the card when it runs. Raises EnrolmentError, CertificateError, NoNetwork, NetworkFileError,
    KeyringError, ProfileError, OSError.
    """
    network = read_network_file(network_file)
    with profile.lock("join"):
        keyring = open_keyring(profile, passphrase, os.urandom)
        pending = keyring.pending
        if pending is None or pending.invite:
            raise EnrolmentError("This profile has written no request; nothing was changed.")
        with certificate_file.open("rb") as file:
            der = _read_pem(file.read(_FILE_LIMIT))
        certificate = TrustStore(network.authorities).verify(der, now())
        key = Ed25519PrivateKey.from_private_bytes(pending.private_key)
        if (certificate.address, certificate.public_key) != (pending.address, key.public_key()):
            raise CertificateError(
                f"This certificate is not for the request of {pending.address}; nothing was changed."
            )
        durable.write(profile.network_file, write_network(network), 0o644)
        keyring.set_identity(IdentityKey(pending.address, pending.private_key, der))
        remember_certificate(profile, der)
    return certificate.address


def _revoked(profile: Profile, who: IdentityKey, now: float) -> bool:
    trust = known_trust(profile, now)
    try:
        if trust is not None:
            trust.verify(who.certificate, now)
    except Revoked:
        return True
    except CertificateError:
        return False
    return False


def _read_pem(data: bytes) -> bytes:
    try:
        return load_pem_x509_certificate(data).public_bytes(Encoding.DER)
    except ValueError as error:
        raise CertificateError("This file is no certificate (PEM).") from error
