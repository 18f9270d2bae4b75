"""Writes a draft as a message (RFC 5322), streaming attachments of any size from files.

mail/write/reply.py makes drafts from other messages; mail/write/submission.py reads messages that other programs
wrote. Bcc is in the Draft, and never in the message.
"""

from __future__ import annotations

import base64
import email.utils
import mimetypes
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import BinaryIO

from mail.mime import content_decoding, parser, sanitize
from mail.mime.addresses import Address, field_of
from mail.mime.attachments import safe_name, shown_name
from mail.mime.headers import LINE_LIMIT
from mail.write.private_headers import without_private
from storage.errors import DATA, P2PMailError

CHUNK = 57 * 2048
"""Bytes of an attachment encoded at once: whole base64 lines (57 bytes make 76 characters)."""
EOL = b"\r\n"


class ComposeError(P2PMailError):
    """The draft can't be made a message; the text says what to change. The draft was kept."""

    exit_code = DATA


@dataclass(frozen=True, slots=True)
class Enclosure:
    """A file to attach: the file at `path`, or, with `part`, that part of the message at `path`, decoded.

    `inside`: the message at `path` is the stored draft itself, which contains the attachment.
    """

    path: Path
    part: int | None = None
    name: str = ""
    inside: bool = False


@dataclass(frozen=True, slots=True)
class Draft:
    """A message to be composed. Message-IDs have no angle brackets; `text` has \\n line ends.

    `others`: further header fields, as name and value.
    """

    sender: Address
    to: tuple[Address, ...] = ()
    cc: tuple[Address, ...] = ()
    bcc: tuple[Address, ...] = ()
    subject: str = ""
    text: str = ""
    enclosures: tuple[Enclosure, ...] = ()
    in_reply_to: str = ""
    references: tuple[str, ...] = ()
    others: tuple[tuple[str, str], ...] = ()

    @property
    def recipients(self) -> tuple[str, ...]:
        """The bare address of each recipient, once, in the order To, Cc, Bcc."""
        people = (*self.to, *self.cc, *self.bcc)
        return tuple(dict.fromkeys(person.address for person in people if person.address))


def new_message_id(address: str, token: Callable[[int], str] = secrets.token_hex) -> str:
    """A new Message-ID without brackets. Its 128 random bits can't be guessed: the body's key is derived from it."""
    domain = address.rpartition("@")[2] if "@" in address else ""
    try:
        domain = domain.encode("idna").decode("ascii")
    except UnicodeError:
        domain = ""
    if not re.fullmatch(r"[A-Za-z0-9.-]{1,253}", domain):
        domain = "p2pmail.invalid"
    return f"{token(16)}@{domain}"


def compose(
    out: BinaryIO,
    draft: Draft,
    *,
    message_id: str | None = None,
    now: Callable[[], float] = time.time,
    token: Callable[[int], str] = secrets.token_hex,
    progress: Callable[[int], None] = lambda _: None,
) -> str:
    """Write `draft` to `out` as a message with CRLF line ends, and return its Message-ID (made unless given).

    Memory stays below 4 MiB. `progress` gets the bytes of attachments written so far, and may raise to stop.
    Raises ComposeError when an address can't be written or a file can't be read, and OSError from `out`.
    """
    message_id = message_id or new_message_id(draft.sender.address, token)
    out.write(_header(draft, message_id, now()))
    text = _text_part(draft.text)
    if not draft.enclosures:
        out.write(text)
        return message_id
    boundary = f"=_{token(16)}"
    out.write(f'Content-Type: multipart/mixed; boundary="{boundary}"\r\n\r\n'.encode())
    delimiter = f"--{boundary}".encode()
    out.write(delimiter + EOL + text)
    done = 0
    for enclosure in draft.enclosures:
        out.write(EOL + delimiter + EOL)
        for written in _enclose(out, enclosure):
            done += written
            progress(done)
    out.write(EOL + delimiter + b"--" + EOL)
    return message_id


def composed_size(draft: Draft) -> int:
    """A lower bound, nearly exact, for the bytes that `compose` writes; parts of other messages aren't counted.

    Raises ComposeError when a file can't be read.
    """
    size = len(draft.text.encode("utf-8", "replace")) + sum(len(str(person)) for person in (*draft.to, *draft.cc))
    for enclosure in draft.enclosures:
        if enclosure.part is not None:
            continue
        try:
            length = enclosure.path.stat().st_size
        except OSError as error:
            raise ComposeError(f"The attachment {enclosure.path} can't be read: {error.strerror}.") from error
        as_it_stands = _guessed(safe_name(enclosure.name or enclosure.path.name)).startswith("message/")
        size += length if as_it_stands else encoded_size(length)
    return size


