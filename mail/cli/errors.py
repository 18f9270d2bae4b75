"""Which error means which exit code, and what the user is told. Decisions only."""

from __future__ import annotations

import sqlite3

from mail.accepting import ClockWrong, NotCertified
from mail.attachments import AttachmentError
from mail.authority import AuthorityError, InviteRefused
from mail.authority import WrongPassphrase as WrongAuthorityPassphrase
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
from mail.compose import ComposeError
from mail.csr import CertificateRequestError
from mail.enrolling import AlreadyJoined, JoinRefused, NobodyAnswers, Waiting
from mail.enrolment import EnrolmentError
from mail.identity import NotJoined
from mail.invite import InviteError
from mail.mailbox import MailboxError
from mail.peer import NoNetwork
from mail.submission import SubmissionError
from overlay.address import AddressError
from overlay.certificates import CertificateError
from overlay.errors import OverlayError
from overlay.network import NetworkFileError
from storage.database import DatabaseError
from storage.folders import FolderError
from storage.index import IndexUnavailable
from storage.keyring import KeyringBusy, KeyringDamaged, KeyringError, PassphraseNeeded, WrongPassphrase
from storage.outbox import NotKnown, OutboxError
from storage.profile import ConfigError, ProfileBusy, ProfileError
from storage.search import SearchError

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
    ((Waiting,), TEMPORARY),
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
