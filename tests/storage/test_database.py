"""storage/database.py: what is answered when, and that a failing disk is never a yes."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import database
from storage.database import Database, DatabaseDamaged, DatabaseError, check, connect

SCHEMA = "CREATE TABLE IF NOT EXISTS words (word TEXT PRIMARY KEY)"


class FailingConnection(sqlite3.Connection):
    """A connection whose statements are counted, and whose commits fail while `broken` says how."""

    statements: list[str]
    broken: sqlite3.Error | None = None

    def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
        self.__dict__.setdefault("statements", []).append(sql)
        if self.broken is not None and sql == "COMMIT":
            raise self.broken
        return super().execute(sql, parameters)  # type: ignore[arg-type]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> list[FailingConnection]:
    """The connections that are opened."""
    opened: list[FailingConnection] = []
    real = sqlite3.connect

    def open_disk(path: Path, **options: object) -> FailingConnection:
        connection = real(path, factory=FailingConnection, **options)  # type: ignore[call-overload]
        assert isinstance(connection, FailingConnection)
        opened.append(connection)
        return connection

    monkeypatch.setattr(sqlite3, "connect", open_disk)
    return opened


@pytest.fixture
def words(tmp_path: Path, disk: list[FailingConnection]) -> Iterator[Database]:
    opened = Database(tmp_path / "words.sqlite", SCHEMA)
    yield opened
    opened.close()


class BusyThread:
    """Keeps the database's thread busy, so that what is handed in meanwhile makes one group."""

    def __init__(self, held: Database) -> None:
        self._started = threading.Event()
        self._go = threading.Event()
        self._held = held

    async def __aenter__(self) -> None:
        def hold(_: sqlite3.Connection) -> None:
            self._started.set()
            self._go.wait(10)

        self._task = asyncio.ensure_future(self._held.read(hold))
        await asyncio.to_thread(self._started.wait, 10)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0)  # whatever was started has handed in its work
        self._go.set()
        await self._task


