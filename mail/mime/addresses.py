"""Parses address fields as people and programs write them, not only as RFC 5322 has them.

The standard library's `getaddresses` isn't used: its result depends on Python's version (since 3.11.10 it gives nobody
at all for `ann@x <ann@x>`), and it takes display names apart at commas and colons that nobody quoted.

A field is cut into tokens in one pass; then mailboxes are read from the tokens:

    Doe, Jane <jane@x>          one mailbox: a comma before `<` belongs to the name, if what stands there is no address
    News: Berlin <news@x>       one mailbox: a colon begins a group only if `;` ends it, or if addresses follow it
    Friends: ann@x, ben@x;      two mailboxes
    'ann@x' <ann@x>             the address once
    Ann ann@x, ann@x (Ann)      a name without brackets, before or behind
    <<ann@x>>, mailto:ann@x     the address

Encoded words are decoded after the field was cut, so that nothing in them separates anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from email.header import Header

from mail.mime.headers import ADDRESS_TEXT, decode_words, find_words, raw_text

FOLD = 78
"""Characters of a line after which the next mailbox begins a new one (RFC 5322, section 2.1.1)."""
PLAIN_NAME = 200
"""Characters of a name that is written unencoded; a longer one is encoded, because that can be folded."""
SHOWN = 200
"""Characters shown of a field in which there is no mailbox."""


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox: display name and bare address. Either is empty where the message gives none that can be parsed."""

    name: str
    address: str

    def __str__(self) -> str:
        if not self.name:
            return self.address
        return f"{self.name} <{self.address}>" if self.address else self.name


def addresses(
    values: Sequence[bytes], limit: int = ADDRESS_TEXT, hint: str = "", *, commas_in_names: bool = True
) -> tuple[Address, ...]:
    """The mailboxes of address fields, groups flattened, from the first `limit` bytes of each. Never raises.

    `hint`: the charset of 8-bit text that names none. A field without a mailbox becomes one Address whose name is the
    field's text, so that something is shown. Without `commas_in_names` every comma separates: who sends must not lose
    a recipient in a name, as `bob` in `bob, Ann <ann@x>`.
    """
    found: list[Address] = []
    for value in values:
        source = raw_text(value[:limit], hint)
        simple = _SIMPLE.fullmatch(source) if len(source) < 1000 else None
        if simple:  # nine fields of ten, and several times as fast
            name, address, bare = simple.groups()
            found.append(_address(decode_words(name or ""), address or bare))
            continue
        parsed = _Field(commas_in_names).mailboxes(_tokens(source))
        if not parsed and source.strip():
            parsed = [Address(decode_words(source[:SHOWN]).strip() or source[:SHOWN].strip(), "")]
        found.extend(parsed)
    return tuple(found)


def read_literally(value: bytes) -> tuple[Address, ...]:
    """The mailboxes that a program finds which knows neither encoded words, charsets nor commas in names."""
    source = value[:ADDRESS_TEXT].decode("latin-1")
    return tuple(_Field(commas_in_names=False).mailboxes(_tokens(source, encoded=False)))


_SIMPLE = re.compile(
    r'\s*(?:"?([^"<>@,;:()\\\'=]*?)"?\s*<([^\s<>@,;:()"\\\']+@[^\s<>@,;:()"\\\'\[]+)>'
    r'|([^\s<>@,;:()"\\\'=]+@[^\s<>@,;:()"\\\'\[]+))\s*'
)
_NOT_IN_WORDS = re.compile(r'[<>"\n]')
"""Signs that no encoded word in an address field may hide."""
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_PAIR = re.compile(r"\\(.)", re.DOTALL)
_WORD = re.compile(r"(?:[^\s\"(<>,;:@\[]|@(?:\[[^\]\s]{0,100}\])?|\[)+")
_ANGLE = re.compile(r'<[<\s]*((?:"(?:[^"\\]|\\.)*"|[^<>"])*)>[>]*', re.DOTALL)
_OPEN_ANGLE = re.compile(r"<[<\s]*([^<>,;]*)")


@dataclass(slots=True)
class _Token:
    """`kind`: "word", "quoted", "comment", "angle", or the separator itself. `spaced`: white space stands before it."""

    kind: str
    text: str
    spaced: bool


