"""Certificate requests as files (PKCS #10, RFC 2986), for an authority without a network (`authority issue`).

Formats only. Any program that makes Ed25519 requests can be used, such as `openssl req`. The address in a request is
only a claim: the operator of the authority decides which address is certified.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from overlay.identity.certificates import address_name
from storage.errors import DATA, P2PMailError

REQUEST_LIMIT = 16_384
"""Most bytes of a request file. Ours have about 400."""

_PARSE_ERRORS = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, InvalidSignature)


class CertificateRequestError(P2PMailError, ValueError):
    """The file is not a usable certificate request."""

    exit_code = DATA


def write_csr(key: Ed25519PrivateKey, address: str) -> bytes:
    """A request (PEM) for a normalised address."""
    names = x509.SubjectAlternativeName([address_name(address)])
    builder = x509.CertificateSigningRequestBuilder(x509.Name([])).add_extension(names, critical=True)
    return builder.sign(key, None).public_bytes(Encoding.PEM)


def read_csr(data: bytes) -> bytes:
    """The Ed25519 public key (32 bytes) of a request (PEM or DER), after checking the proof of possession.

    Raises CertificateRequestError.
    """
    if len(data) > REQUEST_LIMIT:
        raise CertificateRequestError("This file is too large for a certificate request.")
    try:
        load = x509.load_pem_x509_csr if b"-----BEGIN" in data else x509.load_der_x509_csr
        request = load(data)
        key, signed = request.public_key(), request.is_signature_valid
    except _PARSE_ERRORS as error:
        raise CertificateRequestError("This file is no certificate request (PKCS #10, PEM or DER).") from error
    if not isinstance(key, Ed25519PublicKey):
        raise CertificateRequestError("The request's key is not an Ed25519 key.")
    if not signed:
        raise CertificateRequestError("The request is not signed with the key that it names.")
    return key.public_bytes_raw()
