"""Whether others can reach this node, from what those say who tried (dial-back). Decisions only.

A round asks a few nodes in different address ranges. One of them can lie or have lost a datagram, so two must agree,
and what they agree on must last: a node that others can't reach would be missed where it should keep a copy.
"""

from __future__ import annotations

from collections.abc import Sequence

from overlay.identity.contact import Contact, address_range

ASKED = 3
AGREEING = 2
RISE = 2
"""Rounds in a row that say yes before a client becomes a node."""
FALL = 3
"""Rounds in a row that say no before a node becomes a client: liars have a round in ten, not three in a row."""
SOON, LATER = 60.0, 900.0
"""Seconds to the next round: while it isn't settled, and when it is."""


def verdict(votes: Sequence[bool]) -> bool | None:
    """What a round says: what two agree on, or all where fewer answered; None when they don't agree."""
    if not votes:
        return None
    most = votes.count(True) * 2 > len(votes)
    agreeing = votes.count(most)
    return most if agreeing >= min(AGREEING, len(votes)) and agreeing * 2 > len(votes) else None


def choose(contacts: Sequence[Contact]) -> list[Contact]:
    """Whom to ask, of some picked by chance: of different operators, as far as there are."""
    ranges: set[bytes] = set()
    first: list[Contact] = []
    rest: list[Contact] = []
    for contact in contacts:
        held = address_range(contact.ip)
        (rest if held in ranges else first).append(contact)
        ranges.add(held)
    return [*first, *rest][:ASKED]


class Reachability:
    """What is known of one node. `serves`: whether it begins as a node; `fixed`: its owner has decided that."""

    def __init__(self, *, serves: bool, fixed: bool) -> None:
        self.serves = serves
        self.reachable: bool | None = None
        self._fixed = fixed
        self._in_a_row = 0

    def heard(self, votes: Sequence[bool]) -> bool:
        """Take a round's votes; whether the node is to change what it is."""
        said = verdict(votes)
        if said is None:
            return False
        self._in_a_row = self._in_a_row + 1 if said == self.reachable else 1
        self.reachable = said
        if self._fixed or said == self.serves or self._in_a_row < (RISE if said else FALL):
            return False
        self.serves = said
        return True

    @property
    def pause(self) -> float:
        """Seconds to the next round."""
        settled = self.reachable is not None and (self._fixed or self.reachable == self.serves)
        return LATER if settled else SOON
