"""Probes: small objects stored to be looked for later, which tell what share of nodes is up (paper, section 4).

One probe is on its way at a time; what was found of its copies goes into the estimate that k is chosen from.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import msgspec

from mail.availability import Availability
from mail.coding import Code, choose
from overlay.errors import OverlayError
from overlay.ids import Kind, probe_key
from overlay.overlay import Overlay
from storage.state import UserState

PROBE_BYTES = 64
WAIT = 1800.0
"""Seconds between storing a probe and looking for it: sessions of nodes are to show, not lost datagrams."""
KEPT = 7200.0
RETRY = 300.0
FACT = "availability"


class _Facts(msgspec.Struct, array_like=True, frozen=True):
    found: float = 0.0
    missed: float = 0.0
    key: bytes = b""
    copies: int = 0
    stored: float = 0.0
    network: str = ""


class Probes:
    """What is known of p in this network, kept in the user's state, and the next probe. `default`: k until then."""

    def __init__(
        self,
        state: UserState,
        network: str,
        default: int,
        target: float,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._state = state
        self._network = network
        self._default = default
        self._target = target
        self._random = random
        kept = state.fact(FACT)
        try:
            self._facts = _Facts() if kept is None else msgspec.msgpack.decode(kept, type=_Facts)
        except msgspec.MsgspecError:
            self._facts = _Facts()  # written by another version: measured anew
        if self._facts.network not in ("", network):  # "": by 0.1.0
            self._facts = _Facts()  # another community's computers tell nothing of this one's

    @property
    def known(self) -> Availability:
        """The estimate of p."""
        return Availability(self._facts.found, self._facts.missed)

    def set(self, known: Availability) -> None:
        """Take this for what was measured, from here on."""
        self._facts = _Facts(known.found, known.missed, network=self._network)

    @property
    def target(self) -> float:
        """What share of actions is to succeed."""
        return self._target

    @property
    def k(self) -> int:
        """Copies to make of each object (equation (6))."""
        return self.known.k(self._default, self._target)

    def code(self, nodes: int) -> Code:
        """How to code a large body on so many nodes."""
        return choose(self.known, self.k, self._target, nodes)

    async def run(self, overlay: Overlay, now: float) -> float:
        """Look for the last probe if it is time, and store the next; seconds until there is something to do."""
        facts = self._facts
        age = now - facts.stored
        if facts.key and 0 <= age < WAIT:
            return WAIT - age
        try:
            if facts.key and 0 <= age < KEPT:  # else it has expired, or the clock was set
                found = min(await overlay.copies(Kind.PROBE, facts.key), facts.copies)
                known = self.known.observed(found, facts.copies - found)
                facts = _Facts(known.found, known.missed)
            key = probe_key(overlay.network.name, self._random(16))
            outcome = await overlay.store(Kind.PROBE, key, self._random(PROBE_BYTES), ttl=KEPT)
        except OverlayError:
            return RETRY  # a network that is away says nothing about its nodes
        self._facts = _Facts(facts.found, facts.missed, key, outcome.have, now, self._network)
        await asyncio.to_thread(self._state.keep_fact, FACT, msgspec.msgpack.encode(self._facts))
        return WAIT
