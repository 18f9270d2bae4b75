"""The one door into the outbox: what is accepted is there once, with a copy in Sent; what isn't leaves nothing."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mail.identity import Identity
from mail.mime.addresses import Address
from mail.send import enqueue
from mail.send.enqueue import (
    CannotAccept,
    ClockWrong,
    NotCertified,
    accept,
    check_recipients,
    check_room,
    check_sender,
    check_size,
    finish_copies,
)
from mail.write.compose import Draft, Enclosure, compose, composed_size, encoded_size
from mail.write.submit_draft import accept_draft
from overlay.identity.certificates import parse_certificate
from storage import durable, space
from storage.database import DatabaseError
from storage.space import NoDiskSpace, require_room
from storage.user.folders import FolderError
from storage.user.keyring import IdentityKey as Certified
from storage.user.keyring import Keyring
from storage.user.outbox import AcceptanceUnknown, AlreadySent, Outbox
from storage.user.profile import Profile
from tests.overlay.issuing import NOW, Issuer

MESSAGE = b"Subject: the plan\r\nMessage-ID: <1@x.example>\r\n\r\nhello\r\n"
ALICE = Issuer().person("a@x.example", 1, serial=1)
LIMIT = 1_006_632_960


class Died(BaseException):
    """kill -9."""


class EnqueueingUser:
    """A profile whose owner hands in one message, as often as she likes."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.folders = profile.folders()
        self.outbox = Outbox(profile.outbox_file)

    def hands_it_in(self, now: float = NOW, message: bytes = MESSAGE, to: tuple[str, ...] = ("b@x.example",)) -> None:
        file = self.profile.root / "message"
        file.write_bytes(message)
        accept(
            self.outbox,
            self.folders,
            file,
            message_id="1@x.example",
            subject="the plan",
            sender="a@x.example",
            recipients=to,
            now=now,
            certificate=ALICE.certificate,
        )

    def starts_again(self) -> None:
        self.outbox.close()
        self.outbox = Outbox(self.profile.outbox_file)
        finish_copies(self.outbox, self.folders)

    def sent(self) -> list[bytes]:
        folder = self.folders.folder("Sent")
        return [(folder / place).read_bytes() for place in self.folders.places("Sent")]

    def accepted(self) -> list[bytes]:
        return [entry.file.read_bytes() for entry in self.outbox.entries()]

    def left(self) -> list[str]:
        """Files that an acceptance left anywhere but in its place."""
        tmp = self.folders.folder("Sent") / "tmp"
        known = {entry.file for entry in self.outbox.entries()}
        files = [file for file in self.outbox.folder.iterdir() if "sqlite" not in file.name and file not in known]
        return [file.name for file in (*files, *tmp.iterdir())]


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[EnqueueingUser]:
    profile = Profile(tmp_path / "anna")
    profile.create()
    sender = EnqueueingUser(profile)
    yield sender
    sender.outbox.close()


def test_a_message_handed_in_again_after_a_kill_has_one_copy_in_sent(sender: EnqueueingUser) -> None:
    sender.hands_it_in(now=NOW)
    sender.hands_it_in(now=NOW + 7.5)
    assert sender.sent() == sender.accepted() == [MESSAGE]
    assert sender.left() == []
    assert not (sender.profile.root / "message").exists(), "its bytes are on the disk once"


def test_a_copy_that_was_moved_and_flagged_meanwhile_is_not_made_again(sender: EnqueueingUser) -> None:
    sender.hands_it_in(now=NOW)
    (entry,) = sender.folders.scan("Sent")
    sender.folders.change_flags("Sent", entry.unique, "FS")
    sender.folders.move("Sent", entry.unique, "Archive")
    sender.hands_it_in(now=NOW + 7.5)
    sender.starts_again()
    assert sender.sent() == []


