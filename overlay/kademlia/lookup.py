"""The lookup service (paper, section 2.1): the k active nodes that are closest to a key, exactly.

Decisions only; overlay/wire/rpc.py sends the requests and runs the timers.

Theory of operation
-------------------
A lookup keeps a list of candidates, sorted by their distance from the key. It starts with the seeds, and grows with the
contacts in each answer. It asks the nearest candidates that haven't been asked, ALPHA at once, in a sliding window:
whenever a request is answered, fails or is slow, the next one goes out. Kademlia's original lookup works in rounds
(section 2.3), where each round waits for its slowest node.

The states of a candidate:

    NEW        Not asked yet.
    ASKED      A request is under way, and holds one of the ALPHA slots of the window.
    SLOW       No answer within the usual RTT. It has given up its slot, but the lookup still waits for it: slow doesn't
               mean dead.
    SUSPECT    Asked, although it failed to answer another request a moment ago. It never holds a slot, and the lookup
               waits for it only while fewer than k others have answered.
    ANSWERED   It answered: it is part of the result, if it is among the k nearest that did.
    FAILED     It is silent, refused, or is asked by another path of the same search.

    NEW     -> ASKED, SUSPECT      it is the next nearest, and not suspected, or suspected
    NEW     -> FAILED              another path asks it
    ASKED   -> SLOW                the first time-out (`on_slow`)
    SUSPECT -> FAILED              the first time-out
    ASKED, SLOW, SUSPECT, FAILED -> ANSWERED    an answer, even a late one
    ASKED, SLOW, SUSPECT -> FAILED              silence, or a refusal

The lookup ends when no candidate that is still NEW, ASKED or SLOW could be among the k nearest that answer: each one
that is nearer than the k-th nearest answer has answered or failed. It also ends at its deadline, with what it has. A
SUSPECT doesn't keep it going, unless fewer than k nodes have answered: then it may be this node that was cut off.

Invariants, against answers made up by an attacker: at most CANDIDATES are considered; at most ADDRESSES for one node
id, one of them from any single answer; no contact is asked twice; only a node that answered itself is in the result, so
a made-up contact costs one request and nothing else. When the lookup ends, its open requests are cancelled.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from operator import attrgetter
from typing import Protocol

from overlay.errors import Malformed
from overlay.identity.contact import Contact, WireContact
from overlay.protocol_limits import MAX_K
from overlay.wire import messages

ALPHA = 3
"""Requests under way at once (alpha in the Kademlia paper)."""
DEADLINE = 10.0
"""Seconds for a whole lookup; the nodes that have answered by then are the result."""
WIDTH = 2
"""Contacts asked for, as a multiple of k: some of k contacts are dead, and no other answer names those behind them."""
CANDIDATES = 512
"""Contacts that one lookup considers, so that an attacker's answers can't make it grow without bound."""
_FARTHEST = 1 << 160
ADDRESSES = 3
"""Addresses tried for one node id, so that spreading a wrong address for a node doesn't hide it."""


@dataclass(frozen=True, slots=True)
class Located:
    """A node that answered a lookup, with what is needed to call it. `bulk_port` 0: it has no HTTP server."""

    contact: Contact
    token: bytes
    bulk_port: int
    fingerprint: bytes


class LookupRPC(Protocol):
    """What a lookup needs of the node that it runs on (overlay/protocol.py)."""

    def send_find(
        self,
        contact: Contact,
        key: bytes,
        k: int,
        on_done: Callable[[messages.Found | None], None],
        on_slow: Callable[[], None],
    ) -> Callable[[], None]:
        """Send a Find; returns a function that cancels it."""
        ...

    def checked(self, wire: WireContact) -> Contact:
        """Check a contact from an answer. Raises Malformed."""
        ...

    def suspected(self, contact: Contact) -> bool:
        """Whether `contact` failed to answer another request a moment ago."""
        ...


class _State(Enum):
    """The states of a candidate; the module's docstring explains them."""

    NEW = auto()
    ASKED = auto()
    SLOW = auto()
    SUSPECT = auto()
    ANSWERED = auto()
    FAILED = auto()


@dataclass(slots=True)
class _LookupCandidate:
    contact: Contact
    distance: int
    state: _State = _State.NEW
    located: Located | None = None
    cancel: Callable[[], None] | None = None
    """Cancels its request, while there is one. Set to None after that: it refers back to this candidate, and the cycle
    would be left to the garbage collector."""


_DISTANCE = attrgetter("distance")


class Pool:
    """What the paths of one search share: the contacts they asked, and the distances of those that answered.

    overlay/kademlia/disjoint_lookup.py runs such paths.
    """

    def __init__(self) -> None:
        self._claimed: set[Contact] = set()
        self._answered: list[int] = []

    def claim(self, contact: Contact) -> bool:
        """Whether no path has asked this contact; if so it is the caller's to ask."""
        if contact in self._claimed:
            return False
        self._claimed.add(contact)
        return True

    def answered(self, distance: int) -> None:
        """Count a node that answered, at this distance from the key."""
        insort(self._answered, distance)

    def nearer(self, distance: int) -> int:
        """How many of the nodes that answered are nearer to the key than this."""
        return bisect_left(self._answered, distance)


