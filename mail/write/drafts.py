"""Reads and writes a draft as a message in Drafts that any mail program can open, change and send.

Header and body are authoritative, whichever program wrote them. A private field holds what they can't: an incomplete
address, attachments that are only named so far, the message that is answered. A keyed digest binds each of its items
to what the header said when it was written; the item counts only while the header still says the same. The field never
leaves this computer (mail/write/private_headers.py). mail/write/compose.py writes the message that is sent.
"""

from __future__ import annotations

import base64
import email.utils
import hashlib
import hmac
import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from email.header import Header
from pathlib import Path
from typing import BinaryIO

from mail.mime import charset, content_decoding, headers, parser, sanitize
from mail.mime.addresses import Address, addresses, typed, written
from mail.mime.flowed import unflowed
from mail.mime.message import Message, read_message
from mail.mime.parser import Part, Structure
from mail.write.compose import ComposeError, Draft, Enclosure

FIELD = "X-P2pmail-Draft"
FIELD_LIMIT = parser.FIELD_LIMIT - 4 * 1024
"""Bytes of one header field; mail/mime/parser.py keeps no more. More recipients go into further fields of that name."""
TEXT_LIMIT = 16 * 1024 * 1024
"""Bytes of text that can be edited; a longer draft stays in Drafts unchanged."""

_WRITTEN = frozenset({"from", "to", "cc", "bcc", "subject", "in-reply-to", "references", "date", "message-id"})
_NOT_KEPT = _WRITTEN | {"mime-version", "received", "return-path", "status", "x-status", "content-length", "lines"}
_TRAVELS = frozenset(
    {"reply-to", "mail-followup-to", "mail-reply-to", "organization", "keywords", "comments", "importance", "priority"}
    | {"x-priority", "sensitivity", "disposition-notification-to", "autocrypt"}
)
"""Fields of another program's draft that are sent; all others are that program's own notes (Fcc)."""


@dataclass(frozen=True, slots=True)
class DraftForm:
    """What was typed so far. `to`, `cc`, `bcc` as typed; `answers`: Message-ID of the message replied to or forwarded.

    `text` has \\n line ends; Message-IDs have no angle brackets.
    """

    to: str = ""
    cc: str = ""
    bcc: str = ""
    subject: str = ""
    text: str = ""
    enclosures: tuple[Enclosure, ...] = ()
    in_reply_to: str = ""
    references: tuple[str, ...] = ()
    answers: str = ""
    others: tuple[tuple[str, str], ...] = ()
    """Further header fields that another program wrote: name in lower case, value."""
    whole: bool = field(default=True, compare=False)
    """Whether this has all that the stored draft has. If not, the stored one must stay."""
    notes: str = field(default="", compare=False)
    """Words for the user about the draft that was read, or ""."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to store."""
        return not (self.to or self.cc or self.bcc or self.subject or self.text.strip() or self.enclosures)


def parse_people(text: str) -> tuple[Address, ...]:
    """Parse a line such as "Ada <ada@example.org>, bob@example.org". Raises ComposeError."""
    if len(text.encode("utf-8", "replace")) > headers.RECIPIENTS_TEXT:
        raise ComposeError("There are too many recipients in one line; send to fewer at a time.")
    people, unfinished = _sorted_out(text)
    if unfinished:
        raise ComposeError(f"{sanitize.line(unfinished[0])} is not an e-mail address.")
    return people


def draft_of(unsent: DraftForm, sender: Address) -> Draft:
    """The draft to compose and send. Raises ComposeError, which says what is missing."""
    draft = Draft(
        sender=sender,
        to=parse_people(unsent.to),
        cc=parse_people(unsent.cc),
        bcc=parse_people(unsent.bcc),
        subject=unsent.subject,
        text=unsent.text,
        enclosures=unsent.enclosures,
        in_reply_to=unsent.in_reply_to,
        references=unsent.references,
        others=tuple((name, value) for name, value in unsent.others if name in _TRAVELS),
    )
    if not draft.recipients:
        raise ComposeError("The message has no recipient yet: fill in To, Cc or Bcc.")
    for enclosure in draft.enclosures:
        if not enclosure.path.is_file():
            raise ComposeError(f"The attachment {enclosure.path} isn't there (any more). Attach it again or remove it.")
    return draft


def form_of(draft: Draft, answers: str = "") -> DraftForm:
    """The reverse: the form for a prepared reply or forward, to be edited."""
    return DraftForm(
        to=_line_of(draft.to),
        cc=_line_of(draft.cc),
        bcc=_line_of(draft.bcc),
        subject=draft.subject,
        text=draft.text,
        enclosures=draft.enclosures,
        in_reply_to=draft.in_reply_to,
        references=draft.references,
        answers=answers,
    )


# -- writing


