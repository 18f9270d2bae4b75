"""Joining: an invite gives one user one address, and nodes can neither read nor change the messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mail.directory import Directory
from mail.identity import Identity
from mail.membership.authority import Authority
from mail.membership.authority_service import REFUSALS, AuthorityService
from mail.membership.create_network import revoke
from mail.membership.invite import Invite, read_invite, write_invite
from mail.membership.join import AlreadyJoined, AwaitingAuthority, JoinRefused, NobodyAnswers, join, resume
from mail.membership.messages import (
    REQUEST_SIZE,
    BadAnswer,
    BadRequest,
    Declined,
    Granted,
    Request,
    best_answer,
    check_root,
    open_request,
    read_answer,
    seal_answer,
    seal_request,
)
from mail.profile_node import read_network_file
from mail.sealed.keys import KeyPair, generate_pair
from overlay.client import Outcome, Overlay
from overlay.errors import Unreachable
from overlay.identity.certificates import TrustStore
from overlay.identity.enrolment_answer import authority_address
from overlay.identity.ownership import Owner
from overlay.ids import Kind, enrolment_key, inbox_key, root_key
from overlay.protocol_limits import MAX_ENROLMENT_ANSWER
from storage.user.keyring import Keyring
from storage.user.profile import Profile, ProfileBusy
from tests.mail.community import NOW, Community, community
from tests.overlay.issuing import Issuer, Person, seeded

ALICE = "alice@network.example"
BOB = "bob@network.example"
CODE = b"one-time code 16"
DAY = 86_400.0


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Community]:
    async with community(tmp_path) as world:
        yield world


async def joined(world: Community, service: AuthorityService, profile: Profile, invite: str) -> str:
    pause = world.waiting_for(service)
    return await join(profile, invite, None, wait=60, now=world.now, tell=world.told.append, pause=pause)


def identity(profile: Profile) -> Identity:
    return Identity.open(profile, None)


# The journey


async def test_an_invite_gives_an_address_a_network_and_a_card(world: Community) -> None:
    profile = world.profile("alice")
    async with world.serving() as service:
        assert await joined(world, service, profile, world.invite("Alice@Network.example")) == ALICE
    network = read_network_file(profile.network_file)
    trust = TrustStore(network.authorities)
    assert network.authorities == world.network.authorities
    assert network.join[0] == world.nodes[0].place
    assert trust.verify(identity(profile).owner.certificate, world.now()).address == ALICE
    card = await Directory(world.overlay(), trust, world.now).card(ALICE)
    assert card.key_id in identity(profile).pairs()
    assert f"{ALICE} has joined." in world.told


async def test_a_request_that_waits_is_answered_days_later(world: Community) -> None:
    profile = world.profile("alice")
    async with world.serving():
        invite = world.invite(ALICE)
    with pytest.raises(AwaitingAuthority, match="request is left with the network"):
        await join(profile, invite, None, wait=4, now=world.now, tell=world.told.append, pause=world.idle)
    world.time += 3 * 86_400
    async with world.serving() as service:
        assert await service.run_once() == 1
        keyring = Keyring.open(profile.keyring_file, None)
        assert await resume(profile, keyring, wait=0, now=world.now, pause=world.idle) == ALICE
        assert keyring.identity is not None


async def test_joining_goes_on_with_the_same_keys_after_a_crash(world: Community) -> None:
    profile = world.profile("alice")

    async def crash(seconds: float) -> None:
        raise KeyboardInterrupt

    async with world.serving() as service:
        invite = world.invite(ALICE)
        with pytest.raises(KeyboardInterrupt):
            await join(profile, invite, None, wait=60, now=world.now, tell=world.told.append, pause=crash)
        asked_with = Keyring.open(profile.keyring_file, None).pending
        assert await joined(world, service, profile, invite) == ALICE
    assert asked_with is not None
    kept = Keyring.open(profile.keyring_file, None)
    assert kept.identity is not None and kept.identity.private_key == asked_with.private_key
    assert kept.pending is None


async def test_a_request_is_left_once_while_it_is_fresh_and_again_an_hour_later(world: Community) -> None:
    profile = world.profile("alice")
    async with world.serving() as service:
        invite = world.invite(ALICE)
        for _ in range(2):
            with pytest.raises(AwaitingAuthority):
                await join(profile, invite, None, wait=0, now=world.now, pause=world.idle)
        assert await service.run_once() == 1
        world.time += 15 * 86_400  # the answer has gone; the invite was used in time
        for node in world.nodes:
            assert node.store is not None
            await node.store.expire()
        assert await joined(world, service, profile, invite) == ALICE


async def test_joining_twice_with_the_same_invite_does_nothing_more(world: Community) -> None:
    profile = world.profile("alice")
    async with world.serving() as service:
        invite = world.invite(ALICE)
        await joined(world, service, profile, invite)
        before = profile.keyring_file.read_bytes()
        assert await joined(world, service, profile, invite) == ALICE
    assert profile.keyring_file.read_bytes() == before


async def test_a_profile_keeps_its_address_when_another_is_offered(world: Community) -> None:
    profile = world.profile("alice")
    async with world.serving() as service:
        await joined(world, service, profile, world.invite(ALICE))
        with pytest.raises(AlreadyJoined, match="--profile"):
            await joined(world, service, profile, world.invite(BOB))
    assert identity(profile).address == ALICE


async def test_a_certificate_near_its_end_is_renewed_by_the_same_invite(world: Community) -> None:
    profile = world.profile("alice")
    async with world.serving() as service:
        invite = world.invite(ALICE)
        await joined(world, service, profile, invite)
        old = identity(profile).owner.certificate
        world.time += 320 * 86_400
        assert await joined(world, service, profile, invite) == ALICE
    assert identity(profile).owner.certificate != old


async def test_after_a_revocation_a_new_invite_gives_new_keys(world: Community) -> None:
    profile = world.profile("alice")
    async with world.serving() as service:
        await joined(world, service, profile, world.invite(ALICE))
        old = Keyring.open(profile.keyring_file, None).identity
        assert revoke(world.folder, ALICE, now=world.now) == 1
        await service.run_once()
        trust = world.nodes[0].trust
        assert trust is not None and old is not None
        assert await joined(world, service, profile, world.invite(ALICE)) == ALICE
    new = Keyring.open(profile.keyring_file, None).identity
    assert new is not None and new.private_key != old.private_key


async def test_a_join_that_asks_with_a_key_which_was_revoked_since_begins_anew_with_a_new_invite(
    world: Community,
) -> None:
    profile = world.profile("alice")
    async with world.serving() as service:
        await joined(world, service, profile, world.invite(ALICE))
        old = Keyring.open(profile.keyring_file, None).identity
        assert old is not None
        world.time += 310 * DAY
        with pytest.raises(AwaitingAuthority):  # a renewal, at a time when nobody answers
            await join(profile, world.invite(ALICE), None, wait=2, now=world.now, pause=world.idle)
        assert revoke(world.folder, ALICE, now=world.now) >= 1
        await service.run_once()
        assert await joined(world, service, profile, world.invite(ALICE)) == ALICE
    new = Keyring.open(profile.keyring_file, None).identity
    assert new is not None and new.private_key != old.private_key


async def test_a_revoked_member_whose_new_join_waits_goes_on_with_it(world: Community) -> None:
    profile = world.profile("alice")
    async with world.serving() as service:
        await joined(world, service, profile, world.invite(ALICE))
        assert not Identity.open(profile, None).joining
        revoke(world.folder, ALICE, now=world.now)
        await service.run_once()
        with pytest.raises(AwaitingAuthority):
            await join(profile, world.invite(ALICE), None, wait=2, now=world.now, pause=world.idle)
        identity = Identity.open(profile, None)
        assert identity.joining and not identity.waiting
        pause = world.waiting_for(service)
        assert await resume(profile, identity.keyring, wait=60, now=world.now, pause=pause) == ALICE
        assert not identity.joining


async def test_a_join_that_renews_is_nothing_that_a_command_waits_for(world: Community) -> None:
    profile = world.profile("alice")
    async with world.serving() as service:
        await joined(world, service, profile, world.invite(ALICE))
        world.time += 310 * DAY
        with pytest.raises(AwaitingAuthority):
            await join(profile, world.invite(ALICE), None, wait=2, now=world.now, pause=world.idle)
    identity = Identity.open(profile, None)
    assert identity.keyring.pending is not None and not identity.joining


async def test_joining_waits_for_an_agent_that_is_renewing(world: Community) -> None:
    profile = world.profile("alice")
    profile.create()
    async with world.serving() as service:
        renewing = ExitStack()
        renewing.enter_context(profile.lock("join"))

        async def pause(seconds: float) -> None:
            renewing.close()
            await world.waiting_for(service)(seconds)

        assert await join(profile, world.invite(ALICE), None, wait=60, now=world.now, pause=pause) == ALICE
        with profile.lock("join"), pytest.raises(ProfileBusy):
            await join(profile, world.invite(BOB), None, wait=60, now=world.now, pause=world.idle)


async def test_a_revocation_reaches_the_nodes_at_the_next_look(world: Community) -> None:
    profile = world.profile("alice")
    async with world.serving() as service:
        await joined(world, service, profile, world.invite(ALICE))
        certificate = identity(profile).owner.certificate
        revoke(world.folder, ALICE, now=world.now)
        await service.run_once()
    for node in world.nodes:
        assert node.trust is not None
        with pytest.raises(Exception, match="revoked"):
            node.trust.verify(certificate, world.now())


async def test_the_authoritys_keys_are_its_own_and_stay(world: Community) -> None:
    async with world.serving():
        pass
    keyring = Profile(world.folder, environ={}).keyring_file
    assert keyring.stat().st_mode & 0o777 == 0o600
    first = Keyring.open(keyring, None).identity
    async with world.serving():
        pass
    assert Keyring.open(keyring, None).identity == first
    assert first is not None and first.address == authority_address(sha256(world.network.authorities[0]).hexdigest())


async def test_an_authority_that_lost_its_mail_keys_makes_new_ones(world: Community) -> None:
    async with world.serving():
        pass
    Profile(world.folder, environ={}).keyring_file.unlink()
    async with world.serving() as service:
        assert await joined(world, service, world.profile("alice"), world.invite(ALICE)) == ALICE


# Trouble


async def test_without_a_node_the_keys_are_kept_and_the_user_told(world: Community) -> None:
    async with world.serving():
        invite = world.invite(ALICE)
    for node in world.nodes:
        await node.stop()
    profile = world.profile("alice")
    with pytest.raises(NobodyAnswers, match="keys are kept"):
        await join(profile, invite, None, wait=0, now=world.now, pause=world.idle)
    assert Keyring.open(profile.keyring_file, None).pending is not None


async def test_without_an_authority_at_work_the_user_is_told_whom_to_ask(world: Community) -> None:
    invite = make_invite_at(world, ALICE)
    with pytest.raises(AwaitingAuthority, match="authority serve"):
        await join(world.profile("alice"), invite, None, wait=0, now=world.now, pause=world.idle)


def make_invite_at(world: Community, address: str) -> str:
    """An invite from an authority that has never run `serve` but knows a node."""
    authority = Authority(world.folder, now=world.now)
    try:
        invitation = authority.invite(address)
        network = world.network.joined_at(world.nodes[0].place)
        return write_invite(Invite(network, authority.fingerprint, address, invitation.code))
    finally:
        authority.close()


async def test_a_request_stays_in_the_inbox_until_its_answer_is_at_a_node(
    world: Community, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = world.profile("alice")
    store = Overlay.store

    async def refused(overlay: Overlay, kind: int, key: bytes, data: bytes, **more: Any) -> Outcome:
        if kind == Kind.ENROLMENT:
            return Outcome(3, 0, ("no space left on that node",))
        return await store(overlay, kind, key, data, **more)

    async with world.serving() as service:
        with pytest.raises(AwaitingAuthority):
            await join(profile, world.invite(ALICE), None, wait=0, now=world.now, pause=world.idle)
        with monkeypatch.context() as patch:
            patch.setattr(Overlay, "store", refused)
            assert await service.run_once() == 0
        assert any("no space left" in words for words in world.told)
        assert await service.run_once() == 1
        assert await service.run_once() == 0


async def test_an_authority_serves_once_at_a_time(world: Community) -> None:
    async with world.serving():
        with pytest.raises(ProfileBusy):
            await world.service().start()
    async with world.serving():
        pass


async def test_an_authority_starts_though_no_node_answers_and_says_so(tmp_path: Path) -> None:
    async with community(tmp_path, count=1) as world:
        service = AuthorityService(world.folder, now=world.now, random=world.random, tell=world.told.append)
        await service.start()
        try:
            assert any("No node" in words for words in world.told)
            with pytest.raises(Unreachable):
                await service.run_once()
        finally:
            await service.stop()


# Attacks, each by its name


async def test_attack_an_invite_used_twice(world: Community) -> None:
    async with world.serving() as service:
        invite = world.invite(ALICE)
        await joined(world, service, world.profile("alice"), invite)
        mallory = world.profile("mallory")
        with pytest.raises(JoinRefused, match="used already"):
            await joined(world, service, mallory, invite)
    kept = Keyring.open(mallory.keyring_file, None)
    assert kept.identity is None and kept.pending is None
    assert not mallory.network_file.exists()


async def test_attack_a_wrong_code(world: Community) -> None:
    async with world.serving() as service:
        invite = read_invite(world.invite(ALICE))
        forged = write_invite(Invite(invite.network, invite.fingerprint, ALICE, b"guessed code 16b"))
        with pytest.raises(JoinRefused, match="not one for"):
            await joined(world, service, world.profile("mallory"), forged)
        assert await joined(world, service, world.profile("alice"), write_invite(invite)) == ALICE


async def test_attack_a_code_for_another_address(world: Community) -> None:
    async with world.serving() as service:
        invite = read_invite(world.invite(ALICE))
        forged = write_invite(Invite(invite.network, invite.fingerprint, BOB, invite.code))
        with pytest.raises(JoinRefused, match="not one for bob"):
            await joined(world, service, world.profile("mallory"), forged)


async def test_attack_a_flood_of_made_up_codes_costs_few_answers(world: Community) -> None:
    async with world.serving() as service:
        invite = world.invite(ALICE)
        card = await Directory(world.overlay(), trust_of(world), world.now).card(authority_address(fingerprint(world)))
        for number in range(REFUSALS + 5):
            request, private, _ = asker(ALICE, number.to_bytes(16, "big"), 50 + number)
            sealed = seal_request(request, private.sign, fingerprint(world), card.encryption_key)
            await world.overlay().append_inbox(inbox_key(card.certificate.address), sealed, ttl=1000)
        with pytest.raises(AwaitingAuthority):
            await join(world.profile("alice"), invite, None, wait=0, now=world.now, pause=world.idle)
        assert await service.run_once() == REFUSALS + 1
        assert await service.run_once() == 0
        assert await joined(world, service, world.profile("alice"), invite) == ALICE


async def test_attack_a_forged_answer_is_kept_by_no_node_and_believed_by_no_joiner(world: Community) -> None:
    """Bob has a certificate but can't answer for the authority."""
    async with world.serving() as service:
        bob = world.profile("bob")
        await joined(world, service, bob, world.invite(BOB))
        request, _, pair = asker(ALICE, CODE)
        forged = seal_answer(Declined("go away"), request, identity(bob).owner, int(world.now() * 1000))
        outcome = await world.overlay().store(Kind.ENROLMENT, request.key, forged, ttl=1000)
        assert outcome.have == 0
        with pytest.raises(BadAnswer, match="no authority"):
            read_answer(forged, request, pair, trust_of(world), world.now())


