"""Asks other nodes' HTTP doors (paper, Table 3): for objects too large for datagrams, and where there is no UDP.

The other side is known by its TLS fingerprint and trusted with nothing else: its answers are bounded in size and
time, its words are never shown. Which nodes to ask, and how many, is overlay.py's affair.
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
"""Bytes read of an answer that is one line of text."""
_KEPT_ALIVE = 8.0
"""Seconds; less than what our doors wait, so that a request seldom meets one that is just closing."""
_REQUESTS = 64
_REQUESTS_EACH = 8
"""Under way at once to all nodes, and to one; our doors take 16 connections from one address."""

_CODES = {
    404: Code.NOT_FOUND,
    409: Code.STALE,
    410: Code.DELETED,
    413: Code.TOO_LARGE,
    429: Code.STAMP_NEEDED,
    503: Code.BUSY,
    507: Code.NO_SPACE,
}
"""What a status means from an implementation that doesn't send P2pmail-Refusal (messages.Code)."""

Headers = CIMultiDictProxy[str]


@dataclass(frozen=True, slots=True)
class ClientTimeouts:
    """How long to wait for one node. Seconds; `floor` in bytes a second is added to `overall` by size."""

    connect: float = 10.0
    idle: float = 30.0
    overall: float = 60.0
    floor: int = 8 * 1024
    window: float = RATE_WINDOW
    rate: int = MIN_RATE

    def for_size(self, size: int) -> float:
        """Seconds for a whole exchange of so many bytes."""
        return self.overall + size / self.floor


@dataclass(frozen=True, slots=True)
class ViaRelay:
    """The HTTP door of a relay, and the proxy on the way there, if one is."""

    host: str
    port: int
    fingerprint: bytes
    proxy: URL | None = None


@dataclass(slots=True)
class _Ask:
    """One request, and what is taken as its answer: `most` bytes, each piece handed to `sink`."""

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
    def whom(self) -> str:
        return host_port(self.url.host or "?", self.url.port or 0)


@dataclass(frozen=True, slots=True)
class _Statement:
    """What an owner signs for one request, but for the node and its token (overlay/identity/ownership.py)."""

    operation: bytes
    key: bytes
    extra: Sequence[bytes] = ()


