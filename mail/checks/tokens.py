"""What of a message the spam classifier counts: words of its text and subject, its sender, its links and files.

What lives here turns a Message into tokens, the same ones each time, so that what was learned can be unlearned. What
they weigh is mail/checks/bayes.py's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from mail.mime.message import Message

TOKEN_LIMIT = 1500
"""Distinct tokens of one message: spam can't bury itself in words, nor the store under it."""
TEXT_LIMIT = 128 * 1024
"""Characters of text that are looked at."""
LONGEST = 30
"""Characters of a word; of a longer one only its first sign and its length are counted (SpamBayes does the same)."""

_WORD = re.compile(r"[^\W_][\w$€£%'’!-]{2,200}")
_LINK = re.compile(r"https?://([^\s/<>\"'):]{1,100})", re.IGNORECASE)


def tokens(message: Message) -> frozenset[str]:
    """At most TOKEN_LIMIT tokens of `message`, what says most about it first in line. Never raises."""
    return frozenset(islice(dict.fromkeys(_all(message)), TOKEN_LIMIT))


def _all(message: Message) -> Iterator[str]:
    address = message.sender.address.casefold()[:200]
    if address:
        yield f"from:{address}"
        yield f"domain:{address.rpartition('@')[2]}"
    for word in _words(message.sender.name[:200]):
        yield f"name:{word}"
    for word in _words(message.subject):
        yield f"subject:{word}"
    if message.from_html:
        yield "html:only"
    if not message.to:
        yield "to:nobody"
    for attachment in message.attachments[:20]:
        yield f"file:{attachment.content_type[:60]}"
        yield f"extension:{attachment.name.rpartition('.')[2].casefold()[:10]}"
    text = message.text[:TEXT_LIMIT]
    for match in islice(_LINK.finditer(text), 200):
        yield f"link:{match.group(1).casefold()}"
    yield from _words(text)


def _words(text: str) -> Iterator[str]:
    for match in _WORD.finditer(text):
        word = match.group().casefold()
        yield word if len(word) <= LONGEST else f"long:{word[0]}{len(word) // 10}"