async def test_attack_a_root_that_is_not_the_fingerprints(world: Community) -> None:
    key = root_key(fingerprint(world))
    other = Issuer(7, "campus").der
    assert (await world.overlay().store(Kind.BODY, key, other, ttl=1000)).have == 0
    assert await world.overlay().fetch(Kind.BODY, key) == world.network.authorities[0]
    with pytest.raises(BadAnswer, match="not the certificate"):
        check_root(other, fingerprint(world))


def test_attack_a_fingerprint_of_something_that_is_no_authority() -> None:
    leaf = Issuer().person(ALICE).certificate
    with pytest.raises(BadAnswer, match="no authority"):
        check_root(leaf, sha256(leaf).hexdigest())


# Requests


ROOT = Issuer()
FINGERPRINT = sha256(ROOT.der).hexdigest()
AUTHORITY = ROOT.person(authority_address(FINGERPRINT), 2)
AUTHORITY_PAIR = generate_pair(NOW, lambda size: bytes(range(size)))
PAIRS = {AUTHORITY_PAIR.key_id: AUTHORITY_PAIR}


def fingerprint(world: Community) -> str:
    return sha256(world.network.authorities[0]).hexdigest()


def trust_of(world: Community) -> TrustStore:
    return TrustStore(world.network.authorities)


