"""Probes: small objects stored to be looked for later, which tell what share of nodes is up (paper, section 4).

What was found of their copies goes into the estimate that k is chosen from. Each is looked for once. Two biases are
kept out: whoever takes a copy is up at that moment, and soon after it most likely still is, so probes wait as long as
letters do, half an hour to a day; and this node, which is always up for itself, doesn't count.
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
"""Seconds between two probes stored."""
WAITS = (1800.0, 7200.0, 28800.0, 86400.0)
"""Seconds between storing a probe and looking for it, by turns: sessions of nodes are to show, not lost datagrams."""
LATE = 7200.0
"""Seconds that a probe is kept after it should have been looked for."""
RETRY = 300.0
FACT = "availability"


class _PendingProbe(msgspec.Struct, array_like=True, frozen=True):
    key: bytes
    digest: bytes
    holders: list[bytes]
    """Ids of the nodes that were seen to have it."""
    stored: float
    due: float


class _Facts(msgspec.Struct, array_like=True, frozen=True):
    community: bytes
    found: float = 0.0
    missed: float = 0.0
    at: float = 0.0
    stored: int = 0
    """How many were stored, ever, and when the last was."""
    last: float = float("-inf")
    waiting: list[_PendingProbe] = []


class Probes:
    """What is known of p, kept in the user's state, and the probes on their way.

    One estimate for each community: a profile that changes its network starts anew. `target`: the user's p_t.
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
            return  # nothing yet, or written by another version: measured anew
        if kept.community == community:
            self._facts = kept

    @property
    def known(self) -> Availability:
        """The estimate of p, faded by whole hours, so that what follows from it can be remembered."""
        now = self._now()
        return self._known().faded(now - now % HOUR)

    def set(self, known: Availability) -> None:
        """Take this for what was measured, from here on."""
        self._facts = _Facts(self._facts.community, known.found, known.missed, self._now())

    @property
    def k(self) -> int:
        """Copies to make of each object (equation (6))."""
        return self.known.k(self._default, self.target)

    def code(self, nodes: int) -> ErasureCode:
        """How to code a large body on so many nodes."""
        return choose(self.known, self.k, self.target, nodes)

    async def run(self, overlay: Overlay) -> float:
        """Look for probes whose time has come, and store the next; seconds until there is something to do."""
        try:
            for probe in self._facts.waiting:
                if probe.due <= self._now() or probe.stored > self._now():
                    await self._look(overlay, probe)
            if not 0 <= self._now() - self._facts.last < EVERY:
                await self._store(overlay)
        except OverlayError:
            return RETRY  # a network that is away says nothing about its nodes
        due = min([self._facts.last + EVERY, *(probe.due for probe in self._facts.waiting)])
        return max(due - self._now(), 1.0)

    async def _look(self, overlay: Overlay, probe: _PendingProbe) -> None:
        known = self._known()
        if probe.stored <= self._now() < probe.due + LATE:  # else it has expired, or the clock was set
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