def write(out: BinaryIO, unsent: DraftForm, *, sender: Address, message_id: str, now: float, key: bytes) -> None:
    """Write the draft as a message that any mail program can open. `read` needs the same `key`.

    Attachments within the draft (`Enclosure.inside`) are copied unchanged. Raises OSError, ComposeError.
    """
    inside = [item for item in unsent.enclosures if item.inside]
    named = [[str(item.path), item.part, item.name] for item in unsent.enclosures if not item.inside]
    lines = [f"From: {_mailbox(sender)}"]
    ours: dict[str, list[object]] = {}

    def keep(name: str, value: object, beside: object) -> None:
        if value:
            ours[name] = [value, _proof(key, name, value, beside)]

    for name, text in (("to", unsent.to), ("cc", unsent.cc), ("bcc", unsent.bcc)):
        people, unfinished = _sorted_out(text)
        lines += _fields_of(name.title(), people)
        keep(name, ", ".join(unfinished), _canonical(people))
    subject = sanitize.line(unsent.subject)
    if subject:
        lines.append(f"Subject: {_encoded(subject)}")
    keep("subject", unsent.subject if unsent.subject != subject else "", subject)
    keep("enclosures", named, [item.name for item in inside])
    keep("answers", unsent.answers, unsent.in_reply_to)
    lines += [f"Date: {email.utils.formatdate(now, localtime=True)}", f"Message-ID: <{message_id}>"]
    if unsent.in_reply_to:
        lines.append(f"In-Reply-To: <{unsent.in_reply_to}>")
    if unsent.references:
        lines.append("References: " + "\r\n ".join(f"<{identifier}>" for identifier in unsent.references))
    lines += [f"{name.title()}: {sanitize.line(value)}" for name, value in unsent.others]
    if ours:
        packed = base64.b64encode(json.dumps(ours).encode()).decode()
        lines.append(f"{FIELD}: " + "\r\n ".join(packed[start : start + 56] for start in range(0, len(packed), 56)))
    lines.append("MIME-Version: 1.0")
    out.write("".join(f"{line}\r\n" for line in lines).encode("utf-8", "replace"))
    text_part = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    text_part += base64.encodebytes(unsent.text.encode("utf-8", "replace")).replace(b"\n", b"\r\n")
    if not inside:
        out.write(text_part)
        return
    boundary = f"=_{secrets.token_hex(16)}".encode()
    out.write(b'Content-Type: multipart/mixed; boundary="' + boundary + b'"\r\n\r\n--' + boundary + b"\r\n" + text_part)
    for item in inside:
        out.write(b"\r\n--" + boundary + b"\r\n")
        _copy(out, item)
    out.write(b"\r\n--" + boundary + b"--\r\n")


def _copy(out: BinaryIO, item: Enclosure) -> None:
    """Copy the part from its message, with its header."""
    with item.path.open("rb") as file:
        parts = parser.walk(file).parts
        if item.part is None or not 0 < item.part < len(parts):
            raise ComposeError(f"The attachment {sanitize.line(item.name)} can't be found in the draft it came with.")
        position, end = parts[item.part].start, parts[item.part].end
        file.seek(position)
        while position < end and (data := file.read(min(content_decoding.BLOCK, end - position))):
            out.write(data)
            position += len(data)


def _fields_of(name: str, people: Sequence[Address]) -> Iterator[str]:
    """One address field, or several where one would be too long."""
    line, size = "", 0
    for person in people:
        written = _mailbox(person)
        if line and size + len(written.encode("utf-8", "replace")) > FIELD_LIMIT:
            yield line
            line = ""
        if line:
            line += f",\r\n {written}"
        else:
            line, size = f"{name}: {written}", 0
        size += len(written.encode("utf-8", "replace")) + 4
    if line:
        yield line


def _mailbox(person: Address) -> str:
    """A mailbox as text for a header field."""
    if not person.name or person.name.isascii():
        return sanitize.line(typed(person))
    return written(Address(sanitize.line(person.name), sanitize.line(person.address)))


def _encoded(value: str) -> str:
    """Text for a header field: encoded words where it isn't ASCII."""
    return value if value.isascii() else Header(value, "utf-8").encode(linesep="\r\n")


def _proof(key: bytes, name: str, value: object, beside: object) -> str:
    """The digest that binds an item of our field to the header field beside it, and to this profile.

    Without the key, somebody else's message in Drafts could name files of this computer as attachments.
    """
    return hmac.new(key, json.dumps([name, value, beside]).encode(), hashlib.sha256).hexdigest()[:32]


# -- reading


def read(path: Path, key: bytes) -> DraftForm:
    """Read a draft, which another program may have written or changed; `key` as for `write`. Raises OSError."""
    message = read_message(path)
    with path.open("rb") as file:
        structure = parser.walk(file)
        root = structure.parts[0].headers
        text, whole = _text(file, structure, message)
    inside = tuple(
        Enclosure(path, found.index, found.name, inside=True) for found in message.attachments if not found.within
    )
    ours = _ours(root.first(FIELD.lower()))

    def kept(name: str, beside: object) -> object:
        value, proof = ours.get(name, (None, ""))
        return value if hmac.compare_digest(proof, _proof(key, name, value, beside)) else None

    lines = {}
    for name in ("to", "cc", "bcc"):
        people = addresses(root.all(name))
        unfinished = kept(name, _canonical(people))
        lines[name] = ", ".join(filter(None, (_line_of(people), unfinished if isinstance(unfinished, str) else "")))
    subject, answers = kept("subject", message.subject), kept("answers", message.in_reply_to)
    named = _named(kept("enclosures", [item.name for item in inside]))
    notes = [] if whole else [NOT_WHOLE]
    if lost := _named(ours.get("enclosures", (None, ""))[0])[len(named) :]:
        notes.append(NOT_ATTACHED.format(", ".join(sanitize.line(str(item.path)) for item in lost)))
    return DraftForm(
        **lines,
        subject=subject if isinstance(subject, str) else message.subject,
        text=text,
        enclosures=(*inside, *named),
        in_reply_to=message.in_reply_to,
        references=message.references,
        answers=answers if isinstance(answers, str) else "",
        others=tuple(
            (name, sanitize.line(headers.raw_text(value)))
            for name, value in root.fields
            if name not in _NOT_KEPT and not name.startswith(("content-", "x-p2pmail-")) and len(value) < FIELD_LIMIT
        ),
        whole=whole,
        notes=" ".join(notes),
    )


