"""A network's certificate authority: which key holds which address (design section 5).

Decides who gets a certificate: an address belongs to one key at a time, and an invite can be used once. The decisions
are stored durably in DIR/authority.sqlite, beside DIR/authority.key and DIR/authority.pem. Nothing here uses the
network. mail/membership/x509.py builds the X.509 documents.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509 import load_pem_x509_certificate
from cryptography.x509.oid import NameOID

from mail.membership.x509 import make_certificate, make_revocations, make_root
from overlay.identity.address import normalise_address
from overlay.identity.certificates import Certificate, certificate_pem, parse_certificate
from overlay.protocol_limits import DAY
from storage import durable
from storage.database import DatabaseError, connect
from storage.errors import DATA, PERMISSION, P2PMailError

Random = Callable[[int], bytes]

CODE_BYTES = 16
"""Random bytes of an invite's code: too many to guess, so attempts needn't be counted."""

INVITE_LIFE = 14 * DAY
"""Seconds for which an invite is valid."""

RENEWAL = 60 * DAY
"""Seconds before its end from which a certificate can be renewed. Before that, a request gets the same one again."""

GRACE = 60 * DAY
"""Seconds after its end for which a certificate still reserves the address for its key. It can be renewed, and nobody
else gets the address while mail signed with the key may be on its way."""

RESIGN = 7 * DAY
"""Seconds after which an unchanged revocation list is signed again, long before nodes drop it."""

NAME_LIMIT = 64
"""Characters of a network's name: those of an X.509 common name (RFC 5280, ub-common-name)."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS certificates (
    serial TEXT PRIMARY KEY,       -- hexadecimal, 20 bytes: larger than SQLite's integers
    address TEXT NOT NULL,
    public_key BLOB NOT NULL,
    der BLOB NOT NULL,
    not_after REAL NOT NULL,
    revoked REAL                   -- when, or NULL
) STRICT;
CREATE INDEX IF NOT EXISTS certificates_address ON certificates (address, not_after);
CREATE TABLE IF NOT EXISTS invites (
    code_hash BLOB PRIMARY KEY,    -- SHA-256 of the code: who reads this file can't use the invites in it
    address TEXT NOT NULL,
    expires REAL NOT NULL,
    used_by BLOB                   -- the public key that used it, or NULL
) STRICT;
CREATE TABLE IF NOT EXISTS revocations (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    number INTEGER NOT NULL,
    signed REAL NOT NULL,
    der BLOB NOT NULL,
    changed INTEGER NOT NULL       -- whether something was revoked since
) STRICT;
"""


class AuthorityError(P2PMailError):
    """The authority can't do this; the message says why, and what was kept."""

    exit_code = DATA


class AlreadyFounded(AuthorityError):
    """The folder already has an authority. It was left unchanged."""


class AuthorityDamaged(AuthorityError):
    """The authority's files are missing, damaged or don't belong together. They were left unchanged."""


class WrongAuthorityPassphrase(AuthorityError):
    """The passphrase of the authority's key is missing or wrong."""

    exit_code = PERMISSION


class AddressTaken(AuthorityError):
    """The address belongs to another key until that key's certificate expires or is revoked."""


class KeyRevoked(AuthorityError):
    """This key was revoked for this address; a new key is needed."""


class NothingToRenew(AuthorityError):
    """This key has no certificate for the address that could be renewed."""


class InviteRefused(AuthorityError):
    """The one-time code is unknown, for another address, expired or already used."""

    exit_code = PERMISSION


