"""A node's HTTP server on loopback with a store in memory, users with certificates, and malformed requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

from aiohttp import web

from overlay.http.client import ClientTimeouts, HTTPClient
from overlay.http.server import HTTPServer
from overlay.http.server_limits import ServerLimits
from overlay.identity.certificates import TrustStore
from overlay.identity.contact import Contact, WireContact
from overlay.identity.ownership import Owner
from overlay.identity.tls import TLSIdentity, client_context, make_identity, server_context
from overlay.kademlia.lookup import Located
from overlay.primitives.service import Service
from overlay.wire.write_tokens import NOBODY, WriteTokens
from tests.overlay.fakes import MemoryStore
from tests.overlay.issuing import NOW, Issuer

KEY = bytes(range(20))
SALT = b"salt" * 4
ASKER = b"\x05" * 32
IDENTITY = make_identity(NOW)
ISSUER = Issuer()
_ALICE = ISSUER.person("alice@example.org", 100)
_BOB = ISSUER.person("bob@example.org", 101, serial=8)
ALICE = Owner(_ALICE.certificate, _ALICE.sign)
ALICE_KEY = _ALICE.private_key.public_key()
BOB = Owner(_BOB.certificate, _BOB.sign)
ORDINARY = ServerLimits()
PATIENT = ClientTimeouts()


def local(wire: WireContact) -> Contact:
    return Contact.received(wire, private_addresses=True, puzzle=0)


class WatchedServer(HTTPServer):
    """Sets `answered` when a request has been answered."""

    answered: asyncio.Event

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await super()._handle(request)
        finally:
            self.answered.set()


class ServerAndClient:
    """One HTTP server, and a client of it."""

    def __init__(self, folder: Path, limits: ServerLimits) -> None:
        self.store = MemoryStore(folder)
        self.tokens = WriteTokens(time.monotonic)
        self.contact = Contact(b"\x07" * 32, "127.0.0.1", 4000)
        self.service = Service(self.contact.id, self.store, TrustStore([ISSUER.der]), self.tokens, lambda: NOW)
        self.others: list[Located] = []
        self.lookups: list[tuple[bytes, int]] = []
        self.http_server = WatchedServer(
            self.service, self.tokens, IDENTITY, closest=self.closest, own=self.own, limits=limits
        )
        self.http_server.answered = asyncio.Event()
        self.client = HTTPClient(ASKER, checked=local)
        self.port = 0

    async def closest(self, key: bytes, k: int) -> list[Located]:
        self.lookups.append((key, k))
        return self.others

    def own(self) -> Located:
        return Located(self.contact, b"", self.port, IDENTITY.fingerprint)

    @property
    def located(self) -> Located:
        """The server as the client's lookup has found it."""
        return replace(self.own(), token=self.tokens.issue(ASKER, "127.0.0.1"))

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=client_context())

    async def say(
        self, method: str, path: str = f"/{KEY.hex()}", *headers: str, body: bytes = b"", token: bool = True
    ) -> tuple[int, str, bytes]:
        """Send exactly this request on a new connection; status, head and body of the answer."""
        own = [f"P2pmail-Token: {self.tokens.issue(NOBODY, '127.0.0.1').hex()}"] if token else []
        head = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *own, *headers]
        return await self.shout("\r\n".join(head).encode() + b"\r\n\r\n" + body)

    async def shout(self, data: bytes) -> tuple[int, str, bytes]:
        reader, writer = await self.connect()
        try:
            writer.write(data)
            answer = await reader.read()
        finally:
            await hang_up(writer)
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]) if head else 0, head.decode(), body


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@asynccontextmanager
async def http_server(folder: Path, limits: ServerLimits = ORDINARY) -> AsyncIterator[ServerAndClient]:
    world = ServerAndClient(folder, limits)
    world.port = await world.http_server.start("127.0.0.1", 0)
    try:
        yield world
    finally:
        await world.client.close()
        await world.http_server.stop(grace=0.1)


@asynccontextmanager
async def node_that(
    answers: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object],
    patience: ClientTimeouts = PATIENT,
    identity: TLSIdentity = IDENTITY,
) -> AsyncIterator[tuple[HTTPClient, Located]]:
    """A node that answers over TLS as `answers` says, and a client that has found it."""
    server = await asyncio.start_server(answers, "127.0.0.1", 0, ssl=server_context(identity))  # type: ignore[arg-type]
    port = server.sockets[0].getsockname()[1]
    client = HTTPClient(ASKER, checked=local, patience=patience)
    try:
        yield client, Located(Contact(b"\x07" * 32, "127.0.0.1", 4000), bytes(16), port, IDENTITY.fingerprint)
    finally:
        await client.close()
        server.close()
        await server.wait_closed()
