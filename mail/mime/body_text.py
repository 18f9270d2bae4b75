"""Chooses the parts of a message that are shown, and puts their texts together.

A message is shown in file order: texts, the messages within it with their headers above them, and for what can't be
shown a line that names it. Of alternatives one is chosen, plain text before HTML; an invitation among them is shown
too. mail/mime/part_text.py says what a part holds that is neither plain text nor HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from mail.mime import calendar, charset, content_decoding, html, part_text, sanitize
from mail.mime.parser import Part, Structure

MESSAGES_DEEP = 8
"""Messages within messages that are shown; what lies deeper can be saved."""
CUT = "[The text is longer than is shown here; save the message to see all of it.]"
NOT_BASE64 = "(not base64)"
"""Below a text that is called base64, and is shown as it is because it isn't."""
TOO_DEEP = "[Messages that lie deeper within one another are not shown; save the attachment to open them.]"


@dataclass(frozen=True, slots=True)
class Layout:
    """What is shown, in order: parts, and texts of ours. `attached`: the parts that can be saved, and whether each
    lies in a message within this one."""

    shown: list[Part | str] = field(default_factory=list)
    attached: list[tuple[Part, bool]] = field(default_factory=list)


def lay_out(file: BinaryIO, structure: Structure) -> Layout:
    """Decide which parts of a message are shown, and which are attachments. Raises OSError, from reading `file`."""
    layout = Layout()
    _place(file, structure.parts, structure.parts[0], layout, 0)
    return layout


def read(
    file: BinaryIO, shown: Sequence[Part | str], limit: int, *, fast: bool = False, hint: str = ""
) -> tuple[str, bool, bool]:
    """The text of what is shown; whether HTML was among it; whether it was cut at `limit` bytes.

    `fast`: the words alone, for the index. `hint`: the charset of parts that name none. Raises OSError.
    """
    pieces: list[str] = []
    from_html = False
    for each in shown:
        if isinstance(each, str):
            pieces.append(sanitize.block(each))
            continue
        data, more = _content(file, each, limit)
        raw = content_decoding.was_never_base64(file, each)
        if raw is not None and len(data) <= len(raw):
            data = raw
        limit -= len(data)
        named = each.charset or (charset.declared(data) if each.content_type == "text/html" else "")
        text = charset.decode(data, named, hint=hint)
        if each.content_type == "text/html":
            from_html = True
            text, shorter = (html.words(text), False) if fast else html.as_text(text)
            more = more or shorter
        elif fast and each.content_type == "text/calendar":
            text = calendar.searched(text)
        else:
            text = (part_text.of(each) or str)(text)
        pieces.append(sanitize.block(text).strip("\n"))
        if raw is not None and not fast:
            pieces.append(NOT_BASE64)
        if more or limit <= 0:
            if not fast:
                pieces.append(CUT)
            return "\n\n".join(pieces) + "\n", from_html, True
    text = "\n\n".join(piece for piece in pieces if piece)
    return (text + "\n" if text else ""), from_html, False


def _content(file: BinaryIO, part: Part, limit: int) -> tuple[bytes, bool]:
    """The decoded content of a part, without the files that are uuencoded in it; whether it is longer than `limit`."""
    if not part.removed:
        return content_decoding.head(file, part, limit)
    pieces: list[bytes] = []
    position = part.body
    for start, end in (*part.removed, (part.end, part.end)):
        file.seek(position)
        pieces.append(file.read(min(start - position, limit + 1)))
        position = end
    data = b"".join(pieces)
    return data[:limit], len(data) > limit


def _place(file: BinaryIO, parts: Sequence[Part], part: Part, layout: Layout, deep: int) -> None:
    if part.is_message:
        _place_message(file, parts, part, layout, deep)
    elif part.is_multipart:
        chosen = _alternative(file, parts, part) if part.content_type == "multipart/alternative" else None
        if part_text.says(part):
            layout.shown.append(part_text.says(part))
        for child in (parts[index] for index in part.children):
            if chosen is None or child is chosen or not _only_text(parts, child):
                _place(file, parts, child, layout, deep)
    elif _readable(part):
        layout.shown.append(part)
        if part.file_name:
            layout.attached.append((part, deep > 0))
        layout.attached.extend((parts[index], deep > 0) for index in part.children)
    else:
        if part_text.says(part):
            layout.shown.append(part_text.says(part))
        layout.attached.append((part, deep > 0))


def _place_message(file: BinaryIO, parts: Sequence[Part], part: Part, layout: Layout, deep: int) -> None:
    if deep < MESSAGES_DEEP:
        inner = parts[part.children[0]]
        layout.shown.append(part_text.forwarded(inner))
        _place(file, parts, inner, layout, deep + 1)
    else:
        layout.shown.append(TOO_DEEP)
    layout.attached.append((part, deep > 0))


def _readable(part: Part) -> bool:
    """Whether the part is text to show rather than an attachment."""
    if part.disposition == "attachment" and not part.content_type.startswith("message/"):
        return False
    return part.content_type in ("text/plain", "text/html") or part_text.of(part) is not None


def _only_text(parts: Sequence[Part], part: Part) -> bool:
    """Whether an alternative that wasn't chosen has only the same text in another format."""
    if part.is_multipart:
        # The images of an HTML text belong to it.
        return part.content_type == "multipart/related" or all(_only_text(parts, parts[at]) for at in part.children)
    return _readable(part) and part.content_type != "text/calendar"


def _alternative(file: BinaryIO, parts: Sequence[Part], part: Part) -> Part:
    """The alternative to show: the first with plain text that isn't empty, else with HTML, else with other text."""
    best: dict[str, Part] = {}
    for child in (parts[index] for index in part.children):
        for kind in _kinds(file, parts, child):
            best.setdefault(kind, child)
    for kind in ("text/plain", "text/html"):
        if kind in best:
            return best[kind]
    return next(iter(best.values()), parts[part.children[0]])


def _kinds(file: BinaryIO, parts: Sequence[Part], part: Part) -> set[str]:
    """The kinds of text in a part that aren't empty."""
    if part.is_multipart:
        return set().union(*(_kinds(file, parts, parts[at]) for at in part.children))
    if not _readable(part):
        return set()
    empty = (
        part.content_type == "text/plain"
        and part.end - part.body < 64
        and not content_decoding.head(file, part, 64)[0].strip()
    )
    return set() if empty else {part.content_type}
