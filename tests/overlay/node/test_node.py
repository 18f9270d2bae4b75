"""A node listens, joins, stops and starts again. Real sockets on loopback, asyncio and uvloop."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay import event_loop
from overlay.client import Overlay
from overlay.errors import NoAnswer
from overlay.identity.contact import Contact, key_text, node_id, puzzle_bits
from overlay.identity.network import Network
from overlay.ids import Kind, body_key
from overlay.node.membership import every, random_id
from overlay.node.node import CantListen, Node, new_key
from overlay.primitives.requests import FetchRequest
from overlay.wire import messages
from storage.node.objects import StoreFailed
from tests.overlay.local_network import LOOPBACK, NETWORK, key_of, local_network, new_node, run

KEY = body_key("<1@village.example>")
LOOPS = pytest.mark.parametrize("loop", [asyncio.run, event_loop.run], ids=["asyncio", "uvloop"])


class Nodes:
    """Nodes that are stopped at the end of the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.all: list[Node] = []

    async def start(
        self,
        number: int,
        *,
        interface: str = LOOPBACK,
        port: int = 0,
        client: bool = False,
        network: Network = NETWORK,
    ) -> Node:
        node = new_node(number, None if client else self.folder / str(number), network=network)
        self.all.append(node)
        await node.listen(port, interface)
        return node


def play(folder: Path, story: Callable[[Nodes], Awaitable[None]], loop: Callable[..., None] = asyncio.run) -> None:
    async def begin() -> None:
        nodes = Nodes(folder)
        try:
            await story(nodes)
        finally:
            for node in nodes.all:
                await node.stop()

    run(begin, loop)


@LOOPS
def test_nodes_find_each_other_and_keep_things(tmp_path: Path, loop: Callable[..., None]) -> None:
    async def story() -> None:
        async with local_network(tmp_path, 6) as place:
            for data in (b"small", bytes(100_000)):
                key = body_key(str(len(data)))
                assert (await place.overlay.store(Kind.BODY, key, data, ttl=60.0)).have == NETWORK.k
                assert await place.overlay.fetch(Kind.BODY, key, digest=sha256(data).digest()) == data
            assert all(len(node.protocol.router) == 5 for node in place.nodes)

    run(story, loop)


@LOOPS
def test_udp_and_tcp_have_one_port(tmp_path: Path, loop: Callable[..., None]) -> None:
    async def story(nodes: Nodes) -> None:
        one = await nodes.start(1)
        assert one.protocol.bulk_port == one.port > 0
        _, writer = await asyncio.open_connection(LOOPBACK, one.port)
        writer.close()
        client = await nodes.start(2, client=True)
        assert client.protocol.bulk_port == 0

    play(tmp_path, story, loop)


@pytest.mark.parametrize(
    ("loop", "kind"),
    # uvloop's own transport isn't closed when it can't bind, and its garbage collection warns of that.
    [(asyncio.run, socket.SOCK_DGRAM), (asyncio.run, socket.SOCK_STREAM), (event_loop.run, socket.SOCK_STREAM)],
)
def test_a_port_that_is_taken_is_an_error_with_words(
    tmp_path: Path, loop: Callable[..., None], kind: socket.SocketKind
) -> None:
    async def story(nodes: Nodes) -> None:
        with socket.socket(socket.AF_INET, kind) as taken:
            taken.bind((LOOPBACK, 0))
            if kind is socket.SOCK_STREAM:
                taken.listen()
            with pytest.raises(CantListen, match=str(taken.getsockname()[1])):
                await nodes.start(1, port=taken.getsockname()[1])

    play(tmp_path, story, loop)


@LOOPS
@pytest.mark.parametrize("interface", ["::1", "::", "0.0.0.0"])
def test_any_interface_will_do(tmp_path: Path, loop: Callable[..., None], interface: str) -> None:
    async def story(nodes: Nodes) -> None:
        one = await nodes.start(1, interface=interface)
        other = await nodes.start(2, interface=interface)
        assert await other.join([one.place]) == 1
        large = bytes(50_000)
        overlay = Overlay(other, k=lambda: 2)
        assert (await overlay.store(Kind.BODY, KEY, large, ttl=60.0)).have == 2
        assert await overlay.fetch(Kind.BODY, KEY) == large

    play(tmp_path, story, loop)


