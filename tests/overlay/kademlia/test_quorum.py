from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import NoAnswer, Refused
from overlay.identity.contact import Contact
from overlay.kademlia.lookup import Located
from overlay.kademlia.quorum import one_after_another, replicate
from overlay.wire.messages import Code
from tests.simulation.world import World

NODES = [Located(Contact(bytes([number]) * 32, "10.0.0.1", number), bytes(16), 0, b"") for number in range(1, 21)]


def number(at: Located) -> int:
    return at.contact.port


class ScriptedNodes:
    """Nodes that accept, refuse, or don't answer."""

    def __init__(self, silent: set[int] = frozenset(), refusing: set[int] = frozenset(), takes: float = 0.1) -> None:  # type: ignore[assignment]
        self.silent, self.refusing, self.takes = silent, refusing, takes
        self.asked: list[int] = []

    async def __call__(self, at: Located) -> int:
        self.asked.append(number(at))
        await asyncio.sleep(self.takes)
        if number(at) in self.silent:
            raise NoAnswer(f"{number(at)} is silent")
        if number(at) in self.refusing:
            raise Refused(Code.NO_SPACE, f"{number(at)} is full")
        return number(at)


def test_all_wanted_operations_run_at_once_at_the_nearest() -> None:
    world, nodes = World(), ScriptedNodes()
    results = world.play(replicate(NODES, nodes, 10, 20))
    assert sorted(answer for _, answer in results.done) == list(range(1, 11))
    assert nodes.asked == list(range(1, 11))
    assert world.time() == pytest.approx(0.1)


def test_who_says_no_is_replaced_by_the_next_nearest() -> None:
    nodes = ScriptedNodes(silent={1, 2}, refusing={3})
    results = World().play(replicate(NODES, nodes, 10, 20))
    assert sorted(answer for _, answer in results.done) == list(range(4, 14))
    refused = sorted((number(at), reason) for at, reason in results.refused)
    assert refused == [(1, "1 is silent"), (2, "2 is silent"), (3, "3 is full")]
    assert results.asked == {at.contact.id for at in NODES[:13]}


@given(
    st.sets(st.integers(1, 20)), st.sets(st.integers(1, 20)), st.integers(0, 20), st.integers(0, 25), st.integers(0, 20)
)
def test_never_more_is_done_than_wanted_nor_are_more_asked_than_allowed(
    silent: set[int], refusing: set[int], ops: int, connections: int, there: int
) -> None:
    nodes = ScriptedNodes(silent, refusing)
    results = World().play(replicate(NODES[:there], nodes, ops, connections))
    assert len(nodes.asked) == len(set(nodes.asked)) <= min(connections, there)
    good = [n for n in range(1, min(connections, there) + 1) if n not in silent | refusing]
    assert len(results.done) == min(ops, len(good))
    assert len(results.done) + len(results.refused) == len(nodes.asked)


def test_an_error_of_ours_is_raised_and_nothing_goes_on_behind_it() -> None:
    finished: list[int] = []

    async def operation(at: Located) -> int:
        if number(at) == 2:
            raise ZeroDivisionError
        await asyncio.sleep(1)
        finished.append(number(at))
        return 1

    async def story() -> None:
        with pytest.raises(ZeroDivisionError):
            await replicate(NODES, operation, 5, 20)
        await asyncio.sleep(5)

    World().play(story())
    assert finished == []


def test_a_cancelled_call_cancels_its_operations() -> None:
    nodes = ScriptedNodes(takes=10)

    async def story() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(replicate(NODES, nodes, 5, 20), 1)
        assert len(asyncio.all_tasks()) == 1

    World().play(story())


async def _data(at: Located) -> str | None:
    if number(at) == 1:
        raise NoAnswer("silent")
    if number(at) == 2:
        raise Refused(Code.NOT_FOUND, "nothing there")
    return None if number(at) == 3 else f"from {number(at)}"


def test_a_fetch_goes_on_until_one_answer_is_good() -> None:
    assert World().play(one_after_another(NODES, _data)) == ("from 4", {at.contact.id for at in NODES[1:4]})


def test_a_fetch_that_finds_nothing_says_who_answered() -> None:
    assert World().play(one_after_another(NODES[:3], _data)) == (None, {at.contact.id for at in NODES[1:3]})
    assert World().play(one_after_another(NODES[:1], _data)) == (None, set())
    assert World().play(one_after_another([], _data)) == (None, set())