NOT_WHOLE = (
    "This draft contains more than can be edited here. It stays in Drafts unchanged; what you write is kept beside it."
)
NOT_ATTACHED = "No longer attached, because another program changed the draft: {}. Attach them again if you need them."


def _text(file: BinaryIO, structure: Structure, message: Message) -> tuple[str, bool]:
    """The text to edit, and whether the draft has nothing but this text and attachments."""
    part = _only_text(structure, message)
    if part is None or structure.defects:
        return message.text, False
    data, more = content_decoding.head(file, part, TEXT_LIMIT)
    if more:
        return message.text, False
    decoded = charset.decode(data, part.charset).replace("\r\n", "\n").replace("\r", "\n")
    if part.parameters.get("format", "").lower() == "flowed":
        decoded = unflowed(decoded, delete_space=part.parameters.get("delsp", "").lower() == "yes")
    text = "\t".join(sanitize.block(piece) for piece in decoded.split("\t"))
    return text, "\ufffd" not in text or "\ufffd".encode() in data


def _only_text(structure: Structure, message: Message) -> Part | None:
    """The plain text part, where all other parts are attachments; else None."""
    parts = structure.parts
    if not parts[0].is_multipart:
        return parts[0] if parts[0].content_type == "text/plain" and not message.attachments else None
    children = parts[0].children
    attached = {found.index for found in message.attachments}
    if parts[0].content_type != "multipart/mixed" or parts[children[0]].content_type != "text/plain":
        return None
    return parts[children[0]] if attached == set(children[1:]) else None


def _ours(value: bytes | None) -> dict[str, tuple[object, str]]:
    """The items of our field: value and proof. Those of an older version have no proof."""
    try:
        items = json.loads(base64.b64decode(b"".join((value or b"").split()), validate=True) or b"{}")
        return {
            name: (item[0], item[1]) if isinstance(item, list) and len(item) == 2 and _is_proof(item[1]) else (item, "")
            for name, item in items.items()
        }
    except (ValueError, AttributeError, RecursionError):
        return {}


def _is_proof(value: object) -> bool:
    return isinstance(value, str) and value.isascii()


def _named(value: object) -> tuple[Enclosure, ...]:
    """Attachments that are stored as paths."""
    found = []
    for item in value if isinstance(value, list) else []:
        match item:
            case [str(place), int() | None as part, str(name)] if "\0" not in place:
                found.append(Enclosure(Path(place), part, name))
    return tuple(found)


# -- addresses


def _sorted_out(text: str) -> tuple[tuple[Address, ...], list[str]]:
    """The complete addresses in what was typed, and the pieces that aren't addresses (yet)."""
    people: list[Address] = []
    unfinished = []
    data = text.encode("utf-8", "replace")
    # A group (`friends: a@x.example, b@x.example;`) contains commas. All else is parsed piece by piece, because the
    # parser drops from a list what it can't read.
    if b";" in data and len(data) <= headers.ADDRESS_TEXT and all(map(_complete, found := addresses([data]))):
        return found, []
    for piece in _pieces(text):
        found = addresses([piece.encode("utf-8", "replace")])
        if found and all(map(_complete, found)):
            people += found
        elif piece.strip():
            unfinished.append(piece.strip())
    return tuple(people), unfinished


def _pieces(text: str) -> Iterator[str]:
    """Split `text` at commas and line ends that aren't within quotes or angle brackets."""
    start, closing = 0, ""
    for position, sign in enumerate(text):
        if closing:
            if sign == closing and text[position - 1] != "\\":
                closing = ""
        elif sign in '"<':
            closing = '"' if sign == '"' else ">"
        elif sign in ",\n":
            yield text[start:position]
            start = position + 1
    yield text[start:]


def _complete(person: Address) -> bool:
    local, at, domain = person.address.rpartition("@")
    return bool(local and at and domain)


def _line_of(people: Sequence[Address]) -> str:
    return ", ".join(map(typed, people))


def _canonical(people: Sequence[Address]) -> list[list[str]]:
    """The addresses in a form that doesn't depend on folding and encoding, to compare fields by."""
    return [[" ".join(sanitize.line(person.name).split()), sanitize.line(person.address)] for person in people]
