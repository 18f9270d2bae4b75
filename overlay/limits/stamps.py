"""Stamps: the proof of work that an inbox asks of senders when it fills up (after hashcash).

A stamp is 12 bytes: the hour it was made in (4, big endian) and 8 bytes found by trial. One trial is PBKDF2-HMAC-SHA256
(RFC 8018) with 128 iterations of the 8 bytes, salted with "p2pmail stamp 2" || 0 || inbox key || SHA-256 of the
notification || hour; the first 8 bytes of its result must begin with enough zero bits. A stamp is valid for that
notification in that inbox, at every replica, for about a day. So each notification of a flood costs a stamp.

The price is given in bits of work: 2^bits compressions of SHA-256, of which one trial takes 2^8. A trial is one call of
native code, which releases the interpreter's lock. So an honest sender pays no more than an attacker with native code,
and the screen of its process stays responsive. Checking a stamp costs a node some 30 microseconds.
"""

from __future__ import annotations

import threading
from hashlib import pbkdf2_hmac

from overlay.ids import leading_zero_bits
from overlay.protocol_limits import HOUR

STAMP_BYTES = 12
GOOD_FOR = 30
"""Hours that a stamp may be old, or a clock wrong. Clocks that are wrong by a day do no harm elsewhere either."""

ITERATIONS = 128
TRY_BITS = 8
"""Bits of work of one trial: each iteration takes two compressions."""

ASKED_FROM = 0.5
"""The fullness of an inbox, or of the space for all inboxes, from which stamps are asked. Usual mail costs nothing."""
FEWEST, MOST = 16, 22
"""Bits of work asked at ASKED_FROM, and when it is almost full: about 10 and 500 milliseconds of one core."""

_PURPOSE = b"p2pmail stamp 2\0"
_USED = 8
"""Bytes of a trial's result that are used."""


def bits_asked(fullness: float) -> int:
    """Bits of work that a stamp must have at an inbox of this fullness (0 to 1); 0: no stamp is asked."""
    if fullness < ASKED_FROM:
        return 0
    return min(MOST, FEWEST + round((MOST - FEWEST) * (fullness - ASKED_FROM) / (1 - ASKED_FROM)))


def bits_of(stamp: bytes, key: bytes, digest: bytes, now: float) -> int:
    """The bits of work of a stamp for the notification with this SHA-256; 0 when it isn't valid now."""
    if len(stamp) != STAMP_BYTES or abs(int.from_bytes(stamp[:4], "big") - now // HOUR) > GOOD_FOR:
        return 0
    return leading_zero_bits(_trial(stamp[4:], _salt(key, digest, stamp[:4]))) + TRY_BITS


def mint(key: bytes, digest: bytes, bits: int, now: float, stop: threading.Event) -> bytes | None:
    """Make a stamp of `bits` bits of work; None when `stop` was set. Blocks, but releases the interpreter's lock."""
    hour = int(now // HOUR).to_bytes(4, "big")
    salt = _salt(key, digest, hour)
    wanted, number = max(0, bits - TRY_BITS), 0
    while not stop.is_set():
        found = number.to_bytes(8, "big")
        if leading_zero_bits(_trial(found, salt)) >= wanted:
            return hour + found
        number += 1
    return None


def _salt(key: bytes, digest: bytes, hour: bytes) -> bytes:
    return _PURPOSE + key + digest + hour


def _trial(found: bytes, salt: bytes) -> bytes:
    return pbkdf2_hmac("sha256", found, salt, ITERATIONS, _USED)