def every(connection: sqlite3.Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT word FROM words ORDER BY word")]


def on_disk(path: Path) -> list[str]:
    """What another process sees."""
    other = sqlite3.connect(path)
    try:
        return every(other)
    finally:
        other.close()


async def add(to: Database, word: str) -> str:
    def action(connection: sqlite3.Connection) -> str:
        connection.execute("INSERT INTO words VALUES (?)", (word,))
        return word

    return await to.write(action)


async def test_a_write_is_on_disk_when_it_is_answered(words: Database) -> None:
    assert await add(words, "a") == "a"
    assert on_disk(words.path) == ["a"]


async def test_the_log_is_synced_at_every_commit(words: Database) -> None:
    assert await words.read(lambda c: c.execute("PRAGMA journal_mode").fetchone()[0]) == "wal"
    assert await words.read(lambda c: c.execute("PRAGMA synchronous").fetchone()[0]) == 2


async def test_writes_of_one_moment_share_one_commit(words: Database, disk: list[FailingConnection]) -> None:
    disk[0].statements.clear()
    async with BusyThread(words):
        tasks = [asyncio.ensure_future(add(words, word)) for word in "abcdef"]
    assert await asyncio.gather(*tasks) == list("abcdef")
    assert disk[0].statements.count("COMMIT") == 1
    assert on_disk(words.path) == list("abcdef")


async def test_a_failing_action_undoes_itself_alone(words: Database) -> None:
    def half(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO words VALUES ('half')")
        raise LookupError("the other half")

    async with BusyThread(words):
        tasks = [asyncio.ensure_future(work) for work in (add(words, "a"), words.write(half), add(words, "b"))]
    assert await tasks[0] == "a"
    with pytest.raises(LookupError):
        await tasks[1]
    assert await tasks[2] == "b"
    assert on_disk(words.path) == ["a", "b"]


async def test_a_failing_action_alone_in_its_group_leaves_nothing(words: Database) -> None:
    await add(words, "a")

    def half(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO words VALUES ('half')")
        connection.execute("INSERT INTO words VALUES ('a')")

    with pytest.raises(sqlite3.IntegrityError):
        await words.write(half)
    assert await words.read(every) == ["a"]


@pytest.mark.parametrize("together", [1, 5])
async def test_a_failing_commit_refuses_every_write_of_its_group(
    words: Database, disk: list[FailingConnection], together: int
) -> None:
    await add(words, "before")
    async with BusyThread(words):
        disk[0].broken = sqlite3.OperationalError("disk I/O error")
        tasks = [asyncio.ensure_future(add(words, str(number))) for number in range(together)]
        reading = asyncio.ensure_future(words.read(every))
    for task in tasks:
        with pytest.raises(DatabaseError, match=r"disk I/O error.*nothing"):
            await task
    assert await reading == ["before"]  # a read doesn't depend on the commit, and sees nothing that wasn't committed
    disk[0].broken = None
    assert await words.read(every) == ["before"]
    assert await add(words, "after") == "after"
    assert on_disk(words.path) == ["after", "before"]


async def test_a_refusal_isnt_told_either_before_the_commit_that_it_rests_on(
    words: Database, disk: list[FailingConnection]
) -> None:
    def refuse_if_there(connection: sqlite3.Connection) -> None:
        if every(connection):
            raise LookupError("there already")

    async with BusyThread(words):
        disk[0].broken = sqlite3.OperationalError("disk I/O error")
        tasks = [asyncio.ensure_future(add(words, "a")), asyncio.ensure_future(words.write(refuse_if_there))]
    for task in tasks:
        with pytest.raises(DatabaseError):
            await task


@pytest.mark.parametrize("together", [1, 3])
async def test_a_full_disk_refuses_and_later_writes_work(words: Database, together: int) -> None:
    await add(words, "before")
    await words.read(lambda c: c.execute("PRAGMA max_page_count=4").fetchall())  # SQLite's own "disk is full"
    async with BusyThread(words):
        tasks = [asyncio.ensure_future(add(words, f"{number}" * 40_000)) for number in range(together)]
    for task in tasks:
        with pytest.raises(DatabaseError, match="full"):
            await task
    await words.read(lambda c: c.execute("PRAGMA max_page_count=100000").fetchall())
    await add(words, "after")
    assert on_disk(words.path) == ["after", "before"]


async def test_a_rollback_that_failed_too_is_made_up_for(words: Database, disk: list[FailingConnection]) -> None:
    await words.read(lambda c: c.execute("BEGIN").fetchall())  # as if a transaction had been left open
    await add(words, "a")
    assert on_disk(words.path) == ["a"]


async def test_work_cancelled_in_the_queue_isnt_done_and_harms_nobody(words: Database) -> None:
    async with BusyThread(words):
        cancelled = asyncio.ensure_future(add(words, "cancelled"))
        kept = asyncio.ensure_future(add(words, "kept"))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
    assert await kept == "kept"
    assert await words.read(every) == ["kept"]


async def test_a_caller_cancelled_while_its_action_runs_harms_nobody(words: Database) -> None:
    started, go = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        started.set()
        go.wait(10)
        connection.execute("INSERT INTO words VALUES ('slow')")

    task = asyncio.ensure_future(words.write(slow))
    await asyncio.to_thread(started.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    await add(words, "next")
    assert on_disk(words.path) == ["next", "slow"]


@pytest.mark.parametrize("error", [SystemExit(), KeyboardInterrupt(), StopIteration(), ValueError()])
async def test_nothing_that_an_action_raises_ends_the_thread(words: Database, error: BaseException) -> None:
    def action(_: sqlite3.Connection) -> None:
        raise error

    caught: list[BaseException] = []
    for hand_in in (words.write, words.read):
        future = words._submit(action, writes=hand_in == words.write)
        found = await asyncio.to_thread(future.exception, 10)
        assert found is not None
        caught.append(found)
    assert all(isinstance(one, type(error) | RuntimeError) for one in caught)
    assert await add(words, "alive") == "alive"


async def test_what_was_handed_in_before_close_is_finished(words: Database) -> None:
    tasks = [asyncio.ensure_future(add(words, word)) for word in "abc"]
    await asyncio.sleep(0)
    words.close()
    assert await asyncio.gather(*tasks) == ["a", "b", "c"]
    assert on_disk(words.path) == ["a", "b", "c"]


async def test_work_after_close_is_refused(words: Database) -> None:
    words.close()
    words.close()
    with pytest.raises(DatabaseError, match="closed"):
        await add(words, "late")
    with pytest.raises(DatabaseError, match="closed"):
        await words.read(every)


def test_close_races_with_work_from_other_threads_and_answers_all_of_it(tmp_path: Path) -> None:
    for attempt in range(20):
        opened = Database(tmp_path / f"{attempt}.sqlite", SCHEMA)
        outcomes: list[str] = []

        def work(opened: Database = opened, outcomes: list[str] = outcomes) -> None:
            try:
                while True:
                    outcomes.append(opened._submit(lambda _: "answered", writes=False).result(10))
            except DatabaseError:
                outcomes.append("refused")

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        opened.close()
        for thread in threads:
            thread.join(20)
        assert outcomes.count("refused") == 3


def test_a_file_that_is_no_database_is_told_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "words.sqlite").write_bytes(b"certainly not a database\n" * 100)
    with pytest.raises(DatabaseDamaged, match=r"words\.sqlite can't be opened .*left as it is"):
        Database(tmp_path / "words.sqlite", SCHEMA)
    assert (tmp_path / "words.sqlite").read_bytes() == b"certainly not a database\n" * 100


def test_damage_in_the_middle_is_found(tmp_path: Path) -> None:
    path = tmp_path / "words.sqlite"
    connection = connect(path, SCHEMA)
    connection.executemany("INSERT INTO words VALUES (?)", [(f"{number:0400}",) for number in range(100)])
    connection.close()
    data = bytearray(path.read_bytes())
    data[3 * 4096 : 6 * 4096] = b"\xff" * (3 * 4096)
    path.write_bytes(data)
    connection = connect(path, SCHEMA)
    with pytest.raises(DatabaseDamaged, match=r"words\.sqlite"):
        check(connection, path)
    connection.close()


def test_a_sound_database_passes_the_check(tmp_path: Path) -> None:
    connection = connect(tmp_path / "words.sqlite", SCHEMA)
    check(connection, tmp_path / "words.sqlite")
    connection.close()


def test_a_folder_that_is_missing_is_an_error_but_no_damage(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="can't be opened") as caught:
        Database(tmp_path / "nowhere" / "words.sqlite", SCHEMA)
    assert not isinstance(caught.value, DatabaseDamaged)


async def test_a_flood_is_cut_into_groups(
    words: Database, disk: list[FailingConnection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "GROUP_LIMIT", 4)
    disk[0].statements.clear()
    async with BusyThread(words):
        tasks = [asyncio.ensure_future(add(words, str(number))) for number in range(8)]
    await asyncio.gather(*tasks)
    assert disk[0].statements.count("COMMIT") == 2
