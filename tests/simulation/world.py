"""A simulated world: an event loop with a clock of its own, and an in-memory UDP that delays, loses and repeats.

The same seed gives the same trace, whatever PYTHONHASHSEED is and however busy the machine. Code that takes its
clock, randomness and network from its loop and its arguments runs in it unchanged. TCP isn't simulated.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import Context
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from struct import pack
from typing import Any, TypeVar

T = TypeVar("T")
Address = tuple[str, int]

EPOCH = 1_800_000_000.0
"""Wall-clock seconds when a world begins; its loop's clock begins at 0, like that of a machine just started."""


@dataclass
class Weather:
    """The network's quality: delay in seconds (uniform between the two), chances of loss and of duplication."""

    delay: tuple[float, float] = (0.005, 0.025)
    loss: float = 0.0
    duplication: float = 0.0


class Deadlock(AssertionError):
    """A task waits for something that can never happen."""


class _Arrival:
    """What a loop runs when a datagram arrives. A million of them: an asyncio.TimerHandle takes three times as long."""

    __slots__ = ("_args", "_callback")
    _cancelled = False
    _context = Context()

    def __init__(self, callback: Callable[..., object], args: tuple[object, ...]) -> None:
        self._callback = callback
        self._args = args


class Transport(asyncio.DatagramTransport):
    """One simulated UDP socket."""

    def __init__(self, world: World, address: Address, protocol: asyncio.DatagramProtocol) -> None:
        super().__init__({"sockname": address if ":" not in address[0] else (*address, 0, 0)})
        self._world = world
        self._closing = False
        self.address = address
        self.protocol = protocol

    def sendto(self, data: Any, addr: Any = None) -> None:
        """As asyncio does: what no socket can send to is fatal, or an error; the rest goes on its way."""
        if not isinstance(addr[1], int) or not 0 <= addr[1] <= 65535:
            raise OverflowError("a real socket would now be closed for good")
        if not self._closing:
            self._world.carry(bytes(data), self.address, (str(addr[0]), addr[1]))

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._world.remove(self)
            self._world.call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        return 0


