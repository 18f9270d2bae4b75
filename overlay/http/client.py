"""Sends requests to other nodes' HTTP servers (paper, Table 3), for objects too large for datagrams.

The other side is identified by its TLS fingerprint and trusted with nothing else: its answers are bounded in size and
time, and its words are never shown. Which nodes to call is decided in overlay/client.py.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from weakref import WeakValueDictionary

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from overlay.errors import Malformed, NoAnswer, Refused
from overlay.http import headers as form
from overlay.http.body_files import BLOCK, SLICE, GrowingFile, Source
from overlay.http.relay_frames import TO, to_value
from overlay.http.server_limits import Pace, TooSlow
from overlay.identity.contact import Contact, WireContact, host_port
from overlay.identity.ownership import ACKNOWLEDGE_INBOX, DELETE, READ_INBOX, Owner, statement
from overlay.identity.tls import client_context
from overlay.kademlia.lookup import Located
from overlay.primitives.requests import DeleteRequest, FetchRequest
from overlay.protocol_limits import DIGEST_BYTES, MAX_HTTP_HASHES, MAX_PROOF, MIN_RATE, RATE_WINDOW
from overlay.wire.messages import WORDS, Code
from storage.store_request import StoreRequest

_LINE_LIMIT = 4096
"""Bytes read of a one-line answer."""
_KEPT_ALIVE = 8.0
"""Seconds; less than the server's idle time, so that a request seldom meets a connection that is closing."""
_REQUESTS = 64
_REQUESTS_EACH = 8
"""Requests under way, in all and to one node. A server takes 16 connections from one address."""

_CODES = {
    404: Code.NOT_FOUND,
    409: Code.STALE,
    410: Code.DELETED,
    413: Code.TOO_LARGE,
    429: Code.STAMP_NEEDED,
    503: Code.BUSY,
    507: Code.NO_SPACE,
}
"""The code for an HTTP status, for implementations that don't send P2pmail-Refusal (messages.Code)."""

Headers = CIMultiDictProxy[str]


@dataclass(frozen=True, slots=True)
class ClientTimeouts:
    """How long to wait for one node, in seconds; `overall` grows by the size divided by `floor` bytes a second."""

    connect: float = 10.0
    idle: float = 30.0
    overall: float = 60.0
    floor: int = 8 * 1024
    window: float = RATE_WINDOW
    rate: int = MIN_RATE

    def for_size(self, size: int) -> float:
        """Seconds for a whole request with a body of `size` bytes."""
        return self.overall + size / self.floor


@dataclass(frozen=True, slots=True)
class ViaRelay:
    """A relay's HTTP server, and the proxy through which to reach it, if any."""

    host: str
    port: int
    fingerprint: bytes
    proxy: URL | None = None


@dataclass(slots=True)
class _Request:
    """One request and the limits of its answer: at most `most` bytes, each piece given to `sink`."""

    method: str
    url: URL
    fingerprint: bytes | None
    headers: list[tuple[str, str]]
    most: int
    proxy: URL | None = None
    content: bytes | Path = b""
    size: int = 0
    sink: Callable[[bytes], Awaitable[None]] | None = None
    on_head: Callable[[int, Headers], int] | None = None
    pieces: list[bytes] = field(default_factory=list)

    @property
    def peer(self) -> str:
        return host_port(self.url.host or "?", self.url.port or 0)


@dataclass(frozen=True, slots=True)
class _Statement:
    """What an owner signs for a request, apart from node and token (overlay/identity/ownership.py)."""

    operation: bytes
    key: bytes
    extra: Sequence[bytes] = ()


