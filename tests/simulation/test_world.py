from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.simulation.world import EPOCH, Deadlock, Transport, Weather, World

A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"


class Ear(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.heard: list[tuple[float, bytes, tuple[str, int]]] = []

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.heard.append((asyncio.get_running_loop().time(), data, addr))


async def ear(world: World, host: str, port: int = 4000) -> tuple[Transport, Ear]:
    return await world.create_datagram_endpoint(Ear, local_addr=(host, port))


def test_a_day_passes_in_no_time() -> None:
    world = World()
    started = time.monotonic()

    async def story() -> None:
        await asyncio.sleep(86_400)
        assert world.time() == 86_400
        assert world.wall() == EPOCH + 86_400

    world.play(story())
    assert time.monotonic() - started < 60


def test_timers_run_in_their_order() -> None:
    world = World()
    order: list[float] = []

    async def story() -> None:
        for delay in (3.0, 1.0, 2.0, 1.5):
            world.call_later(delay, order.append, delay)
        await asyncio.sleep(4)

    world.play(story())
    assert order == [1.0, 1.5, 2.0, 3.0]


def test_a_datagram_arrives_after_the_delay() -> None:
    world = World(weather=Weather(delay=(0.25, 0.25)))

    async def story() -> list[tuple[float, bytes, tuple[str, int]]]:
        sender, _ = await ear(world, A)
        _, there = await ear(world, B)
        sender.sendto(b"hello", (B, 4000))
        await asyncio.sleep(1)
        return there.heard

    assert world.play(story()) == [(0.25, b"hello", (A, 4000))]


@pytest.mark.parametrize(
    ("weather", "least", "most"),
    [(Weather(), 1000, 1000), (Weather(loss=0.3), 600, 800), (Weather(duplication=0.3), 1200, 1400)],
)
def test_datagrams_are_lost_and_repeated_as_the_weather_says(weather: Weather, least: int, most: int) -> None:
    world = World(weather=weather)

    async def story() -> int:
        sender, _ = await ear(world, A)
        _, there = await ear(world, B)
        for _ in range(1000):
            sender.sendto(b"x", (B, 4000))
        await asyncio.sleep(1)
        return len(there.heard)

    assert least <= world.play(story()) <= most


def test_datagrams_overtake_one_another() -> None:
    world = World()

    async def story() -> list[bytes]:
        sender, _ = await ear(world, A)
        _, there = await ear(world, B)
        for number in range(100):
            sender.sendto(bytes([number]), (B, 4000))
        await asyncio.sleep(1)
        return [data for _, data, _ in there.heard]

    heard = world.play(story())
    assert heard != sorted(heard)
    assert sorted(heard) == [bytes([number]) for number in range(100)]


def test_a_parted_network_carries_nothing_across_until_it_heals() -> None:
    world = World()

    async def story() -> tuple[int, int, int]:
        sender, _ = await ear(world, A)
        _, near = await ear(world, B)
        _, far = await ear(world, C)
        world.part([A, B])
        sender.sendto(b"x", (B, 4000))
        sender.sendto(b"x", (C, 4000))
        await asyncio.sleep(1)
        cut = len(far.heard)
        world.part()
        sender.sendto(b"x", (C, 4000))
        await asyncio.sleep(1)
        return len(near.heard), cut, len(far.heard)

    assert world.play(story()) == (1, 0, 1)


def test_a_closed_socket_hears_nothing_and_its_port_is_free_again() -> None:
    world = World()

    async def story() -> int:
        sender, _ = await ear(world, A)
        socket, there = await ear(world, B)
        with pytest.raises(OSError, match="in use"):
            await ear(world, B)
        socket.close()
        sender.sendto(b"x", (B, 4000))
        await asyncio.sleep(1)
        await ear(world, B)
        return len(there.heard)

    assert world.play(story()) == 0


def test_waiting_for_nothing_is_an_error_and_not_a_hang() -> None:
    world = World()

    async def story() -> None:
        await world.create_future()

    with pytest.raises(Deadlock):
        world.play(story())


def test_what_raises_out_of_sight_fails_the_story() -> None:
    world = World()

    async def story() -> None:
        world.call_later(1, lambda: 1 // 0)
        await asyncio.sleep(2)

    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        world.play(story())


def test_work_for_threads_is_done_at_once() -> None:
    world = World()

    async def story() -> tuple[int, float]:
        return await asyncio.to_thread(lambda: 7), world.time()

    assert world.play(story()) == (7, 0.0)


STORY = """
import asyncio
from tests.overlay.peers import grow
from tests.simulation.world import Weather, World
world = World(seed=5, weather=Weather(loss=0.1, duplication=0.1))
async def story():
    peers = await grow(world, 20)
    for peer in peers[:5]:
        await peer.protocol.lookup(peers[7].contact.id, 5)
world.play(story())
print(world.trace)
"""


def test_the_same_seed_gives_the_same_trace_in_any_process() -> None:
    root = Path(__file__).parents[2]
    traces = {
        subprocess.run(
            [sys.executable, "-c", STORY],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(traces) == 1
    assert len(traces.pop().strip()) == 64
