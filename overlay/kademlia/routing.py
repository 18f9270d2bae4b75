"""The routing table: which nodes this one knows, by their distance (Kademlia, section 2.4). Extends kademlia's.

A bucket a shared prefix length: at most 160 of 20 contacts, so nobody can make it grow. Only contacts that answered
come in; one that fails is kept out of answers at once and loses its place after several failures. Decisions only:
who is pinged, and when, is decided in overlay/protocol.py.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from kademlia.routing import RoutingTable

from overlay.errors import Unsupported
from overlay.identity.contact import Contact, address_range, routable
from overlay.ids import distance
from overlay.protocol_limits import HOUR, KEY_BYTES

BUCKET = 20
"""Contacts in a bucket (k in the Kademlia paper)."""
REPLACEMENTS = 20
LOST = 64
"""Contacts that stayed silent and are remembered: after a partition they may be a whole other half of the network."""
FAILURES = 3
"""A contact that has failed so often in a row gives way to one that waits."""
FAILURES_ALONE = 5
"""... and is dropped though nobody waits (the Kademlia paper's figure)."""
RANGE_IN_BUCKET = 2
RANGE_IN_TABLE = 10
"""Contacts of one IPv4 /24 or IPv6 /56, in a bucket and in all (Ethereum's node table has the same figures)."""


@dataclass(slots=True)
class TableEntry:
    """A contact in the table, when it last answered (seconds), and how often it has failed since."""

    contact: Contact
    seen: float
    failures: int = 0


@dataclass(slots=True)
class Bucket:
    """Contacts whose ids share one length of prefix with ours; the one that answered last is last."""

    entries: dict[bytes, TableEntry] = field(default_factory=dict)
    replacements: OrderedDict[bytes, Contact] = field(default_factory=OrderedDict)
    refreshed: float = 0.0
    failing: int = 0
    """How many of `entries` failed at their last call."""


class Table(RoutingTable):  # type: ignore[misc, unused-ignore]
    """The contacts of the node `own_id`, which is never in it itself. `now` gives seconds."""

    buckets: list[Bucket]  # type: ignore[assignment]  # kademlia's hold other things

    def __init__(self, own_id: bytes, now: Callable[[], float], *, private_addresses: bool) -> None:
        self.own_id = own_id
        self._now = now
        self._private = private_addresses
        self._ranges: Counter[bytes] = Counter()
        self.lost: OrderedDict[bytes, Contact] = OrderedDict()
        """Who was dropped for its silence, the latest last."""
        self._filled: list[tuple[int, Bucket]] | None = None  # buckets that hold anybody, worked out when needed
        self.flush()

    def flush(self) -> None:
        """Forget every contact."""
        self.buckets = [Bucket(refreshed=self._now()) for _ in range(KEY_BYTES * 8)]
        self._ranges.clear()
        self._filled = None

    def __len__(self) -> int:
        return sum(len(bucket.entries) for bucket in self.buckets)

    @property
    def answering(self) -> int:
        """Contacts that answered when they were asked last."""
        return sum(len(bucket.entries) - bucket.failing for bucket in self.buckets)

    def __iter__(self) -> Iterator[TableEntry]:
        for bucket in self.buckets:
            yield from bucket.entries.values()

    def bucket_of(self, identifier: bytes) -> Bucket:
        """The bucket for an id, by the length of the prefix that it shares with ours."""
        return self.buckets[self._index_of(identifier)]

    def _index_of(self, identifier: bytes) -> int:
        return KEY_BYTES * 8 - max(distance(self.own_id, identifier).bit_length(), 1)

    def get(self, identifier: bytes) -> TableEntry | None:
        """What is known of the contact with this id."""
        return self.bucket_of(identifier).entries.get(identifier)

    def wants(self, contact: Contact) -> bool:
        """Whether it would be worth a ping to learn that `contact` answers: it is new, and has or may get a place."""
        bucket = self.bucket_of(contact.id)
        if contact.id == self.own_id or contact.id in bucket.entries:
            return False
        hopeless = (
            not bucket.failing or bucket.replacements.get(contact.id) == contact
        )  # it is asked when a place is free
        full = len(bucket.entries) >= BUCKET and hopeless
        return not full and self._fits(contact, bucket)

    def answered(self, contact: Contact) -> bool:
        """`contact` has answered: admit it, or note that it lives and where. True when it is new in the table."""
        bucket = self.bucket_of(contact.id)
        if contact.id == self.own_id:
            return False
        entry = bucket.entries.get(contact.id)
        if entry is not None:
            if entry.contact != contact and not self._move(entry, contact, bucket):
                return False
            bucket.failing -= entry.failures > 0
            entry.seen, entry.failures = self._now(), 0
            bucket.entries[contact.id] = bucket.entries.pop(contact.id)  # it comes last now
            return False
        if not self._fits(contact, bucket):
            return False
        if len(bucket.entries) >= BUCKET and not self._make_room(bucket):
            bucket.replacements[contact.id] = contact
            bucket.replacements.move_to_end(contact.id)
            while len(bucket.replacements) > REPLACEMENTS:
                bucket.replacements.popitem(last=False)
            return False
        bucket.replacements.pop(contact.id, None)
        self.lost.pop(contact.id, None)
        bucket.entries[contact.id] = TableEntry(contact, self._now())
        self._enter(contact)
        return True

    def failed(self, contact: Contact) -> Contact | None:
        """`contact` stayed silent. The contact that takes its place, to be pinged before it does, or None."""
        bucket = self.bucket_of(contact.id)
        entry = bucket.entries.get(contact.id)
        if entry is None or entry.contact != contact:
            if bucket.replacements.get(contact.id) == contact:
                del bucket.replacements[contact.id]
            return None
        bucket.failing += entry.failures == 0
        entry.failures += 1
        if entry.failures >= FAILURES_ALONE:
            self._lose(bucket, contact.id)
        if entry.failures >= FAILURES and bucket.replacements:
            return bucket.replacements.popitem()[1]
        return None

    def closest(self, key: bytes, count: int, *, healthy: bool = False) -> list[Contact]:
        """The `count` contacts closest to `key`, exactly, nearest first; `healthy`: none whose last call failed."""
        target = int.from_bytes(key, "big")
        found: list[Contact] = []
        for bucket in self._by_distance(key):
            if len(found) >= count:
                break
            entries = bucket.entries.values()
            contacts = [entry.contact for entry in entries if not (healthy and entry.failures)]
            contacts.sort(key=lambda contact: contact.long_id ^ target)
            found += contacts
        return found[:count]

    def _by_distance(self, key: bytes) -> list[Bucket]:
        """The buckets that hold anybody, nearest to `key` first; they don't overlap.

        Whoever is in bucket i differs from us in bit i first. Where the key does so too, all of bucket i is nearer
        to it than we and the buckets after i are; where it doesn't, farther.
        """
        differs = distance(self.own_id, key)
        if self._filled is None:
            self._filled = [(KEY_BYTES * 8 - 1 - i, bucket) for i, bucket in enumerate(self.buckets) if bucket.entries]
        nearer: list[Bucket] = []
        farther: list[Bucket] = []
        for bit, bucket in self._filled:
            (nearer if differs >> bit & 1 else farther).append(bucket)
        return nearer + farther[::-1]

    def responsible(self, key: bytes, k: int) -> bool:
        """Whether this node is among the k closest to `key` of all that it knows (paper, section 2.3)."""
        mine = distance(self.own_id, key)
        target = int.from_bytes(key, "big")
        closer = sum(1 for entry in self if entry.contact.long_id ^ target < mine)
        return closer < k

    def least_recently_seen(self) -> TableEntry | None:
        """The contact that has been quiet for longest: the next to be pinged."""
        heads = [next(iter(b.entries.values())) for b in self.buckets if b.entries]
        return min(heads, key=lambda entry: entry.seen, default=None)

    def stale_buckets(self, older_than: float) -> list[int]:
        """Indices of buckets up to the deepest used one that no lookup of ours refreshed for so many seconds."""
        used = [i for i, bucket in enumerate(self.buckets) if bucket.entries]
        deepest = max(used, default=-1)
        limit = self._now() - older_than
        return [i for i, bucket in enumerate(self.buckets[: deepest + 1]) if bucket.refreshed <= limit]

    def drop(self, identifier: bytes) -> None:
        """Forget a contact at once."""
        bucket = self.bucket_of(identifier)
        bucket.replacements.pop(identifier, None)
        if identifier in bucket.entries:
            self._drop(bucket, identifier)

    # The rest of what kademlia's RoutingTable offers (docs/architecture.md says what is used of it)

    ksize = BUCKET
    node = Unsupported("own_id")
    protocol = Unsupported("the protocol that holds the table: a table pings nobody")
    split_bucket = Unsupported("bucket_of: there is a fixed bucket for each shared prefix length, so none is split")
    add_contact = Unsupported("answered, once the contact has answered a request: no other contact comes in")

    def find_neighbors(self, node: Contact, k: int | None = None, exclude: Contact | None = None) -> list[Contact]:
        """The k contacts closest to `node`, nearest first, without `exclude`; as `closest`."""
        found = self.closest(node.id, (k or BUCKET) + 1)
        return [contact for contact in found if exclude is None or contact.id != exclude.id][: k or BUCKET]

    def get_bucket_for(self, node: Contact) -> int:
        """The index in `buckets` of the bucket that `node` belongs to."""
        return self._index_of(node.id)

    def is_new_node(self, node: Contact) -> bool:
        """Whether the table doesn't hold `node`."""
        return self.get(node.id) is None

    def remove_contact(self, node: Contact) -> None:
        """Forget `node` at once; as `drop`."""
        self.drop(node.id)

    def lonely_buckets(self) -> list[Bucket]:
        """The buckets that no lookup refreshed for an hour; as `stale_buckets`."""
        return [self.buckets[index] for index in self.stale_buckets(HOUR)]

    # Inside

    def _move(self, entry: TableEntry, contact: Contact, bucket: Bucket) -> bool:
        """Whether a known node is taken to be at another address now: only when it fails at the known one."""
        if entry.failures == 0:
            return False
        known, entry.contact = entry.contact, contact
        self._leave(known)
        # For the limits it counts as new there, or admissions would be bought cheaply and moved together later.
        if self._fits(contact, bucket, moving=True):
            self._enter(contact)
            return True
        entry.contact = known
        self._enter(known)
        return False

    def _fits(self, contact: Contact, bucket: Bucket, *, moving: bool = False) -> bool:
        """The limits by address range, which make an eclipse cost addresses. `moving`: it is in the bucket already."""
        if self._private and not routable(contact.ip, False):
            return True
        held = address_range(contact.ip)
        here = sum(1 for entry in bucket.entries.values() if address_range(entry.contact.ip) == held)
        return here - moving < RANGE_IN_BUCKET and self._ranges[held] < RANGE_IN_TABLE

    def _make_room(self, bucket: Bucket) -> bool:
        for identifier, entry in bucket.entries.items():
            if entry.failures >= FAILURES:
                self._lose(bucket, identifier)
                return True
        return False

    def _lose(self, bucket: Bucket, identifier: bytes) -> None:
        self.lost[identifier] = bucket.entries[identifier].contact
        self.lost.move_to_end(identifier)
        if len(self.lost) > LOST:
            self.lost.popitem(last=False)
        self._drop(bucket, identifier)

    def _drop(self, bucket: Bucket, identifier: bytes) -> None:
        gone = bucket.entries.pop(identifier)
        bucket.failing -= gone.failures > 0
        self._leave(gone.contact)

    def _enter(self, contact: Contact) -> None:
        self._ranges[address_range(contact.ip)] += 1
        self._filled = None

    def _leave(self, contact: Contact) -> None:
        self._filled = None
        held = address_range(contact.ip)
        self._ranges[held] -= 1
        if not self._ranges[held]:
            del self._ranges[held]
