"""Finding the overlay and staying in it: whom to greet, what to look up, what to do when nobody is left.

Contacts come from places to join and from an earlier run; how those are kept is node.py's affair. Nothing is answered
here (overlay/protocol.py) and no socket is opened.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from overlay.errors import Malformed, NoAnswer, OverlayError
from overlay.identity.contact import Contact, key_text, parse_join, parse_key
from overlay.identity.network import Network
from overlay.protocol import OverlayProtocol

log = logging.getLogger(__name__)

SAVED_CONTACTS = 100
ADDRESSES = 4
"""Addresses of one place that are tried, one after the other."""
ENOUGH = 8
"""Contacts that answered, with which a node goes to work."""


class Membership:
    """One node's way into the overlay and its place there. `ipv6`: its socket reaches both kinds of address."""

    def __init__(
        self, protocol: OverlayProtocol, network: Network, random: Callable[[int], bytes], *, ipv6: bool
    ) -> None:
        self._protocol = protocol
        self._network = network
        self._random = random
        self._ipv6 = ipv6
        self._places: tuple[str, ...] = ()
        self._own: set[str] = set()
        self._greeting: set[asyncio.Task[object]] = set()

    async def join(self, places: Sequence[str], known: Sequence[Contact] = ()) -> int:
        """Find the overlay from HOST:PORT[/KEY] places and from contacts of an earlier run; contacts known then.

        Raises ValueError for a bad place.
        """
        for place in places:
            parse_join(place)
        self._places = tuple(dict.fromkeys(places))
        await self._find_seeds(known)
        if len(self._protocol.router):
            await self.settle()
        return len(self._protocol.router)

    @property
    def places(self) -> list[tuple[str, int, bytes | None]]:
        """Host, port and key of the places to join by, without those that were found to be ours."""
        return [parse_join(place) for place in self._places if place not in self._own]

    @property
    def others(self) -> bool:
        """Whether any place to join may be another node's: it has another key, or none and wasn't found to be ours."""
        own = self._protocol.sealer.public
        return any(parse_join(place)[2] != own and place not in self._own for place in self._places)

    @property
    def in_touch(self) -> bool:
        """Whether anybody is known who has answered when he was asked last."""
        return bool(self._protocol.router.closest(self._protocol.own_id, 1, healthy=True))

    async def rejoin(self, known: Sequence[Contact] = ()) -> None:
        """After a sleep or a network's absence nobody may be left: start again from the beginning."""
        if not self.in_touch:
            await self._find_seeds(known)
            if len(self._protocol.router):
                await self.settle()

    async def begin_again(self, known: Sequence[Contact] = ()) -> list[Contact]:
        """Find out who answers on the way that is left now; whom we knew before."""
        router = self._protocol.router
        before = router.closest(self._protocol.own_id, SAVED_CONTACTS)
        for contact in before:
            router.drop(contact.id)
        await self.rejoin([*before, *known])
        return before

    async def retry_lost(self) -> None:
        """Ping somebody who was dropped for his silence, or a place to join: after a partition it is the way back.

        One at a time, each in its turn. Whoever answers brings his neighbours.
        """
        router = self._protocol.router
        before = len(router)
        if router.lost and (self._random(1)[0] % 2 or not self._places):
            identifier, contact = next(iter(router.lost.items()))
            router.lost.move_to_end(identifier)
            await self._protocol.ping(contact)
        elif self._places:
            self._places = (*self._places[1:], self._places[0])
            await self._greet(self._places[0])
        if len(router) > before:
            await self.settle()

    async def return_after_sleep(self, known: Sequence[Contact] = ()) -> None:
        """After a sleep: greet whom we knew, wherever we are now, and be known to our neighbours again."""
        neighbours = self._protocol.router.closest(self._protocol.own_id, ENOUGH)
        await asyncio.gather(*(self._protocol.ping(contact) for contact in neighbours))
        if not self.in_touch:
            await self._find_seeds(known)
        if len(self._protocol.router):
            await self.settle()

    async def refresh(self, older_than: float) -> None:
        """Look up each bucket that no lookup touched for so many seconds (Kademlia, section 2.3)."""
        for index in self._protocol.router.stale_buckets(older_than):
            await self._protocol.lookup(random_id(self._protocol.own_id, index, self._random), self._network.k)

    async def settle(self) -> None:
        """Look up our own id, so that our neighbours know us, then each farther bucket (Kademlia, section 2.3)."""
        await self._protocol.lookup(self._protocol.own_id, self._network.k)
        if self._protocol.server_mode:
            await self.refresh(older_than=-1.0)

    def leave(self) -> list[asyncio.Task[object]]:
        """Greetings that are still on their way, cancelled."""
        left = list(self._greeting)
        for task in left:
            task.cancel()
        return left

    # Inside

    async def _find_seeds(self, contacts: Sequence[Contact]) -> None:
        """Ping whom we knew, and the places to join; enough that answer are enough, the dead aren't waited for."""
        known = [self._protocol.ping(contact) for contact in contacts]
        await self._some([*known, *(self._greet(p) for p in self._places if "/" in p)])
        if not len(self._protocol.router):  # a key that is trusted as heard is the last resort
            await self._some([self._greet(place) for place in self._places if "/" not in place])

    async def _some(self, asking: Sequence[Coroutine[Any, Any, object]]) -> None:
        """Run them all; return when ENOUGH contacts are known or all have ended."""
        running = {asyncio.create_task(one) for one in asking}
        while running and len(self._protocol.router) < ENOUGH:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        self._greeting = running
        for task in running:
            task.add_done_callback(self._greeting.discard)

    async def _greet(self, place: str) -> None:
        """Ping a place to join at each of its addresses, asking for its key where that isn't given."""
        host, port, key = parse_join(place)
        # "localhost" is ::1 first on many machines, where a socket of IPv4 can't send to and nobody may listen.
        family = socket.AF_UNSPEC if self._ipv6 else socket.AF_INET
        try:
            infos = await asyncio.get_running_loop().getaddrinfo(host, port, family=family, type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError) as error:  # UnicodeError: a label over 63 characters
            log.info("can't join at %s: %s", place, error)
            return
        for ip in dict.fromkeys(str(info[4][0]) for info in infos[:ADDRESSES]):
            try:
                if await self._greet_at(ip, port, key, place):
                    return
            except (NoAnswer, Malformed) as error:
                log.info("can't join at %s: %s", place, error)

    async def _greet_at(self, ip: str, port: int, key: bytes | None, place: str) -> bool:
        """Whether somebody was there. Raises NoAnswer, Malformed."""
        if key is None:
            key = await self._protocol.ask_key(ip, port)
            if key == self._protocol.sealer.public:  # our own place stands in the network's file
                self._own.add(place)
                return True
            log.warning("%s says that its key is %s; trusted as heard", place, key_text(key))
        contact = Contact(key, ip, port)
        if contact.id == self._protocol.own_id:
            return True
        return await self._protocol.ping(self._protocol.checked(contact.wire)) is not None


