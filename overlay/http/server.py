"""A node's HTTP door (paper, Table 3): the service primitives over HTTP/1.1 and TLS, at any size, for curl too.

Requests are read strictly (bulk_format.py), bodies are streamed to the store's spool, and who may do what is decided
by service.py. Sockets are bulk_listener.py's, limits bulk_limits.py's.
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
"""Bytes of a body that stays in memory; a larger one is written to the store's spool as it comes."""
_GRACE = 5.0
"""Seconds that requests under way have when the door closes."""

log = logging.getLogger(__name__)

Closest = Callable[[bytes, int], Awaitable[list[Located]]]


class _HTTPRefusal(P2PMailError):
    """HTTP itself has a word for what is wrong."""

    def __init__(self, status: int, words: str, *headers: tuple[str, str]) -> None:
        super().__init__(words)
        self.status = status
        self.headers = headers


@dataclass(frozen=True, slots=True)
class _Reply:
    """An answer before it is sent: `size` bytes of `content`, in memory or in an open file from where it stands."""

    status: int
    content: bytes | BinaryIO
    size: int
    headers: tuple[tuple[str, str], ...] = ()


def _line(words: str, *headers: tuple[str, str], status: int = 200) -> _Reply:
    """An answer of one line for people who use curl; programs read status and headers."""
    body = words.encode() + b"\n"
    return _Reply(status, body, len(body), (("Content-Type", "text/plain; charset=utf-8"), *headers))


