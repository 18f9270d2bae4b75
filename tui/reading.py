"""A message as lines of the screen: header, attachments, notices, and its text, wrapped and with quotes told apart.
 Pure: values in, lines out, each a tuple of (text, name of its style). All text was made harmless by
mail/mime/sanitize.py when the message was read; the header passes there again because it costs nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from rich.cells import cell_len, chop_cells

from mail.mailbox import QuarantinedMessage
from mail.mime import sanitize

if TYPE_CHECKING:
    from mail.mime.message import Address, Message

Piece = tuple[str, str]
Line = tuple[Piece, ...]

TEXT_WIDTH = 96
"""Cells of text in a line: longer ones are hard to read."""
PEOPLE = 12
"""Recipients named before "and 30 more"."""
LINES = 60_000
"""Lines that are laid out; mail.mime.message bounds the text to 1 MiB, which can still be all line ends."""

PLACES = 5000
"""Places that are found; nobody steps through more."""

_LINK = re.compile(r"\b(?:https?|ftp)://[^\s<>\"']+|\bmailto:[^\s<>\"']+")
_QUOTE = re.compile(r"^(?:\s?>)+ ?")


@dataclass(frozen=True, slots=True)
class Match:
    """Where words were found: line, and columns as characters of that line."""

    line: int
    start: int
    end: int


class LaidOut:
    """A layout that is kept for the last width, so that a thread can make it before the screen asks for it."""

    def __init__(self, lay_out: Callable[[int], tuple[Line, ...]]) -> None:
        self._lay_out = lay_out
        self._kept: tuple[int, tuple[Line, ...]] = (-1, ())

    def __call__(self, width: int) -> tuple[Line, ...]:
        """The lines for a window of `width` cells."""
        if self._kept[0] != width:
            self._kept = (width, self._lay_out(width))
        return self._kept[1]


def lay_out(
    message: Message, width: int, local: Callable[[float], datetime] = datetime.fromtimestamp
) -> tuple[Line, ...]:
    """The message for a window of `width` cells."""
    width = max(20, width)
    lines: list[Line] = [((piece, "subject"),) for piece in wrap(message.subject or "(no subject)", width)]
    lines += _fields(_header(message, local), width)
    for number, attached in enumerate(message.attachments, 1):
        text = f"{number}. {attached.name}  {size(attached.size)}"
        label = "Attached" if number == 1 else ""
        lines.append(((f"{label:<9}", "label"), (_cut(text, width - 9), "attachment")))
    lines += _notices(message, width)
    lines.append((("─" * width, "rule"),))
    lines += _body(message.text, min(width, TEXT_WIDTH))
    if not message.text.strip():
        lines.append((("(no text)", "notice"),))
    return tuple(lines[:LINES])


def lay_out_suspect(suspect: QuarantinedMessage, width: int) -> tuple[Line, ...]:
    """All that is shown of a message in Quarantine."""
    width = max(20, width)
    lines: list[Line] = [(("In Quarantine: not opened", "warning"),)]
    lines += [((piece, "warning"),) for piece in wrap(suspect.found, width)]
    help_text = "Only its header is shown. d deletes it for good; Ctrl+R releases it to the Inbox, if you are sure."
    lines += [((piece, "notice"),) for piece in wrap(help_text, width)]
    lines.append((("─" * width, "rule"),))
    for name, value in suspect.headers[:200]:
        lines += _fields([(name.title(), sanitize.line(value[:2000]))], width)
    return tuple(lines)


def lay_out_source(source: str, width: int) -> tuple[Line, ...]:
    """A message's source, every line as it is, long ones cut into pieces."""
    lines: list[Line] = []
    for text in source.split("\n"):
        lines += [((piece, "plain"),) for piece in (chop_cells(text, max(20, width)) or [""])]
        if len(lines) > LINES:
            break
    return tuple(lines[:LINES])


