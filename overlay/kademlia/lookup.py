"""The lookup service (paper, section 2.1): the k active nodes that are closest to a key, exactly.

A sliding window: whenever one of alpha requests is answered or slow, the next goes out, so nobody waits for a round
to end. Slow is not dead: a late answer still counts. A suspect is asked, and not waited for while others answer.
Decisions only; overlay/wire/rpc.py asks and times.
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
"""Requests under way at once."""
DEADLINE = 10.0
"""Seconds for a whole lookup; what has answered by then is the result."""
WIDTH = 2
"""Contacts asked for, in k: of k contacts some are dead, and nobody else tells of those behind them."""
CANDIDATES = 512
"""Contacts that one lookup considers: an attacker's answers can't make it grow without end."""
_FARTHEST = 1 << 160
ADDRESSES = 3
"""Places tried for one id: whoever spreads a wrong address for a node doesn't make it vanish."""


@dataclass(frozen=True, slots=True)
class Located:
    """A node that answered a lookup: what is needed to call it. `bulk_port` 0: it has no HTTP door."""

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
        """Send a Find; returns what cancels it."""
        ...

    def checked(self, wire: WireContact) -> Contact:
        """A contact from an answer. Raises Malformed."""
        ...

    def suspected(self, contact: Contact) -> bool:
        """Whether it failed to answer a moment ago."""
        ...


class _State(Enum):
    NEW = auto()
    ASKED = auto()
    SLOW = auto()
    """Not answered within a round trip's usual time: waited for, but it holds no place in the window."""
    SUSPECT = auto()
    """Asked although it failed lately; not waited for longer than that."""
    ANSWERED = auto()
    FAILED = auto()


@dataclass(slots=True)
class _LookupCandidate:
    contact: Contact
    far: int
    state: _State = _State.NEW
    located: Located | None = None
    cancel: Callable[[], None] | None = None
    """What gives its request up, while there is one: it leads back here, and is let go so that no garbage is left."""


_FAR = attrgetter("far")


class Pool:
    """What the paths of one search share (overlay/kademlia/disjoint_lookup.py): whom one of them asks, and how far who
    answered is."""

    def __init__(self) -> None:
        self._claimed: set[Contact] = set()
        self._answered: list[int] = []

    def claim(self, contact: Contact) -> bool:
        """Whether nobody asks this contact yet; from now on somebody does."""
        if contact in self._claimed:
            return False
        self._claimed.add(contact)
        return True

    def answered(self, far: int) -> None:
        """A node at this distance answered."""
        insort(self._answered, far)

    def nearer(self, far: int) -> int:
        """How many that answered are nearer."""
        return bisect_left(self._answered, far)


class Lookup:
    """One search for the k nodes closest to `key`, from `seeds`, never asking `own_id`. Use once.

    With a `pool` it is one path of several that share it. `alpha` requests are under way at once.
    """

    def __init__(
        self,
        asker: LookupRPC,
        key: bytes,
        k: int,
        *,
        seeds: Iterable[Contact],
        own_id: bytes,
        pool: Pool | None = None,
        alpha: int = ALPHA,
    ) -> None:
        self._pool = pool or Pool()
        self._asker = asker
        self._key = key
        self._target = int.from_bytes(key, "big")
        self._k = k
        self._width = min(WIDTH * k, MAX_K)
        self._own_id = own_id
        self._alpha = alpha
        self._candidates: list[_LookupCandidate] = []
        self._known: set[Contact] = set()
        self._known_wires: set[WireContact] = set()
        self._places: dict[bytes, int] = {}
        self._in_flight = 0
        self._answered: set[bytes] = set()
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.asked = 0
        for contact in seeds:
            self._consider(contact)

    async def run(self, deadline: float = DEADLINE) -> list[Located]:
        """The closest nodes that answered, nearest first: k of them unless fewer are to be found in time."""
        self._go_on()
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
        places = self._places.get(contact.id, 0)
        if places >= ADDRESSES:
            return
        self._places[contact.id] = places + 1
        self._known.add(contact)
        insort(self._candidates, _LookupCandidate(contact, contact.long_id ^ self._target), key=_FAR)

    def _go_on(self) -> None:  # noqa: C901 - one pass over the candidates, run at each answer of each lookup
        """Ask the next nearest while there is room in the window, or see that nothing nearer can be found."""
        if self._done.done():
            return
        waiting = hoping = False
        for candidate in self._candidates:
            if candidate.state is _State.ANSWERED or candidate.state is _State.FAILED:
                continue
            if self._pool.nearer(candidate.far) >= self._k:
                break
            if candidate.contact.id in self._answered:
                continue
            if candidate.state is not _State.NEW:
                hoping = hoping or candidate.state is _State.SUSPECT
                waiting = waiting or candidate.state is not _State.SUSPECT
                continue
            suspected = self._asker.suspected(candidate.contact)
            if not suspected and self._in_flight >= self._alpha:
                waiting = True
                break
            if not self._pool.claim(candidate.contact):
                candidate.state = _State.FAILED  # another path asks it
            elif suspected:
                self._ask(candidate, _State.SUSPECT)
                hoping = True
            else:
                self._ask(candidate, _State.ASKED)
                waiting = True
        # Suspects are no reason to wait, unless there are too few others: then this node itself was cut off, perhaps.
        if not waiting and not (hoping and self._pool.nearer(_FARTHEST) < self._k):
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
            self._go_on()

        def on_done(found: messages.Found | None) -> None:
            candidate.cancel = None
            if candidate.state is _State.ASKED:
                self._in_flight -= 1
            candidate.state = _State.FAILED
            if found is not None and candidate.contact.id not in self._answered:
                candidate.state = _State.ANSWERED
                candidate.located = Located(candidate.contact, found.token, found.bulk_port, found.fingerprint)
                self._answered.add(candidate.contact.id)
                self._pool.answered(candidate.far)
                self._take(found.contacts)
            self._go_on()

        candidate.cancel = self._asker.send_find(candidate.contact, self._key, self._width, on_done, on_slow)

    def _take(self, contacts: list[WireContact]) -> None:
        """Consider the contacts of one answer; of each id one place, so that one liar can't use up its ADDRESSES."""
        told: set[bytes] = set()
        for wire in contacts[: self._width]:
            if wire in self._known_wires:  # most are: honest nodes tell of the same
                continue
            try:
                contact = self._asker.checked(wire)
            except Malformed:
                continue
            if contact.id not in told:
                told.add(contact.id)
                self._consider(contact)
                if contact in self._known:
                    self._known_wires.add(wire)
