"""Forwards HTTP requests through a relay to another node's HTTP server, and the answers back.

A body is forwarded as it arrives, so that it takes no memory. A side that is too slow is disconnected.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from overlay.errors import Malformed
from overlay.http import relay_frames
from overlay.http.client import pinned
from overlay.http.server_limits import Pace, TooSlow
from overlay.identity.contact import host_port
from overlay.protocol_limits import MIN_RATE, RATE_WINDOW
from overlay.wire.messages import Code

REQUESTS, REQUESTS_EACH = 32, 8
"""Requests under way at the same time, in all and of one address."""
LONGEST = 4 * 3600.0
"""Seconds for one request."""

_ON = frozenset({"content-digest", "content-type", "pragma", "range", "if-range"})
_BACK = frozenset({"content-type", "etag", "repr-digest", "content-range", "accept-ranges", "retry-after", "allow"})


@dataclass(frozen=True, slots=True)
class Target:
    """A node's HTTP server: IP address, port, fingerprint of its TLS certificate."""

    ip: str
    port: int
    fingerprint: bytes


class RequestForwarder:
    """Forwards requests to `home`, and to any address that is a node's according to `knows(ip, port)`."""

    def __init__(self, home: Target, knows: Callable[[str, int], bool]) -> None:
        self._home = home
        self._knows = knows
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close idle connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Forward the request; the answer of the node that it is for."""
        try:
            to = Target(*relay_frames.parse_to(request.headers[relay_frames.TO]))
        except Malformed as error:
            return line(400, str(error))
        if to.fingerprint == self._home.fingerprint:
            to = self._home
        elif not self._knows(to.ip, to.port):
            return line(403, "no node has answered there", Code.NOT_PERMITTED)
        if request.can_read_body and request.content_length is None:
            return line(411, "Content-Length is missing")
        target = host_port(to.ip, to.port)
        try:
            async with self._ask(to, request) as answer:
                return await _pass_back(request, answer)
        except TooSlow as error:
            return line(408, str(error))
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            if request.transport is None or request.transport.is_closing():
                raise ConnectionResetError("the asker is gone") from None
            return line(504, f"{target} doesn't answer over HTTPS ({type(error).__name__})")

    def _ask(self, to: Target, request: web.BaseRequest) -> aiohttp.client._RequestContextManager:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=REQUESTS, keepalive_timeout=5.0),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=LONGEST, sock_connect=10.0, sock_read=RATE_WINDOW),
                skip_auto_headers=["Accept", "Accept-Encoding", "Content-Type", "User-Agent"],
                auto_decompress=False,
                trust_env=False,
            )
        size = request.content_length or 0
        headers = CIMultiDict(
            (name, value)
            for name, value in request.headers.items()
            if name.lower() in _ON or (name.lower().startswith("p2pmail-") and name.lower() != relay_frames.TO.lower())
        )
        if size or request.method == "PUT":
            headers["Content-Length"] = str(size)
        return self._session.request(
            request.method,
            URL(f"https://{host_port(to.ip, to.port)}{request.path_qs}", encoded=True),
            headers=headers,
            data=_content(request, size) if size else None,
            ssl=pinned(to.fingerprint),
            allow_redirects=False,
        )


async def _content(request: web.BaseRequest, size: int) -> AsyncIterator[bytes]:
    pace = Pace(RATE_WINDOW, MIN_RATE)
    while size and (piece := await pace.read(request.content.readany)):
        size -= len(piece)
        yield piece


async def _pass_back(request: web.BaseRequest, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status)
    for name, value in answer.headers.items():
        if name.lower() in _BACK or name.lower().startswith("p2pmail-"):
            response.headers.add(name, value)
    response.headers["Cache-Control"] = "no-store"
    left = response.content_length = answer.content_length or 0
    try:
        await response.prepare(request)
        pace = Pace(RATE_WINDOW, MIN_RATE)
        while left > 0 and (piece := await pace.read(answer.content.readany)):
            left -= len(piece)
            async with asyncio.timeout(2 * RATE_WINDOW):
                await response.write(piece)
        if left:
            raise ConnectionResetError("the node sends another length than it said")
        await response.write_eof()
    except BaseException:
        if request.transport is not None:
            request.transport.abort()  # half an answer must not look like a whole one
        raise
    return response


def line(status: int, words: str, code: int = 0) -> web.Response:
    """A one-line answer. `code`: of the refusal (overlay/wire/messages.py)."""
    response = web.Response(status=status, text=words + "\n", headers={"Cache-Control": "no-store"})
    if code:
        response.headers["P2pmail-Refusal"] = str(code)
    response.force_close()
    return response
