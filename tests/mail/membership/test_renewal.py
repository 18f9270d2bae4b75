"""A certificate is renewed automatically with its own key before it ends; with no other key, nor if it is revoked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mail.directory import Directory
from mail.events import Event, Trouble
from mail.identity import Identity
from mail.membership.authority_service import AuthorityService
from mail.membership.certificate_status import (
    certificate_status,
    check_may_accept,
    check_may_send,
    known_trust,
    stored_certificate_status,
)
from mail.membership.create_network import revoke
from mail.membership.join import join
from mail.membership.messages import Declined, Request, open_request, read_answer, seal_request
from mail.membership.offline import issue_offline, take_certificate, write_request
from mail.membership.renewal import Renewal, request_for
from mail.profile_node import open_client, read_network_file
from mail.sealed.keys import generate_pair
from overlay.client import Overlay
from overlay.identity.card import open_card
from overlay.identity.certificates import CertificateExpired, Revoked, TrustStore, parse_certificate
from overlay.identity.enrolment_answer import authority_address
from overlay.ids import Kind, inbox_key
from storage.user.keyring import Keyring
from storage.user.profile import Profile
from storage.user.state import UserState
from tests.mail.community import Community, community

ALICE = "alice@network.example"
BOB = "bob@network.example"
DAY = 86_400.0


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Community]:
    async with community(tmp_path) as world:
        yield world


class RenewingMember:
    """A member with a certificate and its Renewal."""

    def __init__(self, world: Community, profile: Profile, overlay: Overlay) -> None:
        self.profile = profile
        self.world = world
        self.overlay = overlay
        self.identity = Identity.open(profile, None)
        self.trust = TrustStore(world.network.authorities)
        self.state = UserState(profile.state_file)
        self.events: list[Event] = []
        self.renewal = Renewal(
            profile, self.identity, overlay, self.trust, self.state, tell=self.events.append, now=world.now
        )

    @property
    def ends(self) -> float:
        return parse_certificate(self.identity.owner.certificate).not_after


async def joined(world: Community, service: AuthorityService, name: str) -> str:
    address, profile = f"{name}@network.example", world.profile(name)
    pause = world.waiting_for(service)
    return await join(profile, world.invite(address), None, wait=60, now=world.now, pause=pause)


@pytest.fixture
async def alice(world: Community) -> AsyncIterator[RenewingMember]:
    async with world.serving() as service:
        await joined(world, service, "alice")
    profile = world.profile("alice")
    node = await open_client(profile, read_network_file(profile.network_file), now=world.now)
    member = RenewingMember(world, profile, Overlay(node))
    yield member
    member.state.close()
    await node.stop()


async def test_in_the_last_60_days_it_is_renewed_with_the_same_key(world: Community, alice: RenewingMember) -> None:
    first = alice.identity.certified
    async with world.serving() as service:
        world.time = alice.ends - 61 * DAY
        assert not await alice.renewal.run()
        assert await service.run_once() == 0  # nothing was asked
        world.time = alice.ends - 60 * DAY
        assert not await alice.renewal.run()
        assert await service.run_once() == 1
        assert await alice.renewal.run()
        assert not await alice.renewal.run()
        assert await service.run_once() == 0
    renewed = Identity.open(alice.profile, None)
    assert renewed.certified.private_key == first.private_key
    assert alice.ends == world.time + 365 * DAY
    assert [owner.certificate for owner in renewed.earlier(world.time)] == [first.certificate]
    assert alice.trust.verify(renewed.owner.certificate, world.time).address == ALICE
    assert f"{ALICE} was renewed." in world.told
    assert alice.events == []


async def test_it_is_renewed_up_to_60_days_after_its_end_and_not_later(world: Community, alice: RenewingMember) -> None:
    world.time = alice.ends + 61 * DAY
    assert not alice.renewal.due()
    assert not await alice.renewal.run()
    world.time = alice.ends + 59 * DAY
    async with world.serving() as service:
        assert not await alice.renewal.run()
        assert await service.run_once() == 1
        assert await alice.renewal.run()
    assert alice.ends == world.time + 365 * DAY


async def test_an_authority_that_is_away_is_asked_once_a_day_and_its_answer_found_weeks_later(
    world: Community, alice: RenewingMember
) -> None:
    world.time = alice.ends - 20 * DAY
    async with world.serving():
        pass
    for _ in range(3):
        assert not await alice.renewal.run()
        assert alice.renewal.pause() in (30, 3600)
        world.time += 3600
        assert alice.renewal.pause() == 3600
    async with world.serving() as service:
        assert await service.run_once() == 1
        world.time += 20 * DAY
        assert await alice.renewal.run()


async def test_an_answer_that_came_after_the_encryption_key_was_replaced_is_opened(
    world: Community, alice: RenewingMember
) -> None:
    world.time = alice.ends - 20 * DAY
    async with world.serving() as service:
        await alice.renewal.run()
        await service.run_once()
        world.time += 8 * DAY
        assert alice.identity.rotate(world.time)
        assert await alice.renewal.run()


async def test_a_join_at_work_beside_it_is_not_disturbed(world: Community, alice: RenewingMember) -> None:
    world.time = alice.ends - 20 * DAY
    with alice.profile.lock("join"):
        assert not await alice.renewal.run()
    async with world.serving() as service:
        assert await service.run_once() == 0


async def test_a_join_beside_a_running_agent_hands_its_certificate_over(
    world: Community, alice: RenewingMember
) -> None:
    """An agent keeps its keyring open for a year, and replaces its encryption key a week later."""
    first = alice.identity.certified
    world.time = alice.ends - 20 * DAY
    async with world.serving() as service:
        await joined(world, service, "alice")
    renewed = Identity.open(alice.profile, None).certified
    assert renewed.private_key == first.private_key and renewed.certificate != first.certificate
    assert alice.identity.certified == renewed
    world.time += 8 * DAY
    assert alice.identity.rotate(world.time)
    card = open_card(alice.identity.card(world.time), alice.trust, world.time)
    assert card.certificate.der == renewed.certificate
    assert Identity.open(alice.profile, None).certified == renewed


async def test_joining_again_after_the_end_keeps_the_identity_key(world: Community, alice: RenewingMember) -> None:
    first = alice.identity.certified
    world.time = alice.ends + 90 * DAY
    async with world.serving() as service:
        assert await joined(world, service, "alice") == ALICE
    renewed = Identity.open(alice.profile, None)
    assert renewed.certified.private_key == first.private_key
    assert renewed.keyring.contents.earlier == (first.certificate,)


async def test_a_certificate_is_renewed_by_files(world: Community, alice: RenewingMember, tmp_path: Path) -> None:
    first = alice.identity.certified
    world.time = alice.ends + 3 * DAY
    request, answer = tmp_path / "alice.csr", tmp_path / "alice.pem"
    write_request(alice.profile, ALICE, request, None, now=world.now)
    issue_offline(world.folder, ALICE, request, answer, now=world.now)
    assert take_certificate(alice.profile, alice.profile.network_file, answer, None, now=world.now) == ALICE
    assert alice.identity.certified.private_key == first.private_key
    assert alice.ends == world.time + 365 * DAY


async def test_after_a_revocation_files_ask_with_a_new_key(
    world: Community, alice: RenewingMember, tmp_path: Path
) -> None:
    first = alice.identity.certified
    revoke(world.folder, ALICE, now=world.now)
    async with world.serving():
        learn(world, alice)
    request, answer = tmp_path / "alice.csr", tmp_path / "alice.pem"
    write_request(alice.profile, ALICE, request, None, now=world.now)
    issue_offline(world.folder, ALICE, request, answer, now=world.now)
    take_certificate(alice.profile, alice.profile.network_file, answer, None, now=world.now)
    assert alice.identity.certified.private_key != first.private_key


async def test_a_request_file_names_a_new_key_when_that_of_an_earlier_one_was_revoked_since(
    world: Community, alice: RenewingMember, tmp_path: Path
) -> None:
    first = alice.identity.certified
    request, answer = tmp_path / "alice.csr", tmp_path / "alice.pem"
    write_request(alice.profile, ALICE, request, None, now=world.now)
    revoke(world.folder, ALICE, now=world.now)
    async with world.serving():
        learn(world, alice)
    write_request(alice.profile, ALICE, request, None, now=world.now)
    issue_offline(world.folder, ALICE, request, answer, now=world.now)
    take_certificate(alice.profile, alice.profile.network_file, answer, None, now=world.now)
    assert alice.identity.certified.private_key != first.private_key


# Attacks, each by its name


async def test_attack_a_revoked_member_renews_by_herself(world: Community, alice: RenewingMember) -> None:
    revoke(world.folder, ALICE, now=world.now)
    world.time = alice.ends - 20 * DAY
    async with world.serving() as service:
        assert not await alice.renewal.run()  # she hasn't heard of it, or doesn't listen
        assert await service.run_once() == 1
        for _ in range(2):
            assert not await alice.renewal.run()
        assert [event for event in alice.events if isinstance(event, Trouble) and event.lasting] == alice.events
        assert len(alice.events) == 1 and "revoked" in str(alice.events[0])
        learn(world, alice)
        assert not alice.renewal.due()


async def test_attack_somebody_else_renews_the_certificate_of_alice(world: Community, alice: RenewingMember) -> None:
    world.time = alice.ends - 20 * DAY
    mallory = Ed25519PrivateKey.generate()
    pair = generate_pair(world.time)
    request = Request(ALICE, b"where the answer", mallory.public_key().public_bytes_raw(), pair.public, renewal=True)
    async with world.serving() as service:
        address = authority_address(alice.trust.fingerprint)
        card = await Directory(alice.overlay, alice.trust, world.now).card(address)
        sealed = seal_request(request, mallory.sign, alice.trust.fingerprint, card.encryption_key)
        await alice.overlay.append_inbox(inbox_key(address), sealed, ttl=1000)
        assert await service.run_once() == 1
        (found,) = set(await alice.overlay.fetch_variants(Kind.ENROLMENT, request.key))
        _, answer = read_answer(found, request, pair, alice.trust, world.time)
    assert isinstance(answer, Declined) and "another key" in answer.reason


async def test_attack_the_code_of_an_invite_is_nothing_for_a_renewal(world: Community, alice: RenewingMember) -> None:
    assert request_for(alice.identity).code != request_for(alice.identity).public_key
    async with world.serving() as service:
        await joined(world, service, "bob")
    bob = Identity.open(world.profile("bob"), None)
    assert request_for(bob).key != request_for(alice.identity).key


def test_a_request_that_is_a_renewal_arrives_as_one() -> None:
    key, authority, fingerprint = Ed25519PrivateKey.generate(), generate_pair(0.0), "ab" * 32
    public = generate_pair(0.0).public
    asked = Request(ALICE, b"where the answer", key.public_key().public_bytes_raw(), public, renewal=True)
    sealed = seal_request(asked, key.sign, fingerprint, authority.public)
    assert open_request(sealed, {authority.key_id: authority}, fingerprint) == asked


# Its status


def learn(world: Community, member: RenewingMember) -> None:
    """Give the member the newest revocation list, also on disk."""
    trust = world.nodes[0].trust
    assert trust is not None
    newest = trust.revocations()
    assert newest is not None
    member.trust.accept_revocations(newest, world.now())
    member.state.keep_fact("revocations", newest)


async def test_it_is_told_at_30_and_7_days_and_when_it_has_ended(world: Community, alice: RenewingMember) -> None:
    certificate, ends = alice.identity.owner.certificate, alice.ends

    def told(moment: float) -> tuple[str, str, str]:
        found = certificate_status(certificate, alice.trust, moment)
        return found.state, found.threshold[17:], found.words

    assert told(ends - 30 * DAY - 1) == ("valid", "", "")
    assert told(ends - 30 * DAY)[:2] == ("ending", "30")
    assert told(ends - 7 * DAY - 1)[:2] == ("ending", "30")
    assert told(ends - 7 * DAY)[:2] == ("ending", "7")
    assert "ends in 7 days, on 20" in told(ends - 7 * DAY)[2]
    assert "ends in 1 day, on 20" in told(ends - DAY)[2]
    assert "ends today" in told(ends - 1)[2]
    assert told(ends + 1)[:2] == ("ended", "ended")
    assert "p2pmail authority serve" in told(ends + 1)[2]


async def test_who_has_ended_or_was_revoked_may_not_send(world: Community, alice: RenewingMember) -> None:
    check_may_send(alice.identity, alice.trust, alice.ends)
    check_may_accept(alice.profile, alice.identity, alice.ends)
    with pytest.raises(CertificateExpired, match="ended on"):
        check_may_send(alice.identity, alice.trust, alice.ends + 1)
    with pytest.raises(CertificateExpired, match=r"Nothing was accepted\."):
        check_may_accept(alice.profile, alice.identity, alice.ends + 1)
    revoke(world.folder, ALICE, now=world.now)
    async with world.serving():
        learn(world, alice)
    with pytest.raises(Revoked, match="new invite"):
        check_may_send(alice.identity, alice.trust, world.time)
    with pytest.raises(Revoked, match=r"Nothing was accepted\."):
        check_may_accept(alice.profile, alice.identity, world.time)
    with pytest.raises(Revoked):
        check_may_send(alice.identity, alice.trust, alice.ends + 1)


async def test_how_it_stands_is_known_on_disk_without_a_passphrase(world: Community, alice: RenewingMember) -> None:
    Keyring.open(alice.profile.keyring_file, None).change_passphrase("secret")
    end = "2028-01-15T08:00:00+00:00"
    assert stored_certificate_status(alice.profile, world.time) == ("valid", end)
    assert stored_certificate_status(alice.profile, alice.ends - DAY) == ("ending", end)
    assert stored_certificate_status(alice.profile, alice.ends + DAY) == ("ended", end)
    assert stored_certificate_status(world.profile("nobody"), world.time) == (None, None)
    assert known_trust(world.profile("nobody"), world.time) is None