class HTTPClient:
    """Calls nodes over HTTPS on behalf of whoever has `asker_key` (X25519, or tokens.NOBODY). Close it at the end.

    `checked` turns contacts from /closest into such as may be asked, or raises Malformed: the network's rules. All
    calls raise Refused (the node said no) or NoAnswer (nothing, too late, too much, or not what was asked for).
    """

    via: ViaRelay | None = None
    """What carries every request, while there is such a relay (overlay/http/tunnel.py)."""

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
        """Close what is kept alive."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    # The primitives

    async def store(self, located: Located, request: StoreRequest) -> None:
        """Have an object stored; a file is streamed."""
        content = request.content
        size = len(content) if isinstance(content, bytes) else (await asyncio.to_thread(content.stat)).st_size
        ask = self._ask("PUT", located, request.key, form.store_headers(request))
        ask.content, ask.size = content, size
        await self._exchange(ask)

    async def fetch(self, located: Located, request: FetchRequest, limit: int) -> bytes:
        """The object, at most `limit` bytes, with the digest that is asked for, if one is."""
        ask = self._fetching(located, request, limit)
        await self._exchange(ask)
        data = b"".join(ask.pieces)
        if request.digest is not None and await _digest(data) != request.digest:
            raise NoAnswer(f"{ask.whom} sent something else than what was asked for")
        return data

    async def fetch_to(self, located: Located, request: FetchRequest, limit: int, path: Path) -> int:
        """Fetch into a file, which is not synced; its size in bytes. Also raises OSError of this computer's disk.

        With a digest, the download resumes from what an earlier attempt (at any node) left in the file, and a failure
        leaves what has arrived. A file with the wrong digest is removed.
        """
        ask, digest = self._fetching(located, request, limit), request.digest
        part = await asyncio.to_thread(GrowingFile, path, limit, resume=digest is not None)
        if part.size and digest is not None:
            ask.headers += [("Range", f"bytes={part.size}-"), ("If-Range", f'"{digest.hex()}"')]
        ask.sink, ask.on_head = part.add, part.begin
        try:
            if digest is None or part.hasher.digest() != digest:  # else an earlier try was complete
                await self._exchange(ask)
        except BaseException:
            await asyncio.to_thread(part.close, keep=digest is not None)
            raise
        right = digest is None or part.hasher.digest() == digest
        await asyncio.to_thread(part.close, keep=right)
        if not right:
            raise NoAnswer(f"{ask.whom} sent something else than what was asked for")
        return part.size

    async def delete(self, located: Located, request: DeleteRequest, owner: Owner) -> int:
        """Delete as the recipient with that salt; how many objects the node dropped."""
        headers = [form.kind_header(request.kind), (form.SALT, form.base64url(request.salt))]
        ask = self._signed("DELETE", located, owner, _Statement(DELETE, request.key, [request.salt]), headers)
        return self._count(located, await self._exchange(ask))

    async def append_inbox(
        self, located: Located, key: bytes, notification: bytes, *, ttl: float, stamp: bytes = b""
    ) -> bool:
        """Put a notification into an inbox for `ttl` seconds; False when it was there already."""
        headers = [
            (form.PRAGMA, form.APPEND_INBOX),
            form.ttl_header(ttl),
            (form.CONTENT_DIGEST, form.digest_field(hashlib.sha256(notification).digest())),
        ]
        if stamp:
            headers.append((form.STAMP, stamp.hex()))
        ask = self._ask("PUT", located, key, headers)
        ask.content, ask.size = notification, len(notification)
        return self._count(located, await self._exchange(ask)) > 0

    async def read_inbox(self, located: Located, key: bytes, owner: Owner) -> tuple[list[bytes], bool]:
        """What waits in the owner's inbox (leased to her till she acknowledges), and whether there is more."""
        headers = [(form.PRAGMA, form.READ_INBOX)]
        ask = self._signed("GET", located, owner, _Statement(READ_INBOX, key), headers)
        ask.most = form.INBOX_ANSWER_LIMIT
        answer = await self._exchange(ask)
        try:
            return form.decode_notifications(b"".join(ask.pieces)), form.more_of(answer)
        except Malformed as error:
            raise NoAnswer(f"{ask.whom}: {error}") from error

    async def acknowledge_inbox(self, located: Located, key: bytes, owner: Owner, hashes: Sequence[bytes]) -> int:
        """Have notifications deleted that are on disk here, by their SHA-256; how many there were."""
        gone = 0
        for at in range(0, len(hashes), MAX_HTTP_HASHES):
            some = hashes[at : at + MAX_HTTP_HASHES]
            headers = [(form.PRAGMA, form.READ_INBOX)]
            ask = self._signed("DELETE", located, owner, _Statement(ACKNOWLEDGE_INBOX, key, some), headers)
            ask.content = b"".join(some)
            ask.size = len(ask.content)
            gone += self._count(located, await self._exchange(ask))
        return gone

    async def tombstone(self, located: Located, kind: int, key: bytes, deleter: bytes) -> bytes | None:
        """The signed delete of the recipient behind `deleter`, as the node gives it; None when there is none."""
        headers = [(form.PRAGMA, form.TOMBSTONE), form.kind_header(kind)]
        ask = self._ask("GET", located, key, headers, deleter=deleter)
        ask.most = MAX_PROOF
        try:
            await self._exchange(ask)
        except Refused as error:
            if error.code == Code.NOT_FOUND:
                return None
            raise
        return b"".join(ask.pieces)

    async def closest(
        self, host: str, port: int, key: bytes, k: int, fingerprint: bytes | None
    ) -> tuple[bytes, bytes, list[Located]]:
        """A lookup through that node: a token for it, its node id, and the k closest nodes (none for k=0).

        Where one of them is that node itself, it comes with the token; the others' tokens are asked of them (k=0).
        Without a fingerprint the first answer is trusted. Contacts that the network's rules forbid are left out.
        """
        try:
            url = URL.build(scheme="https", host=host, port=port, path=f"/closest/{key.hex()}", query={"k": str(k)})
        except ValueError as error:
            raise NoAnswer(f"{host!r} is not a host") from error
        ask = _Ask("GET", url, fingerprint, [(form.ASKER, self._asker)], form.CLOSEST_LIMIT)
        await self._exchange(ask)
        try:
            node, token, listed = form.decode_closest(b"".join(ask.pieces))
        except Malformed as error:
            raise NoAnswer(f"{ask.whom}: {error}") from error
        found = []
        for entry in listed[:k]:
            with suppress(Malformed):
                contact = self._checked(entry.wire)
                if contact.id == entry.id:
                    its_token = token if contact.id == node else b""
                    found.append(Located(contact, its_token, entry.bulk_port, entry.fingerprint))
        return token, node, found

    # Asking

    def _ask(
        self, method: str, located: Located, key: bytes, headers: list[tuple[str, str]], **query: bytes | None
    ) -> _Ask:
        contact = located.contact
        if not located.bulk_port or len(located.fingerprint) != DIGEST_BYTES:
            raise NoAnswer(f"{host_port(contact.ip, contact.port)} has no HTTP door")
        texts = {name: value.hex() for name, value in query.items() if value is not None}
        all_headers = [(form.TOKEN, located.token.hex()), (form.ASKER, self._asker), *headers]
        host, port, fingerprint = contact.ip, located.bulk_port, located.fingerprint
        proxy: URL | None = None
        if self.via is not None:
            all_headers.append((TO, to_value(host, port, fingerprint)))
            host, port, fingerprint, proxy = self.via.host, self.via.port, self.via.fingerprint, self.via.proxy
        url = URL.build(scheme="https", host=host, port=port, path=f"/{key.hex()}", query=texts)
        return _Ask(method, url, fingerprint, all_headers, _LINE_LIMIT, proxy)

    def _signed(
        self,
        method: str,
        located: Located,
        owner: Owner,
        signed: _Statement,
        headers: list[tuple[str, str]],
    ) -> _Ask:
        key, node = signed.key, located.contact.id
        signature = owner.sign(statement(signed.operation, key, node, located.token, signed.extra))
        return self._ask(method, located, key, [*headers, *form.proof_headers(owner.certificate, signature)])

    def _fetching(self, located: Located, request: FetchRequest, limit: int) -> _Ask:
        ask = self._ask("GET", located, request.key, [form.kind_header(request.kind)], digest=request.digest)
        ask.most = limit
        return ask

    def _count(self, located: Located, answer: Headers) -> int:
        try:
            return form.count_of(answer)
        except Malformed as error:
            raise NoAnswer(f"{host_port(located.contact.ip, located.bulk_port)}: {error}") from error

    async def _exchange(self, ask: _Ask) -> Headers:
        """One request and its whole answer. A connection that was kept alive may have died: then once more."""
        each = self._each.setdefault(ask.whom, asyncio.Semaphore(_REQUESTS_EACH))
        async with each, self._all:  # no time runs while a request waits for its turn
            return await self._in_turn(ask)

    async def _in_turn(self, ask: _Ask) -> Headers:
        try:
            return await self._once(ask)
        except (aiohttp.ServerDisconnectedError, ConnectionResetError) as error:
            if not ask.size:  # aiohttp has tried those again
                raise _no_answer(ask, error) from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise _no_answer(ask, error) from error
        try:
            return await self._once(ask)
        except (aiohttp.ClientError, ConnectionError) as error:
            raise _no_answer(ask, error) from error

    async def _once(self, ask: _Ask) -> Headers:
        if self._session is None:
            self._session = self._open()
        now = asyncio.get_running_loop().time
        source = Source(ask.content, lambda: idle.reschedule(now() + self._patience.idle))
        try:
            async with (
                asyncio.timeout(self._patience.for_size(ask.size)) as overall,
                asyncio.timeout(self._patience.idle) as idle,
                self._session.request(
                    ask.method,
                    ask.url,
                    headers=CIMultiDict([*ask.headers, ("Content-Length", str(ask.size))] if ask.size else ask.headers),
                    data=source if ask.size else (b"" if ask.method == "PUT" else None),
                    proxy=ask.proxy,
                    ssl=_unpinned() if ask.fingerprint is None else pinned(ask.fingerprint),
                    allow_redirects=False,
                ) as response,
            ):
                most = ask.most if ask.on_head is None else ask.on_head(response.status, response.headers)
                announced = response.content_length or 0
                if response.status != 200 and (response.status != 206 or ask.on_head is None):
                    response.close()  # without waiting for what it hasn't read of us
                    raise _refused(ask, response)
                if announced > most:
                    response.close()
                    raise NoAnswer(f"{ask.whom} would send {announced} bytes, more than the {most} expected")
                overall.reschedule(now() + self._patience.for_size(announced))
                idle.reschedule(None)
                await self._take(ask, response, most)
                return response.headers
        except TimeoutError as error:
            raise NoAnswer(f"{ask.whom} is too slow") from error
        except TooSlow as error:
            raise NoAnswer(f"{ask.whom} is too slow: {error}") from error
        finally:
            source.close()

    async def _take(self, ask: _Ask, response: aiohttp.ClientResponse, most: int) -> None:
        pace = Pace(self._patience.window, self._patience.rate)
        got = 0
        while piece := await pace.read(response.content.readany):
            got += len(piece)
            if got > most:
                response.close()
                raise NoAnswer(f"{ask.whom} sends more than the {most} bytes expected")
            if ask.sink is not None:
                await ask.sink(piece)
            else:
                ask.pieces.append(piece)

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
    """One object a fingerprint: aiohttp keeps connections apart by it."""
    return aiohttp.Fingerprint(fingerprint)


