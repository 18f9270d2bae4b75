"""Renders HTML as plain text that reads well; nothing is fetched, run or hidden.

Lexbor (selectolax) parses as browsers do (WHATWG HTML); this module renders the tree. Links become numbered notes with
their real targets, images their alternative text, data tables aligned columns. Input, output, links and indentation
are bounded. Knows nothing of messages.
"""

from __future__ import annotations

import html as entities
import re
import unicodedata
from dataclasses import dataclass, field

from selectolax.lexbor import LexborHTMLParser, LexborNode

from storage.errors import P2PMailError

INPUT_LIMIT = 256 * 1024
"""Characters of HTML that are read; newsletters reach some 100 KiB."""
DEPTH_LIMIT = 12
"""Nested quotations and lists that are indented: each level indents every line, so the cost is quadratic."""
LINK_LIMIT = 500
"""Links that get a note; newsletters have some 100."""
TARGET_LIMIT = 1000
"""Characters of a link's target that are shown."""
OUTPUT_LIMIT = 1024 * 1024
"""Characters of output; quotations and lists can be longer than their HTML."""
NESTING_LIMIT = 2000
"""Nested open elements: Lexbor's time is quadratic in them (40 ms at this limit). Real mail has under 100."""
COLUMN_LIMIT = 40
"""Characters of a cell in a table that is shown in columns."""
TABLE_LIMIT = 100
"""Characters of a line of such a table."""

_HIDDEN = frozenset({"head", "script", "style", "title", "template", "svg", "iframe", "math", "noframes", "object"})
_SEPARATED = frozenset({"p", "h1", "h2", "h3", "h4", "h5", "h6", "dl", "pre", "fieldset", "figure", "details"})
"""Elements with an empty line before and after them."""
_BLOCKS = _SEPARATED | frozenset(
    "address article aside body center dd div dt figcaption footer form header html legend li main nav option section"  # noqa: SIM905
    " summary table tbody tfoot thead tr caption hr ul ol blockquote".split()
)
_CELLS = frozenset({"td", "th"})
_SHAPING = _BLOCKS | _CELLS | {"a", "br", "img"}
"""Elements that change the text; of all others only the content counts."""
_UNDERLINES = {"h1": "=", "h2": "-"}
_SPACE = " \t\n\r\f"


class _TooLong(P2PMailError):
    """The text has grown past OUTPUT_LIMIT."""


@dataclass
class _Notes:
    """The numbered targets of links."""

    numbers: dict[str, int] = field(default_factory=dict)

    def number(self, target: str) -> int | None:
        if target not in self.numbers and len(self.numbers) >= LINK_LIMIT:
            return None
        return self.numbers.setdefault(target, len(self.numbers) + 1)


@dataclass
class _List:
    """A list that is being written; `count` numbers the items of an ordered one."""

    ordered: bool
    count: int = 0


