"""Who wrote a message: whether its From names the one person whose certificate it was sent under, and what is shown.

Sending and filing ask the same question (`objection`), so that nothing is accepted here that its recipient has to put
aside. What passes has the certified address in its From. The display name beside it is the sender's own choice: a list
shows it only where it can't be taken for somebody else (`listed`), and the reader says what is odd (`warnings`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

from mail.mime import sanitize
from mail.mime.addresses import Address, addresses, read_literally
from overlay.identity.address import AddressError, normalise_address

SHOWN = 100
"""Characters shown of an address that isn't the sender's."""
MIXED = "!?"
"""Stands in a list before a sender whose name or address mixes writings, or whose address looks like a contact's."""


def objection(fields: Sequence[bytes], certified: str) -> str:
    """Why a message with these From fields isn't plainly from `certified` (a normalised address); "" if it is.

    The words go on from "the message ...". Programs differ in which of several authors they show, and in what they
    show where there is none.
    """
    if len(fields) > 1:
        return "has several From fields"
    authors = [author.address or author.name for author in addresses(fields)]
    if not authors:
        return "says it is from nobody"
    if len(authors) > 1:
        return "says it is from several"
    if not _same(authors[0], certified):
        return f"says it is from {sanitize.line(authors[0])[:SHOWN]}"
    if any("@" in author.address and not _same(author.address, certified) for author in read_literally(fields[0])):
        return "says it is from several"  # as some programs read it: `=?utf-8?q?x,boss@y,?= <me@x>`
    return ""


def _same(claimed: str, certified: str) -> bool:
    try:
        return normalise_address(claimed) == certified
    except AddressError:
        return False


# -- what is shown


@lru_cache(maxsize=8192)
def mailbox(text: str) -> Address:
    """The name and address in a mailbox as the index has it, such as "Ann Lee <ann@x.example>"."""
    name, bracket, rest = sanitize.line(text).rpartition("<")
    if not bracket or not rest.endswith(">"):
        return Address("", sanitize.line(text))
    return Address(name.strip().strip('"'), rest[:-1])


class Contacts:
    """The people the user has written to: their names and addresses, to notice a sender who only looks alike."""

    def __init__(self, sent_to: Iterable[str] = (), senders: Iterable[str] = ()) -> None:
        """`sent_to`, `senders`: mailboxes as the index has them, such as "Ann <ann@x>". Senders add names alone."""
        self._names: dict[str, set[str]] = {}
        self._looks: dict[str, set[str]] = {}
        people = [mailbox(text) for text in sent_to]
        for person in people:
            if person.address:
                self._looks.setdefault(skeleton(person.address), set()).add(_key(person.address))
        known = {address for group in self._looks.values() for address in group}
        for person in (*people, *map(mailbox, senders)):
            if person.name and _key(person.address) in known and not _is_like_address(person.name):
                self._names.setdefault(name_key(person.name), set()).add(_key(person.address))

    def bears_name(self, person: Address) -> bool:
        """Whether the name is, or looks like, that of a contact with another address."""
        found = self._names.get(name_key(person.name)) if person.name else None
        return found is not None and _key(person.address) not in found

    def looks_like(self, address: str) -> str:
        """The contact's address that this other one looks like, or ""."""
        found = self._looks.get(skeleton(address), set())
        return "" if _key(address) in found else min(found, default="")


NOBODY = Contacts()


def listed(person: Address, contacts: Contacts = NOBODY) -> str:
    """One person in a list: the name, or the address where the name could be taken for somebody else."""
    trusted = _is_plain(person, contacts)
    text = person.name if trusted or not person.address else person.address
    return f"{MIXED} {text}" if _is_odd(person, contacts) else text


def described(person: Address, contacts: Contacts = NOBODY) -> str:
    """Name and address in full; the address first where the name could be taken for somebody else."""
    if not person.name or not person.address or _is_plain(person, contacts):
        return str(person)
    return f'{person.address} (calls itself "{person.name}")'


def addressed(person: Address) -> Address:
    """The mailbox to write to: without a name that is an address, which might be taken for the one it goes to."""
    return Address("", person.address) if person.address and _is_like_address(person.name) else person


def warnings(person: Address, contacts: Contacts = NOBODY) -> tuple[str, ...]:
    """What is odd about a sender, in words that go on from "Odd: "."""
    found = []
    for what, text in (("name", person.name), ("address", person.address)):
        if mixed := mixed_writings(text):
            found.append(f"the sender's {what} mixes {' and '.join(mixed)} letters")
    if alike := contacts.looks_like(person.address):
        found.append(f"the sender's address looks like {alike}, and is another one")
    if contacts.bears_name(person):
        found.append("the sender bears the name of somebody you write to, and has another address")
    return tuple(found)


def _is_plain(person: Address, contacts: Contacts) -> bool:
    """Whether the name can be shown alone."""
    return bool(person.name) and not (_is_like_address(person.name) or contacts.bears_name(person))


def _is_odd(person: Address, contacts: Contacts) -> bool:
    return bool(mixed_writings(person.name) or mixed_writings(person.address) or contacts.looks_like(person.address))


def _is_like_address(name: str) -> bool:
    """Whether a name has an @ in it, of any kind: ＠, ﹫."""
    return "@" in unicodedata.normalize("NFKC", name)