@dataclass(frozen=True, slots=True)
class Invitation:
    """A one-time code for an address, valid until `expires` (epoch seconds). The authority keeps only its hash."""

    address: str
    code: bytes
    expires: float


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate in the authority's database. Times in epoch seconds; `revoked` is None if it wasn't."""

    address: str
    serial: int
    not_after: float
    revoked: float | None


def create_authority(
    folder: Path,
    name: str,
    *,
    passphrase: bytes | None = None,
    now: Callable[[], float] = time.time,
    random: Random = os.urandom,
) -> Authority:
    """Create the authority of the network `name` in `folder`: its root key and certificate. Returns it opened.

    Durable when it returns. The key file has mode 0600 and is encrypted if there is a passphrase. An interrupted call
    can be repeated. Raises AlreadyFounded, AuthorityError, OSError.
    """
    if not 0 < len(name) <= NAME_LIMIT or not name.isprintable() or name != name.strip():
        raise AuthorityError(f"A network's name has 1 to {NAME_LIMIT} printable characters.")
    if (folder / "authority.pem").exists():
        raise AlreadyFounded(f"There is an authority in {folder} already; nothing was changed.")
    key = Ed25519PrivateKey.from_private_bytes(random(32))
    root = make_root(key, name, _serial(random), now())
    protection = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    durable.make_folder(folder)
    # The certificate is written last: a folder with one is complete, a folder without one can be started over.
    with closing(connect(folder / "authority.sqlite", _SCHEMA)):
        durable.write(folder / "authority.key", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection))
    durable.write(folder / "authority.pem", certificate_pem(root), 0o644)
    return Authority(folder, passphrase=passphrase, now=now, random=random)


class Authority:
    """An open authority.

    Several processes may open the same one: each decision is one transaction, durable when the method returns.
    Methods block on the disk; call them from a thread.
    """

    def __init__(
        self,
        folder: Path,
        *,
        passphrase: bytes | None = None,
        now: Callable[[], float] = time.time,
        random: Random = os.urandom,
    ) -> None:
        """Open the authority in `folder`. Raises WrongAuthorityPassphrase, AuthorityDamaged."""
        self._now = now
        self._random = random
        self._lock = threading.Lock()
        """Held during a transaction: several threads share the one connection."""
        self._key = _load_key(folder / "authority.key", passphrase)
        try:
            parsed = load_pem_x509_certificate((folder / "authority.pem").read_bytes())
        except (OSError, ValueError) as error:
            raise AuthorityDamaged(f"{folder} has no readable authority.pem ({error}).") from error
        if parsed.public_key() != self._key.public_key():
            raise AuthorityDamaged(f"authority.key and authority.pem in {folder} don't belong together.")
        self.certificate = parsed.public_bytes(Encoding.DER)
        self.fingerprint = hashlib.sha256(self.certificate).hexdigest()
        self.name = str(parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
        if not (folder / "authority.sqlite").exists():
            raise AuthorityDamaged(f"{folder} has no authority.sqlite: without it addresses could be given away twice.")
        try:
            self._database = connect(folder / "authority.sqlite", _SCHEMA)
        except DatabaseError as error:
            raise AuthorityDamaged(str(error)) from error

    def close(self) -> None:
        """Close the database. Everything is on disk already."""
        self._database.close()

    def issue(self, address: str, public_key: bytes) -> Certificate:
        """Certify on the operator's word that `address` belongs to an Ed25519 public key (32 bytes).

        The same key gets the same certificate again, and a new one (valid for a year) in the last 60 days of the old.
        The caller must check that the requester has the private key. Raises AddressTaken while another key holds the
        address (until 60 days after its certificate's end), KeyRevoked, AddressError, AuthorityError.
        """
        address = normalise_address(address)
        with self._transaction() as database:
            return self._issue(database, address, public_key)

    def renew(self, address: str, public_key: bytes) -> Certificate:
        """Like `issue`, for a key that holds the address: from 60 days before its certificate's end until 60 after.

        Raises NothingToRenew if the key doesn't hold it, and what `issue` raises.
        """
        address = normalise_address(address)
        with self._transaction() as database:
            held = self._held(database, address)
            if not held and not self._revoked(database, address, public_key):
                raise NothingToRenew(f"{address} has no certificate that could be renewed; ask for an invite.")
            return self._issue(database, address, public_key)

    def redeem(self, address: str, public_key: bytes, code: bytes) -> Certificate:
        """Like `issue`, for the holder of an invite's code. The same transaction marks the code as used.

        A repeated request with the same key and code gets the same certificate, because an answer may get lost. Raises
        InviteRefused and what `issue` raises; then the code stays unused.
        """
        address = normalise_address(address)
        hashed = hashlib.sha256(code).digest()
        with self._transaction() as database:
            row = database.execute(
                "SELECT address, expires, used_by FROM invites WHERE code_hash = ?", (hashed,)
            ).fetchone()
            if row is None or row[0] != address:
                raise InviteRefused(f"This invite is not one for {address}, or a newer one has replaced it.")
            if row[2] is not None and row[2] != public_key:
                raise InviteRefused("This invite has been used already; ask for a new one.")
            if row[2] is None and row[1] < self._now():
                raise InviteRefused("This invite has expired; ask for a new one.")
            certificate = self._issue(database, address, public_key)
            database.execute("UPDATE invites SET used_by = ? WHERE code_hash = ?", (public_key, hashed))
            return certificate

    def invite(self, address: str) -> Invitation:
        """Make a one-time code for an address, valid for 14 days. It replaces an earlier unused code.

        Only its hash is stored. From 60 days before a certificate's end until 60 days after, the code is valid for the
        certified key. Raises AddressTaken before that time, AddressError, AuthorityError.
        """
        address = normalise_address(address)
        code = self._random(CODE_BYTES)
        with self._transaction() as database:
            expires = self._now() + INVITE_LIFE
            if (good := self._good(self._held(database, address))) is not None:
                raise AddressTaken(
                    f"{address} has a certificate until {_day(good.not_after)}, which can be renewed from"
                    f" {_day(good.not_after - RENEWAL)} on; revoke it first if its owner has lost the key."
                )
            database.execute("DELETE FROM invites WHERE address = ? AND used_by IS NULL", (address,))
            database.execute(
                "INSERT INTO invites (code_hash, address, expires) VALUES (?, ?, ?)",
                (hashlib.sha256(code).digest(), address, expires),
            )
        return Invitation(address, code, expires)

    def revoke(self, address: str) -> int:
        """Revoke all certificates of an address and delete its unused invite. Returns the number of certificates.

        Takes effect at each node when it gets the next revocation list. Raises AddressError, AuthorityError (also if
        there is nothing to revoke).
        """
        address = normalise_address(address)
        with self._transaction() as database:
            count = database.execute(
                "UPDATE certificates SET revoked = ? WHERE address = ? AND revoked IS NULL AND not_after > ?",
                (self._now(), address, self._now() - GRACE),
            ).rowcount
            database.execute("DELETE FROM invites WHERE address = ? AND used_by IS NULL", (address,))
            if not count:
                raise AuthorityError(f"{address} has no valid certificate; nothing was revoked.")
            database.execute("UPDATE revocations SET changed = 1")
        return count

    def revocations(self) -> bytes:
        """The current revocation list (DER).

        It is signed again, with the next CRL number, after each revocation and every week. Raises AuthorityError.
        """
        with self._transaction() as database:
            now = self._now()
            known = database.execute("SELECT number, signed, der, changed FROM revocations").fetchone()
            if known is not None and not known[3] and 0 <= now - known[1] < RESIGN:
                return bytes(known[2])
            number = 1 if known is None else known[0] + 1
            revoked = [
                (int(serial, 16), at)
                for serial, at in database.execute(
                    "SELECT serial, revoked FROM certificates WHERE revoked IS NOT NULL AND not_after > ?"
                    " ORDER BY revoked, serial",
                    (now - GRACE,),  # mail that it signed before its end may be on its way
                )
            ]
            der = make_revocations(self.certificate, self._key, revoked, number, now)
            database.execute("INSERT OR REPLACE INTO revocations VALUES (1, ?, ?, ?, 0)", (number, now, der))
            return der

    def issued(self) -> list[Issued]:
        """All certificates, sorted by address and end."""
        with self._transaction() as database:
            rows = database.execute(
                "SELECT address, serial, not_after, revoked FROM certificates ORDER BY address, not_after"
            ).fetchall()
        return [Issued(address, int(serial, 16), not_after, revoked) for address, serial, not_after, revoked in rows]

    def _issue(self, database: sqlite3.Connection, address: str, public_key: bytes) -> Certificate:
        try:
            key = Ed25519PublicKey.from_public_bytes(public_key)
        except ValueError:
            raise AuthorityError("The request has no Ed25519 public key; nothing was issued.") from None
        if self._revoked(database, address, public_key):
            raise KeyRevoked(f"This key was revoked for {address}; make a new one.")
        held = self._held(database, address)
        if any(held_by != public_key for held_by, _, _ in held):
            raise AddressTaken(
                f"{address} belongs to somebody with another key until {_day(held[0][2] + GRACE)}; nothing was issued."
                " If its owner has lost the key, the authority revokes it first."
            )
        if (good := self._good(held)) is not None:
            return good
        der = make_certificate(self.certificate, self._key, address, key, serial=_serial(self._random), now=self._now())
        certificate = parse_certificate(der)
        database.execute(
            "INSERT INTO certificates (serial, address, public_key, der, not_after) VALUES (?, ?, ?, ?, ?)",
            (f"{certificate.serial:040x}", address, public_key, der, certificate.not_after),
        )
        return certificate

    def _held(self, database: sqlite3.Connection, address: str) -> list[tuple[bytes, bytes, float]]:
        """(public key, DER, end) of the certificates that reserve an address, the latest end first."""
        return database.execute(
            "SELECT public_key, der, not_after FROM certificates"
            " WHERE address = ? AND revoked IS NULL AND not_after > ? ORDER BY not_after DESC",
            (address, self._now() - GRACE),
        ).fetchall()

    def _good(self, held: list[tuple[bytes, bytes, float]]) -> Certificate | None:
        """The certificate among these that is valid now and not yet due for renewal.

        A certificate issued while this clock was far ahead isn't valid yet, and must not block a new one.
        """
        for _, der, not_after in held:
            certificate = parse_certificate(der)
            if certificate.not_before <= self._now() < not_after - RENEWAL:
                return certificate
        return None

    def _revoked(self, database: sqlite3.Connection, address: str, public_key: bytes) -> bool:
        sql = "SELECT 1 FROM certificates WHERE address = ? AND public_key = ? AND revoked IS NOT NULL"
        return database.execute(sql, (address, public_key)).fetchone() is not None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction: committed when the block ends, rolled back if it raises."""
        with self._lock:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    yield self._database
                    self._database.execute("COMMIT")
                except BaseException:
                    if self._database.in_transaction:
                        self._database.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise AuthorityError(
                    f"The authority's database could not be used ({error}); nothing was done."
                ) from error


def _day(moment: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(moment))


def _serial(random: Random) -> int:
    """A positive, unpredictable serial number of at most 127 bits (RFC 5280 section 4.1.2.2)."""
    return int.from_bytes(random(16), "big") >> 1 | 1


def _load_key(path: Path, passphrase: bytes | None) -> Ed25519PrivateKey:
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise AuthorityDamaged(f"The authority's key can't be read ({error}).") from error
    encrypted = b"-----BEGIN ENCRYPTED" in pem
    if encrypted and not passphrase:
        raise WrongAuthorityPassphrase("The authority's key is protected by a passphrase, and none was given.")
    try:
        key = load_pem_private_key(pem, passphrase if encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if encrypted:
            raise WrongAuthorityPassphrase(
                "This is not the passphrase of the authority's key, or its file is damaged."
            ) from error
        raise AuthorityDamaged(f"{path} is damaged.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise AuthorityDamaged(f"{path} is not an Ed25519 key.")
    return key
