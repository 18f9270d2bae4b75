"""Build the X.509 documents that an authority signs: root, certificates, revocation lists (design section 5).

Turns values into DER, without state, I/O or decisions. overlay/identity/certificates.py reads the documents, and
`openssl verify` accepts them.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from overlay.identity.certificates import address_name
from overlay.protocol_limits import DAY, RETENTION

ROOT_LIFE = 3652 * DAY
"""Seconds for which an authority's root is valid: 10 years."""

CERTIFICATE_LIFE = 365 * DAY
"""Seconds for which a user's certificate is valid: 1 year."""

BACKDATED = DAY
"""Seconds by which notBefore is backdated, so that a computer with a slow clock accepts the certificate."""

REVOCATIONS_LIFE = RETENTION
"""Seconds until the nextUpdate of a revocation list: as long as nodes keep an object."""


def make_root(key: Ed25519PrivateKey, name: str, serial: int, now: float) -> bytes:
    """A self-signed root (DER) for the network `name` (1 to 64 characters). It can sign no further authority."""
    public_key = key.public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(public_key)
    title = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return (
        x509.CertificateBuilder(title, title, public_key, serial)
        .not_valid_before(_when(now - BACKDATED))
        .not_valid_after(_when(now + ROOT_LIFE))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(root=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, None)
        .public_bytes(Encoding.DER)
    )


def make_certificate(
    root_der: bytes, root_key: Ed25519PrivateKey, address: str, public_key: Ed25519PublicKey, *, serial: int, now: float
) -> bytes:
    """A user's certificate (DER) for a normalised address. It doesn't outlive the root."""
    root = x509.load_der_x509_certificate(root_der)
    end = min(_when(now + CERTIFICATE_LIFE), root.not_valid_after_utc)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())
    # The subject is empty: only the address is certified. RFC 5280 section 4.2.1.6 then requires a critical SAN.
    return (
        x509.CertificateBuilder(root.subject, x509.Name([]), public_key, serial)
        .not_valid_before(_when(now - BACKDATED))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(root=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.SubjectAlternativeName([address_name(address)]), critical=True)
        .add_extension(authority, critical=False)
        .sign(root_key, None)
        .public_bytes(Encoding.DER)
    )


def make_revocations(
    root_der: bytes, root_key: Ed25519PrivateKey, revoked: Iterable[tuple[int, float]], number: int, now: float
) -> bytes:
    """A revocation list (DER) with the CRL number `number`; `revoked`: (serial, epoch seconds of the revocation)."""
    root = x509.load_der_x509_certificate(root_der)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(root.subject)
        .last_update(_when(now))
        .next_update(_when(now + REVOCATIONS_LIFE))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(authority, critical=False)
    )
    for serial, at in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_when(at)).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(root_key, None).public_bytes(Encoding.DER)


def _when(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)


def _usage(*, root: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not root,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=root,
        crl_sign=root,
        encipher_only=False,
        decipher_only=False,
    )
