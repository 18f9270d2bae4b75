"""Keys are neither lost nor shown."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import durable, keyring
from storage.keyring import (
    Contents,
    EncryptionKey,
    Identity,
    Keyring,
    KeyringDamaged,
    KeyringError,
    KeyringExists,
    NoKeyring,
    PassphraseNeeded,
    PendingJoin,
    WrongPassphrase,
)

EVE = Identity("eve@example.org", b"k" * 32, b"certificate")
KEY = EncryptionKey(b"key 1", b"seeds 1", 100.0)


@pytest.fixture(autouse=True)
def cheap_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests don't need 64 MiB each; that the real figures are used is a test of its own."""
    monkeypatch.setattr(keyring, "MEMORY", 64)
    monkeypatch.setattr(keyring, "PASSES", 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keyring"


@pytest.mark.parametrize("passphrase", ["correct horse", "pässword", None])
def test_what_is_kept_is_there_when_it_is_opened_again(path: Path, passphrase: str | None) -> None:
    made = Keyring.create(path, passphrase)
    made.set_identity(EVE)
    made.add_encryption_key(KEY)
    opened = Keyring.open(path, passphrase)
    assert opened.contents == Contents(EVE, (KEY,))
    assert opened.protected == Keyring.is_protected(path) == (passphrase is not None)


def test_the_file_is_for_the_user_alone(path: Path) -> None:
    Keyring.create(path, None).set_identity(EVE)
    assert path.stat().st_mode & 0o777 == 0o600


def test_protected_keys_do_not_stand_in_the_file(path: Path) -> None:
    Keyring.create(path, "correct horse").set_identity(EVE)
    data = path.read_bytes()
    assert EVE.private_key not in data
    assert EVE.address.encode() not in data


def test_keys_do_not_show_in_a_traceback(path: Path) -> None:
    assert "kkk" not in repr(EVE)
    assert "seeds" not in repr(KEY)
    assert "kkk" not in repr(PendingJoin("eve@x", b"kkk", "invite", b"request", 0.0))


def test_another_passphrase_does_not_open_it(path: Path) -> None:
    Keyring.create(path, "correct horse")
    before = path.read_bytes()
    with pytest.raises(WrongPassphrase):
        Keyring.open(path, "correct house")
    with pytest.raises(WrongPassphrase):
        Keyring.open(path, "")
    with pytest.raises(PassphraseNeeded):
        Keyring.open(path, None)
    assert path.read_bytes() == before


def test_a_passphrase_may_be_typed_composed_or_decomposed(path: Path) -> None:
    Keyring.create(path, "pa\u0308ssword")
    assert Keyring.open(path, "p\u00e4ssword").protected


def test_a_passphrase_for_an_unprotected_keyring_is_not_minded(path: Path) -> None:
    Keyring.create(path, None).set_identity(EVE)
    assert Keyring.open(path, "anything").identity == EVE


def test_an_empty_passphrase_is_refused(path: Path) -> None:
    with pytest.raises(KeyringError, match="empty"):
        Keyring.create(path, "")
    assert not path.exists()


def test_a_keyring_is_never_written_over_by_a_new_one(path: Path) -> None:
    Keyring.create(path, None).set_identity(EVE)
    with pytest.raises(KeyringExists):
        Keyring.create(path, None)
    assert Keyring.open(path, None).identity == EVE


def test_a_missing_keyring_says_what_to_do(path: Path) -> None:
    with pytest.raises(NoKeyring, match="join"):
        Keyring.open(path, None)


def test_the_real_cost_of_a_guess_is_what_rfc_9106_recommends(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    Keyring.create(path, "correct horse")
    protection = msgspec.msgpack.decode(path.read_bytes())["protection"]
    assert (protection["memory"], protection["passes"], protection["lanes"]) == (64 * 1024, 3, 4)
    assert Keyring.open(path, "correct horse").protected


def test_the_parameters_stand_in_the_file_so_that_they_can_be_raised(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Keyring.create(path, "correct horse").set_identity(EVE)
    monkeypatch.setattr(keyring, "MEMORY", 128)
    opened = Keyring.open(path, "correct horse")
    assert opened.identity == EVE
    opened.change_passphrase("correct horse")
    assert msgspec.msgpack.decode(path.read_bytes())["protection"]["memory"] == 128


@pytest.mark.parametrize(
    ("field", "value"), [("memory", 1 << 40), ("passes", 10_000), ("lanes", 0), ("salt", b""), ("check", b"x")]
)
def test_a_file_that_asks_for_the_impossible_is_damaged(path: Path, field: str, value: object) -> None:
    Keyring.create(path, "correct horse")
    document = msgspec.msgpack.decode(path.read_bytes())
    document["protection"][field] = value
    path.write_bytes(msgspec.msgpack.encode(document))
    with pytest.raises(KeyringDamaged):
        Keyring.open(path, "correct horse")


def test_a_file_of_another_format_is_left_as_it_is(path: Path) -> None:
    Keyring.create(path, None)
    document = msgspec.msgpack.decode(path.read_bytes())
    path.write_bytes(msgspec.msgpack.encode({**document, "format": "p2pmail keyring 2"}))
    with pytest.raises(KeyringDamaged, match="keyring 2"):
        Keyring.open(path, None)


@given(at=st.integers(0), bit=st.integers(0, 7))
def test_a_changed_bit_is_always_noticed(tmp_path_factory: pytest.TempPathFactory, at: int, bit: int) -> None:
    path = tmp_path_factory.getbasetemp() / "changed"
    path.unlink(missing_ok=True)
    Keyring.create(path, "correct horse").set_identity(EVE)
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 1 << bit
    path.write_bytes(data)
    with pytest.raises((KeyringDamaged, WrongPassphrase)):
        Keyring.open(path, "correct horse")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_keyring_or_damaged(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(data)
    with pytest.raises(KeyringDamaged):
        Keyring.open(path, None)


def test_when_the_disk_is_full_nothing_changed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Keyring.create(path, "old")
    made.set_identity(EVE)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(durable, "write", full)
        with pytest.raises(OSError, match="No space"):
            made.add_encryption_key(KEY)
        with pytest.raises(OSError, match="No space"):
            made.change_passphrase("new")
    assert made.encryption_keys == ()
    made.save()
    assert Keyring.open(path, "old").contents == Contents(EVE)


def test_a_changed_passphrase_replaces_the_old_one(path: Path) -> None:
    made = Keyring.create(path, None)
    made.set_identity(EVE)
    made.change_passphrase("new")
    with pytest.raises(PassphraseNeeded):
        Keyring.open(path, None)
    made.add_encryption_key(KEY)
    assert Keyring.open(path, "new").contents == Contents(EVE, (KEY,))
    made.change_passphrase(None)
    assert Keyring.open(path, None).contents == Contents(EVE, (KEY,))


def test_a_key_that_is_replaced_retires_and_is_destroyed_in_its_time(path: Path) -> None:
    made = Keyring.create(path, None)
    newer = EncryptionKey(b"key 2", b"seeds 2", 200.0)
    newest = EncryptionKey(b"key 3", b"seeds 3", 300.0)
    made.add_encryption_key(KEY)
    made.add_encryption_key(newer, retire_others_after=1000.0)
    made.add_encryption_key(newest, retire_others_after=2000.0)
    assert [key.retire_after for key in made.encryption_keys] == [1000.0, 2000.0, None]
    assert made.destroy_retired(999.0) == 0
    assert made.destroy_retired(1000.0) == 1
    assert Keyring.open(path, None).encryption_keys == (
        EncryptionKey(b"key 2", b"seeds 2", 200.0, 2000.0),
        newest,
    )
    assert b"seeds 1" not in path.read_bytes()


def test_certificates_of_the_same_key_are_kept_when_they_are_renewed(path: Path) -> None:
    made = Keyring.create(path, None)
    for number in range(7):
        made.set_identity(replace(EVE, certificate=b"%d" % number))
        made.set_identity(replace(EVE, certificate=b"%d" % number))
    assert Keyring.open(path, None).contents.earlier == (b"2", b"3", b"4", b"5")
    made.set_identity(replace(EVE, private_key=b"another", certificate=b"7"))
    assert Keyring.open(path, None).contents.earlier == ()


def test_a_join_that_waits_survives_and_its_keys_become_the_users(path: Path) -> None:
    made = Keyring.create(path, "correct horse")
    pending = PendingJoin("eve@example.org", b"k" * 32, "invite", b"sealed request", 50.0, (KEY,))
    made.set_pending(pending)
    opened = Keyring.open(path, "correct horse")
    assert opened.pending == pending
    opened.set_identity(EVE)
    assert opened.contents == Contents(EVE, (KEY,), None)
    opened.set_pending(None)
