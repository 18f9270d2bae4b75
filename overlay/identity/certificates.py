"""Certificates as nodes and user agents check them: chain, time, purpose, address, revocation (design section 4).

This module reads and checks X.509. It signs nothing (mail/membership/authority.py does) and keeps nothing on disk. The
address is a rfc822Name, or a SmtpUTF8Mailbox (RFC 9598) where its local part is not ASCII.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from overlay.errors import OverlayError
from overlay.identity.address import AddressError, normalise_address
from overlay.protocol_limits import CLOCK_MARGIN, MAX_CERTIFICATE, MAX_SIGNED_OBJECT, SIGNATURE_BYTES
from storage.errors import PERMISSION

CACHE_LIMIT = 4096
"""Certificates remembered as having a valid signature (some 2 KiB each)."""

SMTP_UTF8_MAILBOX = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.9")
"""The otherName of RFC 9598 section 3, for addresses that a rfc822Name (ASCII) can't carry."""

_UTF8_STRING = 0x0C

_SIGNED_WITH_ED25519 = bytes.fromhex("300506032b6570034100")
"""The bytes before the signature: the algorithm (RFC 8410) and a BIT STRING without unused bits. Parsers accept some
unused bits; then a certificate would have a second DER encoding, and its owner a second deleter hash."""


_PARSE_ERRORS = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
    Warning,
)
"""What `cryptography` raises on hostile DER, at once or when a field is first read. A warning that is raised as an
error, as in our tests, counts too."""


class CertificateError(OverlayError):
    """A certificate, card or revocation list isn't valid; the message says why."""

    exit_code = PERMISSION


class CertificateExpired(CertificateError):
    """The certificate has expired."""