@LOOPS
def test_an_ipv6_socket_reaches_ipv4_nodes_too(tmp_path: Path, loop: Callable[..., None]) -> None:
    async def story(nodes: Nodes) -> None:
        one = await nodes.start(1)
        other = await nodes.start(2, interface="::")
        assert await other.join([one.place]) == 1
        await asyncio.sleep(0.05)
        assert one.protocol.router.get(other.id) is not None
        (found,) = await one.closest(other.id, 1)
        assert found.contact.ip == LOOPBACK

    play(tmp_path, story, loop)


@LOOPS
def test_datagrams_that_cant_be_sent_dont_close_the_socket(tmp_path: Path, loop: Callable[..., None]) -> None:
    async def story(nodes: Nodes) -> None:
        for number, interface in enumerate([LOOPBACK, "::"], 1):
            one = await nodes.start(number, interface=interface)
            for ip in ("240.0.0.1", "127.255.255.255", "192.0.2.1", "fe80::1", "2001:db8::1", "::1"):
                one.protocol.start_call(Contact(b"k" * 32, ip, 9), messages.Ping(), lambda answer: None, tries=1)
                with pytest.raises(NoAnswer):
                    await one.protocol.ask_key(ip, 9, timeout=0.01)
            assert one.transport is not None
            assert not one.transport.is_closing()

    play(tmp_path, story, loop)


def test_one_joins_by_a_place_with_or_without_its_key_and_by_name(tmp_path: Path) -> None:
    async def story(nodes: Nodes) -> None:
        one = await nodes.start(1)
        bare, _, key = one.place.partition("/")
        places = [one.place, bare, f"localhost:{one.port}", f"localhost:{one.port}/{key}"]
        for number, place in enumerate(places, 2):
            other = await nodes.start(number, client=True)
            assert await other.join([place]) == 1

    play(tmp_path, story)


def test_a_place_with_the_wrong_key_isnt_joined(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(nodes: Nodes) -> None:
        one, other = await nodes.start(1), await nodes.start(2, client=True)
        assert await other.join([f"{LOOPBACK}:{one.port}/{key_text(other.sealer.public)}"]) == 0
        assert await other.join([f"{LOOPBACK}:{one.port}/{key_text(bytes(32))}"]) == 0
        wrong = key_of(99).public_key().public_bytes_raw()
        assert await other.join([f"{LOOPBACK}:{one.port}/{key_text(wrong)}"]) == 0
        words = f"has the key {key_text(one.protocol.sealer.public)}, not the one given"
        while words not in caplog.text:
            await asyncio.sleep(0)

    play(tmp_path, story)


def test_another_networks_nodes_arent_joined(tmp_path: Path) -> None:
    async def story(nodes: Nodes) -> None:
        one = await nodes.start(1, network=replace(NETWORK, name="another"))
        other = await nodes.start(2, client=True)
        assert await other.join([one.place]) == 0

    play(tmp_path, story)


@pytest.mark.parametrize("place", ["", "nonsense", "127.0.0.1:0", "127.0.0.1:70000", "127.0.0.1:4000/short"])
def test_a_place_that_is_none_is_an_error_with_words(tmp_path: Path, place: str) -> None:
    async def story(nodes: Nodes) -> None:
        one = await nodes.start(1, client=True)
        with pytest.raises(ValueError, match=r"is not|can't"):
            await one.join([place])

    play(tmp_path, story)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 100, "a..b", "é" * 70])
def test_a_place_that_cant_be_found_is_the_same_as_a_silent_one(tmp_path: Path, host: str) -> None:
    async def story(nodes: Nodes) -> None:
        one = await nodes.start(1, client=True)
        assert await one.join([f"{host}:4000/{key_text(bytes(range(32)))}"]) == 0

    play(tmp_path, story)


