"""What asks a program without a screen to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest

from mail.cli.running import stop_requested


@pytest.fixture(autouse=True)
def hangup_isnt_ignored() -> Iterator[None]:
    """As in a terminal; the suite itself may run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_asks_to_stop_in_good_order(number: signal.Signals) -> None:
    async def story() -> None:
        waiting = asyncio.create_task(stop_requested())
        await asyncio.sleep(0)
        signal.raise_signal(number)
        await waiting

    asyncio.run(story())


def test_under_nohup_a_terminal_that_goes_away_stops_nothing() -> None:
    async def story() -> None:
        waiting = asyncio.create_task(stop_requested())
        await asyncio.sleep(0)
        signal.raise_signal(signal.SIGHUP)
        for _ in range(3):
            await asyncio.sleep(0)
        assert not waiting.done()
        signal.raise_signal(signal.SIGTERM)
        await waiting

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    asyncio.run(story())
