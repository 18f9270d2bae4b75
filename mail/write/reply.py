"""Makes drafts from other messages: a reply, a reply to all, a forward.

Decides the recipients, the subject and what is quoted. mail/write/compose.py writes the message.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from mail import author
from mail.mime.addresses import Address
from mail.mime.message import Message, read_message
from mail.write.compose import Draft, Enclosure
from overlay.identity.address import AddressError, normalise_address

REFERENCES_LIMIT = 100
"""Message-IDs in a reply's References: the thread's first and the last ones (RFC 5322, section 3.6.4, has no limit)."""

_REPLY = re.compile(r"(?:(?:re|aw|sv|antw|odp|vs)(?:\[\d+\])?\s*[:：]\s*)+", re.IGNORECASE)
_FORWARD = re.compile(r"(?:(?:fwd?|wg|tr|rv)\s*[:：]\s*)+", re.IGNORECASE)


def reply(message: Message, me: Address, *, all: bool = False) -> Draft:  # noqa: A002  # mail programs' own word
    """A reply to `message` by `me`, with its text quoted.

    It goes to Reply-To, else to From. With `all` it goes to Mail-Followup-To where given, else also to To (as To) and
    Cc. Nobody gets it twice; `me` gets it only if it would go to nobody else. A reply to a message of one's own goes to
    that message's recipients.
    """
    mine = _key(me.address)
    to: tuple[Address, ...] = message.reply_to or (message.sender,)
    cc: tuple[Address, ...] = (*message.to, *message.cc) if all else ()
    if all and message.followup_to:
        to, cc = message.followup_to, ()
    elif _key(message.sender.address) == mine and not message.reply_to:
        to, cc = message.to, message.cc if all else ()
    seen = {mine, ""}
    kept_to, kept_cc = _once(to, seen), _once(cc, seen)
    if not kept_to:
        kept_to, kept_cc = kept_cc, ()
    if not kept_to:
        kept_to = _once(to, {""})
    parents = [*(message.references or (message.in_reply_to,)), message.message_id]
    references = tuple(dict.fromkeys(identifier for identifier in parents if identifier))
    if len(references) > REFERENCES_LIMIT:
        references = (references[0], *references[1 - REFERENCES_LIMIT :])
    return Draft(
        sender=me,
        to=kept_to,
        cc=kept_cc,
        subject=f"Re: {_REPLY.sub('', message.subject, count=1) if _REPLY.match(message.subject) else message.subject}",
        text=f"{_attribution(message)}\n{quoted(message.text)}\n",
        in_reply_to=message.message_id,
        references=references,
    )


def forward(path: Path, me: Address, to: tuple[Address, ...] = ()) -> Draft:
    """Forward the message at `path`: its text below its headers, its attachments attached again.

    Raises OSError when the file can't be read. The attachments are read when the draft is composed.
    """
    message = read_message(path)
    subject = _FORWARD.sub("", message.subject, count=1) if _FORWARD.match(message.subject) else message.subject
    rows = [("From", author.described(message.sender)), ("Date", _when(message.date)), ("Subject", message.subject)]
    rows += [(name, ", ".join(map(str, people))) for name, people in (("To", message.to), ("Cc", message.cc))]
    header = "\n".join(f"{name}: {value}" for name, value in rows if value)
    return Draft(
        sender=me,
        to=to,
        subject=f"Fwd: {subject}",
        text=f"\n\n---------- Forwarded message ----------\n{header}\n\n{message.text}",
        enclosures=tuple(Enclosure(path, found.index, found.name) for found in message.attachments if not found.within),
    )


def quoted(text: str) -> str:
    """`text` with every line quoted, without the signature below `-- ` and empty lines at the beginning and the end."""
    lines = text.split("\n")
    if "-- " in lines:
        lines = lines[: lines.index("-- ")]
    body = "\n".join(lines).strip("\n")
    return "\n".join(f">{line}" if line.startswith(">") else f"> {line}".rstrip() for line in body.split("\n"))


def _attribution(message: Message) -> str:
    who = author.described(message.sender) or "somebody"
    when = _when(message.date)
    return f"On {when}, {who} wrote:" if when else f"{who} wrote:"


def _when(date: float | None) -> str:
    return "" if date is None else datetime.fromtimestamp(date, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _once(people: Iterable[Address], seen: set[str]) -> tuple[Address, ...]:
    """Those of `people` whose address isn't in `seen`; adds them to `seen`."""
    kept: list[Address] = []
    for person in people:
        key = _key(person.address)
        if key not in seen:
            seen.add(key)
            kept.append(author.addressed(person))
    return tuple(kept)


def _key(address: str) -> str:
    """A form to compare addresses by."""
    try:
        return normalise_address(address)
    except AddressError:
        return address.strip().casefold()
