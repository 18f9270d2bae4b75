"""Who the user is: her keys, and which of them her card offers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mail.identity import Identity, NotJoined
from mail.keys import MARGIN, RETENTION, ROTATION
from overlay.card import open_card
from overlay.certificates import TrustStore
from storage.keyring import Identity as Certified
from storage.keyring import Keyring, WrongPassphrase
from storage.profile import Profile
from tests.overlay.issuing import DAY, NOW, Issuer


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    """Alice's, with a certificate and no encryption key yet; protected."""
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
    replaced = NOW + ROTATION
    alice.rotate(replaced)
    alice.rotate(replaced + RETENTION + MARGIN - 1)
    assert old in alice.pairs()
    alice.rotate(replaced + RETENTION + MARGIN + 1)
    assert old not in alice.pairs()
    assert old not in Identity.open(profile, "secret").pairs()


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
