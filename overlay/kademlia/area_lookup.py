"""Lookups that share what they find: whoever has thousands of keys to find looks at a part of the network once.

A wide lookup finds every live node up to some distance from its key, so also every node that shares a prefix with the
key, if that is long enough. The closest nodes to any other key with that prefix are among those (XOR: all of them are
nearer than any node without the prefix), and needn't be looked up. A network of fewer nodes than are asked for is found
whole. What was found is used for some seconds only; who didn't answer since is left out.
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
"""Nodes that a wide lookup asks for."""
LARGEST = 20
"""Closest nodes that are taken from an area: of the nodes that a wide lookup finds about half share the prefix."""
PAUSE = 5.0
"""Seconds without wide lookups after one that was of no use."""
KNOWN_FOR = 20.0
"""Seconds; who joins meanwhile is handed what it should have by those that have it (overlay/replication/repair.py)."""
MANY = 50
"""Lookups from which on they share: a wide one costs as much as five."""
_BITS = KEY_BYTES * 8


@dataclass(slots=True)
class _Area:
    """All live nodes whose distance from `key` is less than 2^bits, as they were until `until` (the loop's seconds).

    `whole`: it is the network with nobody left out, so that there are no other nodes.
    """

    key: bytes
    bits: int
    nodes: list[Located]
    until: float
    whole: bool


class AreaLookups:
    """What the lookups of one overlay share. `look` is a lookup: a key and how many nodes; `table` the closest nodes
    to a key that are known to answer. For one event loop."""

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
        """About so many lookups are to come in this block; if they are MANY they share."""
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
        """Whether lookups share now."""
        return self._sharing > 0

    async def closest(self, key: bytes, count: int) -> list[Located]:
        """The `count` closest live nodes, nearest first."""
        if count > LARGEST:
            return await self._look(key, count)
        known = self._known(key, count)
        if known is None:
            async with self._looking:
                known = self._known(key, count)  # perhaps another one has looked meanwhile
                if known is None and asyncio.get_running_loop().time() >= self._pause_until:
                    await self._survey(key)
                    known = self._known(key, count)
        return await self._look(key, count) if known is None else known[:count]

    def silent(self, nodes: Iterable[bytes]) -> None:
        """These nodes (ids) didn't answer."""
        gone = set(nodes)
        for area in self._areas:
            left = [at for at in area.nodes if at.contact.id not in gone]
            if len(left) < len(area.nodes):  # where too few are left it is looked at again: they may be slow, not gone
                area.nodes, area.whole = left, False

    def _known(self, key: bytes, count: int) -> list[Located] | None:
        now = asyncio.get_running_loop().time()
        self._areas = [area for area in self._areas if now < area.until]
        for area in self._areas:
            inside = distance(area.key, key) >> area.bits == 0
            if inside and (area.whole or len(area.nodes) >= count):
                return sorted(area.nodes, key=lambda at: distance(at.contact.id, key))
        return None

    async def _survey(self, key: bytes) -> None:
        found = await self._look(key, WIDTH)
        now = asyncio.get_running_loop().time()
        whole = len(found) < WIDTH
        # All that are nearer than the farthest one are known, so all that share its prefix and one bit more.
        bits = _BITS if whole else distance(found[-1].contact.id, key).bit_length() - 1
        inside = [at for at in found if distance(at.contact.id, key) >> bits == 0]
        ids = {at.contact.id for at in inside}
        # Where one that answers wasn't found the lookup was cut short: it says nothing about other keys.
        complete = all(one.id in ids or distance(one.id, key) >> bits for one in self._table(key, WIDTH))
        if complete and (whole or len(inside) >= LARGEST):
            self._areas.append(_Area(key, bits, inside, now + KNOWN_FOR, whole))
        else:
            self._pause_until = now + PAUSE
