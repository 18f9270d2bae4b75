"""HTML as plain text, through html2text: nothing is fetched, run or hidden.

Links become numbered notes with their real targets, pictures their alternative text. Input is bounded, and so is the
time: what html2text can't do in it is done by a plain removal of tags. No message is known here.
"""

from __future__ import annotations

import html as entities
import re
import time
from collections.abc import Callable

import html2text

INPUT_LIMIT = 256 * 1024
"""Characters of HTML that are read; newsletters reach some 100 KiB."""
TIME_LIMIT = 2.0
"""Seconds given to html2text; an honest 256 KiB takes about a fifth of it."""
DEPTH_LIMIT = 12
"""Quotations and lists within one another that are shown as such: each indents every line, so depth costs squares."""
LINK_LIMIT = 500
"""Links that get a note; newsletters have some 100."""
TARGET_LIMIT = 1000
"""Characters of a link's target that are shown."""
UNBALANCED_LIMIT = 500
"""`<` without `>`, or the reverse, beyond which it isn't HTML: html.parser looks to the end for each of them."""
OUTPUT_LIMIT = 1024 * 1024
"""Characters of text made; tables and quotations can be longer than their HTML."""


class _TooMuch(Exception):
    """The HTML takes too long or grows too large for html2text."""


class _Converter(html2text.HTML2Text):
    """html2text with links and pictures our way, no Markdown escapes, and bounds on time, depth and output."""

    def __init__(self, deadline: float, clock: Callable[[], float]) -> None:
        super().__init__(bodywidth=0)
        self.unicode_snob = True
        self.ignore_emphasis = True
        self.ignore_tables = True
        self.ul_item_mark = "-"
        self._deadline = deadline
        self._clock = clock
        self._events = 0
        self._written = 0
        self._depth = 0
        self._ignored = 0
        self._target = ""
        self._from = 0
        self._notes: dict[str, int] = {}

    def outtextf(self, s: str) -> None:
        self._written += len(s)
        if self._written > OUTPUT_LIMIT:
            raise _TooMuch
        self._tick()
        super().outtextf(s)

    def handle_data(self, data: str, entity_char: bool = False) -> None:
        # As an "entity" it is not escaped for Markdown, which nobody will render.
        super().handle_data(data, True)

    def handle_tag(self, tag: str, attrs: dict[str, str | None], start: bool) -> None:
        self._tick()
        if tag == "img":
            alt = (attrs.get("alt") or "").strip() if start else ""
            if alt:
                self.handle_data(f"[image: {alt}]")
        elif tag == "a":
            self._end_link()
            target = (attrs.get("href") or "").strip() if start else ""
            if target and not target.startswith("#"):
                self._target, self._from = target, len(self.outtextlist)
        elif tag in ("td", "th"):
            self.space = True
        elif tag in _UNMARKED or (tag in _NESTING and not self._nest(start)):
            return
        else:
            super().handle_tag(tag, attrs, start)

    def finish(self) -> str:
        self.close()
        self._end_link()
        text = super().finish()
        if not self._notes:
            return text
        notes = "\n".join(f"[{number}] {target}" for target, number in self._notes.items())
        return f"{text.rstrip()}\n\n{notes}\n"

    def _end_link(self) -> None:
        """Put the note's number behind the link's text, unless that text is the target itself."""
        target, self._target = self._target, ""
        if not target:
            return
        written = "".join(self.outtextlist[self._from :]).strip()
        if written in (target, target.removeprefix("mailto:")) or not written:
            return
        if len(target) > TARGET_LIMIT:
            target = f"{target[:TARGET_LIMIT]}... ({len(target)} characters)"
        if target in self._notes or len(self._notes) < LINK_LIMIT:
            number = self._notes.setdefault(target, len(self._notes) + 1)
            self.o(f" [{number}]")

    def _nest(self, start: bool) -> bool:
        if start:
            if self._depth >= DEPTH_LIMIT:
                self._ignored += 1
                return False
            self._depth += 1
            return True
        if self._ignored:
            self._ignored -= 1
            return False
        self._depth = max(self._depth - 1, 0)
        return True

    def _tick(self) -> None:
        self._events += 1
        if self._events % 64 == 0 and self._clock() > self._deadline:
            raise _TooMuch


_NESTING = frozenset({"blockquote", "ul", "ol", "dl"})
_UNMARKED = frozenset({"head", "abbr", "del", "strike", "s", "code", "tt", "kbd", "sup", "sub"})
"""Tags whose Markdown marks would only be in the way, or (head) which hide all that follows when left open."""
_HIDDEN = ("script", "style", "title", "template", "svg", "iframe")
_SWALLOWING = frozenset({"script", "style", "title", "iframe"})
"""What hides all that follows when it is never closed, in a browser as here; of the others only the tag goes."""
_BLANKS = re.compile(r"[ \t]+\n")
_EMPTY_LINES = re.compile(r"\n{3,}")


def as_text(source: str, clock: Callable[[], float] = time.monotonic) -> tuple[str, bool]:
    """`source` (HTML) as text, and whether something was left out because it is too long. Never raises.

    Lines are not wrapped. The text still has to pass mail/plain.py.
    """
    cut = len(source) > INPUT_LIMIT
    source = _stripped(source[:INPUT_LIMIT])
    if abs(source.count("<") - source.count(">")) > UNBALANCED_LIMIT:
        return words(source), True
    converter = _Converter(clock() + TIME_LIMIT, clock)
    try:
        text = converter.handle(source)
    except Exception:  # html2text and html.parser raise AssertionError, IndexError, ValueError... on hostile input
        return words(source), True
    text = _EMPTY_LINES.sub("\n\n", _BLANKS.sub("\n", text)).strip("\n")
    return text + "\n" if text else "", cut


_TAG = re.compile(r"<[^<>]{0,2000}>")
_BREAKING = re.compile(r"<(?:br|/?p|/?div|/?tr|/?li|/?h[1-6]|/?table|/?blockquote)\b[^<>]{0,2000}>", re.IGNORECASE)


def words(source: str) -> str:
    """The words of `source` (HTML), for searching: tags removed, entities decoded, in linear time. Never raises."""
    text = _TAG.sub(" ", _BREAKING.sub("\n", _stripped(source[:INPUT_LIMIT])))
    return entities.unescape(text)


_MARKUP = re.compile(r"<!--|<[!?]|<(script|style|title|template|svg|iframe)\b", re.IGNORECASE)
_ENDS = {name: re.compile(f"</{name}\\b[^>]{{0,200}}>?", re.IGNORECASE) for name in _HIDDEN}
_COMMENT_END = re.compile("--!?>")
_DECLARATION_END = re.compile(">")


def _stripped(source: str) -> str:
    """Without comments, declarations, scripts, styles and embedded things, in time linear in `source`."""
    out: list[str] = []
    unclosed: set[str] = set()
    position = 0
    while match := _MARKUP.search(source, position):
        out.append(source[position : match.start()])
        name = (match.group(1) or "").lower()
        if name in unclosed:
            out.append(" <")
            position = match.start() + 1
            continue
        ending = _ENDS[name] if name else _COMMENT_END if match.group() == "<!--" else _DECLARATION_END
        # `<!-->` is a whole comment, as in a browser.
        end = ending.search(source, match.end() - (2 if match.group() == "<!--" else 0))
        if end:
            position = end.end()
        elif name and name not in _SWALLOWING:
            unclosed.add(name)
            position = match.start()
        else:
            position = len(source)
    out.append(source[position:])
    return "".join(out)
