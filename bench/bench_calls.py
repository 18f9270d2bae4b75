"""Sealed calls a second between two real nodes of one process: asked, sealed, sent, opened, answered and back.

The peer is rpcudp, unsealed, in the same run and on the same loops: as many calls in flight, an answer of as many
bytes. It is measured with a list of contacts, as kademlia sends it and as ours is, and with one byte string, which
spares it nearly all of msgpack.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TypeVar

from rpcudp.protocol import RPCProtocol

from bench.figure import Figure, quantile
from bench.overlay import private_overlay
from overlay import event_loop
from overlay.wire import messages

IN_FLIGHT = 20
ANSWER = 760
"""Bytes of the answer, at least; of ours as it is encoded, before it is sealed."""
CALLS = 6000
ROUNDS = 5
NODES = 30
BYTES = bytes(ANSWER)
CONTACTS = [(os.urandom(20), "127.0.0.1", 20_000 + number) for number in range(21)]
"""As rpc_find_node answers: id, address, port; 759 bytes when packed."""

T = TypeVar("T")


def measure() -> list[Figure]:
    """Rounds of ours and of the peer by turns, the median of each. Half a minute."""
    name = f"sealed calls, {IN_FLIGHT} in flight"
    ours, peer = _rounds(event_loop.run)
    ours_on_asyncio, peer_on_asyncio = _rounds(asyncio.run)
    return [
        Figure(name, ours, "/s", 8000, "higher", peer),
        Figure(f"{name}, asyncio's own loop", ours_on_asyncio, "/s", None, "higher", peer_on_asyncio),
    ]


def _rounds(run: Callable[[Coroutine[None, None, float]], float]) -> tuple[float, dict[str, float]]:
    measured = [(run(_ours()), run(_rpcudp(CONTACTS)), run(_rpcudp(BYTES))) for _ in range(ROUNDS)]
    ours, contacts, one_string = (quantile(values, 0.5) for values in zip(*measured, strict=True))
    return ours, {"rpcudp unsealed": contacts, "with one string": one_string}


async def _ours() -> float:
    async with private_overlay(NODES) as place:
        asker, asked = place.nodes[:2]
        to = asked.located().contact
        key = os.urandom(20)

        def request(k: int) -> messages.Find:
            return messages.Find(key, k, messages.find_padding(k))

        async def answer(k: int) -> messages.Found:
            found = await asker.protocol.call(to, request(k))
            assert isinstance(found, messages.Found)
            return found

        k = 1
        while len(messages.encode(await answer(k))) < ANSWER:
            k += 1
            assert k < NODES, "the asked node knows too few contacts"
        return await _calls_a_second(lambda: answer(k))


class _Peer(RPCProtocol):  # type: ignore[misc, unused-ignore]
    answer: object = b""

    def rpc_find(self, sender: tuple[str, int], key: bytes) -> object:
        return self.answer


async def _rpcudp(answer: Sequence[object]) -> float:
    loop = asyncio.get_running_loop()
    asking, asker = await loop.create_datagram_endpoint(_Peer, ("127.0.0.1", 0))
    asked, answerer = await loop.create_datagram_endpoint(_Peer, ("127.0.0.1", 0))
    answerer.answer = answer
    to = asked.get_extra_info("sockname")[:2]
    key = os.urandom(20)

    async def call() -> None:
        answered, found = await asker.find(to, key)
        assert answered and len(found) == len(answer)

    try:
        return await _calls_a_second(call)
    finally:
        asking.close()
        asked.close()


async def _calls_a_second(call: Callable[[], Awaitable[T]]) -> float:
    """CALLS calls, IN_FLIGHT of them under way at any time, after some that warm up."""

    async def some(count: int) -> None:
        for _ in range(count):
            await call()

    await asyncio.gather(*(some(10) for _ in range(IN_FLIGHT)))
    start = time.perf_counter()
    await asyncio.gather(*(some(CALLS // IN_FLIGHT) for _ in range(IN_FLIGHT)))
    return CALLS / (time.perf_counter() - start)