class HTTPClient:
    """Calls nodes over HTTPS for the node with this key (X25519, or write_tokens.NOBODY). Close it at the end.

    `checked` checks contacts from /closest against the network's rules, or raises Malformed. All calls raise Refused
    (the node refused) or NoAnswer (no answer, too late, too large, or not what was asked for).
    """

    via: ViaRelay | None = None
    """The relay that forwards every request while the tunnel is open (overlay/http/tunnel.py)."""

    def __init__(
        self,
        asker_key: bytes,
        *,
        checked: Callable[[WireContact], Contact] | None = None,
        patience: ClientTimeouts = ClientTimeouts(),
    ) -> None:
        self._asker = form.base64url(asker_key)
        self._checked = checked or _public_only
        self._patience = patience
        self._session: aiohttp.ClientSession | None = None
        self._all = asyncio.Semaphore(_REQUESTS)
        self._each: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def close(self) -> None:
        """Close idle connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    # The primitives

    async def store(self, located: Located, request: StoreRequest) -> None:
        """Have an object stored; a file is streamed."""
        content = request.content
        size = len(content) if isinstance(content, bytes) else (await asyncio.to_thread(content.stat)).st_size
        call = self._request("PUT", located, request.key, form.store_headers(request))
        call.content, call.size = content, size
        await self._exchange(call)

    async def fetch(self, located: Located, request: FetchRequest, limit: int) -> bytes:
        """The object, at most `limit` bytes, with the requested digest, if there is one."""
        call = self._fetching(located, request, limit)
        await self._exchange(call)
        data = b"".join(call.pieces)
        if request.digest is not None and await _digest(data) != request.digest:
            raise NoAnswer(f"{call.peer} sent something else than what was asked for")
        return data

    async def fetch_to(self, located: Located, request: FetchRequest, limit: int, path: Path) -> int:
        """Fetch into a file, which is not synced; its size in bytes. Also raises OSError of this computer's disk.

        With a digest, the download resumes from what an earlier attempt (at any node) left in the file, and a failure
        leaves what has arrived. A file with the wrong digest is removed.
        """
        call, digest = self._fetching(located, request, limit), request.digest
        part = await asyncio.to_thread(GrowingFile, path, limit, resume=digest is not None)
        if part.size and digest is not None:
            call.headers += [("Range", f"bytes={part.size}-"), ("If-Range", f'"{digest.hex()}"')]
        call.sink, call.on_head = part.add, part.begin
        try:
            if digest is None or part.hasher.digest() != digest:  # otherwise an earlier attempt was complete
                await self._exchange(call)
        except BaseException:
            await asyncio.to_thread(part.close, keep=digest is not None)
            raise
        right = digest is None or part.hasher.digest() == digest
        await asyncio.to_thread(part.close, keep=right)
        if not right:
            raise NoAnswer(f"{call.peer} sent something else than what was asked for")
        return part.size

    async def delete(self, located: Located, request: DeleteRequest, owner: Owner) -> int:
        """Delete as the recipient with that salt; how many objects the node dropped."""
        headers = [form.kind_header(request.kind), (form.SALT, form.base64url(request.salt))]
        call = self._signed("DELETE", located, owner, _Statement(DELETE, request.key, [request.salt]), headers)
        return self._count(located, await self._exchange(call))

    async def append_inbox(
        self, located: Located, key: bytes, notification: bytes, *, ttl: float, stamp: bytes = b""
    ) -> bool:
        """Append a notification to an inbox for `ttl` seconds; False if it was there already."""
        headers = [
            (form.PRAGMA, form.APPEND_INBOX),
            form.ttl_header(ttl),
            (form.CONTENT_DIGEST, form.digest_field(hashlib.sha256(notification).digest())),
        ]
        if stamp:
            headers.append((form.STAMP, stamp.hex()))
        call = self._request("PUT", located, key, headers)
        call.content, call.size = notification, len(notification)
        return self._count(located, await self._exchange(call)) > 0

    async def read_inbox(self, located: Located, key: bytes, owner: Owner) -> tuple[list[bytes], bool]:
        """Notifications in the owner's inbox, leased until they are acknowledged; and whether more wait."""
        headers = [(form.PRAGMA, form.READ_INBOX)]
        call = self._signed("GET", located, owner, _Statement(READ_INBOX, key), headers)
        call.most = form.INBOX_ANSWER_LIMIT
        answer = await self._exchange(call)
        try:
            return form.decode_notifications(b"".join(call.pieces)), form.more_of(answer)
        except Malformed as error:
            raise NoAnswer(f"{call.peer}: {error}") from error

    async def acknowledge_inbox(self, located: Located, key: bytes, owner: Owner, hashes: Sequence[bytes]) -> int:
        """Delete notifications that are on disk here, by their SHA-256; how many were deleted."""
        gone = 0
        for at in range(0, len(hashes), MAX_HTTP_HASHES):
            some = hashes[at : at + MAX_HTTP_HASHES]
            headers = [(form.PRAGMA, form.READ_INBOX)]
            call = self._signed("DELETE", located, owner, _Statement(ACKNOWLEDGE_INBOX, key, some), headers)
            call.content = b"".join(some)
            call.size = len(call.content)
            gone += self._count(located, await self._exchange(call))
        return gone

    async def tombstone(self, located: Located, kind: int, key: bytes, deleter: bytes) -> bytes | None:
        """The signed delete for this deleter hash, unchecked; None if the node has none."""
        headers = [(form.PRAGMA, form.TOMBSTONE), form.kind_header(kind)]
        call = self._request("GET", located, key, headers, deleter=deleter)
        call.most = MAX_PROOF
        try:
            await self._exchange(call)
        except Refused as error:
            if error.code == Code.NOT_FOUND:
                return None
            raise
        return b"".join(call.pieces)

    async def closest(
        self, host: str, port: int, key: bytes, k: int, fingerprint: bytes | None
    ) -> tuple[bytes, bytes, list[Located]]:
        """Look up through that node: a token for it, its node id, and the k closest nodes (none for k=0).

        If that node is one of them, it comes with the token; the tokens of the others are asked for with k=0. Without a
        fingerprint the first answer is trusted. Contacts that the network's rules forbid are left out.
        """
        try:
            url = URL.build(scheme="https", host=host, port=port, path=f"/closest/{key.hex()}", query={"k": str(k)})
        except ValueError as error:
            raise NoAnswer(f"{host!r} is not a host") from error
        call = _Request("GET", url, fingerprint, [(form.ASKER, self._asker)], form.CLOSEST_LIMIT)
        await self._exchange(call)
        try:
            node, token, listed = form.decode_closest(b"".join(call.pieces))
        except Malformed as error:
            raise NoAnswer(f"{call.peer}: {error}") from error
        found = []
        for entry in listed[:k]:
            with suppress(Malformed):
                contact = self._checked(entry.wire)
                if contact.id == entry.id:
                    its_token = token if contact.id == node else b""
                    found.append(Located(contact, its_token, entry.bulk_port, entry.fingerprint))
        return token, node, found

    # Asking

    def _request(
        self, method: str, located: Located, key: bytes, headers: list[tuple[str, str]], **query: bytes | None
    ) -> _Request:
        contact = located.contact
        if not located.bulk_port or len(located.fingerprint) != DIGEST_BYTES:
            raise NoAnswer(f"{host_port(contact.ip, contact.port)} has no HTTP server")
        texts = {name: value.hex() for name, value in query.items() if value is not None}
        all_headers = [(form.TOKEN, located.token.hex()), (form.ASKER, self._asker), *headers]
        host, port, fingerprint = contact.ip, located.bulk_port, located.fingerprint
        proxy: URL | None = None
        if self.via is not None:
            all_headers.append((TO, to_value(host, port, fingerprint)))
            host, port, fingerprint, proxy = self.via.host, self.via.port, self.via.fingerprint, self.via.proxy
        url = URL.build(scheme="https", host=host, port=port, path=f"/{key.hex()}", query=texts)
        return _Request(method, url, fingerprint, all_headers, _LINE_LIMIT, proxy)

    def _signed(
        self,
        method: str,
        located: Located,
        owner: Owner,
        signed: _Statement,
        headers: list[tuple[str, str]],
    ) -> _Request:
        key, node = signed.key, located.contact.id
        signature = owner.sign(statement(signed.operation, key, node, located.token, signed.extra))
        return self._request(method, located, key, [*headers, *form.proof_headers(owner.certificate, signature)])

    def _fetching(self, located: Located, request: FetchRequest, limit: int) -> _Request:
        call = self._request("GET", located, request.key, [form.kind_header(request.kind)], digest=request.digest)
        call.most = limit
        return call

    def _count(self, located: Located, answer: Headers) -> int:
        try:
            return form.count_of(answer)
        except Malformed as error:
            raise NoAnswer(f"{host_port(located.contact.ip, located.bulk_port)}: {error}") from error

    async def _exchange(self, call: _Request) -> Headers:
        """Send a request and read the whole answer; once more if a kept-alive connection turns out to be dead."""
        each = self._each.setdefault(call.peer, asyncio.Semaphore(_REQUESTS_EACH))
        async with each, self._all:  # no timeout runs while a request waits for its turn
            return await self._in_turn(call)

    async def _in_turn(self, call: _Request) -> Headers:
        try:
            return await self._once(call)
        except (aiohttp.ServerDisconnectedError, ConnectionResetError) as error:
            if not call.size:  # aiohttp has repeated those itself
                raise _no_answer(call, error) from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise _no_answer(call, error) from error
        try:
            return await self._once(call)
        except (aiohttp.ClientError, ConnectionError) as error:
            raise _no_answer(call, error) from error

    async def _once(self, call: _Request) -> Headers:
        if self._session is None:
            self._session = self._open()
        now = asyncio.get_running_loop().time
        source = Source(call.content, lambda: idle.reschedule(now() + self._patience.idle))
        try:
            async with (
                asyncio.timeout(self._patience.for_size(call.size)) as overall,
                asyncio.timeout(self._patience.idle) as idle,
                self._session.request(
                    call.method,
                    call.url,
                    headers=CIMultiDict(
                        [*call.headers, ("Content-Length", str(call.size))] if call.size else call.headers
                    ),
                    data=source if call.size else (b"" if call.method == "PUT" else None),
                    proxy=call.proxy,
                    ssl=_unpinned() if call.fingerprint is None else pinned(call.fingerprint),
                    allow_redirects=False,
                ) as response,
            ):
                most = call.most if call.on_head is None else call.on_head(response.status, response.headers)
                announced = response.content_length or 0
                if response.status != 200 and (response.status != 206 or call.on_head is None):
                    response.close()  # without waiting until it has read the request
                    raise _refused(call, response)
                if announced > most:
                    response.close()
                    raise NoAnswer(f"{call.peer} would send {announced} bytes, more than the {most} expected")
                overall.reschedule(now() + self._patience.for_size(announced))
                idle.reschedule(None)
                await self._take(call, response, most)
                return response.headers
        except TimeoutError as error:
            raise NoAnswer(f"{call.peer} is too slow") from error
        except TooSlow as error:
            raise NoAnswer(f"{call.peer} is too slow: {error}") from error
        finally:
            source.close()

    async def _take(self, call: _Request, response: aiohttp.ClientResponse, most: int) -> None:
        pace = Pace(self._patience.window, self._patience.rate)
        got = 0
        while piece := await pace.read(response.content.readany):
            got += len(piece)
            if got > most:
                response.close()
                raise NoAnswer(f"{call.peer} sends more than the {most} bytes expected")
            if call.sink is not None:
                await call.sink(piece)
            else:
                call.pieces.append(piece)

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=0, limit_per_host=0, keepalive_timeout=_KEPT_ALIVE)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._patience.connect),
            headers={"User-Agent": "p2pmail"},
            skip_auto_headers=["Accept", "Accept-Encoding", "Content-Type"],
            auto_decompress=False,
            trust_env=False,
            read_bufsize=BLOCK,
        )