class Revoked(CertificateError):
    """The authority has revoked the certificate."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """The contents of a certificate. Two are equal when their DER is. Times are seconds since the epoch."""

    der: bytes
    address: str = field(compare=False)
    public_key: Ed25519PublicKey = field(compare=False, repr=False)
    serial: int = field(compare=False)
    not_before: float = field(compare=False)
    not_after: float = field(compare=False)


def address_name(address: str) -> x509.GeneralName:
    """The subjectAltName entry for a normalised address, as parse_certificate reads it."""
    if address.isascii():
        return x509.RFC822Name(address)
    text = address.encode()
    length = bytes([len(text)]) if len(text) < 0x80 else bytes([0x81, len(text)])
    return x509.OtherName(SMTP_UTF8_MAILBOX, bytes([_UTF8_STRING]) + length + text)


def parse_certificate(der: bytes) -> Certificate:
    """Read a user's certificate, without checking its issuer. Raises CertificateError.

    It must be X.509 v3 with an Ed25519 key, exactly one address in its normalised form, KeyUsage digitalSignature,
    ExtendedKeyUsage emailProtection, no rights of an authority, and no unknown critical extension.
    """
    return _read_leaf(_load(der), der)


class TrustStore:
    """A network's trust anchors: its authorities' certificates and the newest revocation list of each. Thread-safe."""

    def __init__(self, authorities: Sequence[bytes]) -> None:
        """`authorities`: DER of self-signed Ed25519 roots, at least one. Raises CertificateError."""
        if not authorities:
            raise CertificateError("A network needs at least one authority's certificate.")
        self._roots = [_load_root(der) for der in authorities]
        self.authorities = tuple(authorities)
        self.fingerprint = hashlib.sha256(authorities[0]).hexdigest()
        self._revoked: dict[int, tuple[int, frozenset[int], bytes]] = {}
        self._lock = threading.Lock()
        """Protects _cache and _revoked; no signature is checked while it is held."""
        self._cache: OrderedDict[bytes, tuple[Certificate, int]] = OrderedDict()

    def verify(self, der: bytes, now: float, lapsed: float = 0.0) -> Certificate:
        """The certificate, if an authority of this network issued it and it is valid at `now` (epoch seconds).

        `lapsed`: seconds for which it is accepted after its end, for objects that were signed before and stored since.
        Validity and revocation are checked every time. Raises CertificateError (Revoked, CertificateExpired).
        """
        certificate, root = self._issued(der)
        if now < certificate.not_before:
            raise CertificateError(f"The certificate of {certificate.address} is not valid yet; is the clock right?")
        with self._lock:
            revocations = self._revoked.get(root)
        if revocations is not None and certificate.serial in revocations[1]:
            raise Revoked(f"The certificate of {certificate.address} has been revoked.")
        if now > certificate.not_after + lapsed:
            raise CertificateExpired(f"The certificate of {certificate.address} has expired.")
        if now > self._roots[root].not_valid_after_utc.timestamp() + lapsed:
            raise CertificateError("The certificate of this network's authority has expired.")
        return certificate

    def issued(self, der: bytes) -> Certificate:
        """The certificate, if an authority of this network issued it, whether it is valid now or not.

        Raises CertificateError.
        """
        return self._issued(der)[0]

    def _issued(self, der: bytes) -> tuple[Certificate, int]:
        """The certificate and the index of its authority. The signature is checked once and remembered."""
        digest = hashlib.sha256(der).digest()
        with self._lock:
            known = self._cache.get(digest)
            if known is not None:
                self._cache.move_to_end(digest)
        if known is None:
            known = self._check_chain(der)
            with self._lock:
                self._cache[digest] = known
                if len(self._cache) > CACHE_LIMIT:
                    self._cache.popitem(last=False)
        return known

    def accept_revocations(self, crl_der: bytes, now: float) -> int:
        """Accept a revocation list (DER); returns the number of the newest one known, this one or a newer.

        A list older than the known one is ignored. A list past its nextUpdate is accepted, being better than none; a
        list from the future isn't. Raises CertificateError.
        """
        if len(crl_der) > MAX_SIGNED_OBJECT:
            raise CertificateError("The revocation list is too large.")
        if not _signed_as_ours(crl_der):
            raise CertificateError("The revocation list is not one that is signed with Ed25519.")
        try:
            crl = x509.load_der_x509_crl(crl_der)
            root = next((i for i, root in enumerate(self._roots) if _signed_crl(root, crl)), None)
            if root is None:
                raise CertificateError("The revocation list is not from an authority of this network.")
            number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
            serials = frozenset(entry.serial_number for entry in crl)
            issued = crl.last_update_utc.timestamp()
        except _PARSE_ERRORS as error:
            raise CertificateError("The revocation list can't be read.") from error
        if issued > now + CLOCK_MARGIN:
            raise CertificateError("The revocation list is from the future; is the clock right?")
        with self._lock:
            known = self._revoked.get(root)
            if known is not None and known[0] >= number:
                return known[0]
            self._revoked[root] = (number, serials, crl_der)
        return number

    def revocations(self) -> bytes | None:
        """The newest list of the first authority (DER), to be kept or published again; None if there is none."""
        with self._lock:
            known = self._revoked.get(0)
        return None if known is None else known[2]

    def _check_chain(self, der: bytes) -> tuple[Certificate, int]:
        parsed = _load(der)
        for index, root in enumerate(self._roots):
            try:
                parsed.verify_directly_issued_by(root)
            except (*_PARSE_ERRORS, InvalidSignature):
                continue
            return _read_leaf(parsed, der), index
        raise CertificateError("The certificate is not from an authority of this network.")


def _load(der: bytes) -> x509.Certificate:
    if len(der) > MAX_CERTIFICATE:
        raise CertificateError("The certificate is too large.")
    if not _signed_as_ours(der):
        raise CertificateError("The certificate is not one that is signed with Ed25519.")
    try:
        return x509.load_der_x509_certificate(der)
    except _PARSE_ERRORS as error:
        raise CertificateError("The certificate can't be read.") from error


def _signed_as_ours(der: bytes) -> bool:
    return der[:-SIGNATURE_BYTES].endswith(_SIGNED_WITH_ED25519)


def _load_root(der: bytes) -> x509.Certificate:
    root = _load(der)
    try:
        root.verify_directly_issued_by(root)
        constraints = root.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = root.extensions.get_extension_for_class(x509.KeyUsage).value
        good = constraints.ca and usage.key_cert_sign and isinstance(root.public_key(), Ed25519PublicKey)
    except (*_PARSE_ERRORS, InvalidSignature) as error:
        raise CertificateError("The authority's certificate is not self-signed, or is damaged.") from error
    if not good:
        raise CertificateError("The authority's certificate gives no right to issue others.")
    return root


def _read_leaf(parsed: x509.Certificate, der: bytes) -> Certificate:
    try:
        public_key = parsed.public_key()
        extensions = {extension.oid: extension for extension in parsed.extensions}.values()
        version, serial = parsed.version, parsed.serial_number
        not_before = parsed.not_valid_before_utc.timestamp()
        not_after = parsed.not_valid_after_utc.timestamp()
    except _PARSE_ERRORS as error:
        raise CertificateError("The certificate can't be read.") from error
    if not isinstance(public_key, Ed25519PublicKey):
        raise CertificateError("The certificate's key is not an Ed25519 key.")
    if version is not x509.Version.v3 or serial <= 0:
        raise CertificateError("The certificate is not an X.509 v3 certificate with a serial number.")
    return Certificate(der, _read_address(_names(extensions)), public_key, serial, not_before, not_after)


def _names(extensions: Iterable[x509.Extension[x509.ExtensionType]]) -> x509.SubjectAlternativeName | None:
    """The names of a certificate whose extensions are a user's. Raises CertificateError."""
    names: x509.SubjectAlternativeName | None = None
    digital_signature = email = False
    for extension in extensions:
        match extension.value:
            case x509.BasicConstraints(ca=True):
                raise CertificateError("This is an authority's certificate, not a user's.")
            case x509.KeyUsage() as usage:
                digital_signature = usage.digital_signature
            case x509.ExtendedKeyUsage() as usages:
                email = ExtendedKeyUsageOID.EMAIL_PROTECTION in usages
            case x509.SubjectAlternativeName() as names:
                pass
            case x509.UnrecognizedExtension() if extension.critical:
                raise CertificateError("The certificate has a critical extension that is not known here.")
            case _ if extension.critical and not isinstance(extension.value, x509.BasicConstraints):
                raise CertificateError("The certificate has a critical extension that is not used here.")
            case _:
                pass
    if not digital_signature or not email:
        raise CertificateError("The certificate is not meant for signing mail.")
    return names


