"""Stamps: what an inbox that fills up asks of those who put something in (hashcash).

A stamp is 12 bytes: the hour that it was made in (4, big endian) and 8 that were found by trying. SHA-256 of
"p2pmail stamp 1" || 0 || inbox key || SHA-256 of the notification || stamp must begin with so many zero bits. It is
good for that notification in that inbox, at every replica, for about a day; a flood pays for each one it sends.
"""

from __future__ import annotations

import threading
from hashlib import sha256

from overlay.ids import leading_zero_bits

STAMP_BYTES = 12
HOUR = 3600.0
GOOD_FOR = 30
"""Hours that a clock may be off by, or a stamp old: clocks that are wrong by a day do no harm elsewhere either."""

ASKED_FROM = 0.5
"""How full an inbox is, or the room for all inboxes, when stamps are asked: ordinary mail costs nothing."""
FEWEST, MOST = 16, 22
"""Zero bits asked for then, and when it is all but full: a tenth of a second, and some seconds, of one core."""

_PURPOSE = b"p2pmail stamp 1\0"
_BATCH = 4096


def bits_asked(fullness: float) -> int:
    """Zero bits that a stamp must have at an inbox that is so full (0 to 1)."""
    if fullness < ASKED_FROM:
        return 0
    return min(MOST, FEWEST + round((MOST - FEWEST) * (fullness - ASKED_FROM) / (1 - ASKED_FROM)))


def bits_of(stamp: bytes, key: bytes, digest: bytes, now: float) -> int:
    """How much a stamp is worth for the notification with this SHA-256: its zero bits, 0 when it isn't good now."""
    if len(stamp) != STAMP_BYTES or abs(int.from_bytes(stamp[:4], "big") - now // HOUR) > GOOD_FOR:
        return 0
    return leading_zero_bits(sha256(_PURPOSE + key + digest + stamp).digest())


def mint(key: bytes, digest: bytes, bits: int, now: float, stop: threading.Event) -> bytes | None:
    """A stamp of so many bits, about 2**bits tries of a microsecond; None when `stop` was set meanwhile. Blocks."""
    hour = int(now // HOUR).to_bytes(4, "big")
    begun = sha256(_PURPOSE + key + digest + hour)
    limit = 1 << (256 - bits)
    number = 0
    while not stop.is_set():
        for number in range(number, number + _BATCH):  # noqa: B020 - it goes on where the last batch ended
            tried = begun.copy()
            tail = number.to_bytes(8, "big")
            tried.update(tail)
            if int.from_bytes(tried.digest(), "big") < limit:
                return hour + tail
        number += 1
    return None
