"""Makes room on a node: what has expired goes first, then what other nodes are responsible for (paper, section 2.3).

Theory of operation
-------------------
A write that doesn't fit into the quota asks `make_room` for the bytes that are missing and is then tried again. There
is room in three steps, and the first that is enough ends it:

    1. Somebody else made room while this write waited for its turn: nothing is done, the write is tried again.
    2. Expired objects, notifications, tombstones and remembered hashes are removed.
    3. Objects of which this node isn't among the k closest any more are removed, the least recently used first. Their
       k closest nodes have copies; this node only kept them because there was room.

If that isn't enough the write is refused (NoSpace), and nothing was removed that step 3 would have had to remove.

Looking through a full store costs more than a refusal, so a search's result stands for SEARCH_MEMORY seconds: up to
where everything is this node's to keep (`_looked`), and for how many bytes a search was in vain (`_barren`). A flood of
offers to a full node then costs one search in ten seconds.

Invariants:

- An object that this node is responsible for is never removed before it expires, whatever is offered.
- Inboxes are never collected: a notification that nobody has read only expires.
- The sums that the quota is compared with are kept by triggers in the same transaction as the rows
  (storage/node/schema.py), so a crash can't make them wrong.
- One search runs at a time, in pieces of BATCH rows, so that other requests don't wait behind it.
- How much of the quota one peer and one address range may fill is storage/node/quota_shares.py's rule: it is checked
  inside the transaction that writes.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from storage.database import Database
from storage.node.inboxes import Leases
from storage.node.objects import NoSpace, drop, files_of

BATCH = 500
"""Rows looked at, or removed, in one piece of work, so that others don't wait behind it."""

SEARCH_MEMORY = 10.0
"""Seconds for which a search's result stands: that objects looked at are this node's to keep, or that a search was
in vain. So a full node isn't kept busy looking through its whole store for every object that is offered."""

TOUCH_GRAIN = 600.0
"""Seconds: an object read again within them isn't marked as used again."""


_START = (-1.0, -1)
"""Before the least recently used object: (used, id)."""


@dataclass(slots=True)
class AccessTimes:
    """When objects were last read, kept in memory until a write is due. Touched by the database's thread only.

    What a crash loses of them makes an object look less recently used than it is, and loses nothing else.
    """

    _used: dict[int, float] = field(default_factory=dict)

    def record(self, number: int, before: float, now: float) -> None:
        """Object `number`, last used at `before`, is used `now`."""
        if now - max(before, self._used.get(number, before)) >= TOUCH_GRAIN:
            self._used[number] = now

    def flush(self, connection: sqlite3.Connection) -> None:
        """Write them down."""
        connection.executemany("UPDATE objects SET used = ?2 WHERE id = ?1", list(self._used.items()))
        self._used.clear()


@dataclass(frozen=True, slots=True)
class Expired:
    """How many rows went (objects, notifications, tombstones, remembered hashes), and which body files with them."""

    count: int
    files: list[str]
    more: bool


def expire(connection: sqlite3.Connection, now: float) -> Expired:
    """Remove up to BATCH expired rows of each table."""
    due = "expires <= ? ORDER BY expires LIMIT ?"
    found = connection.execute(
        f"DELETE FROM objects WHERE id IN (SELECT id FROM objects WHERE {due}) RETURNING file",  # noqa: S608
        (now, BATCH),
    ).fetchall()
    counts = [len(found)]
    for table, identity in (("notifications", "id"), ("tombstones", "rowid"), ("acknowledged", "(key, hash)")):
        columns = identity.strip("()")
        removed = connection.execute(
            f"DELETE FROM {table} WHERE {identity} IN (SELECT {columns} FROM {table} WHERE {due})",  # noqa: S608
            (now, BATCH),
        )
        counts.append(removed.rowcount)
    return Expired(sum(counts), files_of(found), more=BATCH in counts)


@dataclass(frozen=True, slots=True)
class _EvictionCandidate:
    id: int
    key: bytes
    used: float
    charge: int