def _read_address(names: x509.SubjectAlternativeName | None) -> str:
    found = [text for name in names or () if (text := _mailbox(name)) is not None]
    if len(found) != 1:
        raise CertificateError("The certificate doesn't have exactly one address.")
    try:
        normal = normalise_address(found[0])
    except AddressError as error:
        raise CertificateError("The certificate's address is not an address.") from error
    if normal != found[0]:
        raise CertificateError("The certificate's address is not in its normalised form.")
    return normal


def _mailbox(name: x509.GeneralName) -> str | None:
    """The address in a subjectAltName entry; None for an entry of another kind."""
    if isinstance(name, x509.RFC822Name):
        return name.value
    if isinstance(name, x509.OtherName) and name.type_id == SMTP_UTF8_MAILBOX:
        head = 3 if name.value[1:2] == b"\x81" else 2
        try:
            text = name.value[head:].decode("utf-8")
        except UnicodeDecodeError:
            raise CertificateError("The certificate's address is not UTF-8.") from None
        # One encoding for each address: anything but the bytes that address_name writes is refused.
        if text.isascii() or len(text.encode()) > 0xFF or address_name(text) != name:
            raise CertificateError("The certificate's address is not encoded as RFC 9598 says.")
        return text
    return None


def _signed_crl(root: x509.Certificate, crl: x509.CertificateRevocationList) -> bool:
    key = root.public_key()
    return isinstance(key, Ed25519PublicKey) and crl.issuer == root.subject and crl.is_signature_valid(key)


def certificate_pem(der: bytes) -> bytes:
    """The certificate as PEM, for other programs to read. Raises CertificateError."""
    return _load(der).public_bytes(Encoding.PEM)