class World(asyncio.BaseEventLoop):
    """An event loop with a virtual clock. All randomness comes from `chance`."""

    def __init__(self, seed: int = 0, weather: Weather | None = None) -> None:
        self._now = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle | _Arrival]] = []
        self._made = count()
        super().__init__()
        self.chance = random.Random(seed)
        self.weather = weather or Weather()
        self.errors: list[dict[str, Any]] = []
        """What was reported to the loop's exception handler; must stay empty."""
        self.watch: Callable[[Address, Address, bytes], bool] = lambda source, target, data: True
        """Called with each datagram, which is lost when it returns False."""
        self._sockets: dict[Address, Transport] = {}
        self._apart: dict[str, int] = {}
        self.deaf: set[tuple[str, str]] = set()
        """Pairs of hosts (source, target): datagrams in this direction are lost, those in the other arrive."""
        self.offline: set[str] = set()
        """Hosts that no datagram reaches or leaves."""
        self.slow: dict[str, float] = {}
        """Additional delay in seconds to and from a host."""
        self.trace_bytes = True
        """Whether the trace is of what datagrams hold, or (where real keys are drawn) of their lengths."""
        self.sent = 0
        """Datagrams sent so far."""
        self._trace = hashlib.sha256()
        self._places: dict[Address, bytes] = {}
        self.set_exception_handler(lambda loop, context: self.errors.append(context))

    def play(self, story: Coroutine[Any, Any, T]) -> T:
        """Run `story` to its end and close the world; fails when a callback or task raised."""
        try:
            return self.run_until_complete(story)
        finally:
            self.run_until_complete(self._end(asyncio.all_tasks(self)))
            self.close()
            assert not self.errors, self.errors

    async def _end(self, left: set[asyncio.Task[Any]]) -> None:
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self.shutdown_asyncgens()

    def wall(self) -> float:
        """Seconds since the epoch, as a wall clock in this world shows them."""
        return EPOCH + self.time()

    @property
    def trace(self) -> str:
        """A digest of every datagram that was ever sent: when, from where, to where, what became of it."""
        return self._trace.hexdigest()

    # The network

    def part(self, *groups: list[str]) -> None:
        """Cut the network: hosts (IP literals) of one group reach one another, those in no group are one more."""
        self._apart = {host: number for number, group in enumerate(groups, 1) for host in group}

    def carry(self, data: bytes, source: Address, target: Address) -> None:
        """Take a datagram on its way."""
        self.sent += 1
        kept = self.watch(source, target, data) and self.chance.random() >= self.weather.loss
        copies = (1 + (self.chance.random() < self.weather.duplication)) if kept else 0
        self._trace.update(pack("<dHI", self._now, copies, len(data)) + self._place(source) + self._place(target))
        if self.trace_bytes:
            self._trace.update(data)
        for _ in range(copies):
            when = self._now + self.delay(source[0], target[0])
            heappush(self._timers, (when, next(self._made), _Arrival(self._arrive, (data, source, target))))

    def delay(self, source: str, target: str) -> float:
        """Seconds that something takes from host to host this time; so what left later may arrive first."""
        return self.chance.uniform(*self.weather.delay) + self.slow.get(source, 0.0) + self.slow.get(target, 0.0)

    def reaches(self, source: str, target: str) -> bool:
        """Whether anything gets from host to host now."""
        if self.offline and (source in self.offline or target in self.offline):
            return False
        return self._apart.get(source) == self._apart.get(target) and (source, target) not in self.deaf

    def remove(self, socket: Transport) -> None:
        """Forget a socket that is closed."""
        self._sockets.pop(socket.address, None)

    def _place(self, address: Address) -> bytes:
        known = self._places.get(address)
        if known is None:
            known = self._places[address] = repr(address).encode()
        return known

    def _arrive(self, data: bytes, source: Address, target: Address) -> None:
        socket = self._sockets.get(target)
        if socket is not None and self.reaches(source[0], target[0]):
            socket.protocol.datagram_received(data, source)

    async def create_datagram_endpoint(  # type: ignore[override]
        self, protocol_factory: Callable[[], Any], local_addr: Address | None = None, **_: object
    ) -> tuple[Transport, Any]:
        """A socket at an address of its own (say 10.0.0.7; no wildcards); port 0 takes a free one."""
        host, port = local_addr or ("127.0.0.1", 0)
        port = port or next(p for p in range(4000, 65536) if (host, p) not in self._sockets)
        if (host, port) in self._sockets:
            raise OSError(98, "address in use")
        transport = Transport(self, (host, port), protocol_factory())
        self._sockets[host, port] = transport
        transport.protocol.connection_made(transport)
        return transport, transport.protocol

    # The loop

    def time(self) -> float:
        return self._now

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio does, in a heap that compares numbers: comparing handles takes much of a simulation's time."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heappush(self._timers, (when, next(self._made), timer))
        return timer

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def _run_once(self) -> None:
        """What is ready; when nothing is, time jumps to the next timer."""
        ready, timers = self._ready, self._timers  # type: ignore[attr-defined]
        if not ready:
            while timers and timers[0][2]._cancelled:
                heappop(timers)
            if timers:
                self._now = max(self._now, timers[0][0])
            elif not self._stopping:  # type: ignore[attr-defined]
                raise Deadlock("nothing is left to happen, and something still waits")
        while timers and timers[0][0] <= self._now:
            ready.append(heappop(timers)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            try:
                handle._context.run(handle._callback, *handle._args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self.call_exception_handler({"message": "a callback failed", "exception": error, "handle": handle})

    def run_in_executor(self, executor: Executor | None, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """At once, here: threads would finish in an order of their own."""
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    def _write_to_self(self) -> None:
        """Nothing to do: the loop never waits, so it needs no waking."""