def _tokens(source: str, *, encoded: bool = True) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    quotes = comments = True
    words = _encoded_words(source) if encoded else {}
    while position < len(source):
        start = position
        while position < len(source) and source[position].isspace():
            position += 1
        if position == len(source):
            break
        spaced = position > start
        character = source[position]
        kind, text, end = "word", character, position + 1
        if character in ",;:":
            kind = character
        elif character == '"' and quotes:
            closed = _QUOTED.match(source, position)
            quotes = closed is not None  # one that is never closed is a character like another
            if closed:
                kind, text, end = "quoted", _PAIR.sub(r"\1", closed.group(1)), closed.end()
        elif character == "(" and comments:
            end = _end_of_comment(source, position)
            comments = end > position
            kind, text = ("comment", source[position + 1 : end - 1]) if comments else ("word", "(")
            end = max(end, position + 1)
        elif character == "<":
            angle = _ANGLE.match(source, position) or _OPEN_ANGLE.match(source, position)
            assert angle is not None
            kind, text, end = "angle", angle.group(1), angle.end()
        else:
            end = words.get(position) or _end_of_word(source, position)
            text = source[position:end]
        tokens.append(_Token(kind, text, spaced))
        position = end
    return tokens


def _encoded_words(source: str) -> dict[int, int]:
    """Where each encoded word begins, and where it ends."""
    found = ((word.start, word.end) for word in find_words(source))
    return {start: end for start, end in found if not _NOT_IN_WORDS.search(source, start, end)}


def _end_of_word(source: str, position: int) -> int:
    word = _WORD.match(source, position)
    return word.end() if word else position + 1


def _end_of_comment(source: str, position: int) -> int:
    """Where the comment that begins at `position` ends; `position` itself when it doesn't."""
    depth, at = 0, position
    while at < len(source):
        if source[at] == "\\":
            at += 1
        elif source[at] == "(":
            depth += 1
        elif source[at] == ")":
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    return position


@dataclass(slots=True)
class _Field:
    """Reads mailboxes from the tokens of a field."""

    commas_in_names: bool
    found: list[Address] = field(default_factory=list)
    phrase: list[_Token] = field(default_factory=list)
    """Words of which it isn't known yet whose name they are."""
    pending: list[_Token] = field(default_factory=list)
    """Words before commas, without an address: part of the next mailbox's name if that has brackets."""

    behind: bool = False
    """Whether a mailbox without a name has just been read, so that its name may follow."""

    def mailboxes(self, tokens: Sequence[_Token]) -> list[Address]:
        """The mailboxes that have a name or an address."""
        last_semicolon = max((at for at, token in enumerate(tokens) if token.kind == ";"), default=-1)
        follows = _what_follows(tokens)
        for at, token in enumerate(tokens):
            if token.kind == "angle":
                self._bracketed(token.text)
            elif token.kind in ",;":
                self._separated(whole=token.kind == ";")
            elif token.kind == ":":
                if self.phrase and self.phrase[-1].text.strip("[").lower() == "mailto":
                    self.phrase.pop()
                elif at < last_semicolon or follows[at] == "word":
                    self.phrase.clear()  # the group's name
                    self.pending.clear()
                else:
                    self.phrase.append(_Token("word", ":", spaced=False))
            else:
                self.phrase.append(token)
        self._separated(whole=True)
        return [mailbox for mailbox in self.found if mailbox.name or mailbox.address]

    def _bracketed(self, inside: str) -> None:
        if not inside.strip() and any("@" in token.text for token in self.phrase):  # `ann@x <>`
            self._bare()
        else:
            self.found.append(_address(_joined([*self.pending, *self.phrase]), inside))
            self.behind = not self.found[-1].name
        self.pending.clear()
        self.phrase.clear()

    def _separated(self, *, whole: bool) -> None:
        """At a separator: what stands before it without brackets. `whole`: no name goes on behind it."""
        words = [token for token in self.phrase if token.kind != "comment"]
        if any("@" in token.text for token in words if token.kind == "word"):
            self._flush()
            self._bare()
        elif words and self.behind:  # `<ann@x> Ann`
            self.found[-1] = _address(_joined(words), self.found[-1].address)
        elif words:
            self.pending += [*self.phrase, _Token("word", ",", spaced=False)]
        self.phrase.clear()
        self.behind = False
        if whole or not self.commas_in_names:
            self._flush()

    def _flush(self) -> None:
        """Words without an address: shown as they are."""
        while self.pending and self.pending[-1].text == ",":
            self.pending.pop()
        name = _joined(self.pending)
        if name:
            self.found.append(Address(name, ""))
        self.pending.clear()

    def _bare(self) -> None:
        """Addresses without brackets: `ann@x`, `Ann ann@x`, `ann@x (Ann)`."""
        name: list[_Token] = []
        comment = next((token.text for token in self.phrase if token.kind == "comment"), "")
        for token in _with_quoted_local_parts(self.phrase):
            if token.kind == "word" and "@" in token.text and token.text.strip("@"):
                self.found.append(_address(_joined(name) or decode_words(comment), token.text))
                name, comment = [], ""
            elif token.kind != "comment":
                name.append(token)