def encoded_size(length: int) -> int:
    """Bytes of an attachment of `length` bytes in base64: lines of 76 characters and CRLF."""
    whole, rest = divmod(length, 57)
    return whole * 78 + (-(-rest // 3) * 4 + 2 if rest else 0)


def _header(draft: Draft, message_id: str, now: float) -> bytes:
    """The message's header fields, up to and including MIME-Version."""
    everybody = (("From", (draft.sender,)), ("To", draft.to), ("Cc", draft.cc))
    lines = [field_of(name, map(_mailbox, people)) for name, people in everybody if people]
    message = EmailMessage(policy=SMTP)
    try:
        message["Subject"] = sanitize.line(draft.subject)
        lines.append(message.as_bytes().removesuffix(EOL + EOL).decode())
    except Exception as error:  # the package raises ValueError, IndexError, AttributeError on odd texts
        raise ComposeError("The subject can't be written into the header; correct it.") from error
    lines += [f"Date: {email.utils.formatdate(now, localtime=True)}", f"Message-ID: <{message_id}>"]
    # The email package would make a long Message-ID an encoded word, which no mail program matches.
    if draft.in_reply_to:
        lines.append(f"In-Reply-To: <{draft.in_reply_to}>")
    if draft.references:
        lines.append("References: " + "\r\n ".join(f"<{identifier}>" for identifier in draft.references))
    lines += [f"{name.title()}: {sanitize.line(value)}" for name, value in draft.others]
    lines.append("MIME-Version: 1.0")
    return "".join(f"{line}\r\n" for line in lines).encode("utf-8", "replace")


def _mailbox(person: Address) -> Address:
    """The mailbox as it can be written. Raises ComposeError."""
    local, at, domain = person.address.rpartition("@")
    if not (local and at and domain) or re.search(r"[\s<>,;:()\"\\\[\]\x00-\x1f\x7f]", person.address):
        raise ComposeError(f"{sanitize.line(str(person)) or 'An empty address'} is not an e-mail address.")
    return Address(sanitize.line(person.name), person.address)


def _text_part(text: str) -> bytes:
    """The text part with its header: ASCII unencoded, else UTF-8 in quoted-printable."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text and not text.endswith("\n"):
        text += "\n"
    part = EmailMessage(policy=SMTP)
    short = all(len(line) <= LINE_LIMIT for line in text.split("\n"))
    encoding = "7bit" if text.isascii() and short else "quoted-printable"
    part.set_content(text.encode("utf-8", "replace").decode(), charset="utf-8", cte=encoding)
    del part["MIME-Version"]
    return part.as_bytes()


def _enclose(out: BinaryIO, enclosure: Enclosure) -> Iterator[int]:
    """Write one attachment with its header; yields the size of each chunk."""
    try:
        file = enclosure.path.open("rb")
    except OSError as error:
        raise ComposeError(f"The attachment {enclosure.path} can't be read: {error.strerror}.") from error
    with file:
        if enclosure.part is None:
            name = safe_name(enclosure.name or enclosure.path.name)
            content_type = _guessed(name)
            chunks = iter(lambda: file.read(CHUNK), b"")
        else:
            parts = parser.walk(file).parts
            if not 0 <= enclosure.part < len(parts):
                raise ComposeError("The message whose attachment is forwarded has changed; attach it again.")
            part = parts[enclosure.part]
            name, content_type = safe_name(enclosure.name or shown_name(part)), part.content_type
            chunks = content_decoding.content(file, part)
            if content_type.startswith("multipart/"):
                content_type = "application/octet-stream"
            elif content_type.startswith("text/") and re.fullmatch(r"[\w.+-]{1,64}", part.charset, re.ASCII):
                content_type = f"{content_type}; charset={part.charset}"
        # A message must not be encoded (RFC 2046, section 5.2.1): its bytes are copied.
        as_it_stands = content_type.startswith("message/")
        if as_it_stands or (
            enclosure.part is None and enclosure.path.parent.name in ("cur", "new")
        ):  # such as a draft, attached from its folder
            chunks = without_private(chunks)
        out.write(_attachment_header(name, content_type, "8bit" if as_it_stands else "base64"))
        held = b""
        for chunk in chunks:
            if as_it_stands:
                out.write(chunk)
            else:
                held += chunk
                whole = len(held) // 57 * 57
                out.write(base64.encodebytes(held[:whole]).replace(b"\n", EOL))
                held = held[whole:]
            yield len(chunk)
        out.write(base64.encodebytes(held).replace(b"\n", EOL))


def _guessed(name: str) -> str:
    content_type, encoding = mimetypes.guess_type(name)
    # `.tar.gz` must not be labelled as tar: the recipient's program would read compressed bytes as a tar file.
    if content_type is None or encoding is not None or content_type.startswith("multipart/"):
        return "application/octet-stream"
    return content_type


def _attachment_header(name: str, content_type: str, encoding: str) -> bytes:
    part = EmailMessage(policy=SMTP)
    part.add_header("Content-Disposition", "attachment", filename=name)
    return f"Content-Type: {content_type}\r\nContent-Transfer-Encoding: {encoding}\r\n".encode() + part.as_bytes()