def test_another_message_with_its_message_id_is_refused_and_leaves_nothing(sender: EnqueueingUser) -> None:
    sender.hands_it_in()
    for message, to in ((MESSAGE + b"more\r\n", ("b@x.example",)), (MESSAGE, ("c@x.example",))):
        with pytest.raises(AlreadySent):
            sender.hands_it_in(message=message, to=to)
    assert sender.sent() == sender.accepted() == [MESSAGE]
    assert sender.left() == []


# -- a disk that refuses, a process that dies


class DiskFuse:
    """Counts what touches the disk, and goes off at the so many-th time."""

    def __init__(self, at: int, goes_off: Callable[[], None], *, for_good: bool) -> None:
        self.left, self._goes_off, self._for_good = at, goes_off, for_good

    def step(self) -> None:
        self.left -= 1
        if self.left == 0 or (self.left < 0 and self._for_good):
            self._goes_off()


def no_space() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def die() -> None:
    raise Died


class _FusedConnection:
    """A connection whose writes ask a fuse first. A commit that fails has done nothing, as SQLite's has."""

    def __init__(self, real: sqlite3.Connection, fuse: DiskFuse) -> None:
        self._real, self._fuse = real, fuse

    def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:
        if sql.startswith(("BEGIN", "INSERT", "UPDATE", "DELETE", "COMMIT")):
            try:
                self._fuse.step()
            except OSError as error:
                raise sqlite3.OperationalError("database or disk is full") from error
        return self._real.execute(sql, *parameters)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)


@contextmanager
def disk(outbox: Outbox, fuse: DiskFuse) -> Iterator[None]:
    """Every step of an acceptance that needs the disk asks the fuse first: data, syncs, names, commits."""
    real, fsync, replace_, opened = outbox._db._connection, os.fsync, Path.replace, os.open

    def sync(handle: int) -> None:
        fuse.step()
        fsync(handle)

    def rename(path: Path, target: Path) -> Path:
        fuse.step()
        return replace_(path, target)

    def open_(path: str, flags: int, mode: int = 0o777, **rest: int | None) -> int:
        if flags & os.O_CREAT:
            fuse.step()
        return opened(path, flags, mode, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", sync)
        patch.setattr(Path, "replace", rename)
        patch.setattr(os, "open", open_)
        patch.setattr(outbox._db, "_connection", _FusedConnection(real, fuse))
        yield


def moments(sender: EnqueueingUser) -> int:
    """How many steps an acceptance has."""
    fuse = DiskFuse(10_000, die, for_good=False)
    other = Profile(sender.profile.root.with_name("other"))
    other.create()
    with closing(Outbox(other.outbox_file)) as outbox:
        again = EnqueueingUser(other)
        again.outbox.close()
        again.outbox = outbox
        with disk(outbox, fuse):
            again.hands_it_in()
    return 10_000 - fuse.left


@pytest.mark.parametrize("for_good", [False, True])
def test_whatever_write_the_disk_refuses_the_answer_is_what_happened(tmp_path: Path, *, for_good: bool) -> None:
    step, accepted = 0, []
    while True:
        step += 1
        profile = Profile(tmp_path / f"{step}")
        profile.create()
        sender = EnqueueingUser(profile)
        fuse = DiskFuse(step, no_space, for_good=for_good)
        refused = False
        with disk(sender.outbox, fuse):
            try:
                sender.hands_it_in()
            except (OSError, DatabaseError):
                refused = True
        accepted.append(not refused)
        assert sender.accepted() == ([] if refused else [MESSAGE]), step
        if refused:
            assert sender.sent() == [], step
            assert sender.left() == [], step
            sender.hands_it_in()  # the caller's retry, when there is room again
        sender.starts_again()
        assert sender.accepted() == sender.sent() == [MESSAGE], step
        assert sender.left() == [], step
        sender.outbox.close()
        if fuse.left > 0:
            break
    assert accepted == sorted(accepted), "once accepted, nothing makes a refusal of it"
    assert accepted.count(False) >= 8
    assert accepted.count(True) >= 3


def test_a_kill_at_any_step_neither_doubles_nor_loses_anything(tmp_path: Path) -> None:
    step = 0
    while True:
        step += 1
        profile = Profile(tmp_path / f"{step}")
        profile.create()
        sender = EnqueueingUser(profile)
        fuse = DiskFuse(step, die, for_good=True)
        with disk(sender.outbox, fuse):
            try:
                sender.hands_it_in()
            except Died:
                pass
        sender.starts_again()
        assert sender.accepted() in ([], [MESSAGE]), step
        assert sender.sent() == sender.accepted(), step
        sender.hands_it_in()  # by a caller who heard no answer
        assert sender.accepted() == sender.sent() == [MESSAGE], step
        sender.outbox.close()
        if fuse.left > 0:
            break
    assert step > 12


def test_a_copy_whose_hidden_file_was_swept_is_made_from_the_outbox(sender: EnqueueingUser) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sender.folders, "publish", lambda *_: (_ for _ in ()).throw(Died()))
        with pytest.raises(Died):
            sender.hands_it_in()
    (hidden,) = (sender.folders.folder("Sent") / "tmp").iterdir()
    hidden.unlink()
    assert sender.sent() == []
    with pytest.MonkeyPatch.context() as patch:  # that it is made can't be noted: it is found at the next start
        patch.setattr(Outbox, "mark_copied", lambda *_: (_ for _ in ()).throw(DatabaseError("the disk is full")))
        sender.starts_again()
    sender.starts_again()
    assert sender.sent() == [MESSAGE]
    sender.starts_again()
    assert sender.sent() == [MESSAGE]


