"""Measures availability with probes: small objects that are stored and looked for later (paper, section 4).

The copies that are found go into the estimate from which k is chosen. Each probe is looked for once. Two biases are
avoided. A node that takes a copy is up at that moment and most likely soon after, so probes wait half an hour to a
day, as messages do. This computer's own node, which is always up for itself, doesn't count.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from hashlib import sha256

import msgspec

from mail.availability.erasure_code import ErasureCode, choose
from mail.availability.estimate import Availability
from overlay.client import Overlay
from overlay.errors import OverlayError
from overlay.identity.network import Network
from overlay.ids import Kind, probe_key
from overlay.protocol_limits import HOUR
from storage.user.state import UserState

PROBE_BYTES = 64
EVERY = 1800.0
"""Seconds between storing two probes."""
WAITS = (1800.0, 7200.0, 28800.0, 86400.0)
"""Seconds between storing a probe and looking for it, in turn: long enough for nodes to have gone and come back."""
LATE = 7200.0
"""Seconds for which a probe is kept after it was due."""
RETRY = 300.0
FACT = "availability"


class _PendingProbe(msgspec.Struct, array_like=True, frozen=True):
    key: bytes
    digest: bytes
    holders: list[bytes]
    """Ids of the nodes that had it when it was stored."""
    stored: float
    due: float


class _Facts(msgspec.Struct, array_like=True, frozen=True):
    community: bytes
    found: float = 0.0
    missed: float = 0.0
    at: float = 0.0
    stored: int = 0
    """How many probes were ever stored, and when the last one was."""
    last: float = float("-inf")
    waiting: list[_PendingProbe] = []


class Probes:
    """The estimate of p, stored in the user's state, and the pending probes.

    There is one estimate for each network: a profile that changes its network starts again. `target`: the user's p_t.
    """

    def __init__(
        self,
        state: UserState,
        network: Network,
        target: float,
        now: Callable[[], float],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._state = state
        self._default = network.k
        self.target = target
        self._now = now
        self._random = random
        community = sha256(b"\0".join([network.name.encode(), *network.authorities])).digest()
        self._facts = _Facts(community)
        try:
            kept = msgspec.msgpack.decode(state.fact(FACT) or b"", type=_Facts)
        except msgspec.MsgspecError:
            return  # nothing yet, or written by another version: measure again
        if kept.community == community:
            self._facts = kept

    @property
    def known(self) -> Availability:
        """The estimate of p, faded by whole hours so that values derived from it can be cached."""
        now = self._now()
        return self._known().faded(now - now % HOUR)

    def set(self, known: Availability) -> None:
        """Replace the estimate."""
        self._facts = _Facts(self._facts.community, known.found, known.missed, self._now())

    @property
    def k(self) -> int:
        """The number of copies to make of each object (equation (6))."""
        return self.known.k(self._default, self.target)

    def code(self, nodes: int) -> ErasureCode:
        """The erasure code of a large body on `nodes` nodes."""
        return choose(self.known, self.k, self.target, nodes)

    async def run(self, overlay: Overlay) -> float:
        """Look for the probes that are due, and store the next one; returns the seconds until the next call."""
        try:
            for probe in self._facts.waiting:
                if probe.due <= self._now() or probe.stored > self._now():
                    await self._look(overlay, probe)
            if not 0 <= self._now() - self._facts.last < EVERY:
                await self._store(overlay)
        except OverlayError:
            return RETRY  # while the network can't be reached, nothing is learned about its nodes
        due = min([self._facts.last + EVERY, *(probe.due for probe in self._facts.waiting)])
        return max(due - self._now(), 1.0)

    async def _look(self, overlay: Overlay, probe: _PendingProbe) -> None:
        known = self._known()
        if probe.stored <= self._now() < probe.due + LATE:  # otherwise it has expired, or the clock was changed
            there = len((await overlay.holders(Kind.PROBE, probe.key, probe.digest)).intersection(probe.holders))
            known = known.observed(there, len(probe.holders) - there, self._now())
        await self._keep(
            found=known.found,
            missed=known.missed,
            at=known.at,
            waiting=[other for other in self._facts.waiting if other is not probe],
        )

    async def _store(self, overlay: Overlay) -> None:
        key = probe_key(overlay.network.name, self._random(16))
        data = self._random(PROBE_BYTES)
        digest = sha256(data).digest()
        wait = WAITS[self._facts.stored % len(WAITS)]
        await overlay.store(Kind.PROBE, key, data, ttl=wait + LATE)
        holders = await overlay.holders(Kind.PROBE, key, digest)
        now = self._now()
        probe = [_PendingProbe(key, digest, sorted(holders), now, now + wait)] if holders else []
        await self._keep(stored=self._facts.stored + 1, last=now, waiting=self._facts.waiting + probe)

    def _known(self) -> Availability:
        return Availability(self._facts.found, self._facts.missed, self._facts.at)

    async def _keep(self, **changes: object) -> None:
        self._facts = msgspec.structs.replace(self._facts, **changes)
        await asyncio.to_thread(self._state.keep_fact, FACT, msgspec.msgpack.encode(self._facts))
