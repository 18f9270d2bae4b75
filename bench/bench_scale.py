"""Lookups in simulated networks of 100, 1,000 and 10,000 nodes: hops, messages, and how exact they are.

Nodes are the program's own protocol, table and lookup; the network and the clock are simulated, and datagrams aren't
sealed (10,000 agreements of keys say nothing of lookups). Tables are filled as those of a network that has been there
for a while are: each bucket with up to 20 of its nodes, by chance. That is held against 200 nodes that really joined.
Hops are counted to the last of the k nodes that a lookup returns: 1 for whom the asker knows itself.
"""

from __future__ import annotations

import asyncio
import math
import random
from bisect import bisect_left
from collections.abc import Callable

from bench.figure import Figure, quantile
from overlay.identity.contact import Contact, node_id
from overlay.identity.network import Network
from overlay.ids import distance
from overlay.kademlia.lookup import Lookup
from overlay.kademlia.routing import BUCKET, TableEntry
from overlay.protocol import OverlayProtocol
from overlay.protocol_limits import KEY_BYTES
from overlay.wire import messages
from overlay.wire.sealed_datagram import OVERHEAD
from overlay.wire.write_tokens import WriteTokens
from tests.simulation.world import Weather, World

SIZES = (100, 1_000, 10_000)
JOINED = 200
LOOKUPS = 400
K = 10
NETWORK = Network("scale", private_addresses=True)
BARS = {10_000: (4.0, 0.99, 25.0)}
"""Median hops, recall, messages for each lookup."""


class Unsealed:
    """overlay/wire/sealed_datagram.py's Sealer without its cost: the sender's key, and the payload as it is."""

    def __init__(self, public: bytes) -> None:
        self.public = public

    def seal(self, peer: bytes, payload: bytes) -> bytes:
        """A datagram of the same length."""
        return b"\x01" + self.public + bytes(OVERHEAD - 33) + payload

    def open(self, datagram: bytes) -> tuple[bytes, bytes]:
        """The sender, and the payload."""
        return datagram[1:33], datagram[OVERHEAD:]

    def knows(self, datagram: bytes) -> bool:
        """Everybody is known."""
        return True

    def keep(self, peer: bytes) -> None:
        """Nothing is kept."""


class Hops:
    """Hears what one lookup asks and is told, and counts how far away each contact was."""

    def __init__(self, protocol: OverlayProtocol, seeds: list[Contact]) -> None:
        self._protocol = protocol
        self.away = dict.fromkeys((contact.id for contact in seeds), 1)

    def send_find(
        self,
        contact: Contact,
        key: bytes,
        k: int,
        on_done: Callable[[messages.Found | None], None],
        on_slow: Callable[[], None],
    ) -> Callable[[], None]:
        """As the protocol does."""

        def done(found: messages.Found | None) -> None:
            for wire in found.contacts if found else ():
                self.away.setdefault(node_id(wire.key), self.away[contact.id] + 1)
            on_done(found)

        return self._protocol.send_find(contact, key, k, done, on_slow)

    def __getattr__(self, name: str) -> object:
        return getattr(self._protocol, name)


def measure() -> list[Figure]:
    """Each size, and what the same would be on paper for ten million."""
    figures = []
    hops_by_size = {}
    for size in SIZES:
        hops, recall, asked = measure_network(size, joined=False)
        hops_by_size[size] = sum(hops) / len(hops)
        bars = BARS.get(size, (None, None, None))
        name = f"simulated: {size:,} nodes, k={K}"
        figures += [
            Figure(f"{name}: hops of a lookup, median", quantile(hops, 0.5), "", bars[0], "lower"),
            Figure(f"{name}: hops of a lookup, mean", hops_by_size[size], "", None, "lower"),
            Figure(f"{name}: recall", recall, "", bars[1], "higher"),
            Figure(f"{name}: messages of a lookup, mean", asked, "", bars[2], "lower"),
        ]
    hops, recall, asked = measure_network(JOINED, joined=True)
    figures += [
        Figure(f"simulated: {JOINED} nodes that joined, k={K}: messages of a lookup, mean", asked, "", None, "lower"),
        Figure(f"simulated: {JOINED} nodes that joined, k={K}: recall", recall, "", None, "higher"),
    ]
    first, last = SIZES[0], SIZES[-1]
    each = (hops_by_size[last] - hops_by_size[first]) / math.log(last / first)
    paper = hops_by_size[last] + each * math.log(1e7 / last)
    figures.append(Figure(f"10,000,000 nodes on paper, k={K}: hops of a lookup, mean", paper, "", None, "lower"))
    return figures


