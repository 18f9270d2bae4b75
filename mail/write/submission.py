"""Reads a message that another program submits, as to sendmail, and completes its header.

Reads the header line by line and copies everything else byte for byte, line ends too. Adds From, Date and Message-ID
where they are missing, removes Bcc and this program's private fields, and finds the recipients. mail/send/sender.py
sends it.
"""

from __future__ import annotations

import email.utils
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mail import author
from mail.mime import headers, sanitize
from mail.mime.addresses import Address, addresses, written
from mail.send.enqueue import check_recipients, check_size
from mail.write.compose import new_message_id
from mail.write.private_headers import is_private
from overlay.identity.address import AddressError, normalise_address
from storage.errors import DATA, P2PMailError

CHUNK = 256 * 1024
"""Bytes copied at once."""
FIELD_LIMIT = headers.RECIPIENTS_TEXT
"""Bytes of a field that is read here. A longer one is refused, because recipients would be lost."""


_EMPTY_GROUP = re.compile(r":\s*;$")


class SubmissionError(P2PMailError):
    """The message was not accepted; the text says why. Nothing was kept, and nothing will be sent."""

    exit_code = DATA


@dataclass(frozen=True, slots=True)
class Submission:
    """A submitted message: its file, sender and recipients. The Message-ID has no brackets."""

    path: Path
    message_id: str
    sender: str
    recipients: tuple[str, ...]
    subject: str
    date: float | None
    size: int
    bcc: tuple[Address, ...] = ()
    """Who was named in Bcc, for the sender's own copy."""


_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
_RESENT = (b"resent-to", b"resent-cc", b"resent-bcc")
_READ = frozenset({b"from", b"to", b"cc", b"bcc", b"date", b"message-id", b"subject", *_RESENT})
_TAKEN_OUT = frozenset({b"bcc", b"resent-bcc"})
_EMPTY = frozenset({b"\n", b"\r\n"})


def read_submission(
    stream: BinaryIO,
    spool: Path,
    recipients: Sequence[str],
    sender: str,
    *,
    from_headers: bool = False,
    name: str = "",
    now: Callable[[], float] = time.time,
    token: Callable[[int], str] = secrets.token_hex,
) -> Submission:
    """Read a message from `stream` into the file `spool` (which must not exist), holding one block in memory.

    The recipients are `recipients` and, with `from_headers` (`-t`), those of To, Cc and Bcc, or of the newest Resent-
    fields. `sender` is the user's own address (normalised): a missing From gets it, with the display name `name`; so
    does one without a domain, as cron writes it; another address is refused. Bcc fields, this program's private
    fields and an mbox `From ` line are removed, missing fields are added at the end of the header with the message's
    own line ends; every other byte is kept. Raises SubmissionError, CannotAccept (more recipients or bytes than can be
    sent) or OSError; then the file is removed.
    """
    with spool.open("x+b") as out:
        try:
            header = _Header(out)
            rest = header.read(stream)
            identifier = header.message_id() or new_message_id(sender, token)
            if (local := _local_author(header.found.get(b"from", []))) is not None:
                name = name or local
                header.take_out_from()
            if b"from" in header.found and (words := author.objection(header.found[b"from"], sender)):
                raise SubmissionError(f"The message {words}, and you are {sender}. Nothing was kept.")
            date = headers.date(header.first(b"date")) if b"date" in header.found else now()
            people = list(recipients)
            if from_headers:
                people += header.recipients()
            everybody = _normalised(people, from_headers=from_headers)
            header.complete(b"From", written(Address(sanitize.line(name), sender)))
            header.complete(b"Date", email.utils.formatdate(date, localtime=True))
            header.complete(b"Message-ID", f"<{identifier}>")
            out.write(header.ending if rest is None else rest)
            if rest is not None:
                while chunk := stream.read(CHUNK):
                    check_size(out.tell() + len(chunk))
                    out.write(chunk)
            subject = sanitize.line(headers.text(header.first(b"subject")))
            hidden = addresses(header.hidden_recipients(), FIELD_LIMIT, commas_in_names=False) if from_headers else ()
            return Submission(spool, identifier, sender, everybody, subject, date, out.tell(), hidden)
        except BaseException:
            spool.unlink(missing_ok=True)
            raise


