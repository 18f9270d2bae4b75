"""Finds the parts of a message in a file, and parses their headers (RFC 2045, 2046).

Reads a file of any size through one block of memory, and never raises on any bytes. mail/mime/content_decoding.py
decodes a part's content; mail/mime/message.py decides which parts are shown and which are attachments.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import BinaryIO

from mail.mime import uuencode
from mail.mime.headers import Headers
from mail.mime.parameters import PARAMETER_TEXT, media_type, transfer_encoding
from mail.mime.parameters import parameters as parameters_of

BLOCK = 256 * 1024
"""Bytes read at once."""
FIELD_LIMIT = 64 * 1024
"""Bytes kept of one header field (Postfix: header_size_limit 100 KiB); the rest is skipped."""
KEPT_LIMIT = 1024 * 1024
"""Bytes kept of all header fields of one message, so that memory stays below 4 MiB."""
NAME_LIMIT = 128
"""Bytes of a field's name; real ones stay below 50."""
LINE_COST = 64
"""Bytes that a header line counts for besides its own, because each line takes time."""
PARSED_LIMIT = 8 * 1024 * 1024
"""Bytes of headers parsed line by line in one message; after them headers are skipped up to the empty line."""
PART_LIMIT = 1000
"""Parts of one message (Postfix has no such limit, ClamAV's is 1,024)."""
DEPTH_LIMIT = 30
"""Nested multiparts and messages (Postfix: mime_nesting_limit 100; real mail has fewer than 10)."""
BOUNDARY_LIMIT = 200
"""Characters of a boundary (RFC 2046 allows 70)."""
EMPTY_LINES = 8
"""Empty lines that may stand before the header."""
_PAD_LIMIT = 100
"""Bytes of white space allowed after a boundary."""
_OVERLAP = BOUNDARY_LIMIT + _PAD_LIMIT + 8


class Defect(StrEnum):
    """A defect of a message, in words for the user."""

    NO_EMPTY_LINE = "a header does not end with an empty line"
    HEADER_CUT = "a header field is too long and was cut"
    NO_BOUNDARY = "a multipart names no boundary"
    UNCLOSED = "a multipart is not closed"
    TOO_MANY_PARTS = "there are too many parts"
    TOO_DEEP = "parts lie too deep within one another"
    HEADERS_TOO_LONG = "the headers are too long to be read whole"
    UNREADABLE = "the message could not be read whole"


MAY_HIDE_PARTS = frozenset({Defect.TOO_MANY_PARTS, Defect.TOO_DEEP, Defect.HEADERS_TOO_LONG, Defect.UNREADABLE})
"""Defects after which parts may have been missed: a check must not call such a message clean."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part. Offsets in bytes of the file: the header begins at `start`, the body at `body` and ends at `end`."""

    index: int
    parent: int
    depth: int
    headers: Headers
    content_type: str
    parameters: Mapping[str, str]
    encoding: str
    disposition: str
    file_name: str
    start: int
    body: int
    end: int
    children: tuple[int, ...]
    removed: tuple[tuple[int, int], ...] = ()
    """Where files are uuencoded in a text: from their `begin` to their `end`."""

    @property
    def charset(self) -> str:
        """The charset that the part names, or ""."""
        return self.parameters.get("charset", "")

    @property
    def is_multipart(self) -> bool:
        """Whether the part only contains other parts."""
        return self.content_type.startswith("multipart/") and bool(self.children)

    @property
    def is_message(self) -> bool:
        """Whether the part is a message (its only child is that message's root)."""
        return self.content_type in _MESSAGE_TYPES and bool(self.children)


@dataclass(frozen=True, slots=True)
class Structure:
    """All parts of a message in file order, then the files uuencoded in its texts. The first part is the message.
    `size` in bytes."""

    parts: tuple[Part, ...]
    defects: tuple[Defect, ...]
    size: int


_MESSAGE_TYPES = frozenset({"message/rfc822", "message/global"})
_IDENTITY = frozenset({"", "7bit", "8bit", "binary"})
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_NAME = re.compile(rb"([!-9;-~]+)[ \t]*")
_EMPTY_LINE = re.compile(rb"\n\r?\n")


