"""A user agent behind a firewall that only lets HTTPS through, and what a relay refuses. Real sockets on loopback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from overlay import event_loop
from overlay.client import Overlay
from overlay.errors import Malformed, NoAnswer, Unreachable
from overlay.http import relay, relay_frames
from overlay.http.proxy import proxy_for
from overlay.http.relay import Relay
from overlay.http.tunnel import RelayAddress, TunnelSession, _beyond_the_proxy
from overlay.identity.contact import Contact, WireContact, pack_ip
from overlay.identity.ownership import Owner
from overlay.identity.tls import client_context
from overlay.ids import Kind, body_key, inbox_key
from overlay.node.connection import Connection
from overlay.node.node import Node
from tests.overlay.connect_proxy import connect_proxy
from tests.overlay.local_network import ISSUER, LOOPBACK, local_network, new_node, run
from tests.overlay.local_network import LocalNetwork as Place

LOOPS = pytest.mark.parametrize("loop", [asyncio.run, event_loop.run], ids=["asyncio", "uvloop"])
KEY = body_key("<1@village.example>")
LARGE = bytes(range(256)) * 400


def without_udp(node: Node, *, silent: bool) -> None:
    """A firewall that drops what this node sends by UDP: silently, or with an error."""

    async def nobody(ip: str, port: int, timeout: float = 0.0) -> bytes:
        raise NoAnswer("nobody answers")

    node.protocol._send = lambda *_: silent  # type: ignore[method-assign]
    node.protocol.ask_key = nobody  # type: ignore[method-assign]


def connection(node: Node) -> Connection:
    """The node's Connection."""
    assert node._maintenance is not None
    return node._maintenance.connection


def relay_of(node: Node) -> Relay:
    assert node.server is not None and node.server.http is not None
    return node.server.http.relay


@asynccontextmanager
async def confined(place: Place, *places: str, number: int = 2000, silent: bool = False) -> AsyncIterator[Node]:
    """A client whose datagrams are dropped, joined at these addresses."""
    node = new_node(number, None)
    try:
        await node.listen(0, LOOPBACK)
        without_udp(node, silent=silent)
        await node.join(places or [place.nodes[0].place])
        yield node
    finally:
        await node.stop()


@LOOPS
@pytest.mark.parametrize("with_key", [True, False])
def test_where_only_https_gets_out_a_client_works_by_way_of_any_node(
    tmp_path: Path, loop: Callable[..., None], with_key: bool
) -> None:
    async def story() -> None:
        async with local_network(tmp_path, 6) as place:
            for through in place.nodes[:2]:
                where = through.place if with_key else through.place.partition("/")[0]
                async with confined(place, where, silent=with_key) as client:
                    assert (await client.status()).transport == "https"
                    overlay = Overlay(client)
                    for data in (b"small", LARGE):
                        key = body_key(f"{through.port} {len(data)}")
                        assert (await overlay.store(Kind.BODY, key, data, ttl=60.0)).have == 4
                        assert await place.overlay.fetch(Kind.BODY, key, digest=sha256(data).digest()) == data
                        assert await overlay.fetch(Kind.BODY, key, digest=sha256(data).digest()) == data
                    nearest = [node.id for node in place.nearest(KEY, 4)]
                    assert [at.contact.id for at in await client.closest(KEY, 4)] == nearest

    run(story, loop)


def test_inboxes_are_used_by_way_of_a_relay(tmp_path: Path) -> None:
    async def story() -> None:
        person = ISSUER.person("alice@example.org", 100)
        owner, key = Owner(person.certificate, person.sign), inbox_key("alice@example.org")
        async with local_network(tmp_path, 5) as place, confined(place) as client:
            overlay = Overlay(client)
            messages = [bytes([n]) * 3000 for n in range(8)]
            for message in messages:
                assert (await overlay.append_inbox(key, message, ttl=60.0)).have == 4
            seen: set[bytes] = set()
            for _ in range(10):
                for reading in await overlay.read_inbox(key, owner):
                    seen |= set(reading.notifications)
                    assert await overlay.acknowledge_inbox(key, reading, owner)
            assert seen == set(messages)

    run(story)