def _what_follows(tokens: Sequence[_Token]) -> list[str]:
    """For each token, what comes first behind it before a comma: "angle", a "word" with an @, or ""."""
    follows = [""] * len(tokens)
    near = ""
    for at in range(len(tokens) - 1, -1, -1):
        follows[at] = near
        token = tokens[at]
        if token.kind in ",;":
            near = ""
        elif token.kind == "angle" or (token.kind == "word" and "@" in token.text and near != "angle"):
            near = token.kind
    return follows


def _with_quoted_local_parts(tokens: Sequence[_Token]) -> list[_Token]:
    """`"ann lee"@x` is a quoted text and a word that follows at once; made one word."""
    merged: list[_Token] = []
    for token in tokens:
        if token.kind == "word" and token.text.startswith("@") and not token.spaced and merged:
            before = merged.pop()
            local = f'"{before.text}"' if before.kind == "quoted" else before.text
            merged.append(_Token("word", local + token.text, before.spaced))
        else:
            merged.append(token)
    return merged


def _joined(tokens: Sequence[_Token]) -> str:
    """Words as they stood, white space made single; comments are left out."""
    pieces: list[str] = []
    for token in tokens:
        if token.kind == "comment":
            continue
        if pieces and token.spaced:
            pieces.append(" ")
        pieces.append(token.text)
    return decode_words("".join(pieces)).strip()


def _address(name: str, inside: str) -> Address:
    """A mailbox from a decoded name and what stands between the brackets."""
    address = inside.strip()
    if address[:7].lower() == "mailto:":
        address = address[7:]
    if address.startswith("@") and ":" in address:  # a route (RFC 5322, section 4.4)
        address = address.rpartition(":")[2]
    if '"' not in address:
        address = re.sub(r"\s+|\([^()]{0,200}\)", "", address).strip("'[]" if "@[" not in address else "'")
    name = name.strip()
    if len(name) > 1 and name[0] == name[-1] == "'":
        name = name[1:-1].strip()
    if name.strip("<>").casefold() == address.casefold():
        name = ""
    return Address(name, address)


# -- writing

_ATOMS = re.compile(r"[A-Za-z0-9!#$%&*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_MUST_BE_QUOTED = re.compile(r'[()<>@,:;"\\\[\]]')


def typed(person: Address) -> str:
    """A mailbox as a person types it: the name in quotes where it contains a comma or another special character."""
    if not person.address or not _MUST_BE_QUOTED.search(person.name):
        return str(person)
    return f"{_in_quotes(person.name)} <{person.address}>"


def written(person: Address) -> str:
    """A mailbox as a header field has it: a name that isn't ASCII as encoded words, folded. `addresses` reads it back.

    Name and address must have passed `sanitize.line`.
    """
    name = person.name
    if not name:
        return person.address
    if not name.isascii() or len(name) > PLAIN_NAME or "=?" in name:
        name = Header(name, "utf-8").encode(linesep="\r\n")
    elif not _ATOMS.fullmatch(name):
        name = _in_quotes(name)
    return f"{name} <{person.address}>"


def _in_quotes(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def field_of(name: str, people: Iterable[Address]) -> str:
    """A whole address field, folded, without its line end."""
    lines = [f"{name}:"]
    for number, person in enumerate(people):
        text = written(person)
        if number:
            lines[-1] += ","
        if number and len(lines[-1]) + len(text) >= FOLD:
            lines.append(f" {text}")
        else:
            lines[-1] += f" {text}"
    return "\r\n".join(lines)