def test_a_node_that_joined_nobody_stops_without_a_trace(tmp_path: Path) -> None:
    async def story(nodes: Nodes) -> None:
        one = await nodes.start(1)
        assert await one.join([]) == 0
        assert await one.join([]) == 0
        assert one._maintenance is not None
        assert len(one._maintenance._tasks) == 1
        await one.stop()
        await one.stop()
        await new_node(3, None).stop()

    play(tmp_path, story)


def test_what_a_node_kept_and_whom_it_knew_survive_a_restart(tmp_path: Path) -> None:
    state = tmp_path / "contacts.json"

    async def story(nodes: Nodes) -> None:
        others = [await nodes.start(number) for number in (1, 2, 3)]
        for other in others[1:]:
            await other.join([others[0].place])
        one = await nodes.start(4)
        await one.join([others[0].place], state)
        overlay = Overlay(one, k=lambda: 4)
        assert (await overlay.store(Kind.BODY, KEY, bytes(100_000), ttl=60.0)).have == 4
        await one.stop()
        assert json.loads(state.read_text())["version"] == 1
        again = await nodes.start(4)
        assert again.id == one.id
        assert await again.join([], state) == 3
        assert again.service is not None
        kept = await again.service.fetch(FetchRequest(Kind.BODY, KEY))
        assert kept.size == 100_000

    play(tmp_path, story)


def test_a_node_that_is_up_before_the_others_passes_nothing_on_through_itself(tmp_path: Path) -> None:
    state = tmp_path / "contacts.json"

    async def story(nodes: Nodes) -> None:
        other = await nodes.start(1)
        one = await nodes.start(2)
        own = one.place.partition("/")[0]  # as a network's file may name it: without its key
        await one.join([own, other.place], state)
        await one.stop()
        await other.stop()
        again = await nodes.start(2, port=int(own.rpartition(":")[2]))
        await again.join([own], state)
        status = await again.status()
        assert (status.mode, status.transport) == ("node", "udp")

    play(tmp_path, story)


GOOD = {"key": key_text(bytes(range(32))), "ip": "127.0.0.1", "port": 9}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"contacts": 7}',
        b'{"contacts": {"a": 1}}',
        json.dumps({"contacts": [7]}).encode(),
        json.dumps({"contacts": ["text"]}).encode(),
        *[
            json.dumps({"contacts": [GOOD | {name: value}]}).encode()
            for name, value in [
                ("port", 70000),
                ("port", 0),
                ("port", "x"),
                ("port", None),
                ("port", float("inf")),
                ("ip", "localhost"),
                ("ip", 7),
                ("ip", "0.0.0.0"),
                ("key", "short"),
                ("key", 7),
                ("key", key_text(bytes(32))),
            ]
        ],
    ],
    ids=lambda content: content[:60].decode(errors="replace"),
)
def test_a_damaged_file_of_contacts_is_the_same_as_none(tmp_path: Path, content: bytes) -> None:
    state = tmp_path / "contacts.json"
    state.write_bytes(content)

    async def story(nodes: Nodes) -> None:
        one, other = await nodes.start(1), await nodes.start(2, client=True)
        assert await other.join([one.place], state) == 1
        assert not other.protocol.transport.is_closing()  # type: ignore[union-attr]

    play(tmp_path, story)


def test_contacts_that_cant_be_saved_keep_nobody_from_stopping(tmp_path: Path) -> None:
    async def story(nodes: Nodes) -> None:
        one, other = await nodes.start(1), await nodes.start(2, client=True)
        await other.join([one.place], tmp_path / "no such folder" / "contacts.json")
        await other.stop()

    play(tmp_path, story)


