"""Requests and answers over sealed datagrams: matching, resending, repeating an answer. Extends rpcudp.

Whatever a datagram holds, this file drops it in silence or hands on a decoded request; nothing from the network
raises out of `datagram_received`. What requests mean is decided in overlay/protocol.py.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, cast

import msgspec
from rpcudp.protocol import RPCProtocol

from overlay.errors import Malformed, NoAnswer, OverlayError, Refused
from overlay.identity.contact import Contact, pack_ip, unpack_ip
from overlay.limits.address_quota import AddressQuota
from overlay.limits.rate_limits import DatagramGate
from overlay.wire import fragments, messages, sealed_datagram
from overlay.wire.reply_cache import Name, ReplyCache
from overlay.wire.rtt import LONGEST_TIMEOUT, RTTEstimates

log = logging.getLogger(__name__)

TRIES = 3
"""A request is sent so often before its node counts as silent: at 10% loss one in 150 is misjudged."""
LATE = 2.0
"""Seconds for which the answer of a node that counts as silent is still taken: it may be far away, or busy."""
BACK_OFF = 1.25
PATIENT_BACK_OFF = 2.0
"""With more time, and often more bytes, to spend: RFC 6298's figure."""
QUEUED_BYTES = 4 * 1024 * 1024
"""What waits for the system to take it; beyond that datagrams are lost here instead of on their way."""
TASKS = 1024
TASKS_OF_ADDRESS = 128
"""Requests served at once, in all and of one address; more are answered with BUSY."""
KEY_ANSWERS_A_SECOND = 200
"""First contacts served in the clear, so that nobody can use them for a flood."""

Handled = messages.Answer | Awaitable[messages.Answer]

DatagramSender = Callable[[bytes, str, int, bytes], None]
"""Sends a datagram to the node with this key, IP address and port."""


class RemotePeer(msgspec.Struct, frozen=True, gc=False):
    """Who sent a request (its key is proven, its address is what the datagram says), and how many bytes."""

    contact: Contact
    server_mode: bool
    received: int


_TIMER_MARGIN = 0.001
"""Seconds that a loop's timer may be early."""


