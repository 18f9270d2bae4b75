"""Keys are neither lost nor shown."""

from __future__ import annotations

import errno
import fcntl
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import durable
from storage.user import keyring
from storage.user.keyring import (
    Contents,
    EncryptionKey,
    IdentityKey,
    Keyring,
    KeyringBusy,
    KeyringDamaged,
    KeyringError,
    KeyringExists,
    KeyringReplaced,
    NoKeyring,
    PassphraseChanged,
    PassphraseNeeded,
    PendingJoin,
    WrongPassphrase,
)
from storage.user.keyring_contents import merged, without_keys

EVE = IdentityKey("eve@example.org", b"k" * 32, b"certificate")
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


def test_a_folder_for_it_is_made(tmp_path: Path) -> None:
    Keyring.create(tmp_path / "new" / "keyring", None).set_identity(EVE)
    assert Keyring.open(tmp_path / "new" / "keyring", None).identity == EVE


def test_the_file_is_for_the_user_alone(path: Path) -> None:
    Keyring.create(path, None).set_identity(EVE)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.with_name("keyring.lock").stat().st_mode & 0o777 == 0o600


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


LIMITS = {"memory": (8, 1_048_576), "passes": (1, 64), "lanes": (1, 64)}


@pytest.mark.parametrize(("field", "least", "most"), [(field, *limits) for field, limits in LIMITS.items()])
def test_what_a_file_may_ask_for_has_limits(path: Path, field: str, least: int, most: int) -> None:
    Keyring.create(path, "correct horse")
    document = msgspec.msgpack.decode(path.read_bytes())
    for value, allowed in ((least - 1, False), (least, True), (most, True), (most + 1, False)):
        document["protection"][field] = value
        path.write_bytes(msgspec.msgpack.encode(document))
        if allowed:
            assert Keyring.is_protected(path)
        else:
            with pytest.raises(KeyringDamaged):
                Keyring.is_protected(path)


PROTECTED = bytes.fromhex(
    "84a6666f726d6174b17032706d61696c206b657972696e672031aa70726f74656374696f6e85a473616c74c410000102030405060708090a0b"
    "0c0d0e0fa66d656d6f727908a670617373657301a56c616e657304a5636865636bc410c3f23d20fffb0b1f00eb4b5058f398f9a56e6f6e6365"
    "c40cdea777e6ef11c59f2f6f80e7a7636f6e74656e74c4709a9d96ae8c3924e935d269d2f8be59519cbf531b75a4a48177cd38e847dd6b59fc"
    "a26ac79b25df79cf21d244eb01de61fe5c49192d4a21780fe52b2976ea744895b5812eb4fcc9b94413d4beb2d5e6c59e7f554c4412f0f12e83"
    "39f6c28def39f4eb910bbccdf26d14986fbcf0b2947c"
)
"""An empty keyring, protected by "p\u00e4ss" with 8 KiB (of which Argon2 makes 32 for 4 lanes) and one pass."""


def test_a_protected_file_of_today_opens_for_ever(path: Path) -> None:
    path.write_bytes(PROTECTED)
    opened = Keyring.open(path, "pa\u0308ss")
    assert (opened.contents, opened.contents.version) == (Contents(), 1)
    with pytest.raises(WrongPassphrase):
        Keyring.open(path, "pass")


@pytest.mark.parametrize("passphrase", ["correct horse", None])
def test_contents_that_nobody_sealed_or_that_are_none_are_not_believed(path: Path, passphrase: str | None) -> None:
    Keyring.create(path, passphrase)
    document = msgspec.msgpack.decode(path.read_bytes())
    forged = msgspec.msgpack.encode(Contents(EVE)) if passphrase else b"junk"
    path.write_bytes(msgspec.msgpack.encode({**document, "content": forged}))
    with pytest.raises(KeyringDamaged):
        Keyring.open(path, passphrase)