@lru_cache(maxsize=4096)
def pinned(fingerprint: bytes) -> aiohttp.Fingerprint:
    """The same object for the same fingerprint: aiohttp separates connections by it."""
    return aiohttp.Fingerprint(fingerprint)


_unpinned = lru_cache(maxsize=1)(client_context)


def _public_only(wire: WireContact) -> Contact:
    return Contact.received(wire, private_addresses=False, puzzle=0)


def _no_answer(call: _Request, error: Exception) -> NoAnswer:
    if isinstance(error, aiohttp.ServerFingerprintMismatch):
        return NoAnswer(f"{call.peer} has another TLS certificate than the node that was meant")
    return NoAnswer(f"{call.peer} doesn't answer over HTTPS ({type(error).__name__})")


def _refused(call: _Request, response: aiohttp.ClientResponse) -> Refused | NoAnswer:
    """The error for an HTTP status; never in the node's own words."""
    try:
        code = form.count_of(response.headers, form.REFUSAL)
    except Malformed:
        code = _CODES.get(response.status, 0)
    if code in WORDS:
        return Refused(code, WORDS[code], _bits(response))
    return NoAnswer(f"{call.peer} answers with HTTP status {response.status}")


def _bits(response: aiohttp.ClientResponse) -> int:
    try:
        return form.count_of(response.headers, form.STAMP_BITS)
    except Malformed:
        return 0


async def _digest(data: bytes) -> bytes:
    if len(data) <= SLICE:
        return hashlib.sha256(data).digest()
    return (await asyncio.to_thread(hashlib.sha256, data)).digest()