class Call:
    """One outstanding request. `on_slow` is called once, after the first time-out; the answer may still come.

    `on_done` is called with the answer, or with None when the node counts as silent; and once more when it answers
    after that.
    """

    __slots__ = (
        "contact", "datagrams", "deadline", "direct", "late", "message_id", "most",
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
        self.most = TRIES
        self.late = False
        self.direct = False
        self.deadline: float | None = None
        self.tries = 0
        self.timer: asyncio.TimerHandle | None = None


class SealedRPC(RPCProtocol):  # type: ignore[misc, unused-ignore]
    """rpcudp's protocol, with its wire, its trust in strangers and its fixed time-out replaced."""

    def __init__(
        self,
        sealer: sealed_datagram.Sealer,
        *,
        server_mode: bool,
        loopback_free: bool = False,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        RPCProtocol.__init__(self)  # type: ignore[no-untyped-call]
        self.sealer = sealer
        self.server_mode = server_mode
        self.rtt = RTTEstimates()
        self.dropped = 0
        self.transport: asyncio.DatagramTransport | None = None
        self._loop = asyncio.get_running_loop()
        self._calls: dict[bytes, Call] = {}
        self._asked: dict[bytes, asyncio.Future[bytes]] = {}
        self._reassembly = fragments.Reassembly()
        self._answers = ReplyCache()
        self._gate = DatagramGate(loopback_free=loopback_free)
        self._shares = AddressQuota(TASKS, TASKS_OF_ADDRESS, loopback_free=loopback_free)
        self.shed = 0
        self._random = random
        self._queued: Callable[[], int] = lambda: 0
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._key_answers = (0.0, 0)
        self._ipv6 = False
        self.tunnel_send: DatagramSender | None = None
        """How requests get out when not by the socket (overlay/http/tunnel.py)."""

    def __getattr__(self, name: str) -> Any:
        """rpcudp turns any unknown name into a remote call, and a typo with it; here a typo is an error."""
        raise AttributeError(f"{type(self).__name__} has no {name!r}")

    # What a subclass decides

    def handle(self, sender: RemotePeer, request: messages.Request) -> Handled:
        """Answer a request, at once or later."""
        raise NotImplementedError

    def answered(self, contact: Contact, server_mode: bool) -> None:
        """`contact` answered a request of ours: its key and its address are proven."""

    def silent(self, contact: Contact) -> None:
        """`contact` didn't answer."""

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
        """Ask, and call `on_done` with the answer, or with None when `contact` stays silent; never before it returns.

        Sent again after a time-out taken from this peer's round trips: `tries` times in all, or for `patience`
        seconds. `direct`: by UDP, whatever other way is taken; silence isn't held against it. Raises Malformed when
        the request is over fragments.MAX_MESSAGE bytes, or the key is no key.
        """
        message_id = self._random(8)
        flags = fragments.SERVER_MODE if self.server_mode else 0
        payloads = fragments.cut(flags, message_id, messages.encode(request))
        call = Call(contact, message_id, [self.sealer.seal(contact.key, p) for p in payloads], on_done, on_slow)
        call.started = self._loop.time()
        call.most = tries
        call.direct = direct
        call.deadline = None if patience is None else call.started + patience
        self._calls[message_id] = call
        if self._closed:  # whoever still asks hears at once, and no timer outlives the socket
            call.timer = self._loop.call_later(0, self._lost, call)
        elif not self._send_call(call):  # no way there from here, say to IPv6: nobody needs to wait
            self.cancel_call(call)
            self._calls[message_id] = call
            call.timer = self._loop.call_later(0, self._lost, call)
        return call

    async def call(
        self, contact: Contact, request: messages.Request, *, patience: float | None = None
    ) -> messages.Answer:
        """Ask and wait. Raises NoAnswer, Refused, Malformed (request too long for datagrams)."""
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
        """Forget a call whose answer doesn't matter any more."""
        self._calls.pop(call.message_id, None)
        if call.timer is not None:
            call.timer.cancel()

    async def settle(self) -> None:
        """Wait until the requests that are being served have been answered."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=LONGEST_TIMEOUT)

    async def ask_key(self, ip: str, port: int, timeout: float = 2.0) -> bytes:
        """The public key of whoever answers there, trusted as heard. Raises NoAnswer."""
        cookie = self._random(sealed_datagram.COOKIE)
        heard: asyncio.Future[bytes] = self._loop.create_future()
        self._asked[cookie] = heard
        try:
            for _ in range(TRIES):
                self._send([self.sealer.ask_key(cookie)], ip, port)
                done, _pending = await asyncio.wait([heard], timeout=timeout / TRIES)
                if done:
                    return heard.result()
        finally:
            del self._asked[cookie]
        raise NoAnswer(f"nobody of this network answers at {ip} port {port}")

    def _send_call(self, call: Call) -> bool:
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
            out_of_tries = call.tries >= call.most
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
            self._send_call(call)

    def _lost(self, call: Call) -> None:
        if call.message_id in self._calls:
            self.cancel_call(call)
            if not call.late:
                call.on_done(None)

    def _send(self, datagrams: list[bytes], ip: str, port: int) -> bool:
        """Send them; False when there is certainly no way there."""
        if self.transport is None or self.transport.is_closing():
            return True
        if self._queued() > QUEUED_BYTES:
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
        """asyncio hands over the socket."""
        self.transport = cast(asyncio.DatagramTransport, transport)
        # Datagram transports have it too, on asyncio and uvloop; typeshed doesn't know.
        self._queued = cast(asyncio.WriteTransport, transport).get_write_buffer_size
        self._ipv6 = len(transport.get_extra_info("sockname") or ()) == 4

    def error_received(self, exc: Exception) -> None:
        """An ICMP error came back: the time-out will tell."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed: nobody waits any longer."""
        self._closed = True
        for call in list(self._calls.values()):
            self._lost(call)
        for task in self._tasks:
            task.cancel()

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Everything that comes from the network comes through here, and nothing raises out of it."""
        try:
            if data[:1] == b"\x01":
                self._receive(data, addr)
            else:
                self._receive_in_the_clear(data, addr)
        except Malformed as error:
            self.dropped += 1
            log.debug("dropped a datagram from %s: %s", addr, error)
        except Exception:  # a fault of ours: it costs this datagram, not the node
            self.dropped += 1
            log.exception("a datagram from %s met a fault", addr)

    def _receive(self, data: bytes, addr: tuple[Any, ...]) -> None:
        place = _place(addr)
        if not self._gate.admits(place[0], self._loop.time(), known=self.sealer.knows(data)):
            self.shed += 1
            return
        peer, payload = self.sealer.open(data)
        fragment = fragments.read(payload)
        message = self._reassembly.add(peer, fragment, self._loop.time())
        if message is None:
            return
        if fragment.flags & fragments.ANSWER:
            self._receive_answer(peer, fragment, message, place)
        else:
            self._receive_request(peer, fragment, message, place)

    def _receive_answer(
        self, peer: bytes, fragment: fragments.Fragment, message: bytes, place: tuple[str, int]
    ) -> None:
        call = self._calls.get(fragment.message_id)
        if call is None or call.contact.key != peer:
            raise Malformed("an answer that nobody waits for")
        if call.contact.address != place:  # the key is right, but what was said of its address wasn't
            raise Malformed("an answer from another address than was asked")
        answer = messages.decode_answer(message)
        if call.tries == 1 or call.late:  # late: not sure which one it answers, but too long for our time-outs
            self.rtt.add_sample(peer, self._loop.time() - call.started)
        self.cancel_call(call)
        self.answered(call.contact, bool(fragment.flags & fragments.SERVER_MODE))
        call.on_done(answer)

    def _receive_request(
        self, peer: bytes, fragment: fragments.Fragment, message: bytes, place: tuple[str, int]
    ) -> None:
        name = (peer, place[0], fragment.message_id)
        known = self._answers.get(name)
        if known is not None:  # a repeat: the same answer again, or none yet while it is worked on
            self._send(known, *place)
            return
        request = messages.decode_request(message)
        contact = _sender(peer, place)
        received = len(message) + fragment.count * (sealed_datagram.OVERHEAD + fragments.HEADER)
        sender = RemotePeer(contact, bool(fragment.flags & fragments.SERVER_MODE), received)
        # Pings and lookups are answered however busy this node is; what has to be worked on is shared out.
        works = not isinstance(request, messages.Ping | messages.Find | messages.AskAdmission)
        if works and not self._shares.take(contact.ip):
            self._answer(sender, fragment.message_id, messages.Refusal(messages.Code.BUSY))
            return
        handled = self.handle(sender, request)
        if isinstance(handled, messages.Answer):  # reading only: a repeat is simply answered again
            if works:
                self._shares.give(contact.ip)
            self._answer(sender, fragment.message_id, handled)
            return
        self._answers.keep(name, [])
        task = self._loop.create_task(self._answer_later(sender, name, handled))
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._served(task, contact.ip))

    def _served(self, task: asyncio.Task[None], ip: str) -> None:
        self._tasks.discard(task)
        self._shares.give(ip)

    async def _answer_later(self, sender: RemotePeer, name: Name, handled: Awaitable[messages.Answer]) -> None:
        try:
            answer = await handled
        except Refused as refused:
            answer = messages.Refusal(refused.code, refused.bits)
        except Exception as error:  # whatever failed, the asker hears that it isn't stored, and the node goes on
            if not isinstance(error, OverlayError):
                log.exception("a request failed")
            answer = messages.Refusal(messages.Code.BUSY)
        datagrams = self._answer(sender, name[2], answer)
        if name in self._answers:
            self._answers.keep(name, datagrams)

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
            second, served = self._key_answers
            now = float(int(self._loop.time()))
            served = served if now == second else 0
            if served >= KEY_ANSWERS_A_SECOND:
                raise Malformed("too many first contacts")
            told = self.sealer.tell_key(data)
            self._key_answers = (now, served + 1)
            self._send([told], *_place(addr))
        elif data[:1] == bytes([sealed_datagram.TELL_KEY]):
            cookie, key = self.sealer.told_key(data)
            waiting = self._asked.get(cookie)
            if waiting is not None and not waiting.done():
                waiting.set_result(key)
        else:
            raise Malformed("no datagram of this protocol")


def _place(addr: tuple[Any, ...]) -> tuple[str, int]:
    """Where a datagram came from, in the form that contacts have. Raises Malformed."""
    if not 1 <= addr[1] <= 65535:
        raise Malformed("from a port that can't be answered")
    return _usual(addr[0]), addr[1]


@lru_cache(maxsize=4096)
def _usual(ip: str) -> str:
    return unpack_ip(pack_ip(ip))


@lru_cache(maxsize=4096)
def _sender(peer: bytes, place: tuple[str, int]) -> Contact:
    """The contact behind a request; who asks once asks again."""
    return Contact(peer, *place)