def test_each_writing_has_a_nonce_of_its_own(path: Path) -> None:
    made = Keyring.create(path, "correct horse")
    nonces = {msgspec.msgpack.decode(path.read_bytes())["nonce"]}
    for identity in (EVE, replace(EVE, certificate=b"newer")):
        made.set_identity(identity)
        nonces.add(msgspec.msgpack.decode(path.read_bytes())["nonce"])
    assert [len(nonce) for nonce in nonces] == [12, 12, 12]


def test_a_file_of_16_mib_opens_and_one_of_a_byte_more_is_damaged(path: Path) -> None:
    Keyring.create(path, None)
    document = msgspec.msgpack.decode(path.read_bytes())

    def written(certificate: bytes) -> int:
        content = msgspec.msgpack.encode(Contents(replace(EVE, certificate=certificate)))
        return path.write_bytes(msgspec.msgpack.encode({**document, "content": content}))

    longest = bytes(16_000_000 + 16_777_216 - written(bytes(16_000_000)))
    assert written(longest) == 16_777_216
    assert Keyring.open(path, None).contents.identity == replace(EVE, certificate=longest)
    written(longest + b"x")
    with pytest.raises(KeyringDamaged):
        Keyring.open(path, None)


def test_too_little_memory_for_the_passphrase_is_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Keyring.create(path, "correct horse")

    def none_free(**_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(keyring, "Argon2id", none_free)
    with pytest.raises(KeyringError, match="memory"):
        Keyring.open(path, "correct horse")


def test_what_can_not_be_read_is_said_and_is_not_taken_for_a_missing_keyring(path: Path) -> None:
    path.mkdir()
    with pytest.raises(KeyringError, match="can't be read") as caught:
        Keyring.open(path, None)
    assert not isinstance(caught.value, NoKeyring)


@pytest.mark.parametrize("where", ["file", "protection"])
def test_a_file_with_more_in_it_is_not_written_over_without_that(path: Path, where: str) -> None:
    made = Keyring.create(path, "correct horse")
    document = msgspec.msgpack.decode(path.read_bytes())
    (document if where == "file" else document["protection"])["newer"] = 1
    path.write_bytes(msgspec.msgpack.encode(document))
    with pytest.raises(KeyringDamaged):
        made.set_identity(EVE)
    assert msgspec.msgpack.decode(path.read_bytes()) == document


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


def test_a_key_that_is_replaced_retires_and_its_bytes_are_gone_when_it_is_destroyed(path: Path) -> None:
    made = Keyring.create(path, None)
    newer = EncryptionKey(b"key 2", b"seeds 2", 200.0)
    newest = EncryptionKey(b"key 3", b"seeds 3", 300.0)
    made.add_encryption_key(KEY)
    made.add_encryption_key(newer, retire_others_after=1000.0)
    made.add_encryption_key(newest, retire_others_after=2000.0)
    assert [key.retire_after for key in made.encryption_keys] == [1000.0, 2000.0, None]
    made.change(lambda before: without_keys(before, [b"key 1"]))
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


# Several processes on one file


KEY_2 = EncryptionKey(b"key 2", b"seeds 2", 200.0)
KEY_3 = EncryptionKey(b"key 3", b"seeds 3", 300.0)
RENEWED = replace(EVE, certificate=b"certificate of next year")


def version(path: Path) -> int:
    return Keyring.open(path, None).contents.version


def test_a_change_is_applied_to_what_another_process_has_written(path: Path) -> None:
    reader = Keyring.create(path, "correct horse")
    reader.set_identity(EVE)
    reader.add_encryption_key(KEY)
    join = Keyring.open(path, "correct horse")
    join.set_identity(RENEWED)
    join.add_encryption_key(KEY_2, retire_others_after=99.0)
    reader.add_encryption_key(KEY_3, retire_others_after=199.0)
    kept = Keyring.open(path, "correct horse").contents
    assert kept.identity == RENEWED
    assert [(key.key_id, key.retire_after) for key in kept.encryption_keys] == [
        (b"key 1", 99.0),
        (b"key 2", 199.0),
        (b"key 3", None),
    ]


def test_a_process_sees_at_its_next_look_what_another_has_written(path: Path) -> None:
    reader = Keyring.create(path, None)
    other = Keyring.open(path, None)
    other.set_identity(EVE)
    other.add_encryption_key(KEY)
    assert reader.identity == EVE
    assert reader.encryption_keys == (KEY,)


def test_a_version_counts_the_writings_of_all_and_only_grows(path: Path) -> None:
    first = Keyring.create(path, None)
    second = Keyring.open(path, None)
    versions = [version(path)]
    for keyring_, key in ((first, KEY), (second, KEY_2), (first, KEY_3)):
        keyring_.add_encryption_key(key)
        versions.append(version(path))
    assert versions == [1, 2, 3, 4]
    first.change(lambda contents: contents)
    assert version(path) == 4


def test_an_older_copy_put_in_its_place_loses_no_key_and_is_told(path: Path) -> None:
    running = Keyring.create(path, None)
    told: list[str] = []
    running.tell = told.append
    running.set_identity(EVE)
    running.add_encryption_key(KEY)
    backup = path.read_bytes()
    running.set_identity(RENEWED)
    running.add_encryption_key(KEY_2, retire_others_after=99.0)
    path.write_bytes(backup)
    assert [key.key_id for key in running.encryption_keys] == [b"key 1", b"key 2"]
    kept = Keyring.open(path, None).contents
    assert kept.identity == RENEWED and kept.earlier == (EVE.certificate,)
    assert kept.encryption_keys == (replace(KEY, retire_after=99.0), KEY_2)
    assert kept.version == 6
    assert len(told) == 1 and "older copy" in told[0]


def test_what_was_put_together_with_an_older_copy_is_written_once(path: Path) -> None:
    running = Keyring.create(path, None)
    running.tell = lambda words: None
    running.set_identity(EVE)
    backup = path.read_bytes()
    running.add_encryption_key(KEY)
    path.write_bytes(backup)
    assert running.encryption_keys == (KEY,)
    running.change(lambda contents: contents)
    assert version(path) == 4


def test_a_file_that_nobody_else_has_written_is_not_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Keyring.create(path, None)
    made.set_identity(EVE)
    opened = Keyring.open(path, None)
    looked = Keyring.open(path, None)
    made.add_encryption_key(KEY)
    assert looked.encryption_keys == (KEY,)
    opened.change(lambda contents: contents)
    monkeypatch.setattr(keyring, "_read", lambda _: pytest.fail("it was read again"))
    assert made.encryption_keys == opened.encryption_keys == looked.encryption_keys == (KEY,)


def test_an_older_copy_does_not_bring_back_a_key_whose_time_was_over(path: Path) -> None:
    running = Keyring.create(path, None)
    running.add_encryption_key(KEY)
    backup = path.read_bytes()
    running.add_encryption_key(KEY_2, retire_others_after=99.0)
    running.change(lambda before: without_keys(before, [b"key 1"]))
    path.write_bytes(backup)
    assert running.encryption_keys == (KEY_2,)
    assert Keyring.open(path, None).encryption_keys == (KEY_2,)


def test_a_key_that_another_program_dropped_before_its_time_is_put_back(path: Path) -> None:
    running = Keyring.create(path, None)
    running.add_encryption_key(KEY)
    document = msgspec.msgpack.decode(path.read_bytes())
    careless = replace(running.contents, encryption_keys=(KEY_2,), version=99)
    path.write_bytes(msgspec.msgpack.encode({**document, "content": msgspec.msgpack.encode(careless)}))
    assert [key.key_id for key in running.encryption_keys] == [b"key 1", b"key 2"]
    kept = Keyring.open(path, None).contents
    assert [key.key_id for key in kept.encryption_keys if key.retire_after is None] == [b"key 2"]
    assert (len(kept.encryption_keys), kept.version) == (2, 100)


def test_a_keyring_that_vanished_is_written_again_with_the_next_change(path: Path) -> None:
    running = Keyring.create(path, None)
    running.set_identity(EVE)
    path.unlink()
    assert running.identity == EVE
    running.add_encryption_key(KEY)
    assert Keyring.open(path, None).contents == Contents(EVE, (KEY,))
    opened = Keyring.open(path, None)
    path.unlink()
    assert opened.change(lambda contents: contents) == Contents(EVE, (KEY,))
    assert Keyring.open(path, None).contents == Contents(EVE, (KEY,))


def test_somebody_elses_keyring_in_its_place_is_not_mixed_with_it(path: Path, tmp_path: Path) -> None:
    running = Keyring.create(path, None)
    running.set_identity(EVE)
    other = Keyring.create(tmp_path / "other", None)
    other.set_identity(replace(EVE, address="mallory@example.org"))
    path.write_bytes((tmp_path / "other").read_bytes())
    with pytest.raises(KeyringReplaced, match="mallory"):
        running.add_encryption_key(KEY)
    assert path.read_bytes() == (tmp_path / "other").read_bytes()


def test_a_passphrase_that_another_process_changed_stops_changes_and_loses_nothing(path: Path) -> None:
    running = Keyring.create(path, "old")
    told: list[str] = []
    running.tell = told.append
    running.set_identity(EVE)
    other = Keyring.open(path, "old")
    other.change_passphrase("new")
    other.add_encryption_key(KEY)
    assert running.identity == EVE
    assert running.identity == EVE
    assert len(told) == 1 and "start p2pmail again" in told[0]
    with pytest.raises(PassphraseChanged):
        running.add_encryption_key(KEY_2)
    assert Keyring.open(path, "new").contents == Contents(EVE, (KEY,))


def test_who_changes_the_passphrase_keeps_what_another_process_has_written(path: Path) -> None:
    running = Keyring.create(path, "old")
    Keyring.open(path, "old").add_encryption_key(KEY)
    running.change_passphrase("new")
    assert Keyring.open(path, "new").encryption_keys == (KEY,)


def test_a_passphrase_that_another_process_took_away_is_no_hindrance(path: Path) -> None:
    running = Keyring.create(path, "old")
    Keyring.open(path, "old").change_passphrase(None)
    running.add_encryption_key(KEY)
    assert Keyring.open(path, None).encryption_keys == (KEY,)


def test_a_damaged_file_is_not_written_over_by_a_process_that_had_it_open(path: Path) -> None:
    running = Keyring.create(path, None)
    running.tell = lambda words: None
    running.set_identity(EVE)
    path.write_bytes(b"half of a ba")
    assert running.identity == EVE
    with pytest.raises(KeyringDamaged):
        running.add_encryption_key(KEY)
    assert path.read_bytes() == b"half of a ba"


def test_a_change_waits_for_another_process_and_says_so_when_that_takes_too_long(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Keyring.create(path, None)
    monkeypatch.setattr(keyring, "LOCK_WAIT", -1.0)
    with path.with_name("keyring.lock").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(KeyringBusy):
            made.set_identity(EVE)
    assert made.identity is None
    made.set_identity(EVE)


def test_another_process_is_waited_for_ten_seconds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Keyring.create(path, None)
    slept: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: 1000.0 + sum(slept), sleep=slept.append)
    monkeypatch.setattr("storage.user.keyring.time", clock)
    with path.with_name("keyring.lock").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(KeyringBusy):
            made.set_identity(EVE)
    assert 10.0 <= sum(slept) <= 10.02
    assert max(slept) <= 0.01


def test_a_file_of_before_there_were_versions_opens_and_gets_one(path: Path) -> None:
    """As written at 5f2864b: no version, no counted time."""
    key = {"key_id": b"key 1", "secret": b"seeds 1", "created": 100.0, "retire_after": 900.0}
    who = {"address": EVE.address, "private_key": EVE.private_key, "certificate": EVE.certificate}
    old = {"identity": who, "encryption_keys": [key], "pending": None, "earlier": [b"last year's"]}
    document = {"format": "p2pmail keyring 1", "protection": None, "nonce": b"", "content": msgspec.msgpack.encode(old)}
    path.write_bytes(msgspec.msgpack.encode(document))
    opened = Keyring.open(path, None)
    assert opened.contents == Contents(EVE, (replace(KEY, retire_after=900.0),), None, (b"last year's",))
    opened.add_encryption_key(KEY_2)
    assert version(path) == 1
    assert Keyring.open(path, None).encryption_keys == (replace(KEY, retire_after=900.0), KEY_2)


KEYS = [KEY, KEY_2, KEY_3]


@st.composite
def some_contents(draw: st.DrawFn) -> Contents:
    keys = tuple(
        replace(key, retire_after=draw(st.sampled_from([None, 1.0])), waited=draw(st.sampled_from([0.0, 5.0])))
        for key in draw(st.lists(st.sampled_from(KEYS), unique=True))
    )
    gone = draw(
        st.lists(st.sampled_from([b"key 4", *(k.key_id for k in KEYS if k.key_id not in {x.key_id for x in keys})]))
    )
    identity = draw(st.sampled_from([None, EVE, RENEWED]))
    return Contents(identity, keys, version=draw(st.integers(0, 3)), destroyed=tuple(dict.fromkeys(gone)))


@given(some_contents(), some_contents())
def test_of_two_versions_together_no_key_is_missing_that_nobody_destroyed(one: Contents, two: Contents) -> None:
    both = merged(one, two)
    destroyed = {*one.destroyed, *two.destroyed}
    ids = {key.key_id for key in (*one.encryption_keys, *two.encryption_keys)}
    assert {key.key_id for key in both.encryption_keys} == ids - destroyed
    assert set(both.destroyed) == destroyed
    assert both.version == max(one.version, two.version)
    assert (both.identity is None) == (one.identity is None and two.identity is None)
    again = merged(both, two)
    assert {key.key_id for key in again.encryption_keys} == {key.key_id for key in both.encryption_keys}


def test_a_passphrase_that_another_process_removed_is_gone_for_all(path: Path) -> None:
    made = Keyring.create(path, "secret")
    made.set_identity(EVE)
    other = Keyring.open(path, "secret")
    other.change_passphrase(None)
    made.add_encryption_key(KEY)
    assert not Keyring.is_protected(path)
    assert Keyring.open(path, None).contents == Contents(EVE, (KEY,))


@pytest.mark.parametrize(
    "planted",
    [
        Contents(version=99),
        Contents(encryption_keys=(EncryptionKey(b"key 2", b"mallory's seeds", 200.0),), version=99),
        Contents(IdentityKey(EVE.address, b"m" * 32, b"certificate"), (replace(KEY, secret=b"other"),), version=99),
    ],
)
def test_attack_an_unprotected_keyring_without_our_keys_takes_no_protection_away(path: Path, planted: Contents) -> None:
    """Mallory can write to the profile and doesn't know the passphrase."""
    made = Keyring.create(path, "secret")
    made.set_identity(EVE)
    told: list[str] = []
    made.tell = told.append
    path.write_bytes(msgspec.msgpack.encode(keyring._File(keyring._FORMAT, None, b"", msgspec.msgpack.encode(planted))))
    file = path.read_bytes()
    assert made.contents == Contents(EVE)
    with pytest.raises(KeyringReplaced, match="without a passphrase"):
        made.add_encryption_key(KEY)
    assert (made.contents, path.read_bytes()) == (Contents(EVE), file)
    assert any("without a passphrase" in words for words in told)