def walk(file: BinaryIO) -> Structure:
    """The structure of the message in `file` (seekable). Memory stays below 4 MiB, whatever the size.

    Raises OSError alone, from reading the file.
    """
    return _Walk(file).run()


class _Window:
    """Reads a file through one block of memory that moves forward."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, 2)
        self._base = 0
        self._block = b""

    def _load(self, offset: int) -> None:
        self._file.seek(offset)
        self._block = self._file.read(max(min(BLOCK, self.size - offset), 0))
        self._base = offset

    def line(self, offset: int) -> tuple[bytes, int]:
        """The line at `offset` (its first BLOCK bytes if it is longer) and the offset of the next; b"" at the end."""
        at = offset - self._base
        if 0 <= at < len(self._block):
            end = self._block.find(b"\n", at)
            if end >= 0:
                return self._block[at : end + 1], self._base + end + 1
        self._load(offset)
        end = self._block.find(b"\n")
        if end >= 0:
            return self._block[: end + 1], offset + end + 1
        head, position = self._block, offset + len(self._block)
        while position < self.size:
            self._load(position)
            if not self._block:
                break
            end = self._block.find(b"\n")
            if end >= 0:
                return head, position + end + 1
            position += len(self._block)
        return head, position

    def search(self, pattern: re.Pattern[bytes], offset: int) -> tuple[re.Match[bytes], int] | None:
        """The first match at or after `offset`, and the offset from which its positions count.

        `pattern` must match at most _OVERLAP bytes.
        """
        while offset < self.size:
            at = offset - self._base
            whole = self._base + len(self._block) >= self.size
            if at < 0 or at >= len(self._block) - (0 if whole else _OVERLAP):
                self._load(offset)
                at = 0
                if not self._block:
                    return None
                whole = self._base + len(self._block) >= self.size
            match = pattern.search(self._block, at)
            if match and (whole or match.end() < len(self._block) - 1):
                return match, self._base
            if whole:
                return None
            # A match may begin or continue beyond the block's edge; the byte before it tells CRLF from LF.
            offset = self._base + (max(match.start() - 1, at) if match else len(self._block) - _OVERLAP)
            self._load(offset)
        return None


@dataclass(slots=True)
class _OpenPart:
    """A part whose end isn't known yet."""

    parent: int
    depth: int
    headers: Headers
    content_type: str
    parameters: dict[str, str]
    encoding: str
    disposition: str
    file_name: str
    start: int
    body: int
    end: int = -1


