"""Rate limits by token buckets, for one address, one address range and all unknown keys together.

A datagram under a key that wasn't heard before costs a key agreement (X25519, HKDF) before anything is known of it. One
under a known key is cheap to open, and is limited by its address alone. So a node that is flooded with new keys goes on
working with the peers it knows. Decisions only: the time is handed in.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache

from overlay.identity.contact import address_range, pack_ip

KEPT = 8192
"""Buckets kept; the one used longest ago is dropped first, full or not."""


@dataclass(frozen=True, slots=True)
class Rate:
    """The refill rate and the size of a token bucket."""

    each_second: float
    at_once: float


STRANGERS_OF_ADDRESS = Rate(20, 60)
STRANGERS_OF_RANGE = Rate(60, 200)
STRANGERS_IN_ALL = Rate(500, 1000)
"""Datagrams under keys that weren't heard before; all together cost about a tenth of one core."""
KNOWN_OF_ADDRESS = Rate(3000, 6000)
"""Datagrams under known keys, by address; less than half of what one core can open."""


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class RateBuckets:
    """Token buckets of one Rate, one for each name."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._buckets: OrderedDict[bytes, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, name: bytes, now: float) -> bool:
        """Take one token from the bucket of `name`; False when it is empty."""
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(self._rate.at_once, now)
            if len(self._buckets) > KEPT:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(name)
            bucket.left = min(self._rate.at_once, bucket.left + (now - bucket.at) * self._rate.each_second)
            bucket.at = now
        if bucket.left < 1:
            return False
        bucket.left -= 1
        return True


class DatagramGate:
    """Decides whether a datagram is opened. `loopback_free`: only the totals limit this machine's own addresses."""

    def __init__(self, *, loopback_free: bool) -> None:
        self._loopback_free = loopback_free
        self._strangers = (
            RateBuckets(STRANGERS_OF_ADDRESS),
            RateBuckets(STRANGERS_OF_RANGE),
            RateBuckets(STRANGERS_IN_ALL),
        )
        self._known = RateBuckets(KNOWN_OF_ADDRESS)

    def admits(self, ip: str, now: float, *, known: bool) -> bool:
        """Whether one more datagram from `ip` is opened; `known`: its key was heard before."""
        address, span, loopback = _limits_key_of(ip)
        free = self._loopback_free and loopback
        if known:
            return free or self._known.take(address, now)
        of_address, of_range, in_all = self._strangers
        if not free and not (of_address.take(address, now) and of_range.take(span, now)):
            return False
        return in_all.take(b"", now)


@lru_cache(maxsize=4096)
def _limits_key_of(ip: str) -> tuple[bytes, bytes, bool]:
    """The address, or in IPv6 the /64 that one machine chooses addresses from (RFC 4291); its range; if loopback."""
    packed = pack_ip(ip)
    address = packed if len(packed) == 4 else packed[:8]
    return address, address_range(ip), ipaddress.ip_address(ip).is_loopback
