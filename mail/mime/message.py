"""Reads a message for display: whatever its bytes are, the result can be shown.

All reading for display goes through this module. It reads a file, never changes it, and never raises on its content.
All text in the result has passed mail/mime/sanitize.py. mail/checks checks a message before it is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mail.mime import body_text, content_decoding, headers, parser, sanitize
from mail.mime.addresses import Address, addresses
from mail.mime.attachments import Attachment, save_attachment, shown_name
from mail.mime.parser import Defect, Part, Structure
from storage.user.index_summary import MAX_RECIPIENTS, MAX_TEXT, Summary, unreadable

__all__ = ["Address", "Attachment", "Message", "read_message", "save_attachment", "summarise"]

TEXT_LIMIT = 1024 * 1024
"""Bytes of text shown of one message; mailing-list digests reach some 100 KiB."""
LINE_TEXT = 2000
"""Characters shown of a subject or a name; real ones are shorter."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message for display. Message-IDs have no angle brackets, and are "" where there is none; sizes in bytes."""

    sender: Address
    reply_to: tuple[Address, ...]
    to: tuple[Address, ...]
    cc: tuple[Address, ...]
    bcc: tuple[Address, ...]
    """Only the sender's own copy names them."""
    followup_to: tuple[Address, ...]
    subject: str
    date: float | None
    message_id: str
    in_reply_to: str
    references: tuple[str, ...]
    text: str
    from_html: bool
    attachments: tuple[Attachment, ...]
    headers: tuple[tuple[str, str], ...]
    defects: tuple[str, ...]
    size: int
    author: str = ""
    """The sender as the reader shows it, which mail/mailbox.py decides."""

    def header(self, name: str) -> str:
        """The first field called `name` as text, or ""."""
        wanted = name.lower()
        return next((value for field, value in self.headers if field == wanted), "")


def read_message(path: Path) -> Message:
    """The message in the file at `path`. Raises OSError when the file can't be read, and nothing else."""
    with path.open("rb") as file:
        structure = _structure(file)
        try:
            return _message(file, structure)
        except OSError:
            raise
        except Exception:  # a bug in the parser costs the text, and never ends the program
            return _unreadable(structure)


def read_headers(path: Path) -> Message:
    """The same without text and attachments: a hundred times as fast where the HTML is large."""
    with path.open("rb") as file:
        structure = _structure(file)
        try:
            return _message(file, structure, whole=False)
        except OSError:
            raise
        except Exception:  # as above
            return _unreadable(structure)


def summarise(path: Path) -> Summary:
    """The fields of the message at `path` for the index. Raises OSError when it can't be read, and nothing else."""
    with path.open("rb", buffering=0) as raw:
        file: BinaryIO = raw  # FileIO reads and seeks, which is enough here
        structure = _structure(file)
        try:
            return _summary(file, structure)
        except OSError:
            raise
        except Exception:  # as above: indexing must continue
            return unreadable("it is not a message", structure.size)


def _structure(file: BinaryIO) -> Structure:
    try:
        return parser.walk(file)
    except OSError:
        raise
    except Exception:  # as above
        size = file.seek(0, 2)
        part = Part(0, -1, 0, headers.Headers(), "text/plain", {}, "", "", "", 0, 0, size, ())
        return Structure((part,), (Defect.UNREADABLE,), size)


def _message(file: BinaryIO, structure: Structure, *, whole: bool = True) -> Message:
    found, hint = structure.parts[0].headers, _hint(structure)
    layout = body_text.lay_out(file, structure) if whole else body_text.Layout()
    text, from_html, cut = body_text.read(file, layout.shown, TEXT_LIMIT, hint=hint)
    senders = _addresses(found.all("from"), hint) or _addresses(found.all("sender"), hint)
    to, cc = _addresses(found.all("to"), hint), _addresses(found.all("cc"), hint)
    defects = [str(defect) for defect in structure.defects]
    if cut:
        defects.append("the text is too long to be shown whole")
    references = headers.message_ids(found.first("references"))
    return Message(
        sender=senders[0] if senders else Address("", ""),
        reply_to=_addresses(found.all("reply-to"), hint),
        to=to,
        cc=cc,
        bcc=_addresses(found.all("bcc"), hint),
        followup_to=_addresses(found.all("mail-followup-to"), hint),
        subject=_line(headers.text(found.first("subject"), hint)),
        date=headers.date(found.first("date")),
        message_id=headers.message_id(found.first("message-id")),
        in_reply_to=headers.parent(found.first("in-reply-to"), {each.address for each in (*senders, *to, *cc)}),
        references=references,
        text=text,
        from_html=from_html,
        attachments=tuple(_attachment(file, part, within) for part, within in layout.attached),
        headers=tuple((name, sanitize.line(headers.text(value, hint))) for name, value in found.fields),
        defects=tuple(defects),
        size=structure.size,
    )


def _summary(file: BinaryIO, structure: Structure) -> Summary:
    found, hint = structure.parts[0].headers, _hint(structure)
    layout = body_text.lay_out(file, structure)
    text, _, _ = body_text.read(file, layout.shown, MAX_TEXT, fast=True, hint=hint)
    senders = _addresses(found.all("from"), hint) or _addresses(found.all("sender"), hint)
    recipients = tuple(one for name in ("to", "cc", "bcc") for one in _addresses(found.all(name), hint))
    return Summary(
        message_id=headers.message_id(found.first("message-id")),
        sender=str(senders[0]) if senders else "",
        recipients=tuple(str(recipient) for recipient in recipients[:MAX_RECIPIENTS]),
        subject=_line(headers.text(found.first("subject"), hint)),
        date=headers.date(found.first("date")) or 0.0,
        in_reply_to=headers.parent(found.first("in-reply-to"), {each.address for each in (*senders, *recipients)}),
        references=headers.message_ids(found.first("references")),
        size=structure.size,
        attachments=bool(layout.attached),
        file_names=tuple(shown_name(part) for part, _ in layout.attached[:MAX_RECIPIENTS]),
        text=text,
    )


def _unreadable(structure: Structure) -> Message:
    nobody = Address("", "")
    return Message(
        sender=nobody,
        reply_to=(),
        to=(),
        cc=(),
        bcc=(),
        followup_to=(),
        subject="",
        date=None,
        message_id="",
        in_reply_to="",
        references=(),
        text="",
        from_html=False,
        attachments=(),
        headers=(),
        defects=(str(Defect.UNREADABLE),),
        size=structure.size,
    )


def _hint(structure: Structure) -> str:
    """The charset that the message names anywhere, for its fields and parts that name none."""
    named = next((part.charset for part in structure.parts if part.charset), "")
    found = structure.parts[0].headers
    return named or headers.word_charset(found.first("subject")) or headers.word_charset(found.first("from"))


def _line(text: str) -> str:
    return sanitize.line(text[:LINE_TEXT])


def _addresses(values: Sequence[bytes], hint: str) -> tuple[Address, ...]:
    if not values:
        return ()
    found = addresses(list(values), hint=hint)
    return tuple(Address(_line(address.name), _line(address.address)) for address in found)


def _attachment(file: BinaryIO, part: Part, within: bool) -> Attachment:
    size = content_decoding.size(file, part)
    return Attachment(shown_name(part), part.content_type, size, part.index, within)