class _Walk:
    def __init__(self, file: BinaryIO) -> None:
        self._window = _Window(file)
        self._parts: list[_OpenPart] = []
        self._children: list[list[int]] = []
        self._open: list[int] = []
        self._levels: list[tuple[bytes, int]] = []
        self._pattern: re.Pattern[bytes] | None = None
        self._defects: dict[Defect, None] = {}
        self._kept = 0
        self._looked = 0

    def run(self) -> Structure:
        position = self._enter(self._first_field(), -1, "text/plain")
        while self._levels:
            assert self._pattern is not None
            # The body's first line may be a boundary: its line end is the header's last.
            found = self._window.search(self._pattern, max(position - 1, 0))
            if found is None:
                self._defect(Defect.UNCLOSED)
                break
            match, base = found
            content = match.start() + base
            if match.string[max(match.start() - 1, 0) : match.start()] == b"\r":
                content -= 1
            level = max(at for at, (boundary, _) in enumerate(self._levels) if boundary == match.group(1))
            container = self._levels[level][1]
            self._close(container, content)
            if level + 1 < len(self._levels):
                self._defect(Defect.UNCLOSED)
            position = match.end() + base
            after = self._window.line(position)[1]
            if match.group(2):
                self._set_levels(self._levels[:level])
                position = after
                continue
            self._set_levels(self._levels[: level + 1])
            if len(self._parts) >= PART_LIMIT:
                self._defect(Defect.TOO_MANY_PARTS)
                break
            digest = self._parts[container].content_type == "multipart/digest"
            position = self._enter(after, container, "message/rfc822" if digest else "text/plain")
        self._close(-1, self._window.size)
        self._find_uuencoded()
        return Structure(
            tuple(self._frozen(index, part) for index, part in enumerate(self._parts)),
            tuple(self._defects),
            self._window.size,
        )

    def _enter(self, start: int, parent: int, default: str) -> int:
        """Open the part whose header begins at `start`; returns the offset of its body, or of its child's body."""
        while True:
            index = len(self._parts)
            found, body = self._headers(start, everything=parent < 0 or self._is_message(parent))
            content_type, parameters = media_type(found.first("content-type"), default)
            if any(len(value) > PARAMETER_TEXT for name, value in found.fields if name.startswith("content-")):
                self._defect(Defect.HEADERS_TOO_LONG)
            disposition, options = parameters_of(found.first("content-disposition") or b"")
            part = _OpenPart(
                parent=parent,
                depth=self._parts[parent].depth + 1 if parent >= 0 else 0,
                headers=found,
                content_type=content_type,
                parameters=parameters,
                encoding=transfer_encoding(found.first("content-transfer-encoding")),
                disposition=disposition,
                file_name=options.get("filename") or parameters.get("name") or "",
                start=start,
                body=body,
            )
            self._parts.append(part)
            self._children.append([])
            if parent >= 0:
                self._children[parent].append(index)
            self._open.append(index)
            within = content_type.startswith("multipart/") or self._is_message(index)
            if within and part.depth >= DEPTH_LIMIT:
                self._defect(Defect.TOO_DEEP)
            elif content_type.startswith("multipart/"):
                self._multipart(index, parameters.get("boundary", ""))
            elif self._is_message(index):
                if len(self._parts) >= PART_LIMIT:
                    self._defect(Defect.TOO_MANY_PARTS)
                    return body
                start, parent, default = body, index, "text/plain"
                continue
            return body

    def _first_field(self) -> int:
        """Where the header begins: after a byte order mark and empty lines, if a field follows them."""
        mark = len(_BYTE_ORDER_MARK) if self._window.line(0)[0].startswith(_BYTE_ORDER_MARK) else 0
        position = mark
        for _ in range(EMPTY_LINES):
            line, after = self._window.line(position)
            if line.strip(b"\r\n"):
                break
            position = after
        name = _NAME.match(line)
        return position if name and line[name.end() : name.end() + 1] == b":" else mark

    def _find_uuencoded(self) -> None:
        """Make a part of each uuencoded file in a text, as if it were attached; it lies within the text's part."""
        position, end = 0, -1
        for index, part in enumerate(list(self._parts)):
            if part.content_type != "text/plain" or part.encoding not in _IDENTITY:
                continue
            position = max(position, part.body - 1)
            # Each search goes on where the last one ended, so that all of them read the file once.
            while found := self._window.search(uuencode.BEGIN, position):
                match, base = found
                first = match.end() + base
                if first > part.end:
                    position = match.start() + base
                    break
                position = first - 1
                if not uuencode.is_line(self._window.line(first)[0]):
                    continue
                if end < first:
                    closing = self._window.search(uuencode.END, position)
                    end = self._window.size + 1 if closing is None else closing[0].end() + closing[1]
                if end > part.end or len(self._parts) >= PART_LIMIT:
                    break
                self._add_uuencoded(index, part, match, (match.start() + base + 1, first, end))
                position = end - 1
            else:
                return

    def _add_uuencoded(
        self, parent: int, text: _OpenPart, match: re.Match[bytes], places: tuple[int, int, int]
    ) -> None:
        name = match.group(2).decode("utf-8", "replace").strip()
        start, body, end = places
        self._children[parent].append(len(self._parts))
        self._children.append([])
        self._parts.append(
            _OpenPart(
                parent=parent,
                depth=text.depth + 1,
                headers=Headers(),
                content_type=mimetypes.guess_type(name)[0] or "application/octet-stream",
                parameters={},
                encoding="base64" if match.group(1) else "x-uuencode",
                disposition="attachment",
                file_name=name,
                start=start,
                body=body,
                end=end,
            )
        )

    def _is_message(self, index: int) -> bool:
        part = self._parts[index]
        return part.content_type in _MESSAGE_TYPES and part.encoding in _IDENTITY

    def _multipart(self, index: int, boundary: str) -> None:
        marker = boundary.rstrip().encode("latin-1", "replace")
        if not marker or len(marker) > BOUNDARY_LIMIT or b"\n" in marker:
            self._defect(Defect.NO_BOUNDARY)
            return
        self._set_levels([*self._levels, (marker, index)])

    def _set_levels(self, levels: list[tuple[bytes, int]]) -> None:
        if levels == self._levels and self._pattern is not None:
            return
        self._levels = levels
        markers = b"|".join(re.escape(boundary) for boundary, _ in reversed(levels))
        self._pattern = re.compile(rb"\n--(" + markers + rb")(--)?[ \t]{0,%d}(?=\r?\n|\Z)" % _PAD_LIMIT)

    def _close(self, container: int, end: int) -> None:
        """Close every open part within `container`; -1: all."""
        while self._open and self._open[-1] != container:
            part = self._parts[self._open.pop()]
            part.end = max(end, part.body)

    def _headers(self, start: int, *, everything: bool) -> tuple[Headers, int]:
        """The header at `start`, and the offset of the body. Of a part only the MIME fields are kept."""
        kept: list[tuple[str, bytearray]] = []
        current: bytearray | None = None
        room = 0
        position = start
        while True:
            line, after = self._window.line(position)
            if not line or line in (b"\n", b"\r\n"):
                break
            if self._looked > PARSED_LIMIT or self._kept > KEPT_LIMIT:
                self._defect(Defect.HEADERS_TOO_LONG)
                after = self._skipped(position)
                break
            self._looked += min(after - position, BLOCK) + LINE_COST
            if line[0] in b" \t" and position > start:
                if current is not None:
                    room = self._add(current, line.rstrip(b"\r\n"), room)
                position = after
                continue
            match = _NAME.match(line)
            at = match.end() if match else 0
            if match is None or line[at : at + 1] != b":" or self._delimits(line):
                if position == start and line.startswith((b"From ", b">From ")):
                    position = after
                    continue
                self._defect(Defect.NO_EMPTY_LINE)
                after = position
                break
            name = match.group(1)[:NAME_LIMIT].lower().decode("latin-1")
            current, room = None, FIELD_LIMIT
            if everything or name.startswith("content-"):
                current = bytearray()
                room = self._add(current, line[at + 1 :].strip(), room)
                kept.append((name, current))
                # An empty field counts too: a flood of them takes memory as well.
                self._kept += NAME_LIMIT
            position = after
        return Headers(tuple((name, bytes(value)) for name, value in kept)), after

    def _delimits(self, line: bytes) -> bool:
        return line.startswith(b"--") and self._pattern is not None and bool(self._pattern.match(b"\n" + line))

    def _add(self, field: bytearray, value: bytes, room: int) -> int:
        """Add `value` to a field that has `room` bytes left; returns the room left."""
        if len(value) > room:
            self._defect(Defect.HEADER_CUT)
            value = value[:room]
        field += value
        self._kept += len(value)
        return room - len(value)

    def _skipped(self, position: int) -> int:
        found = self._window.search(_EMPTY_LINE, position)
        return found[0].end() + found[1] if found else self._window.size

    def _defect(self, defect: Defect) -> None:
        self._defects[defect] = None

    def _frozen(self, index: int, part: _OpenPart) -> Part:
        return Part(
            index=index,
            parent=part.parent,
            depth=part.depth,
            headers=part.headers,
            content_type=part.content_type,
            parameters=part.parameters,
            encoding=part.encoding,
            disposition=part.disposition,
            file_name=part.file_name,
            start=part.start,
            body=part.body,
            end=part.end,
            children=tuple(self._children[index]),
            removed=()
            if part.content_type.startswith(("multipart/", "message/"))
            else tuple((self._parts[child].start, self._parts[child].end) for child in self._children[index]),
        )
