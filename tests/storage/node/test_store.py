"""storage/node/store.py: durable when it returns, a refusal when the disk fails, and whole after kill -9."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import os
import re
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage import durable
from storage.database import DatabaseDamaged, DatabaseError
from storage.node import integrity
from storage.node.bodies import INLINE_LIMIT, Bodies
from storage.node.integrity import StoreBusy
from storage.node.objects import Deleted, NoSpace, StoreFailed, StoreRefused, Tombstone, TooManyVariants, WrongDigest
from storage.node.store import NodeStore, Usage, open_node_store
from storage.store_request import StoreRequest
from tests.clock import Clock

BODY = 1
KEY = b"k" * 20
ALICE, BOB = b"a" * 32, b"b" * 32
READER = b"r" * 32
SMALL = b"small"
LARGE = b"large" * 20_000
QUOTA = 100 << 20


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_at(tmp_path: Path, clock: Clock) -> Iterator[Callable[..., NodeStore]]:
    """Open the store in tmp_path/node; all are closed at the end."""
    opened: list[NodeStore] = []

    def start(quota: int = QUOTA) -> NodeStore:
        opened.append(NodeStore(tmp_path / "node", quota=quota, now=clock))
        return opened[-1]

    yield start
    for store in opened:
        store.close()


@pytest.fixture
def store(open_at: Callable[..., NodeStore]) -> NodeStore:
    return open_at()


def sha(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


async def put(store: NodeStore, content: bytes | Path, *deleters: bytes, key: bytes = KEY, ttl: float = 1000.0) -> None:
    digest = sha(content if isinstance(content, bytes) else content.read_bytes())
    owners = deleters or (ALICE,)
    await store.store(StoreRequest(BODY, key, content, digest, ttl, owners), lambda _: True)


async def got(store: NodeStore, content: bytes | None = None, key: bytes = KEY) -> bytes | None:
    found = await store.fetch(BODY, key, None if content is None else sha(content))
    if found is None:
        return None
    return found[1].read_bytes() if isinstance(found[1], Path) else found[1]


def files(folder: Path) -> list[Path]:
    return [path for path in (folder / "bodies").rglob("*") if path.is_file()]


def spooled(store: NodeStore, content: bytes) -> Path:
    path = store.spool()
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("content", [b"", SMALL, b"x" * INLINE_LIMIT, b"x" * (INLINE_LIMIT + 1), LARGE])
@pytest.mark.parametrize("streamed", [False, True])
async def test_what_was_stored_is_fetched_before_and_after_a_restart(
    open_at: Callable[..., NodeStore], tmp_path: Path, content: bytes, streamed: bool
) -> None:
    store = open_at()
    await put(store, spooled(store, content) if streamed else content)
    assert await got(store) == content
    assert len(files(tmp_path / "node")) == (len(content) > INLINE_LIMIT)
    assert list(store.spool_folder.iterdir()) == []
    store.close()
    assert await got(open_at()) == content


async def test_nothing_is_fetched_where_nothing_is(store: NodeStore) -> None:
    assert await store.fetch(BODY, KEY) is None
    await put(store, SMALL)
    assert await store.fetch(BODY, KEY, sha(LARGE)) is None
    assert await store.fetch(BODY, b"o" * 20) is None


async def test_the_usage_counts_what_is_kept(store: NodeStore) -> None:
    assert await store.usage() == Usage(0, 0, QUOTA, 0, 0)
    await put(store, SMALL)
    await put(store, LARGE)
    await store.append(KEY, b"notification", 100)
    await store.delete(BODY, KEY, BOB, b"proof", 100)
    usage = await store.usage()
    assert (usage.objects, usage.inboxes, usage.tombstones) == (2, 1, 1)
    assert len(LARGE) < usage.bytes < len(LARGE) + 3000


@pytest.mark.parametrize("content", [SMALL, LARGE])
@pytest.mark.parametrize("streamed", [False, True])
async def test_content_whose_digest_is_wrong_is_not_kept(
    store: NodeStore, tmp_path: Path, content: bytes, streamed: bool
) -> None:
    offered = spooled(store, content) if streamed else content
    with pytest.raises(WrongDigest):
        await store.store(StoreRequest(BODY, KEY, offered, sha(b"?"), 9, [ALICE]), lambda _: True)
    assert await got(store) is None
    assert files(tmp_path / "node") == list(store.spool_folder.iterdir()) == []


async def test_a_spool_file_that_is_refused_is_removed(store: NodeStore, tmp_path: Path) -> None:
    await store.delete(BODY, KEY, ALICE, b"proof", 1000)
    with pytest.raises(Deleted):
        await put(store, spooled(store, LARGE))
    with pytest.raises(StoreRefused, match="expired"):
        await put(store, spooled(store, LARGE), ttl=0)
    assert files(tmp_path / "node") == list(store.spool_folder.iterdir()) == []


async def test_a_file_outside_the_spool_folder_isnt_touched(store: NodeStore, tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(LARGE)
    with pytest.raises(ValueError, match="spool"):
        await put(store, tmp_path / "precious")
    assert (tmp_path / "precious").read_bytes() == LARGE


async def test_the_same_body_again_leaves_one_file(store: NodeStore, tmp_path: Path) -> None:
    await put(store, LARGE, ALICE)
    await put(store, spooled(store, LARGE), BOB)
    (held,) = await store.objects()
    assert held.deleters == {ALICE, BOB}
    assert len(files(tmp_path / "node")) == 1
    assert await got(store) == LARGE


async def test_a_deleted_body_is_gone_from_the_disk_and_never_comes_back(
    open_at: Callable[..., NodeStore], tmp_path: Path, clock: Clock
) -> None:
    store = open_at()
    await put(store, LARGE, ALICE, BOB)
    assert await store.delete(BODY, KEY, ALICE, b"alice's", 1000) == 0
    assert await got(store) == LARGE
    assert await store.delete(BODY, KEY, BOB, b"bob's", 1000) == 1
    assert files(tmp_path / "node") == []
    store.close()
    store = open_at()
    clock.now += 999
    with pytest.raises(Deleted):
        await put(store, LARGE, ALICE, BOB)
    assert await got(store) is None
    assert Tombstone(BODY, KEY, BOB, b"bob's", clock.now + 1) in await store.tombstones(BODY, KEY)


async def test_a_body_deleted_and_stored_in_one_moment_keeps_its_own_file(store: NodeStore) -> None:
    await put(store, LARGE, ALICE)
    await asyncio.gather(store.delete(BODY, KEY, ALICE, b"proof", 1000), put(store, LARGE, BOB))
    assert await got(store) == LARGE


async def test_a_proof_that_is_too_long_deletes_nothing(store: NodeStore) -> None:
    await put(store, SMALL)
    with pytest.raises(StoreRefused):
        await store.delete(BODY, KEY, ALICE, b"p" * 5000, 1000)
    assert await got(store) == SMALL


async def test_expired_bodies_leave_the_disk(store: NodeStore, tmp_path: Path, clock: Clock) -> None:
    await put(store, LARGE, ttl=10)
    await put(store, SMALL, ttl=20)
    clock.now += 10
    assert await got(store, LARGE) is None
    assert await store.expire() == 1
    assert files(tmp_path / "node") == []
    assert await got(store) == SMALL


async def test_variants_are_bounded_and_leave_no_files(store: NodeStore, tmp_path: Path) -> None:
    for number in range(8):
        await put(store, LARGE + b"%d" % number)
    with pytest.raises(TooManyVariants):
        await put(store, LARGE)
    assert len(files(tmp_path / "node")) == 8
    assert await got(store) == LARGE + b"0"


async def test_beyond_the_quota_a_body_is_refused_and_leaves_no_file(
    open_at: Callable[..., NodeStore], tmp_path: Path
) -> None:
    store = open_at(quota=len(LARGE) + 1000)
    await put(store, LARGE)
    with pytest.raises(NoSpace):
        await put(store, spooled(store, LARGE + b"2"), key=b"o" * 20)
    assert len(files(tmp_path / "node")) == 1
    assert list(store.spool_folder.iterdir()) == []


async def test_a_collected_body_leaves_the_disk(open_at: Callable[..., NodeStore], tmp_path: Path) -> None:
    store = open_at(quota=len(LARGE) + 1000)
    await put(store, LARGE)
    second = LARGE + b"2"
    await store.store(StoreRequest(BODY, b"o" * 20, second, sha(second), 100, [ALICE]), lambda key: key != KEY)
    assert len(files(tmp_path / "node")) == 1
    assert await got(store) is None
    assert await got(store, key=b"o" * 20) == second


async def test_a_replaced_body_leaves_the_disk(store: NodeStore, tmp_path: Path) -> None:
    for sequence in (1, 2):
        content = LARGE + b"%d" % sequence
        await store.store(StoreRequest(BODY, KEY, content, sha(content), 9, [], sequence), lambda _: True)
    assert [path.read_bytes() for path in files(tmp_path / "node")] == [LARGE + b"2"]


async def test_an_inbox_is_read_leased_and_acknowledged(open_at: Callable[..., NodeStore], clock: Clock) -> None:
    store = open_at()
    assert await store.append(KEY, b"one", 1000)
    assert await store.append(KEY, b"two", 1000)
    assert not await store.append(KEY, b"one", 1000)
    assert await store.read(KEY, READER, limit=3, lease=60) == ([b"one"], True)
    assert await store.read(KEY, b"s" * 32, limit=100, lease=60) == ([b"two"], False)
    clock.now += 61
    assert await store.read(KEY, b"s" * 32, limit=100, lease=60) == ([b"one", b"two"], False)
    assert await store.acknowledge(KEY, [sha(b"one"), sha(b"never here")]) == 1
    assert not await store.append(KEY, b"one", 1000)
    store.close()
    store = open_at()
    assert not await store.append(KEY, b"one", 1000)
    assert await store.read(KEY, READER, limit=100) == ([b"two"], False)


@pytest.mark.parametrize("length", [0, 19, 21, 32])
async def test_a_key_of_another_length_is_the_callers_mistake(store: NodeStore, length: int) -> None:
    with pytest.raises(ValueError, match="20 bytes"):
        await put(store, SMALL, key=b"k" * length)
    with pytest.raises(ValueError, match="20 bytes"):
        await store.append(b"k" * length, b"n", 10)
    with pytest.raises(ValueError, match="20 bytes"):
        await store.delete(BODY, b"k" * length, ALICE, b"", 10)


async def test_a_caller_that_goes_away_leaves_either_the_whole_body_or_nothing(
    store: NodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go = threading.Event(), threading.Event()
    real = durable.move

    def slow(source: Path, target: Path) -> None:
        reached.set()
        go.wait(10)
        real(source, target)

    monkeypatch.setattr(durable, "move", slow)
    task = asyncio.ensure_future(put(store, spooled(store, LARGE)))
    await asyncio.to_thread(reached.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    await asyncio.gather(*store._running)
    assert await got(store) == LARGE
    assert len(files(tmp_path / "node")) == 1
    assert list(store.spool_folder.iterdir()) == []


# --- crashes


async def test_a_body_is_durable_before_its_row_is(
    store: NodeStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    steps: list[str] = []
    real = os.fsync

    def sync(handle: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        real(handle)

    monkeypatch.setattr(os, "fsync", sync)
    store._database._connection.set_trace_callback(lambda sql: steps.append(sql.split()[0]))
    await put(store, spooled(store, LARGE))
    assert steps.index("file") < steps.index("folder") < steps.index("BEGIN") < steps.index("COMMIT")
    assert "folder" not in steps[steps.index("BEGIN") :]


async def test_files_that_no_row_names_are_swept_and_others_stay(
    open_at: Callable[..., NodeStore], tmp_path: Path
) -> None:
    store = open_at()
    await put(store, LARGE)
    store.close()
    bodies = Bodies(tmp_path / "node")
    bodies.write(b"its row was never committed")  # a crash between file and row, or between row and removal
    (kept,) = [path for path in files(tmp_path / "node") if path.read_bytes() == LARGE]
    (kept.parent / ".0123.tmp").write_bytes(b"half a bo")
    (tmp_path / "node/spool/upload").write_bytes(b"half an upl")
    store = open_at()
    assert files(tmp_path / "node") == [kept]
    assert list(store.spool_folder.iterdir()) == []
    assert await got(store) == LARGE


@pytest.mark.parametrize("harm", ["removed", "cut short"])
async def test_a_body_file_harmed_from_outside_is_told_and_not_served(
    open_at: Callable[..., NodeStore], tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    store = open_at()
    await put(store, LARGE)
    await put(store, SMALL, key=b"o" * 20)
    store.close()
    (file,) = files(tmp_path / "node")
    file.unlink() if harm == "removed" else file.write_bytes(LARGE[:-1])
    store = open_at()
    assert "1 bodies" in caplog.text
    assert await got(store) is None
    assert await got(store, key=b"o" * 20) == SMALL
    await put(store, LARGE)
    assert await got(store) == LARGE


KILLED = """
import asyncio, hashlib, sys
from pathlib import Path
from storage.node.store import NodeStore
from storage.store_request import StoreRequest