def _binary(content: bytes, *headers: tuple[str, str]) -> _Reply:
    return _Reply(200, content, len(content), (("Content-Type", "application/octet-stream"), *headers))


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request whose token is good (but for /closest), and what is held until its answer is out."""

    request: web.BaseRequest
    key: bytes
    ip: str
    asker: bytes
    token: bytes
    held: AsyncExitStack

    @property
    def contact(self) -> Contact:
        """Who asks, as far as its token proves it. (The port is nobody's.)"""
        return Contact(self.asker, self.ip, 1)


class HTTPServer:
    """Serves one node's `service` over HTTPS.

    `closest` looks up the k closest other nodes; `own` is this node as others should see it, None while it doesn't
    know its address.
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
        self._primitives: dict[tuple[str, str], Callable[[_Asked], Awaitable[_Reply]]] = {
            ("PUT", ""): self._store,
            ("GET", ""): self._fetch,
            ("DELETE", ""): self._delete,
            ("PUT", form.APPEND_INBOX): self._append_inbox,
            ("GET", form.READ_INBOX): self._read_inbox,
            ("DELETE", form.READ_INBOX): self._acknowledge_inbox,
            ("GET", form.TOMBSTONE): self._tombstone,
        }

    async def start(self, host: str, port: int) -> int:
        """Listen at an IP literal; the real port. Raises OSError, when the port is taken say."""
        self._listener = Listener(self._handle, server_context(self._identity), self._limits)
        return await self._listener.start(host, port)

    async def stop(self, grace: float = _GRACE) -> None:
        """Close the door; what is under way has `grace` seconds. A second time does nothing."""
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
            return await self._find(_Asked(request, key, ip, asker, b"", held))
        pragma = form.pragma_of(request.headers)
        primitive = self._primitives.get((request.method, pragma))
        if primitive is None:
            allowed = ", ".join(method for method, name in self._primitives if name == pragma)
            raise _HTTPRefusal(405, f"that is not for {request.method}", ("Allow", allowed))
        token = form.token_of(request.headers)
        if not self._tokens.good(token, asker, ip):
            raise refusal(Code.BAD_TOKEN)
        return await primitive(_Asked(request, key, ip, asker, token, held))

    # The primitives

    async def _find(self, asked: _Asked) -> _Reply:
        k = form.k_of(asked.request.query)
        token = self._tokens.issue(asked.asker, asked.ip)
        found = await self._look_up(asked, k) if k else []
        content = form.encode_closest(self._service.node_id, token, found)
        return _Reply(200, content, len(content), (("Content-Type", "application/json"),))

    async def _look_up(self, asked: _Asked, k: int) -> Sequence[Located]:
        if not self._lookups.take(asked.ip):
            raise refusal(Code.BUSY)
        try:
            found = await self._closest(asked.key, k)
        finally:
            self._lookups.give(asked.ip)
        own = self._own()
        nodes = {located.contact.id: located for located in (found if own is None else [*found, own])}
        return sorted(nodes.values(), key=lambda located: distance(located.contact.id, asked.key))[:k]

    async def _store(self, asked: _Asked) -> _Reply:
        headers = asked.request.headers
        kind, ttl = form.kind_of(headers), form.ttl_of(headers)
        deleters, wanted = form.deleters_of(headers), form.content_digest_of(headers)
        length = _length(asked.request)
        self._service.admit(kind, length)
        async with self._received(asked, length) as (content, digest):
            if wanted is not None and wanted != digest:
                raise Malformed(f"the content doesn't have the digest that {form.CONTENT_DIGEST} says; it wasn't kept")
            await self._service.store(StoreRequest(kind, asked.key, content, digest, ttl, deleters), asked.contact)
        return _line("stored", (form.REPR_DIGEST, form.digest_field(digest)))

    async def _fetch(self, asked: _Asked) -> _Reply:
        request = asked.request
        kind, digest = form.kind_of(request.headers), form.digest_of(request.query)
        kept = await self._service.fetch(FetchRequest(kind, asked.key, digest))
        content: bytes | BinaryIO
        if isinstance(kept.content, bytes):
            content = kept.content
        else:
            try:
                content = await asyncio.to_thread(kept.content.open, "rb")
            except FileNotFoundError:  # deleted a moment ago
                raise refusal(Code.NOT_FOUND) from None
            asked.held.callback(content.close)
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

    async def _delete(self, asked: _Asked) -> _Reply:
        headers = asked.request.headers
        kind = form.kind_of(headers)
        salt = form.salt_of(headers, kind)
        proof = OwnerProof(asked.token, *form.proof_of(headers))
        dropped = await self._service.delete(DeleteRequest(kind, asked.key, salt), proof)
        return _line(f"deleted, objects dropped: {dropped}", (form.COUNT, str(dropped)))

    async def _append_inbox(self, asked: _Asked) -> _Reply:
        ttl, wanted = form.ttl_of(asked.request.headers), form.content_digest_of(asked.request.headers)
        notification = await self._small_body(asked, MAX_NOTIFICATION)
        if wanted is not None and wanted != hashlib.sha256(notification).digest():
            raise Malformed(f"the notification doesn't have the digest that {form.CONTENT_DIGEST} says")
        stamp = form.stamp_of(asked.request.headers)
        new = await self._service.append_inbox(asked.key, notification, ttl, asked.contact, stamp)
        return _line("appended" if new else "was there already", (form.COUNT, str(int(new))))

    async def _read_inbox(self, asked: _Asked) -> _Reply:
        proof = OwnerProof(asked.token, *form.proof_of(asked.request.headers))
        if not self._inboxes.take(asked.ip, form.INBOX_ANSWER_LIMIT):
            raise refusal(Code.BUSY)
        asked.held.callback(self._inboxes.give, asked.ip, form.INBOX_ANSWER_LIMIT)
        waiting, more = await self._service.read_inbox(asked.key, asked.asker, proof, MAX_HTTP_READ)
        headers = (form.MORE, "true" if more else "false"), (form.COUNT, str(len(waiting)))
        return _binary(form.encode_notifications(waiting), *headers)

    async def _acknowledge_inbox(self, asked: _Asked) -> _Reply:
        proof = OwnerProof(asked.token, *form.proof_of(asked.request.headers))
        hashes = form.decode_hashes(await self._small_body(asked, MAX_HTTP_HASHES * 32))
        gone = await self._service.acknowledge_inbox(asked.key, hashes, proof)
        return _line(f"acknowledged: {gone}", (form.COUNT, str(gone)))

    async def _tombstone(self, asked: _Asked) -> _Reply:
        kind, deleter = form.kind_of(asked.request.headers), form.deleter_of(asked.request.query)
        (proof,) = await self._service.proofs(kind, asked.key, [deleter])
        if not proof:
            raise refusal(Code.NOT_FOUND)
        return _binary(proof)

    # Bodies that come

    async def _small_body(self, asked: _Asked, most: int) -> bytes:
        length = _length(asked.request)
        if length > most:
            raise refusal(Code.TOO_LARGE)
        async with self._received(asked, length) as (content, _):
            assert isinstance(content, bytes), "most <= SMALL"
            return content

    @asynccontextmanager
    async def _received(self, asked: _Asked, length: int) -> AsyncIterator[tuple[bytes | Path, bytes]]:
        """The body and its SHA-256. A file is closed, not synced, and gone after the block unless it was moved."""
        await _say_continue(asked.request)
        pace = Pace(self._limits.window, self._limits.rate)
        if length <= SMALL:
            data = bytearray()
            while len(data) < length:
                data += await self._next_piece(asked, pace)
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
                        piece = await self._next_piece(asked, pace)
                        if not self._spool.take(asked.ip, len(piece)):
                            raise refusal(Code.BUSY)
                        taken += len(piece)
                        size += len(piece)
                        pieces.append(piece)
                    await asyncio.to_thread(write, file, hasher, pieces)
            yield path, hasher.digest()
        finally:
            self._spool.give(asked.ip, taken)
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def _next_piece(self, asked: _Asked, pace: Pace) -> bytes:
        piece = await pace.read(asked.request.content.readany)
        if not piece:
            raise Malformed("the content is shorter than Content-Length says; it wasn't kept")
        return piece

    # Bodies that go

    async def _send(self, request: web.BaseRequest, reply: _Reply) -> web.StreamResponse:
        """Send all of it here, under a time limit for each piece: aiohttp would wait for a reader for ever."""
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
    """How long the body will be, which must be said beforehand."""
    if "Content-Encoding" in request.headers:
        raise _HTTPRefusal(415, "content is taken as it is, without Content-Encoding")
    if request.content_length is None or "Transfer-Encoding" in request.headers:
        raise _HTTPRefusal(411, "Content-Length is missing")
    return request.content_length


async def _say_continue(request: web.BaseRequest) -> None:
    """Let a client that asked first (RFC 9110, 10.1.1) send its body, now that nothing speaks against it."""
    expected = request.headers.get("Expect", "").lower()
    if expected and request.version >= HttpVersion11:
        if expected != "100-continue":
            raise _HTTPRefusal(417, "Expect is not 100-continue")
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer proper hasn't begun


def _ranged(request: web.BaseRequest, whole: _Reply, tag: str) -> _Reply:
    """The part of it that was asked for (one range, to resume), or all of it where that can't be told."""
    unless = request.headers.get("If-Range")
    if "Range" not in request.headers or unless not in (None, tag):
        return whole
    try:
        asked = request.http_range
    except ValueError:
        return whole
    start, stop, _ = asked.indices(whole.size)
    if start >= stop:
        raise _HTTPRefusal(416, "no such range", ("Content-Range", f"bytes */{whole.size}"))
    if isinstance(whole.content, bytes):
        content: bytes | BinaryIO = whole.content[start:stop]
    else:
        whole.content.seek(start)
        content = whole.content
    place = ("Content-Range", f"bytes {start}-{stop - 1}/{whole.size}")
    return replace(whole, status=206, content=content, size=stop - start, headers=(*whole.headers, place))
