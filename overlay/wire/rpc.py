"""Requests and answers over sealed datagrams: matching, resending, deduplication. Extends rpcudp.

Nothing that comes from the network raises out of `datagram_received`: a datagram is dropped silently, or becomes a
decoded request or answer. What a request means is decided in overlay/protocol.py.

Theory of operation
-------------------
Two independent machines share one socket: calls, which this node sends, and requests, which it serves.

A **call** (`Call`) is one request that this node has sent. It is in `_calls`, under its random 8-byte message id, from
`start_call` until it ends. Its states:

    waiting   A timer runs. Its time-out is estimated from the peer's RTT (overlay/wire/rtt.py) and grows with each try.
    slow      The first time-out has passed, and `on_slow` has been called, once. The request is sent again and the
              call waits on. A lookup uses this to ask another node meanwhile.
    late      The tries or the patience are used up. The node counts as silent: `silent(contact)` and `on_done(None)`
              have been called. The call stays for LATE seconds, since an answer may still be under way.
    ended     No longer in `_calls`, no timer.

    waiting -> slow      time-out; sent again
    slow    -> slow      time-out; sent again
    waiting, slow -> late          the last time-out
    waiting, slow, late -> ended   an answer: `answered(contact)`, then `on_done(answer)`
    late    -> ended     LATE seconds have passed
    any     -> ended     `cancel_call`, without a word; or the socket was closed, or there is no route: `on_done(None)`
                         unless it was late already

An answer counts only when it is sealed with the key that was asked, comes from the address that was asked, and has the
id of a call. Anything else is dropped, and the call goes on. RTT is measured by Karn's rule: only when the request was
sent once, or when the answer came late, which shows that the time-outs are too short.

Invariants: `on_done` never runs before `start_call` returns. It runs at most twice, and twice only as None and then an
answer. A call in `_calls` has a timer, so each one ends.

A **request** is named by the sender's key, its IP address and the message id. Datagrams pass these steps, in this
order, the cheap ones first:

    1. the rate limit by address, stricter for keys that weren't heard before (`DatagramGate`)
    2. opening, which proves the sender's key, and reassembly
    3. the reply cache: a repeat gets the same reply again, or none while the first is being worked on
    4. decoding
    5. the share of concurrent work of the sender's address; beyond it the answer is BUSY. A ping, a Find and
       AskAdmission take no share: they are answered however busy this node is.
    6. `handle`, which answers at once or returns an awaitable

An answer at once changes nothing at this node, so it isn't cached: a repeat is handled again. An awaitable becomes a
task, and the reply cache has an empty entry for it from the moment it starts. So a repeat doesn't do the work twice
while the entry is kept (overlay/wire/reply_cache.py has the bounds). Whatever the task raises, the sender gets an
answer, and the share is given back when the task ends.

An answer that would be over MAX_MESSAGE bytes is replaced by TOO_LARGE. Datagrams in the clear are only the two that
exchange a public key (`ask_key`), bounded in number a second.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import msgspec

from overlay.errors import Malformed, NoAnswer, OverlayError, Refused
from overlay.identity.contact import Contact, pack_ip, unpack_ip
from overlay.limits.address_quota import AddressQuota
from overlay.limits.rate_limits import DatagramGate
from overlay.wire import fragments, messages, sealed_datagram
from overlay.wire.reply_cache import Name, ReplyCache
from overlay.wire.rtt import LONGEST_TIMEOUT, RTTEstimates

if TYPE_CHECKING:  # rpcudp's __getattr__ would keep mypy from reporting an attribute that doesn't exist
    from asyncio import DatagramProtocol as RPCProtocol
else:
    from rpcudp.protocol import RPCProtocol

log = logging.getLogger(__name__)

TRIES = 3
"""Times that a request is sent before its node counts as silent; at 10% loss one node in 150 is misjudged."""
LATE = 2.0
"""Seconds for which an answer is still accepted after its node was counted as silent: it may be far away, or busy."""
BACK_OFF = 1.25
"""Factor by which the time-out grows with each try."""
PATIENT_BACK_OFF = 2.0
"""The same for calls with patience, which have more time and often more bytes: the factor of RFC 6298."""
QUEUED_BYTES = 4 * 1024 * 1024
"""Bytes that may wait for the system to send them; datagrams beyond that are dropped."""
TASKS = 1024
TASKS_OF_ADDRESS = 128
"""Requests served concurrently, in all and for one address; more are answered with BUSY."""
KEY_ANSWERS_A_SECOND = 200
"""Key requests answered each second. They come in the clear and from unproven addresses, so they are limited."""

Handled = messages.Answer | Awaitable[messages.Answer]
"""What `handle` returns: an answer, or the work that leads to one."""

DatagramSender = Callable[[bytes, str, int, bytes], None]
"""Sends a datagram to the node with this key, IP address and port."""


class RemotePeer(msgspec.Struct, frozen=True, gc=False):
    """The sender of a request, and the request's size in bytes; its key is proven, its address isn't."""

    contact: Contact
    server_mode: bool
    received: int


_TIMER_MARGIN = 0.001
"""Seconds by which a loop's timer may fire early."""


