"""Divides a fixed amount among addresses: connections, buffer space, dial-backs. Decisions only.

For addresses that a connection or a write token has proven.
"""

from __future__ import annotations

import ipaddress
from collections import Counter

from overlay.identity.contact import address_range, pack_ip


class AddressQuota:
    """An amount of `total`, of which one address (in IPv6 one /56) gets at most `each`.

    `loopback_free`: addresses of this machine are limited by `total` only.
    """

    def __init__(self, total: int, each: int, *, loopback_free: bool) -> None:
        self._left = total
        self._each = each
        self._loopback_free = loopback_free
        self._taken: Counter[bytes] = Counter()

    def take(self, ip: str, amount: int = 1) -> bool:
        """Whether `amount` is left for `ip`; if so it is taken."""
        owner = _owner(ip)
        free = self._loopback_free and ipaddress.ip_address(ip.partition("%")[0]).is_loopback
        if amount > self._left or (not free and self._taken[owner] + amount > self._each):
            return False
        self._left -= amount
        self._taken[owner] += amount
        return True

    def give(self, ip: str, amount: int = 1) -> None:
        """Give back what `take` took."""
        owner = _owner(ip)
        self._left += amount
        self._taken[owner] -= amount
        if not self._taken[owner]:
            del self._taken[owner]


def _owner(ip: str) -> bytes:
    packed = pack_ip(ip)
    return packed if len(packed) == 4 else address_range(ip)
