"""A node's HTTP server (paper, Table 3): the primitives over HTTP/1.1 and TLS for objects of any size; curl can use it.

Requests are parsed strictly (overlay/http/headers.py), and large bodies are streamed to the store's spool. What a
request may do is decided in overlay/primitives/service.py. Sockets are in overlay/http/listener.py, limits in
overlay/http/server_limits.py.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from aiohttp import HttpVersion11, web

from overlay.errors import Malformed, Refused
from overlay.http import headers as form
from overlay.http.body_files import BLOCK, SLICE, private, write
from overlay.http.listener import Listener
from overlay.http.relay import Relay
from overlay.http.server_limits import Pace, ServerLimits, TooSlow
from overlay.identity.contact import Contact, pack_ip, unpack_ip
from overlay.identity.tls import TLSIdentity, server_context
from overlay.ids import distance
from overlay.kademlia.lookup import Located
from overlay.limits.address_quota import AddressQuota
from overlay.primitives.requests import DeleteRequest, FetchRequest, OwnerProof
from overlay.primitives.service import Service, refusal
from overlay.protocol_limits import MAX_HTTP_HASHES, MAX_HTTP_READ, MAX_NOTIFICATION
from overlay.wire.messages import Code
from overlay.wire.write_tokens import WriteTokens
from storage.errors import P2PMailError
from storage.store_request import StoreRequest

SMALL = 64 * 1024
"""Bytes of a body that is kept in memory; a larger one is written to the store's spool as it arrives."""
_GRACE = 5.0
"""Seconds that requests under way have when the server stops."""

log = logging.getLogger(__name__)

Closest = Callable[[bytes, int], Awaitable[list[Located]]]


class _HTTPRefusal(P2PMailError):
    """A refusal with an HTTP status of its own, not one of the protocol's codes."""

    def __init__(self, status: int, words: str, *headers: tuple[str, str]) -> None:
        super().__init__(words)
        self.status = status
        self.headers = headers


@dataclass(frozen=True, slots=True)
class _Reply:
    """An answer to be sent: `size` bytes of `content`, in memory or in an open file from its position on."""

    status: int
    content: bytes | BinaryIO
    size: int
    headers: tuple[tuple[str, str], ...] = ()


def _line(words: str, *headers: tuple[str, str], status: int = 200) -> _Reply:
    """A one-line answer, for users of curl; programs read the status and the headers."""
    body = words.encode() + b"\n"
    return _Reply(status, body, len(body), (("Content-Type", "text/plain; charset=utf-8"), *headers))


def _binary(content: bytes, *headers: tuple[str, str]) -> _Reply:
    return _Reply(200, content, len(content), (("Content-Type", "application/octet-stream"), *headers))


@dataclass(frozen=True, slots=True)
class _Call:
    """A request with a valid token (/closest needs none); `held` is released after the answer was sent."""

    request: web.BaseRequest
    key: bytes
    ip: str
    asker: bytes
    token: bytes
    held: AsyncExitStack

    @property
    def contact(self) -> Contact:
        """The contact that asks, as far as the token proves it. The port means nothing."""
        return Contact(self.asker, self.ip, 1)


