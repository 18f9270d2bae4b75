"""Time-outs from measured round trips (Jacobson's estimate as in RFC 6298, Karn's rule). Decisions only."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

FIRST_TIMEOUT = 0.5
"""Seconds, while nothing was ever measured."""
SHORTEST_TIMEOUT = 0.04
"""Seconds. RFC 6298 asks for 1 s, for a congested Internet of bulk transfers; a lookup asks once and moves on."""
LONGEST_TIMEOUT = 2.0
PEERS = 4096
SAMPLES_TO_TRUST = 8


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
    """What each peer's round trip is, and what a stranger's is likely to be."""

    def __init__(self) -> None:
        self._peers: OrderedDict[bytes, _Estimate] = OrderedDict()
        self._everybody: _Estimate | None = None

    def add_sample(self, peer: bytes, seconds: float) -> None:
        """One round trip; not of a request that was sent again, unless its answer came after the last time-out."""
        estimate = self._peers.get(peer)
        if estimate is None:
            self._peers[peer] = _Estimate(seconds, seconds / 2)
            if len(self._peers) > PEERS:
                self._peers.popitem(last=False)
        else:
            estimate.add(seconds)
        if self._everybody is None:
            self._everybody = _Estimate(seconds, seconds / 2)
        else:
            self._everybody.add(seconds)

    def timeout(self, peer: bytes) -> float:
        """Seconds to wait for `peer` before asking again."""
        estimate = self._peers.get(peer)
        if estimate is not None:
            return min(max(estimate.timeout, SHORTEST_TIMEOUT), LONGEST_TIMEOUT)
        if self._everybody is None or self._everybody.samples < SAMPLES_TO_TRUST:
            return FIRST_TIMEOUT
        return min(max(1.5 * self._everybody.timeout, SHORTEST_TIMEOUT), FIRST_TIMEOUT)