async def main():
    store = NodeStore(Path(sys.argv[1]), quota=1 << 30)
    async def one(number):
        key = number.to_bytes(20, "big")
        for size in (100, 100_000):
            content = (b"%d " % number) * size
            digest = hashlib.sha256(content).digest()
            if size > 1000:
                path = store.spool()
                path.write_bytes(content)
                content = path
            await store.store(StoreRequest(1, key, content, digest, 1e6, [b"a" * 32]), lambda _: True)
        print("stored", number, flush=True)
        await store.append(key, b"notification %d" % number, 1e6)
        await store.append(key, b"acknowledged %d" % number, 1e6)
        await store.acknowledge(key, [hashlib.sha256(b"acknowledged %d" % number).digest()])
        print("notified", number, flush=True)
        if number % 3 == 0:
            await store.delete(1, key, b"a" * 32, b"proof %d" % number, 1e6)
            print("deleted", number, flush=True)
    for start in range(0, 10**9, 4):
        await asyncio.gather(*(one(start + number) for number in range(4)))

asyncio.run(main())
"""


async def test_everything_acknowledged_is_there_after_kill_9(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "node")], stdout=subprocess.PIPE, cwd=root, text=True
    )
    assert process.stdout is not None
    with process:
        lines = [process.stdout.readline() for _ in range(80)]
        process.kill()
        lines += process.stdout.readlines()  # what was acknowledged before the signal came
    said: dict[str, set[int]] = {"stored": set(), "notified": set(), "deleted": set()}
    for line in lines:
        if match := re.fullmatch(r"(\w+) (\d+)\n", line):
            said[match[1]].add(int(match[2]))
    assert len(said["stored"]) >= 20 and len(said["deleted"]) >= 5

    store = NodeStore(tmp_path / "node", quota=1 << 30)
    try:
        for number in said["stored"]:
            key = number.to_bytes(20, "big")
            contents = {await got(store, (b"%d " % number) * size, key) for size in (100, 100_000)}
            if number in said["deleted"]:
                assert contents == {None}
                assert await store.proofs(BODY, key, [ALICE]) == [b"proof %d" % number]
            elif number % 3:  # the others may have been deleted without our having been told
                assert contents == {(b"%d " % number) * 100, (b"%d " % number) * 100_000}
            if number in said["notified"]:
                assert await store.read(key, READER, limit=1000) == ([b"notification %d" % number], False)
                assert not await store.append(key, b"acknowledged %d" % number, 1000)
        named = {row.digest for row in await store.objects(limit=10_000) if row.size > INLINE_LIMIT}
        assert {sha(path.read_bytes()) for path in files(tmp_path / "node")} == named
    finally:
        store.close()


# --- a disk that fails


def breaking(number: int, after: int = 0) -> Callable[[int], None]:
    """An fsync that fails with this error from the call `after` on."""
    calls = 0
    real = os.fsync

    def sync(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls > after:
            raise OSError(number, os.strerror(number))
        real(handle)

    return sync


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_body_whose_sync_fails_is_refused(
    store: NodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, after: int, streamed: bool
) -> None:
    offered = spooled(store, LARGE) if streamed else LARGE
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", breaking(number, after))
        with pytest.raises(StoreFailed, match=re.escape(os.strerror(number))):
            await put(store, offered)
    assert await got(store) is None
    assert (await store.usage()).objects == 0
    assert list(store.spool_folder.iterdir()) == []
    await put(store, LARGE)
    assert await got(store) == LARGE


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
async def test_a_body_whose_writing_fails_is_refused(
    store: NodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(path: Path, mode: int = 0o600) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(durable, "writing", refuse)
    with pytest.raises(StoreFailed):
        await put(store, LARGE)
    assert await got(store) is None
    assert files(tmp_path / "node") == []


class Commitless:
    """The database's connection, on a disk that fails at the commit."""

    def __init__(self, real: sqlite3.Connection, message: str) -> None:
        self._real = real
        self._message = message

    @property
    def in_transaction(self) -> bool:
        return self._real.in_transaction

    def execute(self, sql: str, parameters: object = ()) -> sqlite3.Cursor:
        if sql == "COMMIT":
            raise sqlite3.OperationalError(self._message)
        return self._real.execute(sql, parameters)  # type: ignore[arg-type]