def find(lines: Sequence[Line], words: str) -> list[Match]:
    """Every place where `words` stand in one line, whatever their case."""
    wanted = words.casefold()
    if not wanted:
        return []
    found = []
    for number, line in enumerate(lines):
        text = "".join(piece for piece, _ in line)
        folded = text.casefold()
        if len(folded) != len(text):
            folded = text.lower()
        start = folded.find(wanted)
        while start >= 0:
            found.append(Match(number, start, start + len(wanted)))
            if len(found) == PLACES:
                return found
            start = folded.find(wanted, start + len(wanted))
    return found


def wrap(text: str, width: int) -> list[str]:
    """`text` (one line) in pieces of at most `width` cells, broken at spaces where there are any; "" gives [""]."""
    if len(text) <= width and (text.isascii() or cell_len(text) <= width):
        return [text]
    lines: list[str] = []
    line, used = "", 0
    for word in re.findall(r"\s*\S+|\s+$", text):
        length = cell_len(word)
        if line and used + length > width:
            lines.append(line.rstrip())
            word = word.lstrip()
            line, used, length = "", 0, cell_len(word)
        if length > width:
            *full, word = chop_cells(word, width)
            lines += full
            line, used, length = "", 0, cell_len(word)
        line += word
        used += length
    lines.append(line.rstrip())
    return lines


def size(count: int) -> str:
    """Bytes for people: "5.0 MB"."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("the last unit takes everything")


def _header(message: Message, local: Callable[[float], datetime]) -> list[tuple[str, str]]:
    fields = [
        ("From", message.author or str(message.sender)),
        ("To", _people(message.to)),
        ("Cc", _people(message.cc)),
        ("Bcc", _people(message.bcc)),
    ]
    if message.date is not None:
        try:
            fields.append(("Date", f"{local(message.date):%a %d %b %Y %H:%M}"))
        except (OverflowError, OSError, ValueError):
            fields.append(("Date", "not a date"))
    if message.reply_to and message.reply_to != (message.sender,):
        fields.append(("Reply-To", _people(message.reply_to)))
    return [(name, sanitize.line(value)) for name, value in fields if value]


def _people(people: Sequence[Address]) -> str:
    names = ", ".join(str(person) for person in people[:PEOPLE])
    return names if len(people) <= PEOPLE else f"{names} and {len(people) - PEOPLE} more"


def _fields(fields: Iterable[tuple[str, str]], width: int) -> Iterator[Line]:
    for name, value in fields:
        label = f"{name:<8} "
        for number, piece in enumerate(wrap(value, max(10, width - len(label)))):
            yield ((label if number == 0 else " " * len(label), "label"), (piece, "value"))


def _notices(message: Message, width: int) -> Iterator[Line]:
    if message.defects:
        for piece in wrap(f"Odd: {'; '.join(message.defects)}.", width):
            yield ((piece, "notice"),)
    if message.from_html:
        yield (("Shown as text; the message is HTML. Nothing was loaded from the network.", "notice"),)


def _body(text: str, width: int) -> Iterator[Line]:
    signature = False
    for count, line in enumerate(text.rstrip("\n").split("\n")):
        if count > LINES:
            return
        signature = signature or line in ("-- ", "--")
        quote = _QUOTE.match(line)
        if quote is None:
            for piece in wrap(line, width):
                yield (((piece, "signature"),) if signature else _linked(piece))
            continue
        depth = quote.group().count(">")
        prefix = "│ " * min(depth, 5)
        for piece in wrap(line[quote.end() :], max(10, width - len(prefix))):
            yield ((prefix + piece, f"quote{min(depth, 3)}"),)


def _linked(text: str) -> Line:
    if "://" not in text and "mailto:" not in text:
        return ((text, "plain"),)
    pieces: list[Piece] = []
    at = 0
    for match in _LINK.finditer(text):
        pieces += [(text[at : match.start()], "plain"), (match.group(), "link")]
        at = match.end()
    pieces.append((text[at:], "plain"))
    return tuple(piece for piece in pieces if piece[0])


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else chop_cells(text, max(1, width - 1))[0] + "…"