class Collector:
    """Frees room in one node's database. One search runs at a time; the others wait and look again."""

    def __init__(
        self, database: Database, touches: AccessTimes, leases: Leases, *, quota: int, now: Callable[[], float]
    ) -> None:
        self._database = database
        self._touches = touches
        self._leases = leases
        self._quota = quota
        self._now = now
        self._turn = asyncio.Lock()
        self._searches = 0  # that made room
        self._barren = (0.0, 0)  # until when a search for at least this many bytes is known to find nothing
        self._looked = (0.0, _START)  # until when everything up to there is known to be this node's to keep

    async def make_room(self, missing: int, responsible: Callable[[bytes], bool] | None) -> list[str]:
        """Free at least `missing` bytes; returns the body files to remove. NoSpace: nothing that lives was removed.

        `responsible(key)`: whether this node is among the k closest to the key; asked on the event loop. None: only
        what has expired goes. Try again after it returns, since somebody else may have been quicker.
        """
        searches = self._searches
        async with self._turn:
            if searches != self._searches:
                return []  # while we waited, room was made: perhaps enough
            before = await self._database.read(_bytes_used)
            _, files = await self.expire()
            missing -= before - await self._database.read(_bytes_used)
            if missing > 0 and responsible is not None:
                files += await self._collect(missing, responsible)
            elif missing > 0:
                raise NoSpace(missing)
            self._searches += 1
            return files

    async def _collect(self, missing: int, responsible: Callable[[bytes], bool]) -> list[str]:
        until, size = self._barren
        if self._stands(until) and missing >= size:
            raise NoSpace(missing)
        if not self._stands(self._looked[0]):
            self._looked = (self._now() + SEARCH_MEMORY, _START)
        victims, freed, looked = await self._choose(missing, responsible)
        if freed < missing:
            self._barren = (self._now() + SEARCH_MEMORY, missing)
            raise NoSpace(missing - freed)
        self._looked = (self._looked[0], looked)
        files: list[str] = []
        for start in range(0, len(victims), BATCH):
            files += await self._database.write(partial(_remove, victims=victims[start : start + BATCH]))
        return files

    async def expire(self) -> tuple[int, list[str]]:
        """Remove everything that has expired; returns how many rows and which body files."""
        count = 0
        files: list[str] = []
        while True:
            done = await self._database.write(partial(self._expire, now=self._now()))
            count += done.count
            files += done.files
            if not done.more:
                return count, files

    def _expire(self, connection: sqlite3.Connection, now: float) -> Expired:
        self._touches.flush(connection)
        self._leases.expire(now)
        return expire(connection, now)

    def _stands(self, until: float) -> bool:
        """Also false when the clock has been set back."""
        return 0 < until - self._now() <= SEARCH_MEMORY

    async def _choose(
        self, missing: int, responsible: Callable[[bytes], bool]
    ) -> tuple[list[int], int, tuple[float, int]]:
        """The least recently used objects that this node needn't hold, until they make enough room; how much; and
        how far it had to look."""
        victims: list[int] = []
        freed = 0
        last = self._looked[1]
        while candidates := await self._database.read(partial(_candidates, after=last)):
            for candidate in candidates:
                last = (candidate.used, candidate.id)
                if not responsible(candidate.key):
                    victims.append(candidate.id)
                    freed += candidate.charge
                    if freed >= missing:
                        return victims, freed, last
        return victims, freed, last


def _bytes_used(connection: sqlite3.Connection) -> int:
    (used,) = connection.execute("SELECT bytes FROM totals").fetchone()
    return int(used)


def _candidates(connection: sqlite3.Connection, after: tuple[float, int]) -> list[_EvictionCandidate]:
    found = connection.execute(
        "SELECT id, key, used, charge FROM objects WHERE (used, id) > (?, ?) ORDER BY used, id LIMIT ?",
        (*after, BATCH),
    )
    return [_EvictionCandidate(*row) for row in found]


def _remove(connection: sqlite3.Connection, victims: list[int]) -> list[str]:
    return [name for number in victims for name in drop(connection, number)]
