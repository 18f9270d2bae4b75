"""Token buckets: how much work one address, one range and all strangers together may make here.

What costs is a stranger: a key that wasn't heard before takes an agreement (X25519, HKDF) before anything is known of
the datagram. Who was heard before is cheap to open, and has a share of its own by address; so a node that strangers
flood goes on with those that it knows. Decisions only; the time is handed in.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache

from overlay.identity.contact import address_range, pack_ip

KEPT = 8192
"""Buckets kept; the one that was used longest ago gives way, full or not."""


@dataclass(frozen=True, slots=True)
class Rate:
    """So many a second, and so many at once."""

    each_second: float
    at_once: float


STRANGERS_OF_ADDRESS = Rate(20, 60)
STRANGERS_OF_RANGE = Rate(60, 200)
STRANGERS_IN_ALL = Rate(500, 1000)
"""Datagrams under keys that weren't heard before: about a tenth of one core in all."""
KNOWN_OF_ADDRESS = Rate(3000, 6000)
"""Datagrams of peers that were heard before, by address: less than half of what one core opens."""


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class RateBuckets:
    """One bucket of a Rate for each name."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._buckets: OrderedDict[bytes, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, whose: bytes, now: float) -> bool:
        """Whether one more is within the rate of `whose`; if so it is counted."""
        bucket = self._buckets.get(whose)
        if bucket is None:
            bucket = self._buckets[whose] = _Bucket(self._rate.at_once, now)
            if len(self._buckets) > KEPT:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(whose)
            bucket.left = min(self._rate.at_once, bucket.left + (now - bucket.at) * self._rate.each_second)
            bucket.at = now
        if bucket.left < 1:
            return False
        bucket.left -= 1
        return True


class DatagramGate:
    """Whether a datagram is looked at. `loopback_free`: this machine's own addresses share in the totals only."""

    def __init__(self, *, loopback_free: bool) -> None:
        self._loopback_free = loopback_free
        self._strangers = (
            RateBuckets(STRANGERS_OF_ADDRESS),
            RateBuckets(STRANGERS_OF_RANGE),
            RateBuckets(STRANGERS_IN_ALL),
        )
        self._known = RateBuckets(KNOWN_OF_ADDRESS)

    def admits(self, ip: str, now: float, *, known: bool) -> bool:
        """Whether one more datagram from `ip` is opened; `known`: under a key that was heard before."""
        address, span, loopback = _place(ip)
        free = self._loopback_free and loopback
        if known:
            return free or self._known.take(address, now)
        of_address, of_range, in_all = self._strangers
        if not free and not (of_address.take(address, now) and of_range.take(span, now)):
            return False
        return in_all.take(b"", now)


@lru_cache(maxsize=4096)
def _place(ip: str) -> tuple[bytes, bytes, bool]:
    """One IPv4 address, or of IPv6 the /64 that one machine can choose its addresses from (RFC 4291); its range; and
    whether it is this machine's own."""
    packed = pack_ip(ip)
    address = packed if len(packed) == 4 else packed[:8]
    return address, address_range(ip), ipaddress.ip_address(ip).is_loopback
