"""Who may do what with a node's primitives, by datagram. Two peers in a simulated world, with a real authority."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from typing import get_args

import pytest
from msgspec.structs import replace

from overlay.errors import Malformed, Refused
from overlay.identity.card import make_card
from overlay.identity.certificates import TrustStore
from overlay.identity.ownership import (
    ACKNOWLEDGE_INBOX,
    DELETE,
    READ_INBOX,
    Owner,
    decode_delete_proof,
    proves_delete,
    statement,
)
from overlay.ids import (
    CARD_SALT,
    Kind,
    body_key,
    certificate_key,
    deleter_hash,
    inbox_key,
    revocations_key,
    root_key,
)
from overlay.primitives.service import Service
from overlay.protocol_limits import (
    ENCRYPTION_KEY_SIZE,
    MAX_DATAGRAM_OBJECT,
    MAX_NOTIFICATION,
    MAX_OBJECT,
    MAX_SIGNED_OBJECT,
    RETENTION,
)
from overlay.wire import messages
from overlay.wire.fragments import MAX_MESSAGE
from overlay.wire.messages import Code
from overlay.wire.write_tokens import EPOCH, WriteTokens
from storage.store_request import StoreRequest
from tests.overlay.issuing import DAY, NOW, Issuer, Person
from tests.overlay.peers import Peer, SimulatedStore, start
from tests.simulation.world import EPOCH as WORLD_BEGINS
from tests.simulation.world import World

ISSUER, OTHER_AUTHORITY = Issuer(1), Issuer(2)
ALICE, BOB = ISSUER.person("alice@village.example", 100, serial=7), ISSUER.person("bob@village.example", 101, serial=8)
ALICE_RENEWED = ISSUER.person("alice@village.example", 102, serial=9)
FALSE_ALICE = OTHER_AUTHORITY.person("alice@village.example", 103)
EXPIRED_ALICE = ISSUER.person("alice@village.example", 104, end=NOW - 1)

KEY, SALT = body_key("<1@village.example>"), bytes(range(16))
INBOX = inbox_key("alice@village.example")
CARD_KEY = certificate_key("alice@village.example")
DATA = b"a sealed body"
HOUR = 3600.0

assert WORLD_BEGINS == NOW


class Scene:
    """`asker` calls `node`, and has a valid token of it."""

    def __init__(self, world: World, node: Peer, asker: Peer, other: Peer, trust: TrustStore) -> None:
        self.world, self.node, self.asker, self.other, self.trust = world, node, asker, other, trust
        self.token = node.token_for(asker)

    @property
    def store(self) -> SimulatedStore:
        return self.node.store

    async def call(
        self, request: messages.Request, *, by: Peer | None = None, at: Peer | None = None
    ) -> messages.Answer:
        return await (by or self.asker).protocol.call((at or self.node).contact, request, patience=5)

    async def refused(self, request: messages.Request, *, by: Peer | None = None, at: Peer | None = None) -> int:
        """The code of the refusal; no call may have reached the store."""
        before = self.store.calls, self.other.store.calls
        with pytest.raises(Refused) as caught:
            await self.call(request, by=by, at=at)
        assert (self.store.calls, self.other.store.calls) == before
        return caught.value.code

    def signed(self, person: Person, operation: bytes, key: bytes, *extra: bytes, token: bytes | None = None) -> bytes:
        return person.sign(statement(operation, key, self.node.contact.id, token or self.token, extra))

    def delete(self, person: Person, key: bytes = KEY, salt: bytes = SALT) -> messages.Delete:
        signature = self.signed(person, DELETE, key, salt)
        return messages.Delete(self.token, Kind.BODY, key, salt, person.certificate, signature)

    def read(self, person: Person) -> messages.ReadInbox:
        return messages.ReadInbox(self.token, INBOX, person.certificate, self.signed(person, READ_INBOX, INBOX))

    def acknowledge(self, person: Person, hashes: Sequence[bytes]) -> messages.AcknowledgeInbox:
        signature = self.signed(person, ACKNOWLEDGE_INBOX, INBOX, *hashes)
        return messages.AcknowledgeInbox(self.token, INBOX, list(hashes), person.certificate, signature)

    def put(self, data: bytes = DATA, kind: int = Kind.BODY, key: bytes = KEY, *deleters: bytes) -> messages.Store:
        return messages.Store(self.token, kind, key, data, list(deleters), HOUR)

    def append(self, notification: bytes) -> messages.AppendInbox:
        return messages.AppendInbox(self.token, INBOX, notification, HOUR)


def play(story: Callable[[Scene], Awaitable[None]], *, trusting: bool = True) -> None:
    world = World()

    async def begin() -> None:
        trust = TrustStore([ISSUER.der])
        believed = trust if trusting else None
        node, other = [await start(world, f"10.0.0.{n}", trust=believed) for n in (1, 2)]
        asker = await start(world, "10.0.0.3", server_mode=False)
        await story(Scene(world, node, asker, other, trust))

    world.play(begin())


def card(person: Person, sequence: int = int(NOW * 1000), fill: bytes = b"k") -> bytes:
    return make_card(Owner(person.certificate, person.sign), fill * ENCRYPTION_KEY_SIZE, sequence)


# Store and fetch


def test_what_is_stored_is_fetched_by_its_digest() -> None:
    async def story(scene: Scene) -> None:
        assert await scene.call(scene.put(DATA)) == messages.Done()
        for digest in (b"", sha256(DATA).digest()):
            answer = await scene.call(messages.Fetch(scene.token, Kind.BODY, KEY, digest))
            assert answer == messages.Object(DATA, len(DATA))
        assert await refusal_of(scene, messages.Fetch(scene.token, Kind.BODY, KEY, bytes(32))) == Code.NOT_FOUND
        assert await refusal_of(scene, messages.Fetch(scene.token, Kind.BODY, bytes(20))) == Code.NOT_FOUND

    play(story)


def test_a_time_to_live_above_30_days_is_kept_for_30_days() -> None:
    """The sender's clock may have been set back since it wrote; that is no reason to drop the object."""

    async def story(scene: Scene) -> None:
        for ttl in (RETENTION + 1, 400 * 86400.0):
            await scene.call(replace(scene.put(), ttl=ttl))
        assert scene.store.ttls == [2_592_000.0, 2_592_000.0]

    play(story)