class Lookup:
    """One search for the k nodes closest to `key`, from `seeds`, never asking `own_id`. Use once.

    With a `pool` it is one of several paths that share it. `alpha` requests are under way at once.
    """

    def __init__(
        self,
        rpc: LookupRPC,
        key: bytes,
        k: int,
        *,
        seeds: Iterable[Contact],
        own_id: bytes,
        pool: Pool | None = None,
        alpha: int = ALPHA,
    ) -> None:
        self._pool = pool or Pool()
        self._rpc = rpc
        self._key = key
        self._target = int.from_bytes(key, "big")
        self._k = k
        self._width = min(WIDTH * k, MAX_K)
        self._own_id = own_id
        self._alpha = alpha
        self._candidates: list[_LookupCandidate] = []
        self._known: set[Contact] = set()
        self._known_wires: set[WireContact] = set()
        self._addresses_of: dict[bytes, int] = {}
        self._in_flight = 0
        self._answered: set[bytes] = set()
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.asked = 0
        for contact in seeds:
            self._consider(contact)

    async def run(self, deadline: float = DEADLINE) -> list[Located]:
        """The closest nodes that answered, nearest first: k of them, or fewer if no more were found in time."""
        self._advance()
        try:
            await asyncio.wait([self._done], timeout=deadline)
        finally:
            if not self._done.done():
                self._done.cancel()
            for candidate in self._candidates:
                cancel, candidate.cancel = candidate.cancel, None
                if cancel is not None and candidate.state in (_State.ASKED, _State.SLOW):
                    cancel()
        return [candidate.located for candidate in self._candidates if candidate.located is not None][: self._k]

    def _consider(self, contact: Contact) -> None:
        if contact.id == self._own_id or contact in self._known or len(self._known) >= CANDIDATES:
            return
        addresses = self._addresses_of.get(contact.id, 0)
        if addresses >= ADDRESSES:
            return
        self._addresses_of[contact.id] = addresses + 1
        self._known.add(contact)
        insort(self._candidates, _LookupCandidate(contact, contact.long_id ^ self._target), key=_DISTANCE)

    def _advance(self) -> None:  # noqa: C901 - one pass over the candidates, run at each answer of each lookup
        """Ask the next nearest candidates while a slot is free; end the lookup when nothing nearer can be found."""
        if self._done.done():
            return
        waiting = suspects = False
        for candidate in self._candidates:
            if candidate.state is _State.ANSWERED or candidate.state is _State.FAILED:
                continue
            if self._pool.nearer(candidate.distance) >= self._k:
                break
            if candidate.contact.id in self._answered:
                continue
            if candidate.state is not _State.NEW:
                suspects = suspects or candidate.state is _State.SUSPECT
                waiting = waiting or candidate.state is not _State.SUSPECT
                continue
            suspected = self._rpc.suspected(candidate.contact)
            if not suspected and self._in_flight >= self._alpha:
                waiting = True
                break
            if not self._pool.claim(candidate.contact):
                candidate.state = _State.FAILED  # another path asks it
            elif suspected:
                self._ask(candidate, _State.SUSPECT)
                suspects = True
            else:
                self._ask(candidate, _State.ASKED)
                waiting = True
        # Suspects aren't waited for, unless too few others answered: then it may be this node that was cut off.
        if not waiting and not (suspects and self._pool.nearer(_FARTHEST) < self._k):
            self._done.set_result(None)

    def _ask(self, candidate: _LookupCandidate, state: _State) -> None:
        candidate.state = state
        self._in_flight += state is _State.ASKED
        self.asked += 1

        def on_slow() -> None:
            if candidate.state is _State.ASKED:
                self._in_flight -= 1
                candidate.state = _State.SLOW
            elif candidate.state is _State.SUSPECT:
                candidate.state = _State.FAILED
            self._advance()

        def on_done(found: messages.Found | None) -> None:
            candidate.cancel = None
            if candidate.state is _State.ASKED:
                self._in_flight -= 1
            candidate.state = _State.FAILED
            if found is not None and candidate.contact.id not in self._answered:
                candidate.state = _State.ANSWERED
                candidate.located = Located(candidate.contact, found.token, found.bulk_port, found.fingerprint)
                self._answered.add(candidate.contact.id)
                self._pool.answered(candidate.distance)
                self._consider_all(found.contacts)
            self._advance()

        candidate.cancel = self._rpc.send_find(candidate.contact, self._key, self._width, on_done, on_slow)

    def _consider_all(self, contacts: list[WireContact]) -> None:
        """Consider the contacts of one answer: one address for each id, so that one liar can't use up its ADDRESSES."""
        named: set[bytes] = set()
        for wire in contacts[: self._width]:
            if wire in self._known_wires:  # most are known: honest nodes name the same ones
                continue
            try:
                contact = self._rpc.checked(wire)
            except Malformed:
                continue
            if contact.id not in named:
                named.add(contact.id)
                self._consider(contact)
                if contact in self._known:
                    self._known_wires.add(wire)
