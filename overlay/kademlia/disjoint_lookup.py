"""Lookups by disjoint paths (S/Kademlia, section 4.4), so that a liar spoils only the path that meets it.

Each path starts from other contacts and follows only what it was told itself; no contact is asked by two paths. The
paths share only which nodes have answered: all end when k nodes nearer than any remaining candidate have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from overlay.identity.contact import Contact
from overlay.ids import distance
from overlay.kademlia.lookup import DEADLINE, Located, Lookup, LookupRPC, Pool

PATHS = 4
"""d in the S/Kademlia paper: with 20% hostile nodes, 4 to 8 paths succeed in 99% of lookups."""
AT_ONCE = 1
"""Requests under way on each path, as in the paper. In a network of 120 nodes, a lookup with one request on each path
asks 14 nodes, with three 24; a lookup by a single path asks 13. With one it takes as long as by a single path."""
SEEDS_OF_PATH = 2
"""The fewest contacts that a path may start from."""


async def disjoint_lookup(
    rpc: LookupRPC, key: bytes, k: int, *, seeds: Iterable[Contact], own_id: bytes, deadline: float = DEADLINE
) -> tuple[list[Located], int]:
    """The k closest nodes that answered on any path, nearest first, and how many were asked."""
    nearest = sorted(dict.fromkeys(seeds), key=lambda contact: distance(contact.id, key))
    paths = max(1, min(PATHS, len(nearest) // SEEDS_OF_PATH))
    pool = Pool()
    lookups = [
        Lookup(rpc, key, k, seeds=nearest[path::paths], own_id=own_id, pool=pool, alpha=AT_ONCE)
        for path in range(paths)
    ]
    found = await asyncio.gather(*(lookup.run(deadline) for lookup in lookups))
    located = {at.contact.id: at for some in found for at in some}
    closest = sorted(located.values(), key=lambda at: distance(at.contact.id, key))[:k]
    return closest, sum(lookup.asked for lookup in lookups)