class HTTPServer:
    """One node's HTTP server.

    `closest` looks up the k closest other nodes; `own` returns this node as others should see it, None while its
    address isn't known.
    """

    def __init__(
        self,
        service: Service,
        tokens: WriteTokens,
        identity: TLSIdentity,
        *,
        closest: Closest,
        own: Callable[[], Located | None],
        limits: ServerLimits = ServerLimits(),  # noqa: B008 - frozen
        relay: Relay | None = None,
    ) -> None:
        self._service = service
        self._tokens = tokens
        self._identity = identity
        self._closest = closest
        self._own = own
        self._relay = relay
        self._limits = limits
        free = limits.loopback_free
        self._spool = AddressQuota(limits.spool, limits.spool_each, loopback_free=free)
        self._inboxes = AddressQuota(limits.inboxes, limits.inboxes_each, loopback_free=free)
        self._lookups = AddressQuota(limits.lookups, limits.lookups_each, loopback_free=free)
        self._listener: Listener | None = None
        self._primitives: dict[tuple[str, str], Callable[[_Call], Awaitable[_Reply]]] = {
            ("PUT", ""): self._store,
            ("GET", ""): self._fetch,
            ("DELETE", ""): self._delete,
            ("PUT", form.APPEND_INBOX): self._append_inbox,
            ("GET", form.READ_INBOX): self._read_inbox,
            ("DELETE", form.READ_INBOX): self._acknowledge_inbox,
            ("GET", form.TOMBSTONE): self._tombstone,
        }

    async def start(self, host: str, port: int) -> int:
        """Listen at an IP literal; returns the port. Raises OSError, for example if the port is taken."""
        self._listener = Listener(self._handle, server_context(self._identity), self._limits)
        return await self._listener.start(host, port)

    async def stop(self, grace: float = _GRACE) -> None:
        """Stop listening; requests under way have `grace` seconds. A second call does nothing."""
        if self._listener is not None:
            await self._listener.stop(grace)
            self._listener = None

    # From a request to a reply

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._relay is not None and self._relay.wanted(request):
            return await self._relay.handle(request)
        async with AsyncExitStack() as held:
            return await self._send(request, await self._reply(request, held))

    async def _reply(self, request: web.BaseRequest, held: AsyncExitStack) -> _Reply:
        try:
            return await self._answer(request, held)
        except Refused as error:
            code = (form.REFUSAL, str(error.code))
            more = [("Retry-After", "10")] if error.code == Code.BUSY else []
            if error.bits:
                more.append((form.STAMP_BITS, str(error.bits)))
            return _line(str(error), code, *more, status=form.STATUS.get(error.code, 400))
        except Malformed as error:
            return _line(str(error), status=400)
        except _HTTPRefusal as error:
            return _line(str(error), *error.headers, status=error.status)
        except TooSlow as error:
            return _line(str(error), ("Connection", "close"), status=408)
        except (ConnectionError, web.RequestPayloadError):
            raise ConnectionResetError("the asker is gone") from None
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return _line("no space left on that node", (form.REFUSAL, str(Code.NO_SPACE)), status=507)
            log.exception("A request over HTTP met a failing disk")
        except Exception:
            log.exception("A request over HTTP met an error in this program")
        return _line("this node failed, nothing was kept; ask another one", status=500)

    async def _answer(self, request: web.BaseRequest, held: AsyncExitStack) -> _Reply:
        if request.remote is None:
            raise ConnectionResetError("the asker is gone")
        ip = unpack_ip(pack_ip(request.remote))
        key, is_lookup = form.parse_path(request.path)
        asker = form.asker_of(request.headers)
        if is_lookup:
            if request.method != "GET":
                raise _HTTPRefusal(405, "a lookup is a GET", ("Allow", "GET"))
            return await self._find(_Call(request, key, ip, asker, b"", held))
        pragma = form.pragma_of(request.headers)
        primitive = self._primitives.get((request.method, pragma))
        if primitive is None:
            allowed = ", ".join(method for method, name in self._primitives if name == pragma)
            raise _HTTPRefusal(405, f"that is not for {request.method}", ("Allow", allowed))
        token = form.token_of(request.headers)
        if not self._tokens.good(token, asker, ip):
            raise refusal(Code.BAD_TOKEN)
        return await primitive(_Call(request, key, ip, asker, token, held))

    # The primitives

    async def _find(self, call: _Call) -> _Reply:
        k = form.k_of(call.request.query)
        token = self._tokens.issue(call.asker, call.ip)
        found = await self._look_up(call, k) if k else []
        content = form.encode_closest(self._service.node_id, token, found)
        return _Reply(200, content, len(content), (("Content-Type", "application/json"),))

    async def _look_up(self, call: _Call, k: int) -> Sequence[Located]:
        if not self._lookups.take(call.ip):
            raise refusal(Code.BUSY)
        try:
            found = await self._closest(call.key, k)
        finally:
            self._lookups.give(call.ip)
        own = self._own()
        nodes = {located.contact.id: located for located in (found if own is None else [*found, own])}
        return sorted(nodes.values(), key=lambda located: distance(located.contact.id, call.key))[:k]

    async def _store(self, call: _Call) -> _Reply:
        headers = call.request.headers
        kind, ttl = form.kind_of(headers), form.ttl_of(headers)
        deleters, wanted = form.deleters_of(headers), form.content_digest_of(headers)
        length = _length(call.request)
        self._service.admit(kind, length)
        async with self._received(call, length) as (content, digest):
            if wanted is not None and wanted != digest:
                raise Malformed(f"the content doesn't have the digest that {form.CONTENT_DIGEST} says; it wasn't kept")
            await self._service.store(StoreRequest(kind, call.key, content, digest, ttl, deleters), call.contact)
        return _line("stored", (form.REPR_DIGEST, form.digest_field(digest)))

    async def _fetch(self, call: _Call) -> _Reply:
        request = call.request
        kind, digest = form.kind_of(request.headers), form.digest_of(request.query)
        kept = await self._service.fetch(FetchRequest(kind, call.key, digest))
        content: bytes | BinaryIO
        if isinstance(kept.content, bytes):
            content = kept.content
        else:
            try:
                content = await asyncio.to_thread(kept.content.open, "rb")
            except FileNotFoundError:  # deleted just now
                raise refusal(Code.NOT_FOUND) from None
            call.held.callback(content.close)
        tag = f'"{kept.digest.hex()}"'
        whole = _Reply(
            200,
            content,
            kept.size,
            (
                ("Content-Type", "application/octet-stream"),
                ("ETag", tag),
                (form.REPR_DIGEST, form.digest_field(kept.digest)),
                ("Accept-Ranges", "bytes"),
            ),
        )
        return _ranged(request, whole, tag)

    async def _delete(self, call: _Call) -> _Reply:
        headers = call.request.headers
        kind = form.kind_of(headers)
        salt = form.salt_of(headers, kind)
        proof = OwnerProof(call.token, *form.proof_of(headers))
        dropped = await self._service.delete(DeleteRequest(kind, call.key, salt), proof)
        return _line(f"deleted, objects dropped: {dropped}", (form.COUNT, str(dropped)))

    async def _append_inbox(self, call: _Call) -> _Reply:
        ttl, wanted = form.ttl_of(call.request.headers), form.content_digest_of(call.request.headers)
        notification = await self._small_body(call, MAX_NOTIFICATION)
        if wanted is not None and wanted != hashlib.sha256(notification).digest():
            raise Malformed(f"the notification doesn't have the digest that {form.CONTENT_DIGEST} says")
        stamp = form.stamp_of(call.request.headers)
        new = await self._service.append_inbox(call.key, notification, ttl, call.contact, stamp)
        return _line("appended" if new else "was there already", (form.COUNT, str(int(new))))

    async def _read_inbox(self, call: _Call) -> _Reply:
        proof = OwnerProof(call.token, *form.proof_of(call.request.headers))
        if not self._inboxes.take(call.ip, form.INBOX_ANSWER_LIMIT):
            raise refusal(Code.BUSY)
        call.held.callback(self._inboxes.give, call.ip, form.INBOX_ANSWER_LIMIT)
        waiting, more = await self._service.read_inbox(call.key, call.asker, proof, MAX_HTTP_READ)
        headers = (form.MORE, "true" if more else "false"), (form.COUNT, str(len(waiting)))
        return _binary(form.encode_notifications(waiting), *headers)

    async def _acknowledge_inbox(self, call: _Call) -> _Reply:
        proof = OwnerProof(call.token, *form.proof_of(call.request.headers))
        hashes = form.decode_hashes(await self._small_body(call, MAX_HTTP_HASHES * 32))
        gone = await self._service.acknowledge_inbox(call.key, hashes, proof)
        return _line(f"acknowledged: {gone}", (form.COUNT, str(gone)))

    async def _tombstone(self, call: _Call) -> _Reply:
        kind, deleter = form.kind_of(call.request.headers), form.deleter_of(call.request.query)
        (proof,) = await self._service.proofs(kind, call.key, [deleter])
        if not proof:
            raise refusal(Code.NOT_FOUND)
        return _binary(proof)

    # Bodies that come

    async def _small_body(self, call: _Call, most: int) -> bytes:
        length = _length(call.request)
        if length > most:
            raise refusal(Code.TOO_LARGE)
        async with self._received(call, length) as (content, _):
            assert isinstance(content, bytes), "most <= SMALL"
            return content

    @asynccontextmanager
    async def _received(self, call: _Call, length: int) -> AsyncIterator[tuple[bytes | Path, bytes]]:
        """The body and its SHA-256. A file is not synced, and is removed after the block unless moved."""
        await _say_continue(call.request)
        pace = Pace(self._limits.window, self._limits.rate)
        if length <= SMALL:
            data = bytearray()
            while len(data) < length:
                data += await self._next_piece(call, pace)
            yield bytes(data), hashlib.sha256(data).digest()
            return
        taken = 0
        path = self._service.backend.spool()
        try:
            hasher = hashlib.sha256()
            with await asyncio.to_thread(open, path, "wb", opener=private) as file:
                while taken < length:
                    pieces: list[bytes] = []
                    size = 0
                    while size < BLOCK and taken < length:
                        piece = await self._next_piece(call, pace)
                        if not self._spool.take(call.ip, len(piece)):
                            raise refusal(Code.BUSY)
                        taken += len(piece)
                        size += len(piece)
                        pieces.append(piece)
                    await asyncio.to_thread(write, file, hasher, pieces)
            yield path, hasher.digest()
        finally:
            self._spool.give(call.ip, taken)
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def _next_piece(self, call: _Call, pace: Pace) -> bytes:
        piece = await pace.read(call.request.content.readany)
        if not piece:
            raise Malformed("the content is shorter than Content-Length says; it wasn't kept")
        return piece

    # Bodies that go

    async def _send(self, request: web.BaseRequest, reply: _Reply) -> web.StreamResponse:
        """Send the whole answer, with a time limit for each piece: aiohttp would wait for ever."""
        response = web.StreamResponse(status=reply.status)
        response.headers["Server"] = "p2pmail"
        response.headers["Cache-Control"] = "no-store"
        for name, value in reply.headers:
            response.headers[name] = value
        if response.headers.get("Connection") == "close":
            response.force_close()
        response.content_length = reply.size
        limit = 2 * self._limits.window
        try:
            async with asyncio.timeout(limit):
                await response.prepare(request)
            left = reply.size
            while left:
                if isinstance(reply.content, bytes):
                    block = reply.content
                else:
                    block = await asyncio.to_thread(reply.content.read, min(left, BLOCK))
                if not block:
                    raise ConnectionResetError("the object's file is shorter than it was")
                for at in range(0, len(block), SLICE):
                    async with asyncio.timeout(limit):
                        await response.write(memoryview(block)[at : at + SLICE])
                left -= len(block)
            async with asyncio.timeout(limit):
                await response.write_eof()
        except BaseException as error:
            if request.transport is not None:
                request.transport.abort()  # half an answer must not look like a whole one
            if isinstance(error, TimeoutError):
                raise ConnectionResetError("the asker takes its answer too slowly") from None
            raise
        return response


