"""The user's identity: the keys, and which of them the card offers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mail.identity import Identity, NotJoined
from mail.sealed.keys import ROTATION
from overlay.identity.card import open_card
from overlay.identity.certificates import TrustStore
from storage.user.keyring import IdentityKey as Certified
from storage.user.keyring import Keyring, WrongPassphrase
from storage.user.profile import Profile
from tests.overlay.issuing import DAY, NOW, Issuer


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    """Alice's protected keyring, with a certificate and without an encryption key."""
    profile = Profile(tmp_path, environ={})
    person = Issuer().person("alice@example.org")
    keyring = Keyring.create(profile.keyring_file, "secret")
    key = person.private_key.private_bytes_raw()
    keyring.set_identity(Certified("alice@example.org", key, person.certificate))
    return profile


def test_a_card_offers_the_key_in_use_and_is_signed_by_its_owner(profile: Profile) -> None:
    alice = Identity.open(profile, "secret")
    assert alice.rotate(NOW)
    card = open_card(alice.card(NOW), TrustStore([Issuer().der]), NOW)
    assert card.certificate.address == alice.address == "alice@example.org"
    assert list(alice.pairs()) == [card.key_id]
    assert card.sequence == NOW * 1000


def test_a_renewed_certificate_is_used_beside_the_new_one_until_it_ends(profile: Profile) -> None:
    alice = Identity.open(profile, "secret")
    first = alice.owner.certificate
    kept = alice.keyring.identity
    assert kept is not None
    renewed = Issuer().person("alice@example.org", serial=8, end=NOW + 700 * DAY)
    alice.keyring.set_identity(replace(kept, certificate=renewed.certificate))
    again = Identity.open(profile, "secret")
    assert again.owner.certificate == renewed.certificate
    assert [owner.certificate for owner in again.earlier(NOW)] == [first]
    assert again.earlier(NOW + 366 * DAY) == []


def test_a_key_changes_after_a_week_and_the_old_one_still_opens_mail(profile: Profile) -> None:
    alice = Identity.open(profile, "secret")
    alice.rotate(NOW)
    (old,) = alice.pairs()
    assert not alice.rotate(NOW + ROTATION - 1)
    assert alice.rotate(NOW + ROTATION)
    assert len(alice.pairs()) == 2
    assert open_card(alice.card(NOW + ROTATION), TrustStore([Issuer().der]), NOW + ROTATION).key_id != old


def test_a_new_key_is_on_disk_before_a_card_offers_it(profile: Profile) -> None:
    alice = Identity.open(profile, "secret")
    alice.rotate(NOW)
    assert Identity.open(profile, "secret").pairs().keys() == alice.pairs().keys()


def test_a_retired_keys_private_half_is_destroyed_after_retention_and_margin(profile: Profile) -> None:
    alice = Identity.open(profile, "secret")
    alice.rotate(NOW)
    (old,) = alice.pairs()
    for day in range(1, 7 + 37):
        alice.rotate(NOW + day * DAY)
    assert old in alice.pairs()
    alice.rotate(NOW + (7 + 37) * DAY)
    assert old not in alice.pairs()
    assert old not in Identity.open(profile, "secret").pairs()


def test_an_absence_of_months_counts_as_a_day_for_a_replaced_key(profile: Profile) -> None:
    alice = Identity.open(profile, "secret")
    alice.rotate(NOW)
    (old,) = alice.pairs()
    alice.rotate(NOW + 8 * DAY)
    for months in range(1, 37):
        alice.rotate(NOW + (8 + 30 * months) * DAY)
    assert old in alice.pairs()
    alice.rotate(NOW + (8 + 30 * 37) * DAY)
    assert old not in alice.pairs()


@pytest.mark.parametrize("jump", [60 * DAY, 400 * DAY, 3 * 3600.0, -60 * DAY, -400 * DAY])
def test_a_clock_that_jumps_at_every_start_destroys_no_key_before_its_time(profile: Profile, jump: float) -> None:
    alice = Identity.open(profile, "secret")
    alice.rotate(NOW)
    (old,) = alice.pairs()
    replaced = NOW + 7 * DAY
    alice.rotate(replaced)
    for day in range(1, 30):  # retention; the margin is for what clocks do
        alice.rotate(replaced + day * DAY + jump)
        alice.rotate(replaced + day * DAY)
    assert old in alice.pairs()


def test_one_jump_ahead_costs_a_day_of_the_margin_at_most(profile: Profile) -> None:
    alice = Identity.open(profile, "secret")
    alice.rotate(NOW)
    (old,) = alice.pairs()
    replaced = NOW + 7 * DAY
    alice.rotate(replaced)
    alice.rotate(replaced + 60 * DAY)
    for day in range(1, 36):
        alice.rotate(replaced + day * DAY)
        assert old in alice.pairs()


def test_a_clock_that_was_in_another_century_once_does_not_keep_keys_for_ever(profile: Profile) -> None:
    alice = Identity.open(profile, "secret")
    alice.rotate(NOW + 36_500 * DAY)
    (old,) = alice.pairs()
    for day in range(39):
        alice.rotate(NOW + day * DAY)
    assert old not in alice.pairs()


def test_two_processes_do_not_both_replace_a_key(profile: Profile) -> None:
    reader, watch = Identity.open(profile, "secret"), Identity.open(profile, "secret")
    assert reader.rotate(NOW)
    assert not watch.rotate(NOW)
    assert watch.rotate(NOW + ROTATION)
    assert not reader.rotate(NOW + ROTATION)
    assert reader.card(NOW + ROTATION) == watch.card(NOW + ROTATION)
    assert reader.pairs().keys() == watch.pairs().keys()


def test_counting_time_does_not_write_the_file_at_every_look(profile: Profile) -> None:
    alice = Identity.open(profile, "secret")
    alice.rotate(NOW)
    before = profile.keyring_file.read_bytes()
    alice.rotate(NOW + 3599)
    assert profile.keyring_file.read_bytes() == before


def test_a_clock_that_was_wrong_does_not_keep_a_key_for_ever(profile: Profile) -> None:
    alice = Identity.open(profile, "secret")
    alice.rotate(NOW + 400 * 86400)
    assert alice.rotate(NOW)


def test_a_profile_that_has_not_joined_has_no_address_and_no_card(tmp_path: Path) -> None:
    profile = Profile(tmp_path, environ={})
    Keyring.create(profile.keyring_file, None)
    nobody = Identity.open(profile, None)
    assert nobody.waiting
    for ask in (lambda: nobody.address, lambda: nobody.owner, lambda: nobody.card(NOW)):
        with pytest.raises(NotJoined):
            ask()


def test_a_wrong_passphrase_opens_nothing(profile: Profile) -> None:
    with pytest.raises(WrongPassphrase):
        Identity.open(profile, "wrong")
