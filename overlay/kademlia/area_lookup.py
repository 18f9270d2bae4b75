"""Lookups that share their results, for a user agent with many keys to look up at once.

A wide lookup finds every live node up to some distance from its key. So it finds every node that shares a certain
prefix with the key. The closest nodes to any other key with that prefix are among them, since in the XOR metric every
node with the prefix is nearer to that key than any node without it. Such a key needs no lookup of its own. In a network
of fewer nodes than a wide lookup asks for, one lookup finds all of them. Results are used for KNOWN_FOR seconds; a node
that didn't answer meanwhile is left out.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from overlay.identity.contact import Contact
from overlay.ids import distance
from overlay.kademlia.lookup import Located
from overlay.protocol_limits import KEY_BYTES

WIDTH = 64
"""Nodes that a wide lookup looks for."""
LARGEST = 20
"""The most nodes that a lookup may take from an area: about half of what a wide lookup finds shares the prefix."""
PAUSE = 5.0
"""Seconds without wide lookups after one whose result couldn't be shared."""
KNOWN_FOR = 20.0
"""Seconds that an area is used; a node that joins meanwhile gets its copies by overlay/replication/repair.py."""
MANY = 50
"""The number of expected lookups from which on they share; a wide lookup costs as much as five others."""
_BITS = KEY_BYTES * 8


@dataclass(slots=True)
class _Area:
    """All live nodes whose distance from `key` is less than 2^bits, as they were until `until` (the loop's seconds).

    `whole`: these are all nodes of the network.
    """

    key: bytes
    bits: int
    nodes: list[Located]
    until: float
    whole: bool


class AreaLookups:
    """The areas that the lookups of one node share; for one event loop.

    `look` runs a lookup for a key and a number of nodes. `table` returns the nodes of the routing table that are
    closest to a key and answer.
    """

    def __init__(
        self,
        look: Callable[[bytes, int], Awaitable[list[Located]]],
        table: Callable[[bytes, int], Sequence[Contact]],
    ) -> None:
        self._look = look
        self._table = table
        self._areas: list[_Area] = []
        self._looking = asyncio.Lock()
        self._pause_until = -math.inf
        self._sharing = 0

    @contextmanager
    def share(self, lookups: int) -> Iterator[None]:
        """About this many lookups will run in this block; if they are MANY they share."""
        many = lookups >= MANY
        self._sharing += many
        try:
            yield
        finally:
            self._sharing -= many
            if not self._sharing:
                self._areas.clear()

    @property
    def sharing(self) -> bool:
        """Whether lookups share results now."""
        return self._sharing > 0

    async def closest(self, key: bytes, count: int) -> list[Located]:
        """The `count` closest live nodes, nearest first."""
        if count > LARGEST:
            return await self._look(key, count)
        known = self._known(key, count)
        if known is None:
            async with self._looking:
                known = self._known(key, count)  # another caller may have looked it up meanwhile
                if known is None and asyncio.get_running_loop().time() >= self._pause_until:
                    await self._survey(key)
                    known = self._known(key, count)
        return await self._look(key, count) if known is None else known[:count]

    def silent(self, nodes: Iterable[bytes]) -> None:
        """Leave out these nodes (ids): they didn't answer."""
        gone = set(nodes)
        for area in self._areas:
            left = [located for located in area.nodes if located.contact.id not in gone]
            if len(left) < len(area.nodes):  # if too few are left, a new lookup shows whether they are slow or gone
                area.nodes, area.whole = left, False

    def _known(self, key: bytes, count: int) -> list[Located] | None:
        now = asyncio.get_running_loop().time()
        self._areas = [area for area in self._areas if now < area.until]
        for area in self._areas:
            inside = distance(area.key, key) >> area.bits == 0
            if inside and (area.whole or len(area.nodes) >= count):
                return sorted(area.nodes, key=lambda located: distance(located.contact.id, key))
        return None

    async def _survey(self, key: bytes) -> None:
        found = await self._look(key, WIDTH)
        now = asyncio.get_running_loop().time()
        whole = len(found) < WIDTH
        # All nodes nearer than the farthest are known, so all that share one bit more of prefix than it does.
        bits = _BITS if whole else distance(found[-1].contact.id, key).bit_length() - 1
        inside = [located for located in found if distance(located.contact.id, key) >> bits == 0]
        ids = {located.contact.id for located in inside}
        # If a known live node wasn't found, the lookup was cut short, and its result can't be used for other keys.
        complete = all(contact.id in ids or distance(contact.id, key) >> bits for contact in self._table(key, WIDTH))
        if complete and (whole or len(inside) >= LARGEST):
            self._areas.append(_Area(key, bits, inside, now + KNOWN_FOR, whole))
        else:
            self._pause_until = now + PAUSE