def asker(address: str, code: bytes, number: int = 100) -> tuple[Request, Person, KeyPair]:
    person = ROOT.person(address, number)
    pair = generate_pair(NOW, lambda size: bytes([number]) * size)
    return Request(address, code, seeded(number).public_key().public_bytes_raw(), pair.public), person, pair


def sealed(request: Request, number: int = 100, fingerprint: str = FINGERPRINT) -> bytes:
    return seal_request(request, seeded(number).sign, fingerprint, AUTHORITY_PAIR.public)


def test_a_request_arrives_as_it_was_sent() -> None:
    request, _, _ = asker(ALICE, CODE)
    assert open_request(sealed(request), PAIRS, FINGERPRINT) == request


@pytest.mark.parametrize("address", ["a@b.example", "ä" * 32 + "@" + "x" * 60 + ".example", ALICE])
def test_every_request_has_the_same_size(address: str) -> None:
    assert len(sealed(asker(address, CODE)[0])) == REQUEST_SIZE
    assert len(sealed(asker(address, b"x" * 64)[0])) == REQUEST_SIZE


def test_attack_a_request_signed_with_another_key() -> None:
    request, _, _ = asker(ALICE, CODE)
    with pytest.raises(BadRequest, match="another key"):
        open_request(sealed(request, number=101), PAIRS, FINGERPRINT)