class _Writer:
    """Writes the text: words continue a line until a block ends it; each line gets the current indentation."""

    def __init__(self, notes: _Notes) -> None:
        self.lines: list[str] = []
        self._notes = notes
        self._pieces: list[str] = []
        self._space = False
        self._gap: str | None = None  # an empty line is due, with this indentation
        self._first: str | None = None  # what the next line begins with instead of the innermost indentation
        self._indents: list[str] = []
        self._indent = ""
        self._lists: list[_List] = []
        self._pre = 0
        self._length = 0
        self._links: list[tuple[str, int, int]] = []  # target; lines and pieces before its text

    # -- words and lines

    def text(self, text: str) -> None:
        """Write text of the document; white space collapses except in `pre`."""
        if self._pre:
            first, *more = text.split("\n")
            self._add(first)
            for line in more:
                self.end_line(keep=True)
                self._add(line)
            return
        words = text.split()
        if not words:
            self._space = self._space or bool(text)
            return
        if text[0] in _SPACE:
            self._space = True
        self._add(" ".join(words))
        self._space = text[-1] in _SPACE

    def _add(self, words: str) -> None:
        if words:
            if self._space and self._pieces and not self._pieces[-1].endswith(" "):
                self._pieces.append(" ")
            self._space = False
            self._pieces.append(words)

    def end_line(self, *, keep: bool = False) -> None:
        """End the line unless it is empty; with `keep` end an empty one too."""
        self._space = False
        if not (self._pieces or keep):
            return
        line = "".join(self._pieces).rstrip()
        self._pieces.clear()
        if not (line or keep):
            return
        if self._gap is not None and self.lines and self.lines[-1].strip("> "):
            self._put(self._gap.rstrip())
        self._gap = None
        indent, self._first = self._indent if self._first is None else self._first, None
        self._put((indent + line).rstrip())

    def _put(self, line: str) -> None:
        self._length += len(line) + 1
        if self._length > OUTPUT_LIMIT:
            raise _TooLong
        self.lines.append(line)

    def block(self, *, apart: bool = False) -> None:
        """A block begins or ends here."""
        self.end_line()
        if apart and (self._gap is None or len(self._indent) < len(self._gap)):
            self._gap = self._indent

    # -- elements

    def enter(self, tag: str, node: LexborNode) -> None:
        """An element begins."""
        if tag == "a":
            self._open_link(node)
        elif tag == "br":
            self.end_line(keep=True)
        elif tag == "img":
            alt = " ".join((node.attributes.get("alt") or "").split())
            if alt:
                self._add(f"[image: {alt}]")
        elif tag == "hr":
            self.block(apart=True)
            self._add("-" * 20)
            self.block(apart=True)
        elif tag in _CELLS:
            self._space = True
        elif tag in _BLOCKS:
            self.block(apart=tag in _SEPARATED or self._outermost(tag))
            self._open_block(tag, node)

    def leave(self, tag: str) -> None:
        """An element ends."""
        if tag == "a":
            self._close_link()
        elif tag in _CELLS:
            self._space = True
        elif tag in _BLOCKS and tag != "hr":
            if tag in _UNDERLINES:
                self._underline(_UNDERLINES[tag])
            self.end_line()
            self._close_block(tag)
            self.block(apart=tag in _SEPARATED or self._outermost(tag))

    def _underline(self, mark: str) -> None:
        line = "".join(self._pieces).strip()
        self.end_line()
        if line:
            self._put(self._indent + mark * min(_width(line), TABLE_LIMIT))

    def _outermost(self, tag: str) -> bool:
        return tag == "blockquote" or (tag in ("ul", "ol") and not self._lists)

    def _open_block(self, tag: str, node: LexborNode) -> None:
        if tag in ("ul", "ol"):
            start = str(node.attributes.get("start") or "1") if tag == "ol" else "1"
            self._lists.append(_List(tag == "ol", (int(start) if start.isdecimal() and len(start) < 7 else 1) - 1))
            self._deeper("  ")
        elif tag == "blockquote":
            self._deeper("> ")
        elif tag == "dd":
            self._deeper("    ")
        elif tag == "pre":
            self._pre += 1
            self._deeper("    ")
        elif tag == "li":
            mark = "- "
            if self._lists and self._lists[-1].ordered:
                self._lists[-1].count += 1
                mark = f"{self._lists[-1].count}. "
            before = self._indent
            self._deeper(" " * len(mark))
            self._first = before + mark

    def _close_block(self, tag: str) -> None:
        if tag in ("ul", "ol"):
            self._lists.pop()
        if tag == "pre":
            self._pre -= 1
        if tag == "li":
            self._first = None
        if tag in ("ul", "ol", "blockquote", "dd", "pre", "li"):
            self._indents.pop()
            self._indent = "".join(self._indents[:DEPTH_LIMIT])

    def _deeper(self, indent: str) -> None:
        self._indents.append(indent)
        self._indent = "".join(self._indents[:DEPTH_LIMIT])

    # -- links

    def _open_link(self, node: LexborNode) -> None:
        target = (node.attributes.get("href") or "").strip()
        self._links.append(("" if target.startswith("#") else target, len(self.lines), len(self._pieces)))

    def _close_link(self) -> None:
        """Put the note's number after the link's text, unless the text is the target itself."""
        target, lines, pieces = self._links.pop()
        ended = len(self.lines) > lines  # blocks and breaks within the link ended the line that it began in
        written = "".join([*self.lines[lines:], *self._pieces] if ended else self._pieces[pieces:]).strip()
        if not target or not written or written in (target, target.removeprefix("mailto:")):
            return
        if len(target) > TARGET_LIMIT:
            target = f"{target[:TARGET_LIMIT]}... ({len(target)} characters)"
        number = self._notes.number(target)
        if number is None:
            return
        if self._pieces:
            self._pieces.append(f" [{number}]")
        else:
            self.lines[-1] += f" [{number}]"


def as_text(source: str) -> tuple[str, bool]:
    """`source` (HTML) as text, and whether it was cut at a limit. Never raises.

    Lines are not wrapped. The result isn't safe for a terminal before mail/mime/sanitize.py.
    """
    cut = len(source) > INPUT_LIMIT
    source = source[:INPUT_LIMIT]
    if _too_deep(source):
        return _without_tags(source), True
    notes = _Notes()
    writer = _Writer(notes)
    try:
        _write(LexborHTMLParser(source).root, writer)
        writer.end_line()
    except _TooLong:
        cut = True
    lines = _without_double_blanks(writer.lines)
    if notes.numbers:
        lines += ["", *(f"[{number}] {target}" for target, number in notes.numbers.items())]
    text = "\n".join(lines).strip("\n")
    return text + "\n" if text else "", cut


def words(source: str) -> str:
    """The words of `source` (HTML), for searching: tags removed, entities decoded. Never raises."""
    source = source[:INPUT_LIMIT]
    if _too_deep(source):
        return _without_tags(source)
    tree = LexborHTMLParser(source)
    tree.strip_tags(sorted(_HIDDEN - {"head"}))
    return tree.text(separator=" ")