def test_when_the_relay_ends_another_is_found(tmp_path: Path) -> None:
    async def story() -> None:
        async with local_network(tmp_path, 5) as place, confined(place, place.nodes[1].place) as client:
            overlay = Overlay(client)
            assert (await overlay.store(Kind.BODY, KEY, LARGE, ttl=60.0)).have == 4
            tunnel = connection(client)._tunnel
            assert tunnel._current is not None
            assert tunnel._current.contact.key == place.nodes[1].sealer.public
            await place.nodes[1].vanish()
            await tunnel._current.ended.wait()
            await connection(client).restore()
            assert tunnel.is_open
            assert tunnel._current.contact.key != place.nodes[1].sealer.public
            assert await overlay.fetch(Kind.BODY, KEY, digest=sha256(LARGE).digest()) == LARGE

    run(story)


def test_attack_a_relay_that_passes_nothing_on_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with local_network(tmp_path, 4) as place:
            first = place.nodes[1]
            with monkeypatch.context() as patch:
                patch.setattr(relay._Session, "_send", _only_home(relay._Session._send))
                async with confined(place, first.place, place.nodes[2].place) as client:
                    tunnel = connection(client)._tunnel
                    assert tunnel._current is not None
                    liar = tunnel._current.contact.key
                    assert tunnel.forwards_nothing()
                    assert not tunnel.forwards_nothing()
                    patch.undo()
                    tunnel._patient_until = 0.0
                    await connection(client).rejoin()
                    assert tunnel._current is not None
                    assert tunnel._current.contact.key != liar
                    assert (await Overlay(client).store(Kind.BODY, KEY, LARGE, ttl=60.0)).have == 4

    run(story)


def _only_home(send: Any) -> Any:
    def sending(self: relay._Session, datagram: bytes, ip: str, port: int) -> None:
        if (ip, port) == (self._relay.home.ip, self._relay.home.port):
            send(self, datagram, ip, port)

    return sending