class Call:
    """One request that was sent; the module's docstring has its states.

    `on_slow` is called once, after the first time-out. `on_done` is called with the answer, or with None when the node
    counts as silent, and then again if it answers late.
    """

    __slots__ = (
        "contact", "datagrams", "deadline", "direct", "late", "max_tries", "message_id",
        "on_done", "on_slow", "started", "timer", "tries",
    )  # fmt: skip

    def __init__(
        self,
        contact: Contact,
        message_id: bytes,
        datagrams: list[bytes],
        on_done: Callable[[messages.Answer | None], None],
        on_slow: Callable[[], None] | None,
    ) -> None:
        self.contact = contact
        self.message_id = message_id
        self.datagrams = datagrams
        self.on_done = on_done
        self.on_slow = on_slow
        self.started = 0.0
        self.max_tries = TRIES
        self.late = False
        self.direct = False
        self.deadline: float | None = None
        self.tries = 0
        self.timer: asyncio.TimerHandle | None = None


class SealedRPC(RPCProtocol):  # type: ignore[misc, unused-ignore]
    """rpcudp's protocol with another wire format, proven senders, and time-outs from measured RTT."""

    def __init__(
        self,
        sealer: sealed_datagram.Sealer,
        *,
        server_mode: bool,
        loopback_free: bool = False,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        RPCProtocol.__init__(self)
        self.sealer = sealer
        self.server_mode = server_mode
        self.rtt = RTTEstimates()
        self.dropped = 0
        """Datagrams that were malformed."""
        self.transport: asyncio.DatagramTransport | None = None
        self._loop = asyncio.get_running_loop()
        self._calls: dict[bytes, Call] = {}
        self._key_requests: dict[bytes, asyncio.Future[bytes]] = {}
        self._reassembly = fragments.Reassembly()
        self._replies = ReplyCache()
        self._gate = DatagramGate(loopback_free=loopback_free)
        self._work_quota = AddressQuota(TASKS, TASKS_OF_ADDRESS, loopback_free=loopback_free)
        self.rate_limited = 0
        """Datagrams that the rate limit dropped."""
        self._random = random
        self._send_buffer_size: Callable[[], int] = lambda: 0
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._key_replies = (0.0, 0)
        self._ipv6 = False
        self.tunnel_send: DatagramSender | None = None
        """Sends requests through the HTTPS tunnel (overlay/http/tunnel.py); None: they go by UDP."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Raises AttributeError. rpcudp turns any unknown name into a remote call, and so a typo."""
            raise AttributeError(f"{type(self).__name__} has no {name!r}")

    # What a subclass decides

    def handle(self, sender: RemotePeer, request: messages.Request) -> Handled:
        """Answer a request, at once or later."""
        raise NotImplementedError

    def answered(self, contact: Contact, server_mode: bool) -> None:
        """`contact` answered a call, which proves its key and its address."""

    def silent(self, contact: Contact) -> None:
        """`contact` counts as silent: a call to it is late."""

    # Sending

    def start_call(
        self,
        contact: Contact,
        request: messages.Request,
        on_done: Callable[[messages.Answer | None], None],
        *,
        on_slow: Callable[[], None] | None = None,
        patience: float | None = None,
        tries: int = TRIES,
        direct: bool = False,
    ) -> Call:
        """Send a request; `on_done` gets the answer, or None when `contact` stays silent.

        `on_done` is never called before this returns. The request is sent at most `tries` times, or for `patience`
        seconds. `direct`: by UDP even while the tunnel is in use; silence doesn't count against the contact then.
        Raises Malformed when the request is over fragments.MAX_MESSAGE bytes, or the contact's key isn't valid.
        """
        message_id = self._random(8)
        flags = fragments.SERVER_MODE if self.server_mode else 0
        payloads = fragments.cut(flags, message_id, messages.encode(request))
        call = Call(contact, message_id, [self.sealer.seal(contact.key, p) for p in payloads], on_done, on_slow)
        call.started = self._loop.time()
        call.max_tries = tries
        call.direct = direct
        call.deadline = None if patience is None else call.started + patience
        self._calls[message_id] = call
        if self._closed:  # a call on a closed socket fails at once, and no timer outlives the socket
            call.timer = self._loop.call_later(0, self._fail, call)
        elif not self._transmit(call):  # there is no route, for example to IPv6: fail without waiting
            self.cancel_call(call)
            self._calls[message_id] = call
            call.timer = self._loop.call_later(0, self._fail, call)
        return call

    async def call(
        self, contact: Contact, request: messages.Request, *, patience: float | None = None
    ) -> messages.Answer:
        """Send a request and wait for its answer. Raises NoAnswer, Refused, Malformed (the request is too long)."""
        done: asyncio.Future[messages.Answer | None] = self._loop.create_future()

        def on_done(answer: messages.Answer | None) -> None:
            if not done.done():
                done.set_result(answer)

        call = self.start_call(contact, request, on_done, patience=patience)
        try:
            answer = await done
        finally:
            self.cancel_call(call)
        if answer is None:
            raise NoAnswer(f"{contact} didn't answer")
        if isinstance(answer, messages.Refusal):
            raise Refused(answer.code, messages.WORDS.get(answer.code, "refused"), answer.bits)
        return answer

    def cancel_call(self, call: Call) -> None:
        """End a call whose answer isn't needed any more."""
        self._calls.pop(call.message_id, None)
        if call.timer is not None:
            call.timer.cancel()

    async def settle(self) -> None:
        """Wait until the requests being served have been answered, for LONGEST_TIMEOUT seconds at most."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=LONGEST_TIMEOUT)

    async def ask_key(self, ip: str, port: int, timeout: float = 2.0) -> bytes:
        """The public key of the node at this address, trusted on first use. Raises NoAnswer."""
        cookie = self._random(sealed_datagram.COOKIE)
        reply: asyncio.Future[bytes] = self._loop.create_future()
        self._key_requests[cookie] = reply
        try:
            for _ in range(TRIES):
                self._send([self.sealer.ask_key(cookie)], ip, port)
                done, _pending = await asyncio.wait([reply], timeout=timeout / TRIES)
                if done:
                    return reply.result()
        finally:
            del self._key_requests[cookie]
        raise NoAnswer(f"no node of this network answers at {ip} port {port}")

    def _transmit(self, call: Call) -> bool:
        sent = True
        if self.tunnel_send is None or call.direct:
            sent = self._send(call.datagrams, call.contact.ip, call.contact.port)
        else:
            for data in call.datagrams:
                self.tunnel_send(call.contact.key, call.contact.ip, call.contact.port, data)
        timeout = self.rtt.timeout(call.contact.key)
        if call.deadline is None:
            timeout = min(timeout * BACK_OFF**call.tries, LONGEST_TIMEOUT)
        else:
            timeout = min(timeout * PATIENT_BACK_OFF**call.tries, LONGEST_TIMEOUT)
            timeout = min(timeout, max(call.deadline - self._loop.time(), 0.0))
        call.tries += 1
        call.timer = self._loop.call_later(timeout, self._timed_out, call)
        return sent

    def _timed_out(self, call: Call) -> None:
        if call.deadline is None:
            out_of_tries = call.tries >= call.max_tries
        else:
            out_of_tries = self._loop.time() >= call.deadline - _TIMER_MARGIN
        if call.on_slow is not None:
            on_slow, call.on_slow = call.on_slow, None
            on_slow()
        if call.message_id not in self._calls:
            return
        if out_of_tries:
            call.late = True
            call.timer = self._loop.call_later(LATE, self.cancel_call, call)
            if not call.direct:
                self.silent(call.contact)
            call.on_done(None)
        else:
            self._transmit(call)

    def _fail(self, call: Call) -> None:
        if call.message_id in self._calls:
            self.cancel_call(call)
            if not call.late:
                call.on_done(None)

    def _send(self, datagrams: list[bytes], ip: str, port: int) -> bool:
        """Send datagrams; False when there is certainly no route to that address."""
        if self.transport is None or self.transport.is_closing():
            return True
        if self._send_buffer_size() > QUEUED_BYTES:
            return True
        if self._ipv6:
            ip = ip if ":" in ip else "::ffff:" + ip
        elif ":" in ip:
            return False
        try:
            for data in datagrams:
                self.transport.sendto(data, (ip, port))
        except (OSError, ValueError) as error:
            log.debug("can't send to %s port %s: %s", ip, port, error)
            return False
        return True

    # Receiving

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio with the open socket."""
        self.transport = cast(asyncio.DatagramTransport, transport)
        # Datagram transports of asyncio and uvloop have this method too, but typeshed doesn't declare it.
        self._send_buffer_size = cast(asyncio.WriteTransport, transport).get_write_buffer_size
        self._ipv6 = len(transport.get_extra_info("sockname") or ()) == 4

    def error_received(self, exc: Exception) -> None:
        """An ICMP error came back. It may be forged, so only the time-out counts."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed: end all calls, and cancel the requests being served."""
        self._closed = True
        for call in list(self._calls.values()):
            self._fail(call)
        for task in self._tasks:
            task.cancel()

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Handle one datagram. All input from the network comes through here, and nothing raises out of it."""
        try:
            if data[:1] == b"\x01":
                self._receive(data, addr)
            else:
                self._receive_in_the_clear(data, addr)
        except Malformed as error:
            self.dropped += 1
            log.debug("dropped a datagram from %s: %s", addr, error)
        except Exception:  # a bug here must cost one datagram, not the node
            self.dropped += 1
            log.exception("a bug: handling a datagram from %s failed", addr)

    def _receive(self, data: bytes, addr: tuple[Any, ...]) -> None:
        source = _source_address(addr)
        if not self._gate.admits(source[0], self._loop.time(), known=self.sealer.knows(data)):
            self.rate_limited += 1
            return
        peer, payload = self.sealer.open(data)
        fragment = fragments.read(payload)
        message = self._reassembly.add(peer, fragment, self._loop.time())
        if message is None:
            return
        if fragment.flags & fragments.ANSWER:
            self._receive_answer(peer, fragment, message, source)
        else:
            self._receive_request(peer, fragment, message, source)

    def _receive_answer(
        self, peer: bytes, fragment: fragments.Fragment, message: bytes, source: tuple[str, int]
    ) -> None:
        call = self._calls.get(fragment.message_id)
        if call is None or call.contact.key != peer:
            raise Malformed("an answer to no request of ours")
        if call.contact.address != source:  # the key is right, but the contact's address isn't
            raise Malformed("an answer from another address than the one asked")
        answer = messages.decode_answer(message)
        if call.tries == 1 or call.late:  # late: which try it answers isn't known, but the time-outs were too short
            self.rtt.add_sample(peer, self._loop.time() - call.started)
        self.cancel_call(call)
        self.answered(call.contact, bool(fragment.flags & fragments.SERVER_MODE))
        call.on_done(answer)

    def _receive_request(
        self, peer: bytes, fragment: fragments.Fragment, message: bytes, source: tuple[str, int]
    ) -> None:
        name = (peer, source[0], fragment.message_id)
        known = self._replies.get(name)
        if known is not None:  # a repeat: send the same reply again, or nothing while it is being worked on
            self._send(known, *source)
            return
        request = messages.decode_request(message)
        contact = _contact_of(peer, source)
        received = len(message) + fragment.count * (sealed_datagram.OVERHEAD + fragments.HEADER)
        sender = RemotePeer(contact, bool(fragment.flags & fragments.SERVER_MODE), received)
        # Pings and lookups are answered however busy this node is; other work is limited for each address.
        is_work = not isinstance(request, messages.Ping | messages.Find | messages.AskAdmission)
        if is_work and not self._work_quota.take(contact.ip):
            self._answer(sender, fragment.message_id, messages.Refusal(messages.Code.BUSY))
            return
        handled = self.handle(sender, request)
        if isinstance(handled, messages.Answer):  # nothing was changed here: a repeat may be handled again
            if is_work:
                self._work_quota.give(contact.ip)
            self._answer(sender, fragment.message_id, handled)
            return
        self._replies.keep(name, [])
        task = self._loop.create_task(self._answer_later(sender, name, handled))
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._finished(task, contact.ip))

    def _finished(self, task: asyncio.Task[None], ip: str) -> None:
        self._tasks.discard(task)
        self._work_quota.give(ip)

    async def _answer_later(self, sender: RemotePeer, name: Name, handled: Awaitable[messages.Answer]) -> None:
        try:
            answer = await handled
        except Refused as refused:
            answer = messages.Refusal(refused.code, refused.bits)
        except Exception as error:  # whatever failed, the sender learns that it isn't stored, and the node goes on
            if not isinstance(error, OverlayError):
                log.exception("a request failed")
            answer = messages.Refusal(messages.Code.BUSY)
        datagrams = self._answer(sender, name[2], answer)
        if name in self._replies:
            self._replies.keep(name, datagrams)

    def _answer(self, sender: RemotePeer, message_id: bytes, answer: messages.Answer) -> list[bytes]:
        flags = fragments.ANSWER | (fragments.SERVER_MODE if self.server_mode else 0)
        encoded = messages.encode(answer)
        if len(encoded) > fragments.MAX_MESSAGE:
            encoded = messages.encode(messages.Refusal(messages.Code.TOO_LARGE))
        payloads = fragments.cut(flags, message_id, encoded)
        datagrams = [self.sealer.seal(sender.contact.key, payload) for payload in payloads]
        self._send(datagrams, sender.contact.ip, sender.contact.port)
        return datagrams

    def _receive_in_the_clear(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if data[:1] == bytes([sealed_datagram.ASK_KEY]):
            second, served = self._key_replies
            now = float(int(self._loop.time()))
            served = served if now == second else 0
            if served >= KEY_ANSWERS_A_SECOND:
                raise Malformed("too many key requests")
            told = self.sealer.tell_key(data)
            self._key_replies = (now, served + 1)
            self._send([told], *_source_address(addr))
        elif data[:1] == bytes([sealed_datagram.TELL_KEY]):
            cookie, key = self.sealer.told_key(data)
            request = self._key_requests.get(cookie)
            if request is not None and not request.done():
                request.set_result(key)
        else:
            raise Malformed("not a datagram of this protocol")


def _source_address(addr: tuple[Any, ...]) -> tuple[str, int]:
    """The address that a datagram came from, in the form that contacts have. Raises Malformed."""
    if not 1 <= addr[1] <= 65535:
        raise Malformed("from a port that no answer can go to")
    return _canonical_ip(addr[0]), addr[1]


@lru_cache(maxsize=4096)
def _canonical_ip(ip: str) -> str:
    return unpack_ip(pack_ip(ip))


@lru_cache(maxsize=4096)
def _contact_of(peer: bytes, source: tuple[str, int]) -> Contact:
    """The sender of a request; cached, since a peer that asks once usually asks again."""
    return Contact(peer, *source)
