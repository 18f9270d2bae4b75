"""The directory chooses the right card whatever nodes answer."""

from __future__ import annotations

import pytest

from mail.directory import FRESH, UnknownAddress
from mail.sealed.keys import generate_pair
from overlay.errors import Unreachable
from overlay.identity.card import make_card
from overlay.identity.certificates import CertificateError
from overlay.ids import Kind, certificate_key
from tests.mail.fakes import FailAt
from tests.mail.user_agents import UserAgent, UserAgentNetwork
from tests.overlay.issuing import NOW, Issuer


def hand_out(world: UserAgentNetwork, address: str, *cards: bytes) -> None:
    """Let each node hold one of these cards under the address."""
    key = (Kind.CERTIFICATE, certificate_key(address))
    for node in world.nodes:
        node.objects.pop(key, None)
    for number, card in enumerate(cards):
        world.nodes[number].objects[key] = {bytes([number]): (card, set())}


def card_of(user_agent: UserAgent, milliseconds: int) -> bytes:
    return make_card(user_agent.owner, generate_pair(NOW).public, milliseconds)


async def test_a_published_card_is_found(alice: UserAgent, bob: UserAgent) -> None:
    card = await alice.directory.card(bob.address)
    assert (card.certificate.address, card.encryption_key) == (bob.address, bob.pair.public)


async def test_the_newest_of_the_cards_that_nodes_have_counts(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    stamp = int(NOW * 1000)
    hand_out(world, bob.address, card_of(bob, stamp - 2), card_of(bob, stamp), card_of(bob, stamp - 1))
    assert (await alice.directory.card(bob.address)).sequence == stamp


async def test_cards_that_are_not_hers_are_passed_over(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, carol: UserAgent
) -> None:
    stamp = int(NOW * 1000)
    foreign = Issuer(2).person(bob.address, 9)
    another_authoritys = make_card(foreign, generate_pair(NOW).public, stamp + 9)
    good = card_of(bob, stamp)
    hand_out(world, bob.address, b"nonsense", card_of(carol, stamp + 5), another_authoritys, good[:-1] + b"x", good)
    assert (await alice.directory.card(bob.address)).raw == good


async def test_an_address_that_nobody_has_a_valid_card_of_is_unknown(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    with pytest.raises(UnknownAddress, match="isn't known"):
        await alice.directory.card("nobody@example.org")
    hand_out(world, bob.address, b"nonsense")
    with pytest.raises(UnknownAddress, match="isn't valid"):
        await alice.directory.card(bob.address)


async def test_a_revoked_certificates_card_is_not_used(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    serial = alice.trust.verify(bob.owner.certificate, NOW).serial
    alice.trust.accept_revocations(world.issuer.revoke([serial], 1), NOW)
    with pytest.raises(UnknownAddress):
        await alice.directory.card(bob.address)


async def test_a_network_that_is_away_makes_no_address_unknown(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    world.set_down()
    with pytest.raises(Unreachable):
        await alice.directory.card(bob.address)


async def test_a_card_is_asked_for_again_when_it_is_no_longer_fresh(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    first = await alice.directory.card(bob.address)
    bob.new_key()
    world.clock.now += FRESH / 2
    await bob.publish()
    assert await alice.directory.card(bob.address) == first
    world.clock.now += FRESH
    assert (await alice.directory.card(bob.address)).key_id == bob.pair.key_id


async def test_a_card_that_was_fetched_under_a_clock_that_was_ahead_is_asked_for_again(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent
) -> None:
    world.clock.now += 60 * 86400.0
    await alice.directory.card(bob.address)
    world.clock.now -= 60 * 86400.0
    bob.new_key()
    world.clock.now += 1
    await bob.publish()
    assert (await alice.directory.card(bob.address)).key_id == bob.pair.key_id


@pytest.mark.parametrize("ahead", [0.0, 20 * 3600.0])
async def test_a_card_follows_one_that_was_made_under_a_clock_that_was_ahead(
    world: UserAgentNetwork, alice: UserAgent, bob: UserAgent, ahead: float
) -> None:
    world.clock.now += ahead
    await bob.directory.publish(card_of(bob, int(world.clock() * 1000)))
    world.clock.now -= ahead
    await bob.directory.publish_next(bob.address, lambda now: card_of(bob, int(now * 1000)))
    assert (await alice.directory.card(bob.address)).sequence == int((world.clock() + ahead) * 1000) + 1


async def test_our_own_card_is_checked_before_it_is_published(world: UserAgentNetwork, alice: UserAgent) -> None:
    with pytest.raises(CertificateError):
        await alice.directory.publish(b"nonsense")
    world.overlay.before = FailAt("store")
    with pytest.raises(Unreachable):
        await alice.directory.publish(card_of(alice, int(NOW * 1000)))


async def test_whether_our_card_is_still_kept_is_asked_of_the_nodes(world: UserAgentNetwork, alice: UserAgent) -> None:
    card = make_card(alice.owner, alice.pair.public, int(world.clock() * 1000) + 1)
    assert not await alice.directory.kept()
    await alice.directory.publish(card)
    assert await alice.directory.kept()
    world.nodes[0].objects.clear()
    assert not await alice.directory.kept()