def _key(address: str) -> str:
    """A form to compare addresses by."""
    if address.isascii():  # a thousand contacts in a moment
        return address.strip().lower()
    try:
        return normalise_address(address)
    except AddressError:
        return address.strip().casefold()


# -- texts that look alike (UTS 39)

TEXT_LIMIT = 200
"""Characters that are compared; names and addresses are shorter."""

_DRAWN_LIKE = {
    "2": "ƧϨᒿꙄꝚ",
    "3": "ƷȜЗӠⳌꝪꞫ",
    "4": "Ꮞ",
    "5": "Ƽ",
    "6": "бᏮⳒ",
    "8": "Ȣȣ",
    "9": "ⳊꝮ",
    "a": "ɑΑαАаᎪᗅꓮ",
    "b": "ƄΒВЬᏏᏴᑲᖯᗷꓐꞴ",
    "c": "СсᏟᴄⲤⲥꓚꮯ",
    "d": "ԁᎠᏧᑯᗞᗪꓒꓓ",
    "e": "ΕЕеҽᎬⴹꓰꬲ",
    "f": "ϜքᖴẝꓝꞘꞙꬵ",
    "g": "ƍɡԌցᏀᏳᶃꓖ",
    "h": "ΗНһհᎻᏂᕼⲎꓧ",
    "i": "ıɩɪιіӏᎥꙇꭵ",
    "j": "ͿϳЈјᎫᒍꓙꞲ",
    "k": "ΚКᏦᛕⲔꓗ",
    "l": "ƖǀΙІӀᏞᒪᛁⲒⳐⵏꓡꓲ",
    "m": "ΜϺМᎷᗰᛖⲘꓟ",
    "n": "ΝոռⲚꓠ",
    "o": "ΟοσОоՕօଠഠဝჿዐᴏᴑⲞⲟⵔꓳꬽ",
    "p": "ΡρРрᏢᑭⲢⲣꓑ",
    "q": "ԛգզⵕ",
    "r": "ƦгᎡᏒᖇᴦⲅꓣꭇꭈꮁ",
    "s": "ƽЅѕՏᏕᏚꓢꜱꮪ",
    "t": "ΤТᎢⲦꓔ",
    "u": "ʋυՍսሀᑌᴜꓴꞟꭎꭒ",
    "v": "νѴѵᏙᐯᴠⴸꓦꛟꮩ",
    "w": "ɯѡԜԝաᎳᏔᴡꓪꮃ",
    "x": "ΧХхᕁᕽᚷⲬⵝꓫꞳ",
    "y": "ɣʏΥγУуҮүყᎩᎽᶌỿⲨꓬꭚ",
    "z": "ΖᏃᴢꓜꮓ",
}
"""Letters of other writings by the ASCII sign they are drawn like: the single letters in Unicode's confusables.txt
(copyright Unicode, Inc.; Unicode Licence v3) up to U+FFFF, taken from confusable_homoglyphs 3.3.1."""
_PLAIN = str.maketrans({letter: sign for sign, letters in _DRAWN_LIKE.items() for letter in letters})
_ALIKE = str.maketrans({"0": "o", "1": "l", "i": "l", "|": "l", "ı": "l"})
_NO_WORD = re.compile(r"[\W_]+")
_EAST_ASIAN = frozenset({"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO"})


@lru_cache(maxsize=4096)
def skeleton(text: str) -> str:
    """A form that texts share which look alike: without case, accents, and the writing that a letter is from."""
    drawn = unicodedata.normalize("NFKC", text[:TEXT_LIMIT]).translate(_PLAIN)
    letters = unicodedata.normalize("NFKD", drawn.casefold())
    bare = "".join(letter for letter in letters if unicodedata.category(letter) not in ("Mn", "Me", "Cf"))
    return bare.translate(_PLAIN).translate(_ALIKE).replace("rn", "m").replace("vv", "w")


def name_key(name: str) -> str:
    """The same for a display name, whatever the order of its words and the signs between: "Lee, Ann" is "Ann Lee"."""
    return " ".join(sorted(word for word in _NO_WORD.split(skeleton(name)) if word))


def mixed_writings(text: str) -> tuple[str, ...]:
    """The writings that one word of `text` mixes, such as ("Cyrillic", "Latin"); () if none does.

    A Japanese, Chinese or Korean word may have Latin letters in it (UTS 39, "highly restrictive").
    """
    if text.isascii():
        return ()
    for word in _NO_WORD.split(unicodedata.normalize("NFKC", text[:TEXT_LIMIT].replace("µ", ""))):
        found = {_writing(letter) for letter in word if unicodedata.category(letter)[0] == "L"} - {""}
        if len(found) > 1 and not (found - {"LATIN"} <= _EAST_ASIAN):
            return tuple(sorted(writing.title() for writing in found))
    return ()


def _writing(letter: str) -> str:
    """The writing a letter belongs to, which Unicode's names begin with; "" where it belongs to several."""
    first = unicodedata.name(letter, "").partition(" ")[0]
    return "" if first in ("", "MODIFIER", "IDEOGRAPHIC", "KATAKANA-HIRAGANA", "MASCULINE", "FEMININE") else first
