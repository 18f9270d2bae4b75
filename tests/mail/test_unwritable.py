"""Reading where nothing can be written: the commands that only look say what they would say elsewhere."""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import pytest

from mail.cli.main import main
from mail.mailbox import Mailbox
from storage.database import DatabaseError, connect
from storage.read_only_db import open_to_read
from storage.user.outbox import Envelope, Outbox
from storage.user.profile import Profile
from storage.user.state import UserState

NOBODY = 65534
COMMANDS = (
    ["list", "--json"],
    ["search", "hello"],
    ["unread-count"],
    ["show", "m1@x"],
    ["outbox"],
    ["status"],
    ["notices"],
)


def message(number: int) -> bytes:
    return f"From: a@x.example\r\nSubject: s{number}\r\nMessage-ID: <m{number}@x>\r\n\r\nhello\r\n".encode()


@pytest.fixture
def profile() -> Iterator[Profile]:
    """A profile where everybody may read, with a message that the index doesn't know yet."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    made = Profile(folder / "alice")
    made.create()
    for number in range(2):
        made.folders().add("Inbox", message(number))
    with closing(Mailbox(made)) as mailbox:
        mailbox.refresh()
    made.folders().add("Inbox", message(2))
    with closing(Outbox(made.outbox_file)) as outbox:
        outbox.accept(
            b"x", Envelope("o@x", subject="out", sender="a@x.example", recipients=["b@x.example"], created=1e9)
        )
    with closing(UserState(made.state_file)) as state:
        state.notices.add("Your certificate ends soon.", 1e9)
    yield made
    unlock(folder)
    shutil.rmtree(folder)


def lock(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        with suppress(FileNotFoundError):  # a log goes when its database is closed
            path.chmod(0o555 if path.is_dir() else 0o444)
    folder.chmod(0o555)


def unlock(folder: Path) -> None:
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            path.chmod(0o755 if path.is_dir() else 0o644)


def run(profile: Profile, command: list[str]) -> tuple[int, str, str]:
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as errors:
        code = main(["--profile", str(profile.root), *command])
    return code, out.getvalue(), errors.getvalue()


def run_without_writing(profile: Profile, command: list[str]) -> tuple[int, str, str]:
    """The same in a process that may write nothing there (root may write anywhere, so it becomes somebody else)."""
    run(profile, ["status"])  # somebody else may not be allowed to read Python's own files: they are read before
    lock(profile.root)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            if os.geteuid() == 0:
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            os.write(writing, json.dumps(run(profile, command)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    said = b"".join(iter(lambda: os.read(reading, 1 << 16), b""))
    os.close(reading)
    os.waitpid(child, 0)
    unlock(profile.root)
    code, out, errors = json.loads(said)
    return code, out, errors


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_commands_that_look_need_not_write(profile: Profile, command: list[str]) -> None:
    found = run_without_writing(profile, command)
    assert found == run(profile, command)
    assert found[0] == 0 and found[1]


def test_without_an_index_the_folders_are_read(profile: Profile) -> None:
    for name in profile.root.glob("index.sqlite*"):
        name.unlink()
    code, out, errors = run_without_writing(profile, ["list", "--json"])
    assert (code, errors) == (0, "")
    assert sorted(row["id"] for row in json.loads(out)) == ["<m0@x>", "<m1@x>", "<m2@x>"]


def test_where_nothing_was_ever_noted_there_are_no_notices(profile: Profile) -> None:
    for name in profile.root.glob("state.sqlite*"):
        name.unlink()
    assert run_without_writing(profile, ["notices", "--json"]) == (0, "[]\n", "")


def test_what_must_write_says_so_and_keeps_nothing(profile: Profile) -> None:
    code, _, errors = run_without_writing(profile, ["notices", "--seen"])
    assert code == 75
    assert "nothing was changed" in errors or "can't be" in errors


def database(folder: Path) -> Path:
    """A database whose last commit is in its log alone, as a crash leaves it."""
    source = folder / "source.sqlite"
    with closing(connect(source, "CREATE TABLE t(x)")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("INSERT INTO t VALUES('last')")
        for ending in ("", "-wal"):
            shutil.copyfile(f"{source}{ending}", f"{folder / 'found.sqlite'}{ending}")
    return folder / "found.sqlite"


def refuse_read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite refuses to read a log for which it would have to write an index, as on a read-only disk."""
    real = sqlite3.connect

    def refusing(name: object, *arguments: object, **settings: object) -> sqlite3.Connection:
        if str(name).endswith("?mode=ro"):
            raise sqlite3.OperationalError("unable to open database file")
        return real(name, *arguments, **settings)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(sqlite3, "connect", refusing)


def test_the_last_commit_is_read_from_a_log_that_can_not_be_opened_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = database(tmp_path)
    refuse_read_only(monkeypatch)
    connection, whole = open_to_read(path)
    with closing(connection):
        assert (connection.execute("SELECT x FROM t").fetchall(), whole) == ([("last",)], True)


def test_what_can_not_be_read_whole_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = database(tmp_path)
    refuse_read_only(monkeypatch)

    def no_room(**_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", no_room)
    connection, whole = open_to_read(path)
    with closing(connection):
        assert (connection.execute("SELECT x FROM t").fetchall(), whole) == ([], False)


def test_a_database_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.sqlite").write_bytes(b"nonsense" * 1000)
    for name in ("no.sqlite", "missing.sqlite"):
        with pytest.raises(DatabaseError, match="left as it is"):
            open_to_read(tmp_path / name)
