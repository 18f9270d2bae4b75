"""A node's TLS identity: a self-signed certificate that peers know by its fingerprint, not by an authority.

The fingerprint comes in sealed datagrams (design section 3), so the names and dates in the certificate don't matter.
This module makes, loads and applies an identity; mail/profile_node.py keeps it on disk.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import ssl
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from overlay.errors import OverlayError

_VALID_DAYS = 20 * 365
"""Peers pin the certificate, so renewing it would only break their pins."""


class IdentityError(OverlayError):
    """The PEM of a node's TLS identity isn't valid."""


@dataclass(frozen=True, slots=True)
class TLSIdentity:
    """Private key and certificate, `pem` (to be kept, mode 0600); `fingerprint`: SHA-256 of the certificate's DER."""

    pem: bytes = field(repr=False)
    fingerprint: bytes


def make_identity(now: float) -> TLSIdentity:
    """A new identity; `now` in seconds since the epoch.

    P-256, not Ed25519: curl with Schannel or Secure Transport supports no other curve in certificates.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "p2pmail node")])
    start = datetime.datetime.fromtimestamp(now, datetime.UTC) - datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=_VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return load_identity(key_pem + certificate.public_bytes(Encoding.PEM))


def load_identity(pem: bytes) -> TLSIdentity:
    """Load an identity from PEM. Raises IdentityError; a new identity can be made then."""
    try:
        key = load_pem_private_key(pem, None)
        certificate = x509.load_pem_x509_certificate(pem)
        spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        fits = key.public_key().public_bytes(*spki) == certificate.public_key().public_bytes(*spki)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise IdentityError("The node's TLS key or certificate can't be read; delete it and a new one is made.") from (
            error
        )
    if not fits:
        raise IdentityError("The node's TLS certificate isn't of its key; delete it and a new one is made.")
    return TLSIdentity(pem, hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest())


def server_context(identity: TLSIdentity) -> ssl.SSLContext:
    """A server's context: TLS 1.3 and HTTP/1.1 only; no session tickets, since connections are kept alive."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    context.num_tickets = 0
    with _as_file(identity.pem) as path:
        context.load_cert_chain(path)
    return context


def client_context() -> ssl.SSLContext:
    """A client's context: TLS 1.3 with any server. The caller checks the fingerprint, or trusts it on first use."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


@contextmanager
def _as_file(pem: bytes) -> Iterator[str]:
    """The PEM as a file, since `ssl` reads keys only from files: in memory on Linux, else private and removed soon."""
    if sys.platform == "linux":
        handle = os.memfd_create("tls")
        try:
            os.write(handle, pem)
            yield f"/proc/self/fd/{handle}"
        finally:
            os.close(handle)
    else:
        with tempfile.TemporaryDirectory() as folder, open(f"{folder}/tls.pem", "xb") as file:  # noqa: PTH123
            file.write(pem)
            file.flush()
            yield file.name