def test_attack_a_request_passed_on_to_another_authority() -> None:
    request, _, _ = asker(ALICE, CODE)
    with pytest.raises(BadRequest):
        open_request(sealed(request, fingerprint="00" * 32), PAIRS, FINGERPRINT)


@pytest.mark.parametrize("size", [0, 7, 8, 100, REQUEST_SIZE - 1])
def test_attack_a_truncated_request(size: int) -> None:
    with pytest.raises(BadRequest):
        open_request(sealed(asker(ALICE, CODE)[0])[:size], PAIRS, FINGERPRINT)


def test_attack_a_request_with_an_encryption_key_that_is_none() -> None:
    request, _, _ = asker(ALICE, CODE)
    useless = Request(ALICE, CODE, request.public_key, request.encryption_key[:-32] + bytes(32))
    with pytest.raises(BadRequest):
        open_request(sealed(useless), PAIRS, FINGERPRINT)


def test_attack_a_request_for_an_address_in_another_form() -> None:
    request, _, _ = asker("Alice@network.example".lower(), CODE)
    shouted = Request("ALICE@network.example", CODE, request.public_key, request.encryption_key)
    with pytest.raises(BadRequest, match="rules"):
        open_request(sealed(shouted), PAIRS, FINGERPRINT)


@given(st.binary(max_size=REQUEST_SIZE + 1))
def test_whatever_lies_in_the_inbox_is_a_request_or_dropped(data: bytes) -> None:
    for hostile in (data, (AUTHORITY_PAIR.key_id + data).ljust(REQUEST_SIZE, b"x")[:REQUEST_SIZE]):
        with pytest.raises(BadRequest):
            open_request(hostile, PAIRS, FINGERPRINT)