async def every(seconds: float, work: Callable[[], Awaitable[None]], random: Callable[[int], bytes]) -> None:
    """Do `work` about every so many seconds until cancelled; what fails is logged and tried again."""
    while True:
        await asyncio.sleep(about(seconds, random))
        try:
            await work()
        except OverlayError as error:
            log.info("%s", error)
        except Exception:
            log.exception("a regular task failed; it will be tried again")


def about(seconds: float, random: Callable[[int], bytes]) -> float:
    """Spread by a fifth, so that nodes started together don't stay in step."""
    return seconds * (0.8 + 0.4 * random(1)[0] / 255)


def encode_contacts(contacts: Sequence[Contact]) -> bytes:
    """Contacts as they are kept across restarts (JSON)."""
    known = [{"key": key_text(c.key), "ip": c.ip, "port": c.port} for c in contacts[:SAVED_CONTACTS]]
    return json.dumps({"version": 1, "contacts": known}, indent=1).encode()


def decode_contacts(data: bytes, protocol: OverlayProtocol) -> list[Contact]:
    """The contacts of an earlier run that this network allows. Raises Malformed."""
    try:
        return [
            protocol.checked(Contact(parse_key(entry["key"]), str(entry["ip"]), int(entry["port"])).wire)
            for entry in json.loads(data)["contacts"][:SAVED_CONTACTS]
        ]
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        raise Malformed(f"no list of contacts ({error})") from error


def random_id(own: bytes, shared: int, random: Callable[[int], bytes]) -> bytes:
    """A random id that shares exactly the first `shared` bits with `own`."""
    width = len(own) * 8
    value = int.from_bytes(own, "big") ^ (1 << (width - 1 - shared))
    keep = width - 1 - shared
    value = (value >> keep << keep) | (int.from_bytes(random(len(own)), "big") & ((1 << keep) - 1))
    return value.to_bytes(len(own), "big")
