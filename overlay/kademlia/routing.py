"""The routing table: the nodes that this node knows, by their distance (Kademlia, section 2.4). Extends kademlia's.

Decisions only: overlay/protocol.py sends the pings and decides when.

Theory of operation
-------------------
There are 160 buckets, one for each length of the prefix that an id can share with our own id, each of at most BUCKET
contacts. Kademlia splits buckets as they fill; fixed ones hold the same contacts, and their number is bounded from the
start.

A contact goes through these states:

    unknown       Not in its bucket. It comes in only by `answered`: it has answered a request, at this address.
    live          In the bucket; its last call was answered. The one that answered last is last in the bucket.
    failing       In the bucket; its last `failures` calls in a row weren't answered. It isn't given to other nodes in
                  answers (`healthy`), but keeps its slot.
    replacement   It answered, but the bucket was full: it is in the replacement cache (section 4.1), without a slot.
    lost          Dropped for its silence, and remembered outside of the table: after a partition the lost contacts may
                  be all that is known of the other half of the network (overlay/node/membership.py pings them).

    unknown -> live, replacement   `answered`
    live    -> failing             `failed`
    failing -> live                `answered`, or `answered` at another address, which then replaces the known one
    failing -> lost                FAILURES in a row when a contact that has just answered needs the slot, or
                                   FAILURES_ALONE in a row in any case
    replacement -> live            `answered` when a slot is free or can be freed
    replacement -> unknown         it was handed out by `failed`, to be pinged: when it answers it comes back by
                                   `answered`; or it failed itself, or was pushed out by newer ones
    any     -> unknown             `drop`

A live contact is never displaced by a new one: an attacker with many new nodes can't push out the old ones, which are
also those most likely to stay up (section 2.4). A known contact at another address is believed only while it fails at
the address where it is known.

Invariants: at most RANGE_IN_BUCKET contacts of one address range in a bucket and RANGE_IN_TABLE in the table, so an
eclipse attack costs addresses in many ranges; private addresses are exempt where the network allows them. `_ranges`
counts exactly the contacts in `entries` of all buckets. `failing` of a bucket is the number of its entries with
failures. Our own id is never in the table.
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
"""Contacts in the replacement cache of a bucket."""
LOST = 64
"""Lost contacts that are remembered: after a partition they may be the other half of the network."""
FAILURES = 3
"""Failures in a row after which a contact gives up its slot to a replacement."""
FAILURES_ALONE = 5
"""Failures in a row after which a contact is dropped even without a replacement (the Kademlia paper's figure)."""
RANGE_IN_BUCKET = 2
RANGE_IN_TABLE = 10
"""Contacts of one IPv4 /24 or IPv6 /56, in a bucket and in the table (the figures of Ethereum's node table)."""


@dataclass(slots=True)
class TableEntry:
    """A contact in the table, when it last answered (seconds), and how many calls it has failed since."""

    contact: Contact
    seen: float
    failures: int = 0


@dataclass(slots=True)
class Bucket:
    """The contacts whose ids share a prefix of one length with ours; the one that answered last is last."""

    entries: dict[bytes, TableEntry] = field(default_factory=dict)
    replacements: OrderedDict[bytes, Contact] = field(default_factory=OrderedDict)
    refreshed: float = 0.0
    failing: int = 0
    """How many of `entries` failed their last call."""


class Table(RoutingTable):  # type: ignore[misc, unused-ignore]
    """The routing table of the node `own_id`. `now` gives seconds."""

    buckets: list[Bucket]  # type: ignore[assignment]  # kademlia's hold other things

    def __init__(self, own_id: bytes, now: Callable[[], float], *, private_addresses: bool) -> None:
        self.own_id = own_id
        self._now = now
        self._private = private_addresses
        self._ranges: Counter[bytes] = Counter()
        self.lost: OrderedDict[bytes, Contact] = OrderedDict()
        """Contacts dropped for their silence, by id, the latest last."""
        self._filled: list[tuple[int, Bucket]] | None = None  # the buckets that aren't empty, computed when needed
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
        """How many contacts answered their last call."""
        return sum(len(bucket.entries) - bucket.failing for bucket in self.buckets)

    def __iter__(self) -> Iterator[TableEntry]:
        for bucket in self.buckets:
            yield from bucket.entries.values()

    def bucket_of(self, identifier: bytes) -> Bucket:
        """The bucket of an id, by the length of the prefix that it shares with ours."""
        return self.buckets[self._index_of(identifier)]

    def _index_of(self, identifier: bytes) -> int:
        return KEY_BYTES * 8 - max(distance(self.own_id, identifier).bit_length(), 1)

    def get(self, identifier: bytes) -> TableEntry | None:
        """The entry of the contact with this id."""
        return self.bucket_of(identifier).entries.get(identifier)

    def wants(self, contact: Contact) -> bool:
        """Whether `contact` is worth a ping: it is new, and there is a slot for it or one may become free."""
        bucket = self.bucket_of(contact.id)
        if contact.id == self.own_id or contact.id in bucket.entries:
            return False
        # A contact in the replacement cache isn't pinged at each of its requests, but only when a slot is free.
        no_slot = not bucket.failing or bucket.replacements.get(contact.id) == contact
        full = len(bucket.entries) >= BUCKET and no_slot
        return not full and self._fits(contact, bucket)

    def answered(self, contact: Contact) -> bool:
        """`contact` has answered: put it in, or update its entry. True when it is new in the table."""
        bucket = self.bucket_of(contact.id)
        if contact.id == self.own_id:
            return False
        entry = bucket.entries.get(contact.id)
        if entry is not None:
            if entry.contact != contact and not self._move(entry, contact, bucket):
                return False
            bucket.failing -= entry.failures > 0
            entry.seen, entry.failures = self._now(), 0
            bucket.entries[contact.id] = bucket.entries.pop(contact.id)  # it is last now
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
        """`contact` stayed silent. Returns the replacement to ping, which takes the slot once it answers, or None."""
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
        """The `count` known contacts closest to `key`, nearest first; `healthy`: none whose last call failed."""
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
        """The buckets that aren't empty, nearest to `key` first; their ranges of distance don't overlap.

        The ids in bucket i differ from ours in bit i first. If the key differs from ours in bit i too, all of bucket i
        is nearer to the key than we and the buckets after i are; if not, all of it is farther.
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
        """Whether this node is one of the k closest to `key` among itself and its contacts (paper, section 2.3)."""
        mine = distance(self.own_id, key)
        target = int.from_bytes(key, "big")
        closer = sum(1 for entry in self if entry.contact.long_id ^ target < mine)
        return closer < k

    def least_recently_seen(self) -> TableEntry | None:
        """The contact that answered longest ago: the next to be pinged."""
        heads = [next(iter(b.entries.values())) for b in self.buckets if b.entries]
        return min(heads, key=lambda entry: entry.seen, default=None)

    def stale_buckets(self, older_than: float) -> list[int]:
        """Indices of the buckets that no lookup refreshed for `older_than` seconds, up to the deepest used one."""
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
        """Whether a known node's new address replaces the known one: only when it fails there."""
        if entry.failures == 0:
            return False
        known, entry.contact = entry.contact, contact
        self._leave(known)
        # The limits by range apply as to a new contact, or an attacker could enter from many ranges and move into one.
        if self._fits(contact, bucket, moving=True):
            self._enter(contact)
            return True
        entry.contact = known
        self._enter(known)
        return False

    def _fits(self, contact: Contact, bucket: Bucket, *, moving: bool = False) -> bool:
        """Whether the limits by address range allow `contact`. `moving`: it has an entry in the bucket already."""
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
