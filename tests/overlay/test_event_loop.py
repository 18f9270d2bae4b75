"""A connection's descriptor has one owner, which closes it once."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from overlay import event_loop

_LOOPBACK = "127.0.0.1"


@contextmanager
def _connected(*, reset: bool) -> Iterator[socket.socket]:
    """A connected socket whose peer has reset the connection (RST), or holds it."""
    with socket.create_server((_LOOPBACK, 0)) as listening:
        sock = socket.create_connection(listening.getsockname())
        peer, _ = listening.accept()
        with sock, peer:
            if reset:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                peer.close()
            yield sock


def test_a_connection_reset_while_it_is_made_closes_no_other_file(tmp_path: Path) -> None:
    """A file gets the number of the closed connection's descriptor; collecting the socket must not close the file."""

    async def story() -> None:
        with _connected(reset=True) as sock:
            number = sock.fileno()
            with suppress(OSError):
                transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=sock)
                transport.abort()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            spool = os.open(tmp_path / "spool", os.O_WRONLY | os.O_CREAT)
            assert spool == number
            sock.close()
            assert os.write(spool, b"the rest of a message") == 21
            os.close(spool)

    event_loop.run(story())


def test_a_socket_that_was_handed_over_is_closed_with_its_connection() -> None:
    async def story() -> None:
        with _connected(reset=False) as sock:
            number = sock.fileno()
            transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=sock)
            assert sock.fileno() == -1
            assert transport.get_extra_info("peername")[0] == _LOOPBACK
            os.fstat(number)
            transport.close()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(number)

    event_loop.run(story())


def test_a_socket_that_was_refused_stays_its_owners() -> None:
    async def story() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            with pytest.raises(ValueError, match="Stream Socket"):
                await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=sock)
            assert sock.fileno() >= 0

    event_loop.run(story())
