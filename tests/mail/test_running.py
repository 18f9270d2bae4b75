"""The signals that stop a program without a screen."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Iterator

import pytest

from mail.cli.running import run_loop, stop_requested, unhandled


@pytest.fixture(autouse=True)
def hangup_isnt_ignored() -> Iterator[None]:
    """Handle SIGHUP as in a terminal: the suite itself may run under nohup."""
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


def test_a_connection_that_was_closed_while_bytes_came_is_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    closed = RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    async def story() -> None:
        loop = asyncio.get_running_loop()
        assert loop.get_exception_handler() is unhandled
        loop.call_exception_handler({"message": "Fatal error on SSL protocol", "exception": closed})

    with caplog.at_level(logging.INFO):
        run_loop(story())
    assert not caplog.records


def test_any_other_fault_that_nobody_caught_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    run_loop(story())
    assert [type(record.exc_info[1]) for record in caplog.records if record.exc_info] == [ZeroDivisionError]