@pytest.mark.parametrize("by_name", [False, True])
def test_where_only_a_proxy_gets_out_a_client_works_through_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_name: bool
) -> None:
    """A join address whose name only the proxy can resolve; the relay says its own IP address."""

    async def story() -> None:
        async with local_network(tmp_path, 4) as place, connect_proxy({"node.example": LOOPBACK}) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://alice:secret@{LOOPBACK}:{proxy.port}")
            monkeypatch.delenv("NO_PROXY", raising=False)
            monkeypatch.delenv("no_proxy", raising=False)
            port = place.nodes[0].port
            async with confined(place, f"node.example:{port}" if by_name else place.nodes[0].place) as client:
                assert (await client.status()).transport == "https"
                overlay = Overlay(client)
                assert (await overlay.store(Kind.BODY, KEY, LARGE, ttl=60.0)).have == 4
                assert await overlay.fetch(Kind.BODY, KEY, digest=sha256(LARGE).digest()) == LARGE
                assert await place.overlay.fetch(Kind.BODY, KEY, digest=sha256(LARGE).digest()) == LARGE
            asked = {f"node.example:{port}"} if by_name else {f"{LOOPBACK}:{port}"}
            assert set(proxy.asked) == asked
            assert len(proxy.asked) > 1  # the session, and requests of its own
            assert set(proxy.credentials) == {"alice:secret"}

    run(story)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://10.0.0.1:3128", "http://10.0.0.1:3128"),
        ("proxy.example:3128", "http://proxy.example:3128"),
        ("", None),
        ("socks5://10.0.0.1:1080", None),
        ("http://", None),
        ("http://[", None),
    ],
)
def test_the_proxy_that_is_set_is_used_if_it_can_be(
    monkeypatch: pytest.MonkeyPatch, text: str, expected: str | None
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", text)
    monkeypatch.setenv("NO_PROXY", "direct.example")
    assert proxy_for("node.example") == (URL(expected) if expected else None)
    assert proxy_for("direct.example") is None


def test_a_relay_beyond_a_proxy_that_knows_no_address_of_its_own_is_reached_by_one_that_is_known() -> None:
    nowhere = relay_frames.Welcome(bytes(32), b"")
    assert _beyond_the_proxy(RelayAddress("192.0.2.7", 443), nowhere) == "192.0.2.7"
    told = relay_frames.Welcome(bytes(32), pack_ip("192.0.2.9"))
    assert _beyond_the_proxy(RelayAddress("node.example", 443), told) == "192.0.2.9"
    with pytest.raises(Malformed):
        _beyond_the_proxy(RelayAddress("node.example", 443), nowhere)


def test_another_relay_is_taken_once_in_a_while(tmp_path: Path) -> None:
    async def story() -> None:
        async with local_network(tmp_path, 4) as place, confined(place) as client:
            tunnel = connection(client)._tunnel
            assert tunnel._current is not None
            before = tunnel._current.contact.key
            await connection(client).change_relay()
            assert tunnel.is_open
            assert tunnel._current.contact.key != before
            assert (await Overlay(client).store(Kind.BODY, KEY, LARGE, ttl=60.0)).have == 4

    run(story)


def test_when_udp_works_again_it_is_used(tmp_path: Path) -> None:
    async def story() -> None:
        async with local_network(tmp_path, 3) as place, confined(place) as client:
            tunnel = connection(client)._tunnel
            assert tunnel._current is not None
            del client.protocol._send, client.protocol.ask_key
            await tunnel._current.close()
            await connection(client).restore()
            assert not tunnel.is_open
            assert client.protocol.tunnel_send is None
            assert client.http_client.via is None
            assert len(await client.closest(KEY, 3)) == 3

    run(story)


def test_a_node_that_only_https_lets_out_is_a_client_until_udp_works(tmp_path: Path) -> None:
    async def story() -> None:
        async with local_network(tmp_path, 4) as place:
            node = new_node(2002, tmp_path / "confined")
            try:
                await node.listen(0, LOOPBACK)
                without_udp(node, silent=True)
                await node.join([place.nodes[0].place])
                status = await node.status()
                assert (status.transport, status.mode, status.online) == ("https", "client", True)
                assert status.contacts > 0
                overlay = Overlay(node)
                assert (await overlay.store(Kind.BODY, KEY, LARGE, ttl=60.0)).have == 4
                assert await overlay.fetch(Kind.BODY, KEY, digest=sha256(LARGE).digest()) == LARGE
                assert node.id not in {at.contact.id for at in await overlay.closest(KEY, 8)}
                assert not any(other.protocol.router.get(node.id) for other in place.nodes)

                await connection(node).try_udp()
                assert (await node.status()).transport == "https"  # nobody answers by UDP still
                del node.protocol._send, node.protocol.ask_key
                await connection(node).try_udp()
                status = await node.status()
                assert (status.transport, status.mode) == ("udp", "node")
                assert node.id in {at.contact.id for at in await place.overlay.closest(node.id, 1)}
            finally:
                await node.stop()

    run(story)


@asynccontextmanager
async def two_by_way_of_each_other(folder: Path) -> AsyncIterator[list[Node]]:
    """Two nodes after an outage in which each used the other as its relay; UDP works again."""

    async def silence(contact: Contact) -> bool:
        return False

    async with local_network(folder, 2) as place:
        for node, other in (place.nodes, place.nodes[::-1]):
            node.protocol.answers_by_udp = silence  # type: ignore[method-assign]
            assert await connection(node)._tunnel.open([RelayAddress(LOOPBACK, other.port)])
            node.protocol.server_mode = False
        for node in place.nodes:
            for contact in node.protocol.router.closest(KEY, 8):
                node.protocol.router.drop(contact.id)
            del node.protocol.answers_by_udp
        yield place.nodes


def test_two_nodes_that_go_by_way_of_each_other_find_back_to_udp(tmp_path: Path) -> None:
    async def story() -> None:
        async with two_by_way_of_each_other(tmp_path) as nodes:
            for node in nodes:
                await connection(node).try_udp()
                await connection(node).rejoin()
            for node in nodes:
                status = await node.status()
                assert (status.transport, status.mode, status.contacts) == ("udp", "node", 1)

    run(story)


def test_nobody_goes_by_way_of_a_node_that_answers_by_udp(tmp_path: Path) -> None:
    async def story() -> None:
        async with two_by_way_of_each_other(tmp_path) as nodes:
            first, second = nodes
            await connection(first)._by_udp()
            await connection(first).rejoin()  # the second is a client still, so this node knows nobody
            assert not connection(first)._membership.in_touch
            assert ((await first.status()).transport, first.protocol.server_mode) == ("udp", True)
            assert not await connection(first)._tunnel.open([RelayAddress(LOOPBACK, second.port)])

    run(story)


def test_a_node_that_finds_no_relay_when_another_is_looked_for_serves_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(http_server: RelayAddress) -> TunnelSession:
        raise NoAnswer("no relay there")

    async def story() -> None:
        async with local_network(tmp_path, 2) as place:
            node = new_node(2003, tmp_path / "confined")
            try:
                await node.listen(0, LOOPBACK)
                without_udp(node, silent=True)
                await node.join([place.nodes[0].place])
                assert (await node.status()).transport == "https"
                monkeypatch.setattr(TunnelSession, "open", nothing)
                await connection(node).change_relay()
                status = await node.status()
                assert (status.transport, status.mode) == ("udp", "node")
            finally:
                await node.stop()

    run(story)


def test_a_node_that_had_answers_by_udp_does_not_leave_at_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with local_network(tmp_path, 3) as place:
            node = place.nodes[2]
            without_udp(node, silent=True)
            for contact in list(node.protocol.router.closest(KEY, 8)):
                node.protocol.router.drop(contact.id)
            await connection(node)._go_by_https()
            assert (await node.status()).mode == "node"

    run(story)


def test_who_is_reached_by_udp_goes_by_no_relay(tmp_path: Path) -> None:
    async def story() -> None:
        async with local_network(tmp_path, 3) as place:
            assert (await place.client.status()).transport == "udp"

    run(story)


def test_attack_an_impostor_in_front_of_a_relay_is_found_out_by_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay that claims another node's key can't open what is sealed for that node."""

    async def story() -> None:
        async with local_network(tmp_path, 3) as place:
            real, impostor = place.nodes[0], place.nodes[1]
            wrong = f"{impostor.place.partition('/')[0]}/{real.place.partition('/')[2]}"
            async with confined(place, wrong) as client:
                assert (await client.status()).transport == "udp"
                with pytest.raises(Unreachable):
                    await Overlay(client).store(Kind.BODY, KEY, b"x", ttl=60.0)
            monkeypatch.setattr(Relay, "_serve", _lying(real.sealer.public, Relay._serve))
            async with confined(place, wrong, number=2001) as client:
                assert (await client.status()).transport == "udp"

    run(story)


def _lying(key: bytes, serve: Any) -> Any:
    async def lie(self: Relay, request: Any) -> Any:
        own, self._protocol.sealer.public = self._protocol.sealer.public, key
        asyncio.get_running_loop().call_later(0.2, setattr, self._protocol.sealer, "public", own)
        return await serve(self, request)

    return lie


@asynccontextmanager
async def session(node: Node) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A session with a relay, for an attacker to use."""
    url = f"https://{LOOPBACK}:{node.port}{relay_frames.PATH}"
    async with aiohttp.ClientSession() as client, client.ws_connect(url, ssl=client_context()) as socket:
        welcome = relay_frames.decode_welcome(await socket.receive_bytes())
        assert welcome == relay_frames.Welcome(node.sealer.public, pack_ip(LOOPBACK))
        yield socket


class _Victim(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self.heard.append(data)


def test_attack_nobody_but_nodes_is_reached_through_a_relay(tmp_path: Path) -> None:
    async def story() -> None:
        async with local_network(tmp_path, 2) as place, session(place.nodes[0]) as socket:
            loop = asyncio.get_running_loop()
            transport, victim = await loop.create_datagram_endpoint(_Victim, local_addr=(LOOPBACK, 0))
            port = transport.get_extra_info("sockname")[1]
            for n in range(200):
                to = WireContact(bytes([n]) * 32, pack_ip(LOOPBACK), port)
                await socket.send_bytes(relay_frames.encode(relay_frames.Outward(to, b"for the victim" * 80)))
            proven = Contact(place.nodes[1].sealer.public, LOOPBACK, place.nodes[1].port)
            await socket.send_bytes(relay_frames.encode(relay_frames.Outward(proven.wire, b"\x01" * 100)))
            while not place.nodes[1].protocol.dropped:  # which tells that all before it were dealt with
                await asyncio.sleep(0.01)
            transport.close()
            assert all(len(data) < 120 and b"victim" not in data for data in victim.heard)
            assert len(victim.heard) <= 3 * relay.VERIFYING

    run(story)


class _JustBooted(asyncio.SelectorEventLoop):
    """A loop whose clock starts at zero, as the monotonic clock does when a computer starts."""

    def __init__(self) -> None:
        self._booted = time.monotonic()
        super().__init__()

    def time(self) -> float:
        return super().time() - self._booted


def just_booted(story: Coroutine[Any, Any, None]) -> None:
    """Run with a clock near zero: what never happened must not look recent."""
    with asyncio.Runner(loop_factory=_JustBooted) as runner:
        runner.run(story)


@pytest.mark.parametrize("loop", [asyncio.run, just_booted])
@pytest.mark.parametrize("name", ["nonsense", "127.0.0.1:80", "127.0.0.1:80/" + "00" * 32, "[::1]:0/" + "11" * 32])
def test_attack_a_relay_is_no_proxy(tmp_path: Path, name: str, loop: Callable[..., None]) -> None:
    async def story() -> None:
        async with local_network(tmp_path, 1) as place, aiohttp.ClientSession() as client:
            url = f"https://{LOOPBACK}:{place.nodes[0].port}/{KEY.hex()}"
            async with client.get(url, ssl=client_context(), headers={relay_frames.TO: name}) as answer:
                assert answer.status in (400, 403)

    run(story, loop)


def test_a_relay_says_that_an_http_server_is_gone(tmp_path: Path) -> None:
    async def story() -> None:
        async with local_network(tmp_path, 2) as place, aiohttp.ClientSession() as client:
            through, gone = place.nodes
            assert await relay_of(through).verify(Contact(gone.sealer.public, LOOPBACK, gone.port))
            assert gone.server is not None and gone.server.http is not None
            await gone.server.http.server.stop()
            url = f"https://{LOOPBACK}:{through.port}/{KEY.hex()}"
            to = relay_frames.to_value(LOOPBACK, gone.port, gone.protocol.fingerprint)
            async with client.get(url, ssl=client_context(), headers={relay_frames.TO: to}) as answer:
                assert answer.status == 504

    run(story)


def test_a_relay_without_sockets_says_so_and_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with local_network(tmp_path, 1) as place:
            through = relay_of(place.nodes[0])
            monkeypatch.setattr(through, "_interface", "192.0.2.1")  # which this computer hasn't
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with session(place.nodes[0]):
                    pass
            assert refused.value.status == 503
            assert not through._open

    run(story)


def test_attack_nonsense_in_a_session_is_dropped(tmp_path: Path) -> None:
    async def story() -> None:
        async with local_network(tmp_path, 1) as place, session(place.nodes[0]) as socket:
            await socket.send_bytes(b"\xff" * 500)
            await socket.send_str("hello")
            await socket.send_bytes(
                relay_frames.encode(relay_frames.Outward(WireContact(b"k" * 32, b"\0" * 4, 1), b""))
            )
            await socket.ping()
            with pytest.raises(TimeoutError):
                await socket.receive(timeout=0.05)

    run(story)


def test_attack_sessions_of_one_address_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "SESSIONS", 2)

    async def story() -> None:
        async with local_network(tmp_path, 1) as place, session(place.nodes[0]), session(place.nodes[0]):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with session(place.nodes[0]):
                    pass
            assert refused.value.status == 503

    run(story)


def test_a_relay_that_only_says_that_it_stored_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with local_network(tmp_path, 5) as place, confined(place) as client:
            bulk = client.http_client

            async def pretend(*_: Any, **__: Any) -> None: ...

            monkeypatch.setattr(bulk, "store", pretend)
            outcome = await Overlay(client).store(Kind.BODY, KEY, LARGE, ttl=60.0)
            assert outcome.have == 0
            assert "the node doesn't" in outcome.refusals[0]

    run(story)
