"""Decides whether others can reach this node, from the answers to dial-back. No I/O.

Theory of operation
-------------------
A node that others can't reach must not be in server mode: they would look for copies at it in vain. Whether it can be
reached is asked in rounds (overlay/node/reachability_probe.py). In one round ASKED nodes in different address ranges
dial back, and each says yes or no. One of them may lie, or a datagram may be lost, so AGREEING must agree; a round in
which too few do says nothing and changes nothing.

`reachable` is what the last round said. The mode changes only when several rounds in a row said the same:

client mode to server mode      after RISE rounds in a row that said yes;
server mode to client mode      after FALL rounds in a row that said no. More, because a node that leaves server mode
                                hands all its copies on. Where a tenth of all nodes lie, one round in ten is wrong,
                                and three in a row are very rare.

With `fixed` the user has decided the mode: it never changes, and `reachable` is for information. The next round is due
SOON while the mode isn't settled (nothing is known yet, or the last round contradicts the mode), else LATER.
"""

from __future__ import annotations

from collections.abc import Sequence

from overlay.identity.contact import Contact, address_range

ASKED = 3
"""Nodes asked in one round."""
AGREEING = 2
"""Nodes that must agree, if as many answer."""
RISE = 2
"""Rounds in a row that must say yes before client mode becomes server mode."""
FALL = 3
"""Rounds in a row that must say no before server mode becomes client mode."""
SOON, LATER = 60.0, 900.0
"""Seconds to the next round, while the mode isn't settled and once it is."""


def verdict(votes: Sequence[bool]) -> bool | None:
    """What AGREEING votes, or all if fewer answered, agree on; None if they don't agree."""
    if not votes:
        return None
    most = votes.count(True) * 2 > len(votes)
    agreeing = votes.count(most)
    return most if agreeing >= min(AGREEING, len(votes)) and agreeing * 2 > len(votes) else None


def choose(contacts: Sequence[Contact]) -> list[Contact]:
    """The nodes to ask, out of some random contacts: in different address ranges as far as possible."""
    ranges: set[bytes] = set()
    first: list[Contact] = []
    rest: list[Contact] = []
    for contact in contacts:
        held = address_range(contact.ip)
        (rest if held in ranges else first).append(contact)
        ranges.add(held)
    return [*first, *rest][:ASKED]


class Reachability:
    """What is known of one node. `server_mode`: whether it starts in it; `fixed`: the user has decided that."""

    def __init__(self, *, server_mode: bool, fixed: bool) -> None:
        self.server_mode = server_mode
        self.reachable: bool | None = None
        self._fixed = fixed
        self._in_a_row = 0

    def heard(self, votes: Sequence[bool]) -> bool:
        """Take the votes of one round; whether the mode changes."""
        said = verdict(votes)
        if said is None:
            return False
        self._in_a_row = self._in_a_row + 1 if said == self.reachable else 1
        self.reachable = said
        if self._fixed or said == self.server_mode or self._in_a_row < (RISE if said else FALL):
            return False
        self.server_mode = said
        return True

    @property
    def pause(self) -> float:
        """Seconds to the next round."""
        settled = self.reachable is not None and (self._fixed or self.reachable == self.server_mode)
        return LATER if settled else SOON
