"""How much of something there is for everybody, and for one address at the most: connections, room, dial-backs.

For addresses that a connection or a token has proven. Decisions only.
"""

from __future__ import annotations

import ipaddress
from collections import Counter

from overlay.identity.contact import address_range, pack_ip


class AddressQuota:
    """`total` of something, of which one address (in IPv6 one /56) gets `each` at the most."""

    def __init__(self, total: int, each: int, *, loopback_free: bool) -> None:
        self._left = total
        self._each = each
        self._loopback_free = loopback_free
        self._taken: Counter[bytes] = Counter()

    def take(self, ip: str, amount: int = 1) -> bool:
        """Whether there is that much left for `ip`; if so it is taken."""
        whose = _whose(ip)
        free = self._loopback_free and ipaddress.ip_address(ip.partition("%")[0]).is_loopback
        if amount > self._left or (not free and self._taken[whose] + amount > self._each):
            return False
        self._left -= amount
        self._taken[whose] += amount
        return True

    def give(self, ip: str, amount: int = 1) -> None:
        """Give back what was taken."""
        whose = _whose(ip)
        self._left += amount
        self._taken[whose] -= amount
        if not self._taken[whose]:
            del self._taken[whose]


def _whose(ip: str) -> bytes:
    packed = pack_ip(ip)
    return packed if len(packed) == 4 else address_range(ip)