@pytest.mark.parametrize("ttl", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_a_time_to_live_that_is_none_is_refused_and_the_asker_hears_of_it(ttl: float) -> None:
    async def story(scene: Scene) -> None:
        assert await scene.refused(replace(scene.put(), ttl=ttl)) == Code.BAD_TTL
        assert await scene.refused(replace(scene.append(b"n"), ttl=ttl)) == Code.BAD_TTL

    play(story)


async def refusal_of(scene: Scene, request: messages.Request) -> int:
    with pytest.raises(Refused) as caught:
        await scene.call(request)
    return caught.value.code


def test_an_object_for_http_is_announced_with_its_size() -> None:
    async def story(scene: Scene) -> None:
        size = MAX_DATAGRAM_OBJECT + 1
        await scene.store.store(StoreRequest(Kind.BODY, KEY, bytes(size), bytes(32), 1.0), None)
        assert await scene.call(messages.Fetch(scene.token, Kind.BODY, KEY)) == messages.Object(b"", size)
        assert await scene.refused(scene.put(bytes(size))) == Code.TOO_LARGE

    play(story)


def test_the_largest_object_for_datagrams_fits_both_ways() -> None:
    async def story(scene: Scene) -> None:
        data = bytes(MAX_DATAGRAM_OBJECT)
        await scene.call(scene.put(data, Kind.BODY, KEY, *[bytes([n]) * 32 for n in range(50)]))
        answer = await scene.call(messages.Fetch(scene.token, Kind.BODY, KEY))
        assert answer == messages.Object(data, len(data))

    play(story)


@pytest.mark.parametrize("kind", [Kind.STATE, Kind.DEFINITIONS, 100, 255])
def test_a_kind_that_isnt_known_isnt_kept(kind: int) -> None:
    async def story(scene: Scene) -> None:
        assert await scene.refused(scene.put(DATA, kind)) == Code.UNKNOWN_KIND

    play(story)


def test_a_full_node_says_so() -> None:
    async def story(scene: Scene) -> None:
        scene.store.full = True
        assert await refusal_of(scene, scene.put()) == Code.NO_SPACE

    play(story)


def test_sizes_are_judged_before_a_byte_is_taken() -> None:
    async def story(scene: Scene) -> None:
        service = scene.node.service
        assert service is not None
        service.admit(Kind.BODY, MAX_OBJECT)
        service.admit(Kind.CERTIFICATE, MAX_SIGNED_OBJECT)
        for kind, size in ((Kind.BODY, MAX_OBJECT + 1), (Kind.CERTIFICATE, MAX_SIGNED_OBJECT + 1)):
            with pytest.raises(Refused):
                service.admit(kind, size)

    play(story)


# Tokens


def every_request(scene: Scene, token: bytes) -> list[messages.Request]:
    certificate = ALICE.certificate
    return [
        messages.Store(token, Kind.BODY, KEY, DATA, [], HOUR),
        messages.Fetch(token, Kind.BODY, KEY),
        messages.Delete(token, Kind.BODY, KEY, SALT, certificate, scene.signed(ALICE, DELETE, KEY, SALT, token=token)),
        messages.AppendInbox(token, INBOX, b"notification", HOUR),
        messages.ReadInbox(token, INBOX, certificate, scene.signed(ALICE, READ_INBOX, INBOX, token=token)),
        messages.AcknowledgeInbox(
            token, INBOX, [], certificate, scene.signed(ALICE, ACKNOWLEDGE_INBOX, INBOX, token=token)
        ),
        messages.AskTombstones(token, Kind.BODY, KEY, [bytes(32)]),
    ]


def test_with_a_good_token_every_request_is_served() -> None:
    async def story(scene: Scene) -> None:
        for request in every_request(scene, scene.token):
            assert not isinstance(await scene.call(request), messages.Refusal)

    play(story)


@pytest.mark.parametrize("whose", ["nobodys", "another asker's", "another node's", "an old one"])
def test_without_a_good_token_nothing_is_served(whose: str) -> None:
    async def story(scene: Scene) -> None:
        token = {
            "nobodys": bytes(16),
            "another asker's": scene.node.token_for(scene.other),
            "another node's": scene.other.token_for(scene.asker),
            "an old one": scene.token,
        }[whose]
        if whose == "an old one":
            await asyncio.sleep(2 * EPOCH)
        for request in every_request(scene, token):
            assert await scene.refused(request) == Code.BAD_TOKEN

    play(story)


# Delete


def hash_of(person: Person, key: bytes = KEY, salt: bytes = SALT) -> bytes:
    return deleter_hash(key, salt, person.certificate)


def test_an_object_is_dropped_when_all_have_deleted_it_and_each_leaves_a_proof() -> None:
    async def story(scene: Scene) -> None:
        await scene.call(scene.put(DATA, Kind.BODY, KEY, hash_of(ALICE), hash_of(BOB)))
        assert await scene.call(scene.delete(ALICE)) == messages.Done(0)
        assert await scene.call(messages.Fetch(scene.token, Kind.BODY, KEY)) == messages.Object(DATA, len(DATA))
        assert await scene.call(scene.delete(BOB)) == messages.Done(1)
        assert await refusal_of(scene, messages.Fetch(scene.token, Kind.BODY, KEY)) == Code.NOT_FOUND
        asked = messages.AskTombstones(scene.token, Kind.BODY, KEY, [hash_of(BOB), hash_of(ALICE)])
        answer = await scene.call(asked)
        assert isinstance(answer, messages.Tombstones)
        for person, told in zip((BOB, ALICE), answer.proofs, strict=True):
            proof = decode_delete_proof(told)
            assert (proof.key, proof.salt, proof.certificate) == (KEY, SALT, person.certificate)
            assert proves_delete(proof, person.private_key.public_key())

    play(story)


def test_a_tombstone_that_isnt_there_is_empty() -> None:
    async def story(scene: Scene) -> None:
        asked = messages.AskTombstones(scene.token, Kind.BODY, KEY, [hash_of(ALICE), hash_of(BOB)])
        assert await scene.call(asked) == messages.Tombstones([b"", b""])

    play(story)


def test_as_many_tombstones_are_told_as_fit_into_one_answer() -> None:
    async def story(scene: Scene) -> None:
        hashes = [bytes([number]) * 32 for number in range(5)]
        for one in hashes:
            scene.store.tombstone_proofs[Kind.BODY, KEY, one] = one * 125
        answer = await scene.call(messages.AskTombstones(scene.token, Kind.BODY, KEY, hashes))
        assert answer == messages.Tombstones([one * 125 for one in hashes[:2]])
        assert len(messages.encode(answer)) <= MAX_MESSAGE

    play(story)


def test_somebody_else_deletes_nothing() -> None:
    async def story(scene: Scene) -> None:
        await scene.call(scene.put(DATA, Kind.BODY, KEY, hash_of(ALICE)))
        assert await scene.call(scene.delete(BOB)) == messages.Done(0)
        assert await scene.call(scene.delete(ALICE, salt=bytes(16))) == messages.Done(0)
        assert await scene.call(messages.Fetch(scene.token, Kind.BODY, KEY)) == messages.Object(DATA, len(DATA))

    play(story)


@pytest.mark.parametrize("thief", [FALSE_ALICE, EXPIRED_ALICE], ids=["another authority's", "expired"])
def test_a_certificate_that_isnt_good_deletes_and_reads_nothing(thief: Person) -> None:
    async def story(scene: Scene) -> None:
        for request in (scene.delete(thief), scene.read(thief), scene.acknowledge(thief, [bytes(32)])):
            assert await scene.refused(request) == Code.NOT_PERMITTED

    play(story)


@pytest.mark.parametrize("certificate", [b"", b"nonsense", bytes(4096), ALICE.certificate[:-1], ISSUER.der])
def test_a_certificate_that_is_nonsense_deletes_nothing(certificate: bytes) -> None:
    async def story(scene: Scene) -> None:
        signature = scene.signed(ALICE, DELETE, KEY, SALT)
        request = messages.Delete(scene.token, Kind.BODY, KEY, SALT, certificate, signature)
        assert await scene.refused(request) == Code.NOT_PERMITTED

    play(story)


def test_a_revoked_certificate_deletes_and_reads_nothing() -> None:
    async def story(scene: Scene) -> None:
        scene.trust.accept_revocations(ISSUER.revoke([7], 1), NOW)
        for request in (scene.delete(ALICE), scene.read(ALICE), scene.acknowledge(ALICE, [])):
            assert await scene.refused(request) == Code.NOT_PERMITTED
        assert await scene.call(scene.delete(BOB)) == messages.Done(0)

    play(story)


def spoiled(scene: Scene) -> dict[str, bytes]:
    """Signatures of Alice's that don't permit Delete(KEY, SALT) with this token at this node."""
    node, token = scene.node.contact.id, scene.token
    return {
        "nothing": bytes(64),
        "by somebody else": BOB.sign(statement(DELETE, KEY, node, token, [SALT])),
        "for another operation": ALICE.sign(statement(READ_INBOX, KEY, node, token, [SALT])),
        "for another key": ALICE.sign(statement(DELETE, bytes(20), node, token, [SALT])),
        "for another node": ALICE.sign(statement(DELETE, KEY, scene.other.contact.id, token, [SALT])),
        "with another token": ALICE.sign(statement(DELETE, KEY, node, scene.node.token_for(scene.other), [SALT])),
        "with another salt": ALICE.sign(statement(DELETE, KEY, node, token, [bytes(16)])),
    }


SPOILED = ["nothing", "by somebody else", "for another operation", "for another key", "for another node"]


@pytest.mark.parametrize("how", [*SPOILED, "with another token", "with another salt"])
def test_a_signature_that_permits_something_else_deletes_nothing(how: str) -> None:
    async def story(scene: Scene) -> None:
        request = messages.Delete(scene.token, Kind.BODY, KEY, SALT, ALICE.certificate, spoiled(scene)[how])
        assert await scene.refused(request) == Code.NOT_PERMITTED

    play(story)


def test_a_delete_replayed_at_another_node_is_refused() -> None:
    async def story(scene: Scene) -> None:
        await scene.call(scene.put(DATA, Kind.BODY, KEY, hash_of(ALICE)))
        heard = scene.delete(ALICE)
        await scene.call(heard)
        assert await scene.refused(heard, at=scene.other) == Code.BAD_TOKEN
        # Although the attacker has a token of its own there.
        mine = scene.other.token_for(scene.asker)
        replayed = messages.Delete(mine, Kind.BODY, KEY, SALT, heard.certificate, heard.signature)
        assert await scene.refused(replayed, at=scene.other) == Code.NOT_PERMITTED

    play(story)


def test_a_delete_or_read_replayed_by_another_asker_is_refused() -> None:
    async def story(scene: Scene) -> None:
        for heard in (scene.delete(ALICE), scene.read(ALICE), scene.acknowledge(ALICE, [bytes(32)])):
            assert await scene.refused(heard, by=scene.other) == Code.BAD_TOKEN

    play(story)


def test_a_delete_is_idempotent() -> None:
    async def story(scene: Scene) -> None:
        await scene.call(scene.put(DATA, Kind.BODY, KEY, hash_of(ALICE)))
        assert await scene.call(scene.delete(ALICE)) == messages.Done(1)
        assert await scene.call(scene.delete(ALICE)) == messages.Done(0)

    play(story)


# Inboxes


def test_the_owner_reads_and_acknowledges_the_inbox() -> None:
    async def story(scene: Scene) -> None:
        for notification in (b"one", b"two", b"two"):
            assert await scene.call(scene.append(notification)) == messages.Done()
        assert await scene.call(scene.read(ALICE)) == messages.Notifications([b"one", b"two"], False)
        assert await scene.call(scene.acknowledge(ALICE, [sha256(b"one").digest()])) == messages.Done(1)
        assert await scene.call(scene.read(ALICE)) == messages.Notifications([b"two"], False)

    play(story)


def test_a_renewed_certificate_reads_the_inbox_of_its_address() -> None:
    async def story(scene: Scene) -> None:
        await scene.call(scene.append(b"one"))
        assert await scene.call(scene.read(ALICE_RENEWED)) == messages.Notifications([b"one"], False)

    play(story)


def test_nobody_reads_or_acknowledges_the_inbox_of_another_address() -> None:
    async def story(scene: Scene) -> None:
        await scene.call(scene.append(b"one"))
        assert await scene.refused(scene.read(BOB)) == Code.NOT_PERMITTED
        assert await scene.refused(scene.acknowledge(BOB, [sha256(b"one").digest()])) == Code.NOT_PERMITTED
        assert await scene.call(scene.read(ALICE)) == messages.Notifications([b"one"], False)

    play(story)


def test_a_read_replayed_at_another_node_is_refused() -> None:
    async def story(scene: Scene) -> None:
        heard = scene.read(ALICE)
        assert await scene.refused(heard, at=scene.other) == Code.BAD_TOKEN
        mine = scene.other.token_for(scene.asker)
        replayed = messages.ReadInbox(mine, INBOX, heard.certificate, heard.signature)
        assert await scene.refused(replayed, at=scene.other) == Code.NOT_PERMITTED

    play(story)


def test_an_acknowledgement_is_good_for_the_hashes_that_were_signed_only() -> None:
    async def story(scene: Scene) -> None:
        await scene.call(scene.append(b"one"))
        signed = scene.acknowledge(ALICE, [bytes(32)])
        changed = messages.AcknowledgeInbox(
            scene.token, INBOX, [sha256(b"one").digest()], signed.certificate, signed.signature
        )
        assert await scene.refused(changed) == Code.NOT_PERMITTED

    play(story)


def test_hundreds_of_tiny_notifications_are_read_a_message_at_a_time() -> None:
    async def story(scene: Scene) -> None:
        sent = {n.to_bytes(8, "big") for n in range(1000)}
        scene.store.inboxes[INBOX] = {sha256(n).digest(): n for n in sent}
        seen: set[bytes] = set()
        for _ in range(10):
            answer = await scene.call(scene.read(ALICE))
            assert isinstance(answer, messages.Notifications)
            assert answer.more is (len(seen) + len(answer.notifications) < 1000)
            seen |= set(answer.notifications)
            hashes = [sha256(n).digest() for n in answer.notifications]
            for i in range(0, len(hashes), 150):
                await scene.call(scene.acknowledge(ALICE, hashes[i : i + 150]))
            if not answer.more:
                break
        assert seen == sent

    play(story)


def test_a_notification_too_long_for_datagrams_is_announced() -> None:
    async def story(scene: Scene) -> None:
        scene.store.inboxes[INBOX] = {bytes(32): bytes(20_000)}
        assert await scene.call(scene.read(ALICE)) == messages.Notifications([], True)

    play(story)


@pytest.mark.parametrize("size", [0, MAX_NOTIFICATION + 1])
def test_a_notification_of_an_impossible_size_isnt_taken(size: int) -> None:
    async def story(scene: Scene) -> None:
        service = scene.node.service
        assert service is not None
        with pytest.raises(Refused):
            await service.append_inbox(INBOX, bytes(size), HOUR)
        assert scene.store.calls == 0

    play(story)


# Cards and revocation lists


def test_a_card_is_kept_and_its_owner_alone_may_delete_it() -> None:
    async def story(scene: Scene) -> None:
        stranger = bytes([9]) * 32
        assert await scene.call(scene.put(card(ALICE), Kind.CERTIFICATE, CARD_KEY, stranger)) == messages.Done()
        ((content, deleters, sequence),) = scene.store.objects[Kind.CERTIFICATE, CARD_KEY].values()
        assert (content, sequence) == (card(ALICE), int(NOW * 1000))
        assert deleters == {deleter_hash(CARD_KEY, CARD_SALT, ALICE.certificate)}

    play(story)


def test_a_newer_card_replaces_and_an_older_one_is_refused() -> None:
    async def story(scene: Scene) -> None:
        older, newer = card(ALICE, int(NOW * 1000)), card(ALICE_RENEWED, int(NOW * 1000) + 1, b"n")
        await scene.call(scene.put(older, Kind.CERTIFICATE, CARD_KEY))
        await scene.call(scene.put(newer, Kind.CERTIFICATE, CARD_KEY))
        assert await refusal_of(scene, scene.put(older, Kind.CERTIFICATE, CARD_KEY)) == Code.STALE
        assert await scene.call(messages.Fetch(scene.token, Kind.CERTIFICATE, CARD_KEY)) == messages.Object(
            newer, len(newer)
        )
        assert await scene.call(scene.put(newer, Kind.CERTIFICATE, CARD_KEY)) == messages.Done()

    play(story)


BAD_CARDS = {
    "of another authority": card(FALSE_ALICE),
    "for another address": card(BOB),
    "expired": card(EXPIRED_ALICE),
    "from the future": card(ALICE, int((NOW + 2 * DAY) * 1000)),
    "changed": card(ALICE)[:-1] + b"x",
    "signed by another": make_card(Owner(ALICE.certificate, BOB.sign), b"k" * ENCRYPTION_KEY_SIZE, int(NOW * 1000)),
    "nonsense": b"nonsense",
    "nothing": b"",
    "nested": b"\x91" * 8000,
    "a bare certificate": ALICE.certificate,
}


@pytest.mark.parametrize("what", BAD_CARDS)
def test_a_bad_card_is_not_kept(what: str) -> None:
    async def story(scene: Scene) -> None:
        request = scene.put(BAD_CARDS[what], Kind.CERTIFICATE, CARD_KEY)
        assert await scene.refused(request) == Code.NOT_PERMITTED

    play(story)


def test_a_revoked_persons_card_is_not_kept() -> None:
    async def story(scene: Scene) -> None:
        scene.trust.accept_revocations(ISSUER.revoke([7], 1), NOW)
        assert await scene.refused(scene.put(card(ALICE), Kind.CERTIFICATE, CARD_KEY)) == Code.NOT_PERMITTED
        assert await scene.call(scene.put(card(ALICE_RENEWED), Kind.CERTIFICATE, CARD_KEY)) == messages.Done()

    play(story)


def test_a_revocation_list_is_kept_and_taken_to_heart() -> None:
    async def story(scene: Scene) -> None:
        key = revocations_key(scene.trust.fingerprint)
        newer, older = ISSUER.revoke([7], 2), ISSUER.revoke([], 1)
        assert await scene.call(scene.put(newer, Kind.REVOCATIONS, key)) == messages.Done()
        assert await scene.call(scene.put(newer, Kind.REVOCATIONS, key)) == messages.Done()
        assert await scene.refused(scene.put(older, Kind.REVOCATIONS, key)) == Code.STALE
        assert await scene.refused(scene.delete(ALICE)) == Code.NOT_PERMITTED

    play(story)


def test_a_bad_revocation_list_is_not_kept() -> None:
    async def story(scene: Scene) -> None:
        key = revocations_key(scene.trust.fingerprint)
        for bad in (OTHER_AUTHORITY.revoke([7], 9), b"nonsense", b"", card(ALICE)):
            assert await scene.refused(scene.put(bad, Kind.REVOCATIONS, key)) == Code.NOT_PERMITTED
        good = ISSUER.revoke([7], 2)
        assert await scene.refused(scene.put(good, Kind.REVOCATIONS, bytes(20))) == Code.NOT_PERMITTED
        assert await scene.call(scene.delete(ALICE)) == messages.Done(0)

    play(story)


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\x91" * 8000, card(ALICE)])
def test_an_answer_to_an_enrolment_that_is_none_is_not_kept(data: bytes) -> None:
    async def story(scene: Scene) -> None:
        assert await scene.refused(scene.put(data, Kind.ENROLMENT, CARD_KEY)) == Code.NOT_PERMITTED

    play(story)


def test_nothing_is_kept_in_the_place_of_the_authoritys_certificate() -> None:
    async def story(scene: Scene) -> None:
        key = root_key(scene.trust.fingerprint)
        assert await scene.call(messages.Fetch(scene.token, Kind.BODY, key)) == messages.Object(
            ISSUER.der, len(ISSUER.der)
        )
        assert await scene.refused(scene.put(DATA, Kind.BODY, key)) == Code.NOT_PERMITTED

    play(story)


def test_in_a_network_without_an_authority_nobody_owns_anything() -> None:
    async def story(scene: Scene) -> None:
        assert await scene.call(scene.put(DATA)) == messages.Done()
        for request in (scene.delete(ALICE), scene.read(ALICE), scene.acknowledge(ALICE, [])):
            assert await scene.refused(request) == Code.NOT_PERMITTED
        assert await scene.refused(scene.put(card(ALICE), Kind.CERTIFICATE, CARD_KEY)) == Code.NOT_PERMITTED

    play(story, trusting=False)


# The signed statement


def test_a_proof_of_delete_that_is_nonsense_is_refused() -> None:
    for data in (b"", b"nonsense", b"\x91" * 3000, bytes(5000)):
        with pytest.raises(Malformed):
            decode_delete_proof(data)


def test_every_request_has_a_handler_or_is_the_protocols() -> None:
    by_protocol = {messages.Ping, messages.Find, messages.AskAdmission, messages.DialBack}
    service = Service(bytes(20), SimulatedStore(), None, WriteTokens(lambda: 0.0), lambda: NOW)
    assert set(service._handlers) == set(get_args(messages.Request)) - by_protocol
