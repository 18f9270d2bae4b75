"""Which error means which exit code, and what the user is told. Decisions only."""

from __future__ import annotations

import sqlite3

from mail.checks.clamd import ClamdAddressError
from mail.cli.codes import (
    CONFIGURATION,
    DATA,
    OK,
    PERMISSION,
    SOFTWARE,
    TEMPORARY,
    UNAVAILABLE,
    USAGE,
    CommandError,
)
from mail.identity import NotJoined
from mail.mailbox import MailboxError
from mail.membership.authority import AuthorityError, InviteRefused
from mail.membership.authority import WrongPassphrase as WrongAuthorityPassphrase
from mail.membership.csr import CertificateRequestError
from mail.membership.invite import InviteError
from mail.membership.join import AlreadyJoined, AwaitingAuthority, JoinRefused, NobodyAnswers
from mail.membership.messages import EnrolmentError
from mail.mime.attachments import AttachmentError
from mail.profile_node import NoNetwork
from mail.send.enqueue import ClockWrong, NotCertified
from mail.write.compose import ComposeError
from mail.write.submission import SubmissionError
from overlay.errors import OverlayError
from overlay.identity.address import AddressError
from overlay.identity.certificates import CertificateError
from overlay.identity.network import NetworkFileError
from storage.database import DatabaseError
from storage.user.folders import FolderError
from storage.user.index import IndexUnavailable
from storage.user.keyring import KeyringBusy, KeyringDamaged, KeyringError, PassphraseNeeded, WrongPassphrase
from storage.user.outbox import NotKnown, OutboxError
from storage.user.profile import ConfigError, ProfileBusy, ProfileError
from storage.user.search import SearchError

__all__ = [
    "CONFIGURATION",
    "DATA",
    "OK",
    "PERMISSION",
    "SOFTWARE",
    "TEMPORARY",
    "UNAVAILABLE",
    "USAGE",
    "CommandError",
    "exit_code",
    "words",
]

_MEANINGS: tuple[tuple[tuple[type[Exception], ...], int], ...] = (
    ((NobodyAnswers,), UNAVAILABLE),
    ((AwaitingAuthority,), TEMPORARY),
    ((JoinRefused, AlreadyJoined), PERMISSION),
    ((WrongPassphrase, PassphraseNeeded, WrongAuthorityPassphrase, InviteRefused), PERMISSION),
    ((NotCertified,), PERMISSION),
    ((ClockWrong, NotKnown), TEMPORARY),
    ((SearchError, AddressError), USAGE),
    ((SubmissionError, ComposeError, InviteError, MailboxError, FolderError, AuthorityError), DATA),
    ((EnrolmentError, CertificateRequestError, OutboxError, AttachmentError), DATA),
    ((ConfigError, NetworkFileError, NoNetwork, NotJoined, KeyringDamaged, ClamdAddressError), CONFIGURATION),
    ((ProfileBusy, KeyringBusy, IndexUnavailable), TEMPORARY),
    ((ProfileError, KeyringError), CONFIGURATION),
    ((CertificateError,), PERMISSION),
    ((OverlayError,), UNAVAILABLE),
    ((DatabaseError, sqlite3.Error, OSError), TEMPORARY),
)


def exit_code(error: Exception) -> int | None:
    """What an error that a user can read exits with; None for one that is a fault of this program."""
    if isinstance(error, CommandError):
        return error.code
    return next((code for kinds, code in _MEANINGS if isinstance(error, kinds)), None)


def words(error: Exception) -> str:
    """What the user is told."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__
