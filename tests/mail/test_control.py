"""The control socket: only its owner can connect, nonsense gets an error, a leftover socket is replaced."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mail.control import LINE, ControlServer, NotRunning, ask
from overlay.errors import Unreachable


async def answer(request: str) -> dict[str, object]:
    if request == "fail":
        raise RuntimeError("a bug")
    return {"heard": request}


@pytest.fixture
async def socket(tmp_path: Path) -> AsyncIterator[Path]:
    path = tmp_path / "control.sock"
    server = ControlServer(path, answer)
    await server.start()
    yield path
    await server.close()


async def raw(path: Path, data: bytes) -> object:
    """The answer to these bytes."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(data)
    writer.write_eof()
    line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return json.loads(line)


async def test_a_request_is_answered(socket: Path) -> None:
    assert await ask(socket, "status") == {"heard": "status"}


async def test_only_its_owner_may_ask(socket: Path) -> None:
    assert socket.stat().st_mode & 0o777 == 0o600


async def test_without_a_process_nothing_runs(tmp_path: Path) -> None:
    with pytest.raises(NotRunning):
        await ask(tmp_path / "control.sock", "status")


async def test_a_socket_that_a_killed_process_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    dead = await asyncio.start_unix_server(lambda *_: None, str(path))
    dead.close()
    await dead.wait_closed()
    if not path.exists():  # newer Pythons remove it themselves
        path.touch()
    with pytest.raises(NotRunning):
        await ask(path, "status")
    server = ControlServer(path, answer)
    await server.start()
    assert await ask(path, "status") == {"heard": "status"}
    await server.close()
    assert not path.exists()


@pytest.mark.parametrize(
    "data",
    [b"\n", b"", b"nonsense\n", b"[]\n", b"{}\n", b"\xff\n", b"3\n", b"[" * 20_000 + b"\n", b"x" * (LINE + 1) + b"\n"],
    ids=["empty line", "nothing", "nonsense", "list", "no request", "not UTF-8", "number", "nested", "too long"],
)
async def test_nonsense_is_answered_with_an_error_and_the_next_request_as_usual(socket: Path, data: bytes) -> None:
    answered = await raw(socket, data)
    assert isinstance(answered, dict)
    assert "error" in answered
    assert await ask(socket, "status") == {"heard": "status"}


async def test_a_fault_is_told_to_the_asker_and_ends_nothing(socket: Path) -> None:
    assert await ask(socket, "fail") == {"error": "a bug"}
    assert await ask(socket, "status") == {"heard": "status"}


async def test_an_asker_who_goes_away_is_no_trouble(socket: Path) -> None:
    for _ in range(3):
        _, writer = await asyncio.open_unix_connection(str(socket))
        writer.transport.abort()
    assert await ask(socket, "status") == {"heard": "status"}


async def test_closing_gives_up_what_is_being_answered(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def never(_: str) -> dict[str, object]:
        begun.set()
        await asyncio.Event().wait()
        return {}

    server = ControlServer(tmp_path / "control.sock", never)
    await server.start()
    asking = asyncio.create_task(ask(tmp_path / "control.sock", "status"))
    await begun.wait()
    await server.close()
    with pytest.raises(NotRunning):
        await asking


async def test_what_is_given_up_at_the_end_leaves_no_word_behind(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    asked = asyncio.Event()
    unhandled: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))

    async def never(_: str) -> dict[str, object]:
        asked.set()
        await asyncio.Event().wait()
        return {}

    server = ControlServer(path, never)
    await server.start()
    asking = asyncio.create_task(ask(path, "sync"))
    await asked.wait()
    await server.close()
    with pytest.raises(NotRunning):
        await asking
    assert unhandled == []


async def test_a_network_that_does_not_answer_is_told_to_the_asker_without_a_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def away(_: str) -> dict[str, object]:
        raise Unreachable("No node of the network answers.")

    server = ControlServer(tmp_path / "control.sock", away)
    await server.start()
    assert await ask(tmp_path / "control.sock", "sync") == {"error": "No node of the network answers."}
    await server.close()
    assert not any(record.exc_info for record in caplog.records)
