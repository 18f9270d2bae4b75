"""Stamps: what an inbox that fills up asks of those who put something in (after hashcash).

A stamp is 12 bytes: the hour that it was made in (4, big endian) and 8 that were found by trying. A try is
PBKDF2-HMAC-SHA256 (RFC 8018) with 128 iterations of the 8 bytes, salted with "p2pmail stamp 2" || 0 || inbox key ||
SHA-256 of the notification || hour; its first 8 bytes must begin with enough zero bits. It is good for that
notification in that inbox, at every replica, for about a day; a flood pays for each one it sends.

A price is told in bits of work: 2^bits compressions of SHA-256, of which a try takes 2^8. One try is one call into
native code, which lets go of the interpreter's lock: who pays honestly pays what a flooder with native code pays, and
the screen of the process that pays doesn't stand still. Checking one costs a node some 30 microseconds.
"""

from __future__ import annotations

import threading
from hashlib import pbkdf2_hmac

from overlay.ids import leading_zero_bits
from overlay.protocol_limits import HOUR

STAMP_BYTES = 12
GOOD_FOR = 30
"""Hours that a clock may be off by, or a stamp old: clocks that are wrong by a day do no harm elsewhere either."""

ITERATIONS = 128
TRY_BITS = 8
"""Bits of work that each try is: two compressions an iteration."""

ASKED_FROM = 0.5
"""How full an inbox is, or the room for all inboxes, when stamps are asked: ordinary mail costs nothing."""
FEWEST, MOST = 16, 22
"""Bits of work asked for then, and when it is all but full: about 10 and 500 milliseconds of one core."""

_PURPOSE = b"p2pmail stamp 2\0"
_TRIED = 8
"""Bytes of a try that are looked at."""


def bits_asked(fullness: float) -> int:
    """Bits of work that a stamp must have at an inbox that is so full (0 to 1); 0: none is asked."""
    if fullness < ASKED_FROM:
        return 0
    return min(MOST, FEWEST + round((MOST - FEWEST) * (fullness - ASKED_FROM) / (1 - ASKED_FROM)))


def bits_of(stamp: bytes, key: bytes, digest: bytes, now: float) -> int:
    """How much a stamp is worth for the notification with this SHA-256: its bits of work, 0 when it isn't good now."""
    if len(stamp) != STAMP_BYTES or abs(int.from_bytes(stamp[:4], "big") - now // HOUR) > GOOD_FOR:
        return 0
    return leading_zero_bits(_try(stamp[4:], _salt(key, digest, stamp[:4]))) + TRY_BITS


def mint(key: bytes, digest: bytes, bits: int, now: float, stop: threading.Event) -> bytes | None:
    """A stamp of so many bits of work; None when `stop` was set meanwhile. Blocks, without the interpreter's lock."""
    hour = int(now // HOUR).to_bytes(4, "big")
    salt = _salt(key, digest, hour)
    wanted, number = max(0, bits - TRY_BITS), 0
    while not stop.is_set():
        found = number.to_bytes(8, "big")
        if leading_zero_bits(_try(found, salt)) >= wanted:
            return hour + found
        number += 1
    return None


def _salt(key: bytes, digest: bytes, hour: bytes) -> bytes:
    return _PURPOSE + key + digest + hour


def _try(found: bytes, salt: bytes) -> bytes:
    return pbkdf2_hmac("sha256", found, salt, ITERATIONS, _TRIED)