def test_a_copy_that_was_not_shown_is_when_the_message_is_handed_in_again(
    sender: EnqueueingUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sender.folders, "publish", lambda *_: (_ for _ in ()).throw(FolderError("not now")))
        sender.hands_it_in()
    assert sender.sent() == []
    sender.hands_it_in()
    assert sender.sent() == sender.accepted() == [MESSAGE]
    assert sender.left() == []


def test_a_copy_that_is_swept_while_the_message_is_accepted_is_made_at_the_next_start(
    sender: EnqueueingUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock jumped by days between two steps."""
    with monkeypatch.context() as patch:
        real = sender.outbox.accept

        def accept_and_sweep(*args: Any, **kwargs: Any) -> bool:
            new = real(*args, **kwargs)
            sender.folders.unstage("Sent", kwargs["copy"])
            return new

        patch.setattr(sender.outbox, "accept", accept_and_sweep)
        sender.hands_it_in()
    assert sender.sent() == []
    sender.starts_again()
    assert sender.sent() == [MESSAGE]


def test_a_commit_that_reports_a_failure_and_is_there_is_an_acceptance(
    sender: EnqueueingUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sender.outbox._db.write

    def write(action: Callable[[sqlite3.Connection], object]) -> object:
        real(action)
        raise DatabaseError("the disk failed at the last moment")

    with monkeypatch.context() as patch:
        patch.setattr(sender.outbox._db, "write", write)
        sender.hands_it_in()
    sender.starts_again()
    assert sender.accepted() == sender.sent() == [MESSAGE]


def test_when_nobody_can_say_whether_it_was_accepted_that_is_said_and_nothing_is_lost(
    sender: EnqueueingUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> None:
        raise DatabaseError("the disk failed")

    real = sender.outbox._db.write
    with monkeypatch.context() as patch:
        patch.setattr(sender.outbox._db, "write", lambda action: fails(real(action)))
        patch.setattr(sender.outbox._db, "read", fails)
        with pytest.raises(AcceptanceUnknown, match=r"isn't known .* 1@x"):
            sender.hands_it_in()
    sender.starts_again()
    assert sender.accepted() == sender.sent() == [MESSAGE]


def test_from_another_file_system_a_message_is_copied(sender: EnqueueingUser, monkeypatch: pytest.MonkeyPatch) -> None:
    real = durable.move

    def move(source: Path, target: Path) -> None:
        if source.name == "message":
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real(source, target)

    monkeypatch.setattr(durable, "move", move)
    sender.hands_it_in()
    assert sender.accepted() == sender.sent() == [MESSAGE]


# -- limits


def test_10000_recipients_are_accepted_and_10001_and_0_are_not(sender: EnqueueingUser) -> None:
    check_recipients(10_000)
    check_recipients(1)
    everybody = tuple(f"reader{number}@x.example" for number in range(10_001))
    for recipients in (everybody, ()):
        with pytest.raises(CannotAccept, match="not accepted"):
            sender.hands_it_in(to=recipients)
    assert sender.accepted() == sender.sent() == []
    assert sender.left() == []
    sender.hands_it_in(to=(*everybody[:10_000], "READER0@x.example"))
    (entry,) = sender.outbox.entries()
    assert len(entry.recipients) == 10_000


def test_960_mib_are_accepted_and_a_byte_more_is_refused_before_the_disk_is_used(sender: EnqueueingUser) -> None:
    check_size(LIMIT)
    with pytest.raises(CannotAccept, match=r"1,006,632,961 bytes .* 1,006,632,960 are allowed"):
        check_size(LIMIT + 1)
    file = sender.profile.root / "large"
    with file.open("wb") as out:
        out.truncate(LIMIT + 1)
    with pytest.raises(CannotAccept, match="960 MiB"):
        accept(
            sender.outbox,
            sender.folders,
            file,
            message_id="1@x",
            subject="",
            sender="a@x.example",
            recipients=["b@x.example"],
            now=NOW,
            certificate=ALICE.certificate,
        )
    assert sender.left() == []


def test_a_disk_with_too_little_room_is_said_before_it_is_used(
    sender: EnqueueingUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "free_bytes", lambda _: 2_132_095)
    with pytest.raises(NoDiskSpace, match=r"2\.1 MB are needed and 2\.1 MB are free"):
        check_room(sender.outbox, sender.folders, 1_000_000, 1, composed=True)
    monkeypatch.setattr(space, "free_bytes", lambda _: 2_132_096)
    check_room(sender.outbox, sender.folders, 1_000_000, 1, composed=True)
    monkeypatch.setattr(space, "free_bytes", lambda _: 1_132_096)
    check_room(sender.outbox, sender.folders, 1_000_000, 1)  # only the copy in Sent is still to be made
    monkeypatch.setattr(space, "free_bytes", lambda _: 3_155_071)
    with pytest.raises(NoDiskSpace):
        check_room(sender.outbox, sender.folders, 1_000_000, 1000, composed=True)
    monkeypatch.setattr(space, "free_bytes", lambda _: 3_155_072)
    check_room(sender.outbox, sender.folders, 1_000_000, 1000, composed=True)
    monkeypatch.setattr(space, "free_bytes", lambda _: 1000)
    with pytest.raises(NoDiskSpace, match="Nothing was kept"):
        sender.hands_it_in()
    assert sender.accepted() == sender.sent() == []
    assert sender.left() == []


def test_room_is_counted_for_each_file_system(tmp_path: Path) -> None:
    require_room({tmp_path / "not" / "there": 5, tmp_path: 5}, lambda _: 10)
    with pytest.raises(NoDiskSpace):
        require_room({tmp_path / "not" / "there": 5, tmp_path: 6}, lambda _: 10)


def test_who_has_no_valid_certificate_is_told_so_at_once(sender: EnqueueingUser) -> None:
    opened = parse_certificate(ALICE.certificate)
    check_sender(ALICE.certificate, opened.not_before)
    check_sender(ALICE.certificate, opened.not_after - 1)
    with pytest.raises(NotCertified, match=r"ended on \d{4}-\d\d-\d\d.* invite"):
        sender.hands_it_in(now=opened.not_after)
    with pytest.raises(ClockWrong, match=r"made on \d{4}-\d\d-\d\d.* set the clock"):
        sender.hands_it_in(now=opened.not_before - 1)
    assert sender.accepted() == sender.sent() == []


# -- what was written on the screen


@pytest.fixture
def identity(sender: EnqueueingUser) -> Identity:
    keyring = Keyring.create(sender.profile.keyring_file, None)
    keyring.set_identity(Certified("a@x.example", bytes(32), ALICE.certificate))
    return Identity(keyring)


def draft(*enclosures: Enclosure, to: int = 1) -> Draft:
    people = tuple(Address("", f"reader{number}@x.example") for number in range(to))
    return Draft(Address("Alice", "a@x.example"), people, subject="the plan", text="hello\n", enclosures=enclosures)


def sparse(path: Path, size: int) -> Enclosure:
    with path.open("wb") as out:
        out.truncate(size)
    return Enclosure(path)


def test_a_message_from_the_screen_is_accepted(sender: EnqueueingUser, identity: Identity, tmp_path: Path) -> None:
    (tmp_path / "plan.bin").write_bytes(bytes(1000))
    message_id = accept_draft(
        sender.outbox, sender.profile, identity, draft(Enclosure(tmp_path / "plan.bin"), to=1001), NOW
    )
    (entry,) = sender.outbox.entries()
    assert (entry.message_id, len(entry.recipients)) == (message_id, 1001)
    assert sender.accepted() == sender.sent()
    assert list(sender.profile.spool.iterdir()) == []


def test_the_screen_refuses_what_the_command_refuses_before_anything_is_composed(
    sender: EnqueueingUser, identity: Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mail.write.submit_draft.compose", lambda *_, **__: pytest.fail("it was composed"))
    for refused, words in (
        (draft(sparse(tmp_path / "video.bin", 740_000_000)), "960 MiB"),
        (draft(to=10_001), "10,001 recipients"),
    ):
        with pytest.raises(CannotAccept, match=words):
            accept_draft(sender.outbox, sender.profile, identity, refused, NOW)
    with pytest.raises(NotCertified):
        accept_draft(sender.outbox, sender.profile, identity, draft(), 9e9)
    monkeypatch.setattr(space, "free_bytes", lambda _: 1000)
    with pytest.raises(NoDiskSpace):
        accept_draft(sender.outbox, sender.profile, identity, draft(), NOW)
    assert sender.accepted() == sender.sent() == []


def test_an_attachment_that_grows_while_it_is_composed_is_stopped_at_the_limit(
    sender: EnqueueingUser, identity: Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enqueue, "ORIGINAL_LIMIT", 500_000)
    monkeypatch.setattr("mail.write.submit_draft.composed_size", lambda _: 0)
    with pytest.raises(CannotAccept):
        accept_draft(sender.outbox, sender.profile, identity, draft(sparse(tmp_path / "a", 1_000_000)), NOW)
    assert list(sender.profile.spool.iterdir()) == []


@pytest.mark.parametrize("size", [0, 1, 2, 3, 56, 57, 58, 114, 116_736, 116_737, 1_000_001])
def test_the_size_of_an_attachment_is_known_before_it_is_encoded(size: int, tmp_path: Path) -> None:
    message = draft(sparse(tmp_path / "a.bin", size))
    without = draft(sparse(tmp_path / "b.bin", 0))
    sizes = []
    for each in (without, message):
        with (tmp_path / "out").open("wb") as out:
            compose(out, each, message_id="1@x", now=lambda: NOW, token=lambda size: "0" * size)
            sizes.append(out.tell())
    assert sizes[1] - sizes[0] == encoded_size(size)
    assert composed_size(message) - composed_size(replace(without)) == encoded_size(size)
