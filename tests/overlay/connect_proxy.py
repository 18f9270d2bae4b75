"""An HTTP proxy that supports only CONNECT (RFC 9110, section 9.3.6), and resolves names itself."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from tests.overlay.local_network import LOOPBACK


class ConnectProxy:
    """`asked`: HOST:PORT of every request; `credentials`: NAME:PASSWORD of every one that had some."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        self.asked: list[str] = []
        self.credentials: list[str] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, where, _ = head.split(" ", 2)
        assert method == "CONNECT"
        self.asked.append(where)
        for line in head.splitlines():
            name, _, value = line.partition(": ")
            if name.lower() == "proxy-authorization":
                self.credentials.append(base64.b64decode(value.removeprefix("Basic ")).decode())
        host, _, port = where.rpartition(":")
        there, on = await asyncio.open_connection(self._names.get(host, host), int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            await asyncio.gather(_pump(reader, on), _pump(there, writer))
        finally:
            on.close()
            writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def connect_proxy(names: Mapping[str, str]) -> AsyncIterator[ConnectProxy]:
    """A proxy on loopback while the block runs; `names`: addresses of names that only it can resolve."""
    proxy = ConnectProxy(names)
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        await proxy.serve(reader, writer)

    server = await asyncio.start_server(serve, LOOPBACK, 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await asyncio.gather(*serving)  # its clients have closed
