"""Joins the overlay and stays in it: which contacts to ping, and what to look up.

Theory of operation
-------------------
A node belongs to the overlay when its routing table has live contacts and the nodes near its id have it in theirs. It
knows three kinds of candidates: join addresses (HOST:PORT, with or without the node's key), contacts saved by an
earlier run, and contacts that it lost (the routing table keeps some of those that stopped answering).

out of touch    No contact has answered its last ping. Every candidate with a known key is pinged at the same time
                (`_find_seeds`); ENOUGH answers are enough, so that dead candidates aren't waited for. Only if none
                answers are join addresses without a key tried: the key that such an address names is trusted as heard.
                `rejoin` repeats this every few seconds (overlay/node/maintenance.py).
joining         As soon as one contact is known, `settle` looks up the node's own id: this fills the table, and makes
                the neighbours know this node. In server mode it then looks up a random id of each farther bucket
                (Kademlia, section 2.3).
in touch        Buckets that no lookup touched for an hour are refreshed (`refresh`). Once a minute one lost contact or
                join address is pinged (`retry_lost`): after a network partition this is how both halves find each
                other.

After a sleep of the computer, `return_after_sleep` pings the neighbours; if none answers the node is out of touch. When
the way of sending changes (UDP or tunnel), `begin_again` drops all contacts and pings them anew, because who answers
may differ.

Invariants: an address found to be this node's own (`_own`) is never offered as a relay (`places`), and doesn't count as
another node's (`others`). No socket is opened here; requests are answered in overlay/protocol.py.
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
"""IP addresses of one join address that are tried, one after the other."""
ENOUGH = 8
"""Contacts that answered, after which no more are waited for."""


class Membership:
    """One node's membership of the overlay. `ipv6`: its socket reaches IPv6 addresses as well as IPv4."""

    def __init__(
        self, protocol: OverlayProtocol, network: Network, random: Callable[[int], bytes], *, ipv6: bool
    ) -> None:
        self._protocol = protocol
        self._network = network
        self._random = random
        self._ipv6 = ipv6
        self._places: tuple[str, ...] = ()
        self._own: set[str] = set()
        self._pinging: set[asyncio.Task[object]] = set()
        self._explained: dict[str, asyncio.Task[None]] = {}
        """By join address: it is looked once why nobody answers there."""

    async def join(self, places: Sequence[str], known: Sequence[Contact] = ()) -> int:
        """Join through HOST:PORT[/KEY] addresses and contacts of an earlier run; how many contacts are known then.

        Raises ValueError for a malformed address.
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
        """Host, port and key of the join addresses, without those found to be this node's own."""
        return [parse_join(place) for place in self._places if place not in self._own]

    @property
    def others(self) -> bool:
        """Whether any join address may be another node's: it isn't known to be this node's own."""
        own = self._protocol.sealer.public
        return any(parse_join(place)[2] != own and place not in self._own for place in self._places)

    @property
    def in_touch(self) -> bool:
        """Whether any known contact answered its last request."""
        return bool(self._protocol.router.closest(self._protocol.own_id, 1, healthy=True))

    async def rejoin(self, known: Sequence[Contact] = ()) -> None:
        """When out of touch, look for seeds again."""
        if not self.in_touch:
            await self._find_seeds(known)
            if len(self._protocol.router):
                await self.settle()

    async def begin_again(self, known: Sequence[Contact] = ()) -> list[Contact]:
        """Drop all contacts and ping them again, because the way of sending has changed; the dropped contacts."""
        router = self._protocol.router
        before = router.closest(self._protocol.own_id, SAVED_CONTACTS)
        for contact in before:
            router.drop(contact.id)
        await self.rejoin([*before, *known])
        return before

    async def retry_lost(self) -> None:
        """Ping one lost contact or join address, in turn; after a partition this reconnects the two halves.

        If a new contact answers, its neighbours are found by `settle`.
        """
        router = self._protocol.router
        before = len(router)
        if router.lost and (self._random(1)[0] % 2 or not self._places):
            identifier, contact = next(iter(router.lost.items()))
            router.lost.move_to_end(identifier)
            await self._protocol.ping(contact)
        elif self._places:
            self._places = (*self._places[1:], self._places[0])
            await self._ping_join_address(self._places[0])
        if len(router) > before:
            await self.settle()

    async def return_after_sleep(self, known: Sequence[Contact] = ()) -> None:
        """After a sleep: ping the neighbours, perhaps from a new address, and become known to them again."""
        neighbours = self._protocol.router.closest(self._protocol.own_id, ENOUGH)
        await asyncio.gather(*(self._protocol.ping(contact) for contact in neighbours))
        if not self.in_touch:
            await self._find_seeds(known)
        if len(self._protocol.router):
            await self.settle()

    async def refresh(self, older_than: float) -> None:
        """Look up a random id in each bucket not looked up for `older_than` seconds (Kademlia, section 2.3)."""
        for index in self._protocol.router.stale_buckets(older_than):
            await self._protocol.lookup(random_id(self._protocol.own_id, index, self._random), self._network.k)

    async def settle(self) -> None:
        """Look up this node's id, so that its neighbours know it, then the farther buckets (Kademlia, section 2.3)."""
        await self._protocol.lookup(self._protocol.own_id, self._network.k)
        if self._protocol.server_mode:
            await self.refresh(older_than=-1.0)

    def leave(self) -> list[asyncio.Task[object]]:
        """Cancel the pings that are still under way; their tasks."""
        left: list[asyncio.Task[object]] = [*self._pinging, *self._explained.values()]
        for task in left:
            task.cancel()
        return left

    # Inside

    async def _find_seeds(self, contacts: Sequence[Contact]) -> None:
        """Ping the contacts and the join addresses with a key; those without one only if none of these answers."""
        known = [self._protocol.ping(contact) for contact in contacts]
        await self._some([*known, *(self._ping_join_address(p) for p in self._places if "/" in p)])
        if not len(self._protocol.router):  # trusting a key as heard is the last resort
            await self._some([self._ping_join_address(place) for place in self._places if "/" not in place])

    async def _some(self, asking: Sequence[Coroutine[Any, Any, object]]) -> None:
        """Run all of them; return when ENOUGH contacts are known or all have ended."""
        running = {asyncio.create_task(one) for one in asking}
        while running and len(self._protocol.router) < ENOUGH:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        self._pinging = running
        for task in running:
            task.add_done_callback(self._pinging.discard)

    async def _ping_join_address(self, place: str) -> None:
        """Ping a join address at each of its IP addresses; ask for its key if none is given."""
        host, port, key = parse_join(place)
        # "localhost" is often ::1 first, to which an IPv4 socket can't send and where perhaps nothing listens.
        family = socket.AF_UNSPEC if self._ipv6 else socket.AF_INET
        try:
            infos = await asyncio.get_running_loop().getaddrinfo(host, port, family=family, type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError) as error:  # UnicodeError: a label over 63 characters
            log.info("can't join at %s: %s", place, error)
            return
        for ip in dict.fromkeys(str(info[4][0]) for info in infos[:ADDRESSES]):
            try:
                if await self._ping_at(ip, port, key, place):
                    return
            except (NoAnswer, Malformed) as error:
                log.info("can't join at %s: %s", place, error)

    async def _ping_at(self, ip: str, port: int, key: bytes | None, place: str) -> bool:
        """Whether a node is there. Raises NoAnswer, Malformed."""
        if key is None:
            key = await self._protocol.ask_key(ip, port)
            if key == self._protocol.sealer.public:  # the network file lists this node itself
                self._own.add(place)
                return True
            log.warning("%s says that its key is %s; trusted as heard", place, key_text(key))
        contact = Contact(key, ip, port)
        if contact.id == self._protocol.own_id:
            return True
        if await self._protocol.ping(self._protocol.checked(contact.wire)) is not None:
            return True
        if place not in self._explained:  # beside the rest: nobody waits for it to join
            self._explained[place] = asyncio.create_task(self._say_why(ip, port, key, place))
        return False

    async def _say_why(self, ip: str, port: int, key: bytes, place: str) -> None:
        """Log why nobody answers at a join address: another key there means another node, or somebody in its place."""
        try:
            there = await self._protocol.ask_key(ip, port)
        except (NoAnswer, Malformed) as error:
            log.info("can't join at %s: %s", place, error)
            return
        if there != key:
            log.warning(
                "can't join at %s: the node there has the key %s, not the one given; it isn't trusted. Ask its"
                " operator, and remove this place or replace it",
                place,
                key_text(there),
            )
        else:
            log.info("can't join at %s: no answer", place)


async def every(seconds: float, work: Callable[[], Awaitable[None]], random: Callable[[int], bytes]) -> None:
    """Call `work` about every `seconds` until cancelled; a failure is logged and tried again."""
    while True:
        await asyncio.sleep(about(seconds, random))
        try:
            await work()
        except OverlayError as error:
            log.info("%s", error)
        except Exception:
            log.exception("a regular task failed; it will be tried again")


def about(seconds: float, random: Callable[[int], bytes]) -> float:
    """`seconds`, give or take a fifth, so that nodes started together don't stay in step."""
    return seconds * (0.8 + 0.4 * random(1)[0] / 255)


def encode_contacts(contacts: Sequence[Contact]) -> bytes:
    """Contacts as JSON, to be saved across restarts."""
    known = [{"key": key_text(c.key), "ip": c.ip, "port": c.port} for c in contacts[:SAVED_CONTACTS]]
    return json.dumps({"version": 1, "contacts": known}, indent=1).encode()


def decode_contacts(data: bytes, protocol: OverlayProtocol) -> list[Contact]:
    """The saved contacts. Raises Malformed, also if the network's rules forbid one."""
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
