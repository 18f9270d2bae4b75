"""How much of a node one peer, and one address range, may fill: so that nobody's flood leaves no room for the others.

Functions here run inside a transaction of database.py. The sums are kept by triggers (node_schema.py).
"""

from __future__ import annotations

import sqlite3

from storage.node.objects import Origin, StoreRefused

PEER_SHARE = 1 / 8
RANGE_SHARE = 1 / 4
"""Of the quota, while there is room for all."""
HALVED_ABOVE = 3 / 4
"""How full a node is, as a share of its quota, when the shares are halved."""


class ShareUsed(StoreRefused):
    """This peer or its range has filled its share of the node."""

    def __init__(self) -> None:
        super().__init__("This node keeps its full share for you and your network already; ask the next node.")


def check(connection: sqlite3.Connection, origin: Origin | None, quota: int) -> None:
    """Raise ShareUsed when what was just written is over a share: the transaction that wrote it is to be undone.

    What nobody brought (this node's own) is free.
    """
    if origin is None:
        return
    (used,) = connection.execute("SELECT bytes FROM totals").fetchone()
    halved = 2 if used > HALVED_ABOVE * quota else 1
    for who, share in ((origin.peer, PEER_SHARE), (origin.address_range, RANGE_SHARE)):
        if who is not None and bytes_held_for(connection, who) > share * quota / halved:
            raise ShareUsed


def bytes_held_for(connection: sqlite3.Connection, who: bytes) -> int:
    """Bytes of the quota that are kept for a peer or a range."""
    found = connection.execute("SELECT bytes FROM shares WHERE who = ?", (who,)).fetchone()
    return int(found[0]) if found else 0
