"""Certificates for tests, valid ones and all kinds of invalid ones. mail/membership/authority.py makes real ones."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from overlay.identity.certificates import address_name

NOW = 1_800_000_000.0
DAY = 86_400.0


def when(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def seeded(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big"))


@dataclass(frozen=True)
class Person:
    """Can be used as an overlay.identity.ownership.Owner."""

    certificate: bytes
    private_key: Ed25519PrivateKey

    @property
    def sign(self) -> Callable[[bytes], bytes]:
        return self.private_key.sign


class Issuer:
    """An authority with its own root; the same number gives the same key."""

    def __init__(self, number: int = 1, name: str = "test", *, ca: bool = True) -> None:
        self.key = seeded(number)
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.der = (
            x509.CertificateBuilder(self.name, self.name, self.key.public_key(), 1)
            .not_valid_before(when(NOW - DAY))
            .not_valid_after(when(NOW + 3650 * DAY))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
            .add_extension(usage(cert_sign=ca), critical=True)
            .sign(self.key, None)
            .public_bytes(Encoding.DER)
        )

    def issue(
        self,
        names: Sequence[x509.GeneralName],
        public_key: CertificateIssuerPublicKeyTypes,
        *,
        serial: int = 7,
        start: float = NOW - DAY,
        end: float = NOW + 365 * DAY,
        signing: bool = True,
        purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.EMAIL_PROTECTION,
        ca: bool = False,
        extra: x509.ExtensionType | None = None,
    ) -> bytes:
        builder = (
            x509.CertificateBuilder(self.name, x509.Name([]), public_key, serial)
            .not_valid_before(when(start))
            .not_valid_after(when(end))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(usage(signing=signing), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if extra is not None:
            builder = builder.add_extension(extra, critical=True)
        return builder.sign(self.key, None).public_bytes(Encoding.DER)

    def person(self, address: str, number: int = 100, *, serial: int = 7, end: float = NOW + 365 * DAY) -> Person:
        key = seeded(number)
        return Person(self.issue([address_name(address)], key.public_key(), serial=serial, end=end), key)

    def revoke(self, serials: Sequence[int], number: int, at: float = NOW) -> bytes:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(when(at))
            .next_update(when(at + 30 * DAY))
            .add_extension(x509.CRLNumber(number), critical=False)
        )
        for serial in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when(at)).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.key, None).public_bytes(Encoding.DER)


def usage(*, signing: bool = True, cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signing,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=cert_sign,
        crl_sign=cert_sign,
        encipher_only=False,
        decipher_only=False,
    )