def _write(root: LexborNode | None, writer: _Writer) -> None:
    """Render the tree in document order, without recursion."""
    node = root
    end = None if root is None else root.mem_id
    while node is not None:
        tag = node.tag
        below = None
        if tag == "-text":
            writer.text(node.text_content or "")
        elif tag not in _HIDDEN and tag is not None:
            rows = _data_table(node, writer) if tag == "table" else None
            if rows is not None:
                _write_table(rows, writer)
            else:
                if tag in _SHAPING:
                    writer.enter(tag, node)
                below = node.child
                if below is None and tag in _SHAPING:
                    writer.leave(tag)
        if below is not None:
            node = below
            continue
        while node is not None and node.mem_id != end and node.next is None:
            node = node.parent
            if node is not None and node.tag in _SHAPING:
                writer.leave(node.tag)
        node = None if node is None or node.mem_id == end else node.next


# -- tables of data

_Cell = tuple[str, bool]
"""A cell's text, and whether it is a heading."""


def _data_table(table: LexborNode, writer: _Writer) -> list[list[_Cell]] | None:
    """The rows of a table whose cells are short; None for a table that is used for layout, as in newsletters."""
    if table.css_first("table table, ul, ol, p + p, img, div div") is not None:
        return None
    rows: list[list[_Cell]] = []
    for row in table.css("tr"):
        cells: list[_Cell] = []
        for cell in row.iter():
            if cell.tag not in _CELLS:
                continue
            inner = _Writer(writer._notes)
            child = cell.child
            while child is not None:
                _write(child, inner)
                child = child.next
            inner.end_line()
            if len(inner.lines) > 1 or (inner.lines and _width(inner.lines[0]) > COLUMN_LIMIT):
                return None
            cells.append((inner.lines[0] if inner.lines else "", cell.tag == "th"))
        if cells:
            rows.append(cells)
    columns = max(map(len, rows), default=0)
    if len(rows) < 2 or columns < 2:
        return None
    widths = _widths(rows, columns)
    return rows if sum(widths) + 2 * (columns - 1) <= TABLE_LIMIT else None


def _widths(rows: list[list[_Cell]], columns: int) -> list[int]:
    return [max((_width(row[at][0]) for row in rows if at < len(row)), default=0) for at in range(columns)]


def _write_table(rows: list[list[_Cell]], writer: _Writer) -> None:
    columns = max(map(len, rows))
    widths = _widths(rows, columns)
    figures = [all(_is_figure(row[at][0]) for row in rows if at < len(row) and not row[at][1]) for at in range(columns)]
    writer.block(apart=True)
    for number, row in enumerate(rows):
        cells = [_aligned(text, widths[at], right=figures[at]) for at, (text, _) in enumerate(row)]
        writer._add("  ".join(cells).rstrip())
        writer.end_line()
        if number == 0 and all(heading for _, heading in row):
            writer._add("  ".join("-" * width for width in widths))
            writer.end_line()
    writer.block(apart=True)


_FIGURE = re.compile(r"[-+−]?[\d.,'\s]*\d[\d.,'\s]*\s?[%€$£]?|[€$£]\s?[\d.,']+|")


def _is_figure(text: str) -> bool:
    return _FIGURE.fullmatch(text) is not None


def _aligned(text: str, width: int, *, right: bool) -> str:
    room = " " * (width - _width(text))
    return room + text if right else text + room


def _width(text: str) -> int:
    """The terminal columns of `text`."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def _without_double_blanks(lines: list[str]) -> list[str]:
    """`lines` without consecutive empty lines."""
    kept: list[str] = []
    for line in lines:
        if line or (kept and kept[-1]):
            kept.append(line)
    return kept


# -- what is nested too deeply to be parsed

_OPENING = re.compile(r"<(/?)([a-z][a-z0-9]*)", re.IGNORECASE)
_NEVER_OPEN = frozenset("area base br col embed hr img input link meta source track wbr p option".split())  # noqa: SIM905
_MARKUP = re.compile(
    r"<!--.*?(?:--!?>|\Z)|<(script|style|title|template|svg|iframe)\b.*?(?:</\1\b[^>]{0,200}>?|\Z)|<[^<>]{0,2000}>",
    re.IGNORECASE | re.DOTALL,
)


def _too_deep(source: str) -> bool:
    """Whether more than NESTING_LIMIT elements may be open at once."""
    if source.count("<") - source.count("</") <= 2 * NESTING_LIMIT:
        return False  # not even if none was ever closed, or so little more that it costs nothing
    depth = 0
    for match in _OPENING.finditer(source):
        if match[2].lower() not in _NEVER_OPEN:
            depth += -1 if match[1] else 1
            if depth > NESTING_LIMIT:
                return True
            depth = max(depth, 0)
    return False


def _without_tags(source: str) -> str:
    return entities.unescape(_MARKUP.sub(" ", source))
