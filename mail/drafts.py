"""A letter that is being written, kept as a message in Drafts: what was typed, as it was typed, finished or not.

Other mail readers see the draft with its fields and its text; what they couldn't keep (half an address, attachments
that are only named yet) lies in one field of ours. Writing the letter that is sent is mail/compose.py's.
"""

from __future__ import annotations

import base64
import email.utils
import json
from dataclasses import dataclass
from email.header import Header
from pathlib import Path

from mail import headers, plain
from mail.compose import ComposeError, Draft, Enclosure
from mail.headers import Address
from mail.message import read_message

FIELD = "X-P2pmail-Draft"
FIELD_LIMIT = 1024 * 1024
"""Characters of our field that are read; a list of 5,000 recipients has some 200,000."""


@dataclass(frozen=True, slots=True)
class Unsent:
    """What was typed so far. `to`, `cc`, `bcc` as typed; `answers`: the Message-ID of what is replied to or passed on.

    `text` has \\n line ends; Message-IDs are without angle brackets.
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

    @property
    def empty(self) -> bool:
        """Whether there is nothing worth keeping."""
        return not (self.to or self.cc or self.bcc or self.subject or self.text.strip() or self.enclosures)


def typed(text: str) -> tuple[Address, ...]:
    """The people in a line such as "Ada <ada@example.org>, bob@example.org". Raises ComposeError for what is none."""
    if not text.strip():
        return ()
    data = text.encode("utf-8", "replace")
    if len(data) > headers.RECIPIENTS_TEXT:
        raise ComposeError("There are too many recipients in one line; send to fewer at a time.")
    people = headers.addresses([data], headers.RECIPIENTS_TEXT)
    for person in people:
        local, at, domain = person.address.rpartition("@")
        if not (local and at and domain):
            raise ComposeError(f"{plain.line(str(person)) or plain.line(text)} is not an e-mail address.")
    return people


def finished(unsent: Unsent, sender: Address) -> Draft:
    """The letter as it can be sent. Raises ComposeError, which says what is missing."""
    draft = Draft(
        sender=sender,
        to=typed(unsent.to),
        cc=typed(unsent.cc),
        bcc=typed(unsent.bcc),
        subject=unsent.subject,
        text=unsent.text,
        enclosures=unsent.enclosures,
        in_reply_to=unsent.in_reply_to,
        references=unsent.references,
    )
    if not draft.recipients:
        raise ComposeError("The letter has no recipient yet: fill in To, Cc or Bcc.")
    for enclosure in draft.enclosures:
        if not enclosure.path.is_file():
            raise ComposeError(f"The attachment {enclosure.path} isn't there (any more). Attach it again or remove it.")
    return draft


def begun(draft: Draft, answers: str = "") -> Unsent:
    """The reverse: a reply or a forward that was prepared, to go on with."""
    return Unsent(
        to=", ".join(map(str, draft.to)),
        cc=", ".join(map(str, draft.cc)),
        bcc=", ".join(map(str, draft.bcc)),
        subject=draft.subject,
        text=draft.text,
        enclosures=draft.enclosures,
        in_reply_to=draft.in_reply_to,
        references=draft.references,
        answers=answers,
    )


def write(unsent: Unsent, sender: Address, message_id: str, now: float) -> bytes:
    """The draft as a message that any mail reader opens."""
    rest = {
        "to": unsent.to,
        "cc": unsent.cc,
        "bcc": unsent.bcc,
        "subject": unsent.subject,
        "enclosures": [[str(item.path), item.part, item.name] for item in unsent.enclosures],
        "in_reply_to": unsent.in_reply_to,
        "references": unsent.references,
        "answers": unsent.answers,
    }
    ours = base64.b64encode(json.dumps(rest).encode()).decode()
    fields = [
        ("From", str(sender)),
        ("To", unsent.to),
        ("Cc", unsent.cc),
        ("Bcc", unsent.bcc),
        ("Subject", unsent.subject),
    ]
    lines = [f"{name}: {_field(value)}" for name, value in fields if value.strip()]
    lines += [
        f"Date: {email.utils.formatdate(now, localtime=True)}",
        f"Message-ID: <{message_id}>",
        f"{FIELD}: " + "\r\n ".join(ours[start : start + 72] for start in range(0, len(ours), 72)),
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: base64",
        "",
        "",
    ]
    body = base64.encodebytes(unsent.text.encode("utf-8", "replace")).replace(b"\n", b"\r\n")
    return "\r\n".join(lines).encode("utf-8", "replace") + body


def read(path: Path) -> Unsent:
    """A draft, ours or one that another program left. Raises OSError."""
    message = read_message(path)
    text = message.text
    fallback = Unsent(
        to=", ".join(map(str, message.to)),
        cc=", ".join(map(str, message.cc)),
        bcc=message.header("bcc"),
        subject=message.subject,
        text=text,
        enclosures=tuple(Enclosure(path, found.index, found.name) for found in message.attachments),
        in_reply_to=message.in_reply_to,
        references=message.references,
    )
    ours = message.header(FIELD)
    if not ours or len(ours) > FIELD_LIMIT:
        return fallback
    try:
        rest = json.loads(base64.b64decode("".join(ours.split()), validate=True))
        return Unsent(
            to=str(rest["to"]),
            cc=str(rest["cc"]),
            bcc=str(rest["bcc"]),
            subject=str(rest["subject"]),
            text=text,
            enclosures=tuple(
                Enclosure(Path(place), None if part is None else int(part), str(name))
                for place, part, name in rest["enclosures"]
            ),
            in_reply_to=str(rest["in_reply_to"]),
            references=tuple(map(str, rest["references"])),
            answers=str(rest["answers"]),
        )
    except (ValueError, KeyError, TypeError):
        return fallback


def _field(value: str) -> str:
    """One header line; what isn't ASCII as encoded words."""
    value = plain.line(value)
    return value if value.isascii() else Header(value, "utf-8").encode(linesep="\r\n")