_unpinned = lru_cache(maxsize=1)(client_context)


def _public_only(wire: WireContact) -> Contact:
    return Contact.received(wire, private_addresses=False, puzzle=0)


def _no_answer(ask: _Ask, error: Exception) -> NoAnswer:
    if isinstance(error, aiohttp.ServerFingerprintMismatch):
        return NoAnswer(f"{ask.whom} has another TLS certificate than the node that was meant")
    return NoAnswer(f"{ask.whom} doesn't answer over HTTPS ({type(error).__name__})")


def _refused(ask: _Ask, response: aiohttp.ClientResponse) -> Refused | NoAnswer:
    """What a status says; never in the node's own words."""
    try:
        code = form.count_of(response.headers, form.REFUSAL)
    except Malformed:
        code = _CODES.get(response.status, 0)
    if code in WORDS:
        return Refused(code, WORDS[code], _bits(response))
    return NoAnswer(f"{ask.whom} answers with HTTP status {response.status}")


def _bits(response: aiohttp.ClientResponse) -> int:
    try:
        return form.count_of(response.headers, form.STAMP_BITS)
    except Malformed:
        return 0


async def _digest(data: bytes) -> bytes:
    if len(data) <= SLICE:
        return hashlib.sha256(data).digest()
    return (await asyncio.to_thread(hashlib.sha256, data)).digest()