# Answers


def owner(person: Person) -> Owner:
    return Owner(person.certificate, person.sign)


def answer(
    given: Granted | Declined, request: Request, by: Person = AUTHORITY, sequence: int = int(NOW * 1000)
) -> bytes:
    return seal_answer(given, request, owner(by), sequence)


def test_yes_and_no_arrive_and_have_the_same_size() -> None:
    request, person, pair = asker(ALICE, CODE)
    trust = TrustStore([ROOT.der])
    yes = answer(Granted(person.certificate, ROOT.revoke([], 1)), request)
    no = answer(Declined("Ask\x1b[2J somebody else."), request)
    assert len(yes) == len(no) <= MAX_ENROLMENT_ANSWER
    assert read_answer(yes, request, pair, trust, NOW)[1] == Granted(person.certificate, ROOT.revoke([], 1))
    assert read_answer(no, request, pair, trust, NOW)[1] == Declined("Ask somebody else.")


def test_a_long_revocation_list_stays_at_home() -> None:
    request, person, pair = asker(ALICE, CODE)
    long = ROOT.revoke(range(1, 500), 1)
    data = answer(Granted(person.certificate, long), request)
    assert read_answer(data, request, pair, TrustStore([ROOT.der]), NOW)[1] == Granted(person.certificate)


