"""Concurrent work: all of it ends, no error is unobserved, and locks exclude."""

from __future__ import annotations

import asyncio
import threading

import pytest

from mail.asyncio_tools import KeyedLocks, ProgressSteps, gather_all, gather_each, shielded_to_thread
from mail.events import Event, Progress


async def give(value: int) -> int:
    return value


async def fail(error: Exception) -> int:
    raise error


async def test_results_come_in_order() -> None:
    assert await gather_all(give(number) for number in range(3)) == [0, 1, 2]
    assert await gather_all(give(number) for number in range(0)) == []


async def test_the_first_error_is_raised_when_the_others_are_done() -> None:
    done = asyncio.Event()

    async def slow() -> int:
        for _ in range(10):
            await asyncio.sleep(0)
        done.set()
        return 1

    with pytest.raises(ValueError, match="one"):
        await gather_all([fail(ValueError("one")), fail(ValueError("two")), slow()])
    assert done.is_set()


async def test_a_thread_that_is_cancelled_is_waited_for() -> None:
    begun, may_end = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    ended: list[bool] = []

    def work() -> None:
        loop.call_soon_threadsafe(begun.set)
        may_end.wait(30)
        ended.append(True)

    task = asyncio.create_task(shielded_to_thread(work))
    await begun.wait()
    task.cancel()
    for _ in range(3):
        await asyncio.to_thread(lambda: None)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True]


async def test_a_threads_result_and_error_are_handed_on() -> None:
    assert await shielded_to_thread(int, "7") == 7
    with pytest.raises(ValueError, match="invalid literal"):
        await shielded_to_thread(int, "x")


async def test_a_name_is_held_by_one_at_a_time_and_others_are_free() -> None:
    locks = KeyedLocks()
    within: list[str] = []

    async def hold(name: str) -> None:
        async with locks.of(name):
            assert name not in within
            within.append(name)
            assert locks.held(name)
            for _ in range(5):
                await asyncio.sleep(0)
            within.remove(name)

    await gather_all(hold(name) for name in ["a", "a", "b", "a"])
    assert not locks.held("a")
    async with locks.of("a"):
        await hold("b")


async def test_each_of_works_on_so_many_at_once_and_raises_when_all_are_done() -> None:
    running, most, done = 0, 0, []

    async def work(item: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        if item == 3:
            raise ValueError("three")
        done.append(item)

    with pytest.raises(ValueError, match="three"):
        await gather_each(range(10), work, 4)
    assert (most, sorted(done)) == (4, [0, 1, 2, 4, 5, 6, 7, 8, 9])


def test_steps_are_told_at_the_beginning_of_much_work_and_then_twice_a_second() -> None:
    moment, told = 0.0, list[Event]()
    steps = ProgressSteps(told.append, "work", 100, lambda: moment)
    assert told == [Progress("work", 0, 100)]
    for _ in range(100):
        moment += 0.125
        steps.another()
    assert told[1:] == [Progress("work", done, 100) for done in range(4, 101, 4)]


def test_few_steps_that_are_done_at_once_tell_nothing() -> None:
    told = list[Event]()
    steps = ProgressSteps(told.append, "work", 99, lambda: 0.0)
    for _ in range(99):
        steps.another()
    assert told == []