def measure_network(size: int, *, joined: bool) -> tuple[list[float], float, float]:
    """Hops of each lookup, recall, and requests sent for each lookup on average."""
    world = World(size, Weather(delay=(0.005, 0.05)))
    world.trace_bytes = False
    result: list[tuple[list[float], float, float]] = []

    async def story() -> None:
        protocols = [await _start(world, number) for number in range(size)]
        if joined:
            for protocol in protocols[1:]:
                await protocol.ping(_contact(protocols[0]))
                await protocol.lookup(protocol.own_id, K)
            for protocol in protocols:
                for index in protocol.router.stale_buckets(-1.0):
                    await protocol.lookup(_in_bucket(protocol.own_id, index, world.chance), K)
        else:
            _fill(protocols, world.chance)
        result.append(await _look_up(world, protocols))

    world.play(story())
    return result[0]


async def _start(world: World, number: int) -> OverlayProtocol:
    public = random.Random(number).randbytes(32)
    own = node_id(public)

    def create() -> OverlayProtocol:
        return OverlayProtocol(
            Unsealed(public), NETWORK, own, WriteTokens(world.time, world.chance.randbytes), None,  # type: ignore[arg-type]
            server_mode=True, random=world.chance.randbytes,
        )  # fmt: skip

    ip = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    _, protocol = await world.create_datagram_endpoint(create, local_addr=(ip, 4000))
    return protocol  # type: ignore[no-any-return]


def _contact(protocol: OverlayProtocol) -> Contact:
    assert protocol.transport is not None
    return Contact(protocol.sealer.public, *protocol.transport.get_extra_info("sockname")[:2])


def _fill(protocols: list[OverlayProtocol], chance: random.Random) -> None:
    """Give each table up to BUCKET contacts of each bucket's range, by chance."""
    contacts = sorted((_contact(protocol) for protocol in protocols), key=lambda contact: contact.long_id)
    ids = [contact.long_id for contact in contacts]
    for protocol in protocols:
        mine = int.from_bytes(protocol.own_id, "big")
        for index in range(KEY_BYTES * 8):
            width = KEY_BYTES * 8 - 1 - index
            low = (mine >> width ^ 1) << width
            first, end = bisect_left(ids, low), bisect_left(ids, low + (1 << width))
            if first == end:
                if end - bisect_left(ids, mine >> width << width) <= 1 and index > 40:
                    break
                continue
            for contact in chance.sample(contacts[first:end], min(BUCKET, end - first)):
                protocol.router.buckets[index].entries[contact.id] = TableEntry(contact, 0.0)


def _in_bucket(own: bytes, index: int, chance: random.Random) -> bytes:
    width = KEY_BYTES * 8 - 1 - index
    high = (int.from_bytes(own, "big") >> width ^ 1) << width
    return (high | chance.getrandbits(width) if width else high).to_bytes(KEY_BYTES, "big")


async def _look_up(world: World, protocols: list[OverlayProtocol]) -> tuple[list[float], float, float]:
    hops: list[float] = []
    found = asked = 0
    ids = [protocol.own_id for protocol in protocols]
    for _ in range(LOOKUPS):
        asker, key = world.chance.choice(protocols), world.chance.randbytes(KEY_BYTES)
        seeds = asker.router.closest(key, BUCKET)
        counting = Hops(asker, seeds)
        search = Lookup(counting, key, K, seeds=seeds, own_id=asker.own_id)  # type: ignore[arg-type]
        nodes = [at.contact.id for at in await search.run()]
        true = sorted((each for each in ids if each != asker.own_id), key=lambda each: distance(each, key))[:K]
        found += len(set(nodes) & set(true))
        asked += search.asked
        hops.append(max(counting.away[each] for each in nodes))
        await asyncio.sleep(1)
    return hops, found / (K * LOOKUPS), asked / LOOKUPS
