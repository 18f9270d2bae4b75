"""Replicated calls (paper, section 6): how many nodes must succeed, and how many may be asked. Decisions only.

`max_ops` is how many nodes must perform an operation, `max_connections` how many may be contacted for it. All
operations run at once; each one that fails moves on to the next node of the list.
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
    """The results of a replicated call: the nodes that did it, and those that didn't and why."""

    done: list[tuple[Located, R]] = field(default_factory=list)
    refused: list[tuple[Located, str]] = field(default_factory=list)
    answered: set[bytes] = field(default_factory=set)
    """Ids of the nodes that did or refused it."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why nodes failed or refused, each reason once."""
        return tuple(dict.fromkeys(reason for _, reason in self.refused))

    @property
    def asked(self) -> set[bytes]:
        """Ids of all nodes that were contacted."""
        return {located.contact.id for located, _ in [*self.done, *self.refused]}


async def replicate(
    nodes: Sequence[Located], operation: Callable[[Located], Awaitable[R]], max_ops: int, max_connections: int
) -> Results[R]:
    """Run `operation` at the nearest nodes until `max_ops` have done it, or the list or `max_connections` is used up.

    NoAnswer and Refused from `operation` count as a failure of that node; any other exception is raised.
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
        for task in workers:  # when one raised, the others must not go on in the background
            task.cancel()
    return results


async def one_after_another(
    nodes: Sequence[Located], operation: Callable[[Located], Awaitable[R | None]]
) -> tuple[R | None, set[bytes]]:
    """Ask one node after another, nearest first, until one gives an answer that isn't None (paper, section 3.3).

    Returns that answer, and the ids of the nodes that answered at all.
    """
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