class _Header:
    """Copies a header; keeps the fields that are read here, and the line end."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self.found: dict[bytes, list[bytes]] = {}
        self.ending = b"\n"
        self._room = 2 * FIELD_LIMIT
        self._ended = True
        self._from = (0, 0)
        """Where the first From lies in the file."""
        self._resent: set[bytes] | None = set()
        """The Resent- fields of the newest block, which is the first; None after it."""

    def read(self, stream: BinaryIO) -> bytes | None:
        """Copy the fields; returns the line after them: the empty line or the body's first one; None at the end."""
        name = b""
        field: bytearray | None = None
        first = begins = True
        skipping = False
        while piece := stream.readline(CHUNK):
            if begins:
                if first:
                    self.ending = b"\r\n" if piece.endswith(b"\r\n") else b"\n"
                if piece in _EMPTY:
                    self._keep(name, field)
                    return piece
                match = _FIELD.match(piece)
                if first and piece.startswith(b"From "):
                    skipping = True
                elif first or piece[:1] not in b" \t":
                    self._keep(name, field)
                    if match is None:
                        # This is no header field, so the body begins here, as in other mail systems.
                        return self.ending + piece
                    name, field = match.group(1).lower(), bytearray()
                    self._follow_resent(name)
                    skipping = name in _TAKEN_OUT or is_private(name)
                    first = False
            if not skipping:
                self._copy(name, piece)
                self._ended = piece.endswith(b"\n")
            if field is not None and name in _READ:
                _append(field, piece, name)
            begins = piece.endswith(b"\n")
        self._keep(name, field)
        return None

    def _copy(self, name: bytes, piece: bytes) -> None:
        at = self._out.tell()
        self._out.write(piece)
        if name == b"from" and b"from" not in self.found:
            self._from = (self._from[0] if self._from[1] else at, self._out.tell())

    def _keep(self, name: bytes, field: bytearray | None) -> None:
        if field is None or name not in _READ:
            return
        if name in _RESENT and self._resent is None:
            return
        value = bytes(field).partition(b":")[2].strip()
        self._room -= len(value) + len(name)
        if self._room < 0:
            raise SubmissionError(
                "The header is too long: there are too many From, To, Cc, Bcc, Date or Subject fields."
            )
        self.found.setdefault(name, []).append(value)

    def _follow_resent(self, name: bytes) -> None:
        """Who passes a message on puts a block of Resent- fields above the others (RFC 5322, section 3.6.6)."""
        if name.startswith(b"resent-") and self._resent is not None:
            self._resent = None if name in self._resent else self._resent | {name}
        elif name in {b"received", b"return-path"} and self._resent:
            self._resent = None

    def take_out_from(self) -> None:
        """Remove From from the header that was copied, as if it had been missing."""
        start, end = self._from
        self._out.seek(end)
        rest = self._out.read()
        self._out.seek(start)
        self._out.write(rest)
        self._out.truncate()
        del self.found[b"from"]

    def first(self, name: bytes) -> bytes | None:
        """The first field called `name`, or None."""
        return self.found.get(name, [None])[0]

    def message_id(self) -> str:
        """The message's Message-ID, "" when it has none. Raises SubmissionError when it can't be used."""
        value = self.first(b"message-id")
        identifier = headers.message_id(value)
        if value is not None and not identifier:
            raise SubmissionError("The message's own Message-ID can't be used: it needs visible ASCII between < and >.")
        return identifier

    def hidden_recipients(self) -> list[bytes]:
        """The Bcc fields, or those of the newest Resent- fields."""
        return self.found.get(b"resent-bcc" if any(name in self.found for name in _RESENT) else b"bcc", [])

    def recipients(self) -> list[str]:
        """The mailboxes in To, Cc and Bcc, or in Resent-To and its like if there are any; one text each."""
        names = _RESENT if any(name in self.found for name in _RESENT) else (b"to", b"cc", b"bcc")
        values = [value for name in names for value in self.found.get(name, [])]
        people = [found.address or found.name for found in addresses(values, FIELD_LIMIT, commas_in_names=False)]
        # An empty group (`undisclosed-recipients:;`) means nobody.
        return [person for person in people if not _EMPTY_GROUP.search(person)]

    def complete(self, name: bytes, value: str) -> None:
        """Write a field that is missing."""
        if name.lower() in self.found:
            return
        if not self._ended:
            self._out.write(self.ending)
            self._ended = True
        self._out.write(name + b": " + value.encode() + self.ending)


def _normalised(people: Sequence[str], *, from_headers: bool) -> tuple[str, ...]:
    known: dict[str, None] = {}
    for person in people:
        for found in addresses([person.encode("utf-8", "replace")], commas_in_names=False):
            text = found.address or found.name
            try:
                known[normalise_address(text)] = None
            except AddressError as error:
                raise SubmissionError(f"{sanitize.line(text)[:100]} can't be a recipient. {error}") from error
    if not known:
        where = "the message has no To, Cc or Bcc with an address" if from_headers else "no address was given"
        raise SubmissionError(f"There is no recipient: {where}.")
    check_recipients(len(known))
    return tuple(known)


def _local_author(fields: Sequence[bytes]) -> str | None:
    """The display name in a single From without a domain, as in `"(Cron Daemon)" <root>`; None for any other From."""
    authors = addresses(fields) if len(fields) == 1 else ()
    if len(authors) != 1 or "@" in authors[0].address or "@" in authors[0].name:
        return None
    return sanitize.line(authors[0].name if authors[0].address else "")


def _append(field: bytearray, piece: bytes, name: bytes) -> None:
    """Add the next piece of a header field. Raises SubmissionError when the field gets too long."""
    if len(field) + len(piece) > FIELD_LIMIT:
        title = name.decode("latin-1").title()
        raise SubmissionError(f"The header field {title} is longer than {FIELD_LIMIT >> 20} MiB.")
    field += piece.rstrip(b"\r\n")
