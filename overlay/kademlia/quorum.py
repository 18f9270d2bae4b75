"""Replicated calls (paper, section 6): how many nodes must say yes, and how many may be asked. Decisions only.

`max_ops` is how often an operation must succeed, `max_connections` how many nodes may be contacted for it. All
wanted operations run at once; each one that fails moves on to the next node of the list.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from overlay.errors import NoAnswer, Refused
from overlay.kademlia.lookup import Located

R = TypeVar("R")


@dataclass(slots=True)
class Results(Generic[R]):
    """What came of a replicated call: who did it, and who didn't and why."""

    done: list[tuple[Located, R]] = field(default_factory=list)
    refused: list[tuple[Located, str]] = field(default_factory=list)
    answered: set[bytes] = field(default_factory=set)
    """Ids of the nodes that said yes or no."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why nodes said no, each reason once."""
        return tuple(dict.fromkeys(reason for _, reason in self.refused))

    @property
    def asked(self) -> set[bytes]:
        """Ids of all nodes that were contacted."""
        return {located.contact.id for located, _ in [*self.done, *self.refused]}


async def replicate(
    nodes: Sequence[Located], operation: Callable[[Located], Awaitable[R]], max_ops: int, max_connections: int
) -> Results[R]:
    """Run `operation` at the nearest nodes until `max_ops` have done it or the list (or allowance) is used up.

    NoAnswer and Refused from `operation` count as a no; anything else is raised.
    """
    results: Results[R] = Results()
    left = iter(nodes[:max_connections])

    async def worker(nodes_left: Iterator[Located]) -> None:
        for located in nodes_left:
            try:
                answer = await operation(located)
            except (NoAnswer, Refused) as error:
                results.refused.append((located, str(error)))
                if isinstance(error, Refused):
                    results.answered.add(located.contact.id)
            else:
                results.done.append((located, answer))
                results.answered.add(located.contact.id)
                return

    workers = [asyncio.ensure_future(worker(left)) for _ in range(max_ops)]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in workers:  # when one raised, the others don't go on behind the caller's back
            task.cancel()
    return results


async def one_after_another(
    nodes: Sequence[Located], operation: Callable[[Located], Awaitable[R | None]]
) -> tuple[R | None, set[bytes]]:
    """The first answer that isn't None, nearest node first, and which nodes answered at all (ids; paper, 3.3)."""
    answered: set[bytes] = set()
    for located in nodes:
        try:
            answer = await operation(located)
        except NoAnswer:
            continue
        except Refused:
            answer = None
        answered.add(located.contact.id)
        if answer is not None:
            return answer, answered
    return None, answered
