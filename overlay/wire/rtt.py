"""Time-outs from measured RTT: Jacobson's estimate as in RFC 6298, with Karn's rule. Decisions only."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

FIRST_TIMEOUT = 0.5
"""Seconds, before enough round trips have been measured."""
SHORTEST_TIMEOUT = 0.04
"""Seconds. RFC 6298 (2.4) asks for 1 s, meant for bulk transfers; a lookup sends one request and asks another node."""
LONGEST_TIMEOUT = 2.0
PEERS = 4096
"""Peers whose RTT is remembered; the oldest entry is dropped first."""
SAMPLES_TO_TRUST = 8
"""Samples of all peers from which on their estimate is used for a peer that wasn't measured."""


@dataclass(slots=True)
class _Estimate:
    smoothed: float
    variation: float
    samples: int = 1

    def add(self, seconds: float) -> None:
        self.variation += (abs(seconds - self.smoothed) - self.variation) / 4
        self.smoothed += (seconds - self.smoothed) / 8
        self.samples += 1

    @property
    def timeout(self) -> float:
        return self.smoothed + 4 * self.variation


class RTTEstimates:
    """The RTT of each peer, and of all together as the estimate for a peer that wasn't measured."""

    def __init__(self) -> None:
        self._peers: OrderedDict[bytes, _Estimate] = OrderedDict()
        self._all_peers: _Estimate | None = None

    def add_sample(self, peer: bytes, seconds: float) -> None:
        """Add one measured round trip, in seconds.

        Not for a request that was sent more than once (Karn's rule), unless its answer came after the last time-out.
        """
        estimate = self._peers.get(peer)
        if estimate is None:
            self._peers[peer] = _Estimate(seconds, seconds / 2)
            if len(self._peers) > PEERS:
                self._peers.popitem(last=False)
        else:
            estimate.add(seconds)
        if self._all_peers is None:
            self._all_peers = _Estimate(seconds, seconds / 2)
        else:
            self._all_peers.add(seconds)

    def timeout(self, peer: bytes) -> float:
        """Seconds to wait for `peer` before the request is sent again."""
        estimate = self._peers.get(peer)
        if estimate is not None:
            return min(max(estimate.timeout, SHORTEST_TIMEOUT), LONGEST_TIMEOUT)
        if self._all_peers is None or self._all_peers.samples < SAMPLES_TO_TRUST:
            return FIRST_TIMEOUT
        return min(max(1.5 * self._all_peers.timeout, SHORTEST_TIMEOUT), FIRST_TIMEOUT)
