"""Extracts a message's tokens for the spam classifier: words of text and subject, sender, links, files.

The same message always gives the same tokens, so that what was learned can be unlearned. mail/checks/bayes.py weighs
them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from mail.mime.message import Message

TOKEN_LIMIT = 1500
"""Distinct tokens of one message, so that spam can neither hide among many words nor flood the counts."""
TEXT_LIMIT = 128 * 1024
"""Characters of text that are read."""
LONGEST = 30
"""Characters of a word; of a longer one only its first character and its length count, as in SpamBayes."""

_WORD = re.compile(r"[^\W_][\w$€£%'’!-]{2,200}")
_LINK = re.compile(r"https?://([^\s/<>\"'):]{1,100})", re.IGNORECASE)


def tokens(message: Message) -> frozenset[str]:
    """At most TOKEN_LIMIT tokens of `message`, the most telling ones taken first. Never raises."""
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