def test_attack_a_certificate_for_another_address_or_key_in_the_answer() -> None:
    request, _, pair = asker(ALICE, CODE)
    for wrong in (ROOT.person(BOB, 100), ROOT.person(ALICE, 101), Issuer(9).person(ALICE, 100)):
        data = answer(Granted(wrong.certificate), request)
        with pytest.raises(BadAnswer):
            read_answer(data, request, pair, TrustStore([ROOT.der]), NOW)


def test_attack_an_answer_by_somebody_else_or_to_somebody_else() -> None:
    request, person, pair = asker(ALICE, CODE)
    other, _, other_pair = asker(BOB, CODE, 102)
    trust = TrustStore([ROOT.der])
    stranger = Issuer(9).person(authority_address(FINGERPRINT), 2)
    for data in (
        answer(Granted(person.certificate), request, by=person),
        answer(Granted(person.certificate), request, by=stranger),
        answer(Declined("no"), other),
    ):
        with pytest.raises(BadAnswer):
            read_answer(data, request, pair, trust, NOW)
    with pytest.raises(BadAnswer):
        read_answer(answer(Declined("no"), request), request, other_pair, trust, NOW)


@given(st.data())
def test_a_changed_answer_is_not_believed(data: st.DataObject) -> None:
    request, person, pair = asker(ALICE, CODE)
    good = answer(Granted(person.certificate), request)
    place = data.draw(st.integers(0, len(good) - 1))
    bad = good[:place] + bytes([good[place] ^ data.draw(st.integers(1, 255))]) + good[place + 1 :]
    with pytest.raises(BadAnswer):
        read_answer(bad, request, pair, TrustStore([ROOT.der]), NOW)


@given(st.binary(max_size=200))
def test_whatever_a_node_says_is_the_answer_or_none(data: bytes) -> None:
    request, _, pair = asker(ALICE, CODE)
    with pytest.raises(BadAnswer):
        read_answer(data, request, pair, TrustStore([ROOT.der]), NOW)


def test_attack_a_refusal_that_is_shown_again_does_not_hide_the_certificate() -> None:
    granted = Granted(b"certificate")
    assert best_answer([(2, granted), (3, Declined("no"))]) == granted
    assert best_answer([(2, Declined("old")), (3, Declined("new"))]) == Declined("new")
    assert best_answer([]) is None


def test_where_the_answer_lies_is_known_only_with_code_and_key() -> None:
    request, _, _ = asker(ALICE, CODE)
    assert request.key == enrolment_key(CODE, request.public_key)
    assert len({request.key, enrolment_key(CODE[:-1] + b"x", request.public_key), enrolment_key(CODE, bytes(32))}) == 3
