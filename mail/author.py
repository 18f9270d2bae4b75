"""Who wrote a message: whether its From names the one person whose certificate it was sent under.

Sending and filing ask the same question, so that nothing is accepted here that its recipient has to put aside.
"""

from __future__ import annotations

from collections.abc import Sequence

from mail.mime import sanitize
from mail.mime.addresses import addresses, read_literally
from overlay.identity.address import AddressError, normalise_address

SHOWN = 100
"""Characters shown of an address that isn't the sender's."""


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