def test_a_failing_disk_is_a_refusal(tmp_path: Path) -> None:
    async def story(nodes: Nodes) -> None:
        one, other = await nodes.start(1), await nodes.start(2, client=True)
        await other.join([one.place])
        assert one.store is not None

        async def fail(*_: object, **__: object) -> None:
            raise StoreFailed("This node's disk refused it.")

        for name in ("store", "append", "read", "fetch", "delete", "acknowledge", "proofs"):
            setattr(one.store, name, fail)
        outcome = await Overlay(other, k=lambda: 1).store(Kind.BODY, KEY, b"x", ttl=60.0)
        assert outcome.have == 0
        assert outcome.refusals

    play(tmp_path, story)


def test_a_node_that_vanished_is_gone_and_can_still_be_stopped(tmp_path: Path) -> None:
    async def story(nodes: Nodes) -> None:
        one, other = await nodes.start(1), await nodes.start(2, client=True)
        await other.join([one.place])
        await one.vanish()
        with pytest.raises(NoAnswer):
            await other.protocol.ask_key(LOOPBACK, other.port + 1, timeout=0.03)
        assert await other.protocol.lookup(KEY, 4) == []

    play(tmp_path, story)


def test_after_an_outage_a_node_finds_the_overlay_again(tmp_path: Path) -> None:
    async def story(nodes: Nodes) -> None:
        one, other = await nodes.start(1), await nodes.start(2, client=True)
        await other.join([one.place])
        other.protocol.router.flush()
        assert other._maintenance is not None
        await other._maintenance.membership.rejoin([one.located().contact])
        assert len(other.protocol.router) == 1

    play(tmp_path, story)


def test_a_regular_task_that_fails_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tried = 0
    done = asyncio.Event()

    async def fail() -> None:
        nonlocal tried
        tried += 1
        if tried == 3:
            done.set()
        raise ZeroDivisionError if tried % 2 else NoAnswer("nobody")

    async def story(nodes: Nodes) -> None:
        one = await nodes.start(1, client=True)
        regular = asyncio.ensure_future(every(0.001, fail, one.random))
        await done.wait()
        regular.cancel()
        await asyncio.gather(regular, return_exceptions=True)

    play(tmp_path, story)
    assert "will be tried again" in caplog.text


def test_the_status_says_what_the_node_knows(tmp_path: Path) -> None:
    async def story(nodes: Nodes) -> None:
        one, other = await nodes.start(1), await nodes.start(2, client=True)
        await other.join([one.place])
        status = await other.status()
        assert (status.mode, status.contacts, status.usage) == ("client", 1, None)
        status = await one.status()
        assert (status.mode, status.node_id) == ("node", one.id.hex())
        assert status.listening == f"{LOOPBACK}:{one.port}"
        assert status.usage is not None
        assert status.usage.objects == 0

    play(tmp_path, story)


def test_a_new_key_solves_the_networks_puzzle() -> None:
    key = new_key(puzzle=6)
    assert puzzle_bits(node_id(key.public_key().public_bytes_raw())) >= 6


@given(st.binary(min_size=20, max_size=20), st.integers(0, 159), st.binary(min_size=20, max_size=20))
def test_a_random_id_shares_exactly_so_many_bits(own: bytes, shared: int, chance: bytes) -> None:
    made = random_id(own, shared, lambda count: chance[:count])
    difference = int.from_bytes(own, "big") ^ int.from_bytes(made, "big")
    assert 160 - difference.bit_length() == shared


def test_a_place_with_several_addresses_is_greeted_at_the_one_that_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        node = new_node(1, tmp_path / "1")
        await node.listen(0, LOOPBACK)
        await node.join([])
        client = new_node(1000, None)
        await client.listen(0, "::")
        loop = asyncio.get_running_loop()

        async def getaddrinfo(host: str, port: int, **_: object) -> list[object]:
            return [(0, 0, 0, "", (ip, port)) for ip in ("::1", "127.0.0.1")]

        monkeypatch.setattr(type(loop), "getaddrinfo", lambda self, *a, **k: getaddrinfo(*a, **k), raising=False)
        place = f"somewhere:{node.port}/{node.place.partition('/')[2]}"
        assert await client.join([place]) == 1
        await asyncio.gather(client.stop(), node.stop())

    run(story)