@pytest.mark.parametrize("message", ["disk I/O error", "database or disk is full"])
async def test_when_the_commit_fails_nothing_is_acknowledged_and_nothing_kept(
    store: NodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    await put(store, SMALL)
    await store.append(KEY, b"one", 1000)
    before = await store.usage()
    calls: list[Callable[[], object]] = [
        lambda: put(store, b"another"),
        lambda: put(store, LARGE),
        lambda: put(store, spooled(store, LARGE)),
        lambda: store.append(KEY, b"two", 1000),
        lambda: store.acknowledge(KEY, [sha(b"one")]),
        lambda: store.delete(BODY, KEY, ALICE, b"proof", 1000),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(store._database, "_connection", Commitless(store._database._connection, message))
        for call in calls:
            with pytest.raises(StoreFailed, match=message):
                await call()  # type: ignore[misc]
    assert await store.usage() == before
    assert await got(store) == SMALL
    assert await store.proofs(BODY, KEY, [ALICE]) == [b""]
    assert await store.read(KEY, READER, limit=100) == ([b"one"], False)
    assert files(tmp_path / "node") == list(store.spool_folder.iterdir()) == []
    await put(store, b"another")
    assert (await store.usage()).objects == 2


async def test_what_sqlite_cant_write_is_refused(store: NodeStore) -> None:
    await put(store, SMALL)
    await store._database.read(lambda rows: rows.execute("PRAGMA max_page_count=10").fetchall())
    with pytest.raises(StoreFailed, match="full"):
        await put(store, b"x" * INLINE_LIMIT)
    with pytest.raises(StoreFailed, match="full"):
        await store.append(KEY, b"x" * INLINE_LIMIT, 1000)
    assert await got(store) == SMALL


async def test_after_close_everything_is_refused(store: NodeStore) -> None:
    store.close()
    store.close()
    with pytest.raises(StoreFailed, match="closed"):
        await put(store, SMALL)
    with pytest.raises(StoreFailed, match="closed"):
        await store.fetch(BODY, KEY)


# --- starting on what is damaged


def harm(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "not a database":
        path.write_bytes(b"certainly not a database\n" * 1000)
    elif how == "damaged inside":
        path.write_bytes(data[: 4096 * 2] + b"\xff" * (len(data) - 4096 * 2))
    elif how == "cut short":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()


HARMS = ["not a database", "damaged inside", "cut short", "empty", "gone"]


@pytest.mark.parametrize("how", HARMS)
async def test_a_damaged_store_is_told_and_left_as_it_is(
    open_at: Callable[..., NodeStore], tmp_path: Path, how: str
) -> None:
    store = open_at()
    await put(store, LARGE)
    await put(store, SMALL)
    store.close()
    harm(tmp_path / "node/store.sqlite", how)
    left = files(tmp_path / "node")
    with pytest.raises(DatabaseDamaged, match=r"store\.sqlite .*as (it is|they are)"):
        open_at()
    with pytest.raises(DatabaseDamaged):
        open_at()  # the first attempt has neither repaired nor swept nor kept the lock
    assert files(tmp_path / "node") == left != []


async def test_damage_is_found_at_the_start_wherever_it_is(open_at: Callable[..., NodeStore], tmp_path: Path) -> None:
    store = open_at()
    for number in range(20):
        await put(store, b"%d" % number * 30_000, key=number.to_bytes(20, "big"))
    store.close()
    path = tmp_path / "node/store.sqlite"
    path.write_bytes(path.read_bytes()[:-8192] + b"\xff" * 8192)  # the end of some content, which nobody asks for now
    with pytest.raises(DatabaseDamaged):
        open_at()


@pytest.mark.parametrize("how", HARMS)
async def test_a_damaged_store_is_set_aside_with_its_bodies_and_the_log_says_so(
    open_at: Callable[..., NodeStore], tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    store = open_at()
    await put(store, LARGE)
    store.close()
    harm(tmp_path / "node/store.sqlite", how)
    with caplog.at_level(logging.ERROR):
        fresh = open_node_store(tmp_path / "node", quota=QUOTA, now=clock)
    aside = fresh.set_aside
    try:
        assert aside is not None and aside.parent == tmp_path / "node"
        assert str(aside) in caplog.text
        assert (aside / "store.sqlite").exists() == (how != "gone")
        assert [path.read_bytes() for path in files(aside)] == [LARGE]
        assert await got(fresh) is None
        await put(fresh, LARGE)
        assert await got(fresh) == LARGE
    finally:
        fresh.close()


async def test_a_sound_store_isnt_set_aside(open_at: Callable[..., NodeStore], tmp_path: Path, clock: Clock) -> None:
    store = open_at()
    await put(store, SMALL)
    store.close()
    again = open_node_store(tmp_path / "node", quota=QUOTA, now=clock)
    assert again.set_aside is None
    assert await got(again) == SMALL
    again.close()


def test_two_stores_set_aside_in_one_second_dont_meet(tmp_path: Path, clock: Clock) -> None:
    for _ in range(2):
        (tmp_path / "node").mkdir(exist_ok=True)
        (tmp_path / "node/store.sqlite").write_bytes(b"certainly not a database\n" * 1000)
        open_node_store(tmp_path / "node", quota=QUOTA, now=clock).close()
    assert len(list((tmp_path / "node").glob("damaged-*/store.sqlite"))) == 2


async def test_a_store_in_use_is_neither_opened_nor_set_aside(
    store: NodeStore, open_at: Callable[..., NodeStore], tmp_path: Path, clock: Clock
) -> None:
    (store.spool_folder / "upload").write_bytes(b"in progress")
    with pytest.raises(StoreBusy, match="in use"):
        open_at()
    with pytest.raises(StoreBusy):
        open_node_store(tmp_path / "node", quota=QUOTA, now=clock)
    with pytest.raises(StoreBusy):
        integrity.set_aside(tmp_path / "node", 0.0)
    assert (store.spool_folder / "upload").exists()
    store.close()
    await put(open_at(), SMALL)


def test_a_store_of_a_newer_format_is_refused_and_not_taken_for_damage(
    open_at: Callable[..., NodeStore], tmp_path: Path, clock: Clock
) -> None:
    open_at().close()
    connection = sqlite3.connect(tmp_path / "node/store.sqlite")
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(DatabaseError, match="newer"):
        open_node_store(tmp_path / "node", quota=QUOTA, now=clock)


def test_a_folder_that_cant_be_made_is_a_readable_error(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "node").write_bytes(b"a file")
    with pytest.raises(DatabaseError, match="can't be opened"):
        NodeStore(tmp_path / "node", quota=QUOTA, now=clock)
