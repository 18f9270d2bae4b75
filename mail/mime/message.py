"""Reads a message for display: whatever its bytes are, the result can be shown.

All reading for display goes through this module. It reads a file, never changes it, and never raises on its content.
All text in the result has passed mail/mime/sanitize.py. mail/checks checks a message before it is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mail.mime import charset, content_decoding, headers, html, parser, sanitize
from mail.mime.attachments import Attachment, save_attachment, shown_name
from mail.mime.headers import Address
from mail.mime.parser import Defect, Part, Structure
from storage.user.index_summary import MAX_RECIPIENTS, MAX_TEXT, Summary, unreadable

__all__ = ["Address", "Attachment", "Message", "read_message", "save_attachment", "summarise"]

TEXT_LIMIT = 1024 * 1024
"""Bytes of text shown of one message; mailing-list digests reach some 100 KiB."""
LINE_TEXT = 2000
"""Characters shown of a subject or a name; real ones are shorter."""
CUT = "[The text is longer than is shown here; save the message to see all of it.]"


@dataclass(frozen=True, slots=True)
class Message:
    """A message for display. Message-IDs have no angle brackets, and are "" where there is none; sizes in bytes."""

    sender: Address
    reply_to: tuple[Address, ...]
    to: tuple[Address, ...]
    cc: tuple[Address, ...]
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
    found = structure.parts[0].headers
    shown, attached = _laid_out(file, structure) if whole else ([], [])
    text, from_html, cut = _text(file, [structure.parts[index] for index in shown], TEXT_LIMIT)
    senders = _addresses(found.all("from")) or _addresses(found.all("sender"))
    defects = [str(defect) for defect in structure.defects]
    if cut:
        defects.append("the text is too long to be shown whole")
    references = headers.message_ids(found.first("references"))
    in_reply_to = headers.message_ids(found.first("in-reply-to"))
    return Message(
        sender=senders[0] if senders else Address("", ""),
        reply_to=_addresses(found.all("reply-to")),
        to=_addresses(found.all("to")),
        cc=_addresses(found.all("cc")),
        followup_to=_addresses(found.all("mail-followup-to")),
        subject=_line(headers.text(found.first("subject"))),
        date=headers.date(found.first("date")),
        message_id=headers.message_id(found.first("message-id")),
        in_reply_to=in_reply_to[0] if in_reply_to else "",
        references=references,
        text=text,
        from_html=from_html,
        attachments=tuple(_attachment(file, structure.parts[index]) for index in attached),
        headers=tuple((name, sanitize.line(headers.text(value))) for name, value in found.fields),
        defects=tuple(defects),
        size=structure.size,
    )


def _summary(file: BinaryIO, structure: Structure) -> Summary:
    found = structure.parts[0].headers
    shown, attached = _laid_out(file, structure)
    text, _, _ = _text(file, [structure.parts[index] for index in shown], MAX_TEXT, fast=True)
    senders = _addresses(found.all("from")) or _addresses(found.all("sender"))
    recipients = _addresses(found.all("to")) + _addresses(found.all("cc"))
    in_reply_to = headers.message_ids(found.first("in-reply-to"))
    return Summary(
        message_id=headers.message_id(found.first("message-id")),
        sender=str(senders[0]) if senders else "",
        recipients=tuple(str(recipient) for recipient in recipients[:MAX_RECIPIENTS]),
        subject=_line(headers.text(found.first("subject"))),
        date=headers.date(found.first("date")) or 0.0,
        in_reply_to=in_reply_to[0] if in_reply_to else "",
        references=headers.message_ids(found.first("references")),
        size=structure.size,
        attachments=bool(attached),
        text=text,
    )


def _unreadable(structure: Structure) -> Message:
    nobody = Address("", "")
    return Message(
        sender=nobody,
        reply_to=(),
        to=(),
        cc=(),
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


def _line(text: str) -> str:
    return sanitize.line(text[:LINE_TEXT])


def _addresses(values: Sequence[bytes]) -> tuple[Address, ...]:
    if not values:
        return ()
    found = headers.addresses(list(values))
    return tuple(Address(_line(address.name), _line(address.address)) for address in found)


def _laid_out(file: BinaryIO, structure: Structure) -> tuple[list[int], list[int]]:
    """The indices of the parts that are shown as text, in order, and of the attachments."""
    parts = structure.parts
    shown: list[int] = []
    attached: list[int] = []

    def place(index: int) -> None:
        part = parts[index]
        if not part.is_multipart:
            if _readable(part):
                shown.append(index)
                if part.file_name:
                    attached.append(index)
            else:
                attached.append(index)
            return
        if part.content_type == "multipart/alternative":
            chosen = _alternative(file, parts, part)
            for child in part.children:
                if child == chosen or not _only_text(parts, child):
                    place(child)
            return
        for child in part.children:
            place(child)

    place(0)
    return shown, attached


def _readable(part: Part) -> bool:
    """Whether the part is text to show rather than an attachment."""
    # A multipart without parts has no boundary, or one that never occurs: its bytes are all there is to show.
    text = part.content_type in ("text/plain", "text/html") or part.content_type.startswith("multipart/")
    return text and part.disposition != "attachment"


def _only_text(parts: Sequence[Part], index: int) -> bool:
    """Whether an alternative that wasn't chosen has only the same text in another format."""
    part = parts[index]
    if part.is_multipart:
        # The images of an HTML text belong to it.
        return part.content_type == "multipart/related" or all(_only_text(parts, child) for child in part.children)
    return _readable(part)


def _alternative(file: BinaryIO, parts: Sequence[Part], part: Part) -> int:
    """The alternative to show: the first with plain text that isn't empty, else the first with HTML, else the last."""
    hypertext = -1
    for child in part.children:
        kinds = _kinds(file, parts, child)
        if "text/plain" in kinds:
            return child
        if "text/html" in kinds and hypertext < 0:
            hypertext = child
    return hypertext if hypertext >= 0 else part.children[0]


def _kinds(file: BinaryIO, parts: Sequence[Part], index: int) -> set[str]:
    part = parts[index]
    if part.is_multipart:
        return set().union(*(_kinds(file, parts, child) for child in part.children))
    if not _readable(part):
        return set()
    if (
        part.content_type == "text/plain"
        and part.end - part.body < 64
        and not content_decoding.head(file, part, 64)[0].strip()
    ):
        return set()
    return {part.content_type}


def _text(file: BinaryIO, parts: Sequence[Part], limit: int, *, fast: bool = False) -> tuple[str, bool, bool]:
    """The text of `parts`; whether HTML was among them; whether it was cut at `limit` bytes. `fast`: for the index."""
    pieces: list[str] = []
    from_html = False
    for part in parts:
        data, more = content_decoding.head(file, part, limit)
        limit -= len(data)
        text = charset.decode(data, part.charset)
        if part.content_type == "text/html":
            from_html = True
            text, shorter = (html.words(text), False) if fast else html.as_text(text)
            more = more or shorter
        pieces.append(sanitize.block(text).strip("\n"))
        if more or limit <= 0:
            if not fast:
                pieces.append(CUT)
            return "\n\n".join(pieces) + "\n", from_html, True
    text = "\n\n".join(piece for piece in pieces if piece)
    return (text + "\n" if text else ""), from_html, False


def _attachment(file: BinaryIO, part: Part) -> Attachment:
    return Attachment(
        name=shown_name(part), content_type=part.content_type, size=content_decoding.size(file, part), index=part.index
    )