def _length(request: web.BaseRequest) -> int:
    """The length of the body, which the client must declare."""
    if "Content-Encoding" in request.headers:
        raise _HTTPRefusal(415, "content is taken as it is, without Content-Encoding")
    if request.content_length is None or "Transfer-Encoding" in request.headers:
        raise _HTTPRefusal(411, "Content-Length is missing")
    return request.content_length


async def _say_continue(request: web.BaseRequest) -> None:
    """Let a client that waits for "100 Continue" (RFC 9110, 10.1.1) send its body; all headers were checked."""
    expected = request.headers.get("Expect", "").lower()
    if expected and request.version >= HttpVersion11:
        if expected != "100-continue":
            raise _HTTPRefusal(417, "Expect is not 100-continue")
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # this doesn't count as part of the answer


def _ranged(request: web.BaseRequest, whole: _Reply, tag: str) -> _Reply:
    """The requested range (one, to resume a download), or everything if the header can't be used."""
    unless = request.headers.get("If-Range")
    if "Range" not in request.headers or unless not in (None, tag):
        return whole
    try:
        wanted = request.http_range
    except ValueError:
        return whole
    start, stop, _ = wanted.indices(whole.size)
    if start >= stop:
        raise _HTTPRefusal(416, "no such range", ("Content-Range", f"bytes */{whole.size}"))
    if isinstance(whole.content, bytes):
        content: bytes | BinaryIO = whole.content[start:stop]
    else:
        whole.content.seek(start)
        content = whole.content
    place = ("Content-Range", f"bytes {start}-{stop - 1}/{whole.size}")
    return replace(whole, status=206, content=content, size=stop - start, headers=(*whole.headers, place))
