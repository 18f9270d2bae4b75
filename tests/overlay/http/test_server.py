"""The HTTP server and its client: the primitives at any size, and malformed or hostile requests and answers."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from overlay.errors import NoAnswer, Refused
from overlay.http import headers as http_format
from overlay.http import server
from overlay.http.client import ClientTimeouts
from overlay.http.server_limits import ServerLimits
from overlay.identity.certificates import TrustStore
from overlay.identity.contact import Contact
from overlay.identity.ownership import (
    ACKNOWLEDGE_INBOX,
    DELETE,
    READ_INBOX,
    Owner,
    decode_delete_proof,
    proves_delete,
    statement,
)
from overlay.identity.tls import IdentityError, load_identity, make_identity
from overlay.ids import Kind, deleter_hash, inbox_key
from overlay.kademlia.lookup import Located
from overlay.limits.address_quota import AddressQuota
from overlay.primitives.requests import DeleteRequest, FetchRequest
from overlay.protocol_limits import MAX_HTTP_READ, MAX_OBJECT
from overlay.wire.messages import WORDS, Code
from overlay.wire.write_tokens import NOBODY
from storage.store_request import StoreRequest
from tests.overlay.http_servers import (
    ALICE,
    ALICE_KEY,
    ASKER,
    BOB,
    IDENTITY,
    ISSUER,
    KEY,
    SALT,
    hang_up,
    http_server,
    node_that,
)
from tests.overlay.issuing import NOW
from tests.programs import need_program

LARGE = bytes(range(256)) * 4 * 900  # 900 KiB: more than stays in memory
INBOX = inbox_key("alice@example.org")
BRIEFLY = ServerLimits(linger=0.05)


def alice_hash(key: bytes = KEY) -> bytes:
    return deleter_hash(key, SALT, ALICE.certificate)


# Store and fetch


@pytest.mark.parametrize("data", [b"", b"short", LARGE])
async def test_an_object_comes_back_as_it_went(tmp_path: Path, data: bytes) -> None:
    async with http_server(tmp_path) as world:
        await world.client.store(world.located, StoreRequest.of(Kind.BODY, KEY, data, 100.0, [alice_hash()]))
        digest = hashlib.sha256(data).digest()
        assert await world.client.fetch(world.located, FetchRequest(Kind.BODY, KEY, digest), len(data)) == data
        kept = world.store.objects[Kind.BODY, KEY][digest]
        assert (kept.deleters, kept.ttl) == ({alice_hash()}, 100.0)
        assert world.store.spooled == []


async def test_a_file_is_streamed_out_and_in(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(LARGE * 3)
    digest = hashlib.sha256(LARGE * 3).digest()
    async with http_server(tmp_path) as world:
        await world.client.store(world.located, StoreRequest(Kind.BODY, KEY, source, digest, 100.0))
        size = await world.client.fetch_to(world.located, FetchRequest(Kind.BODY, KEY, digest), MAX_OBJECT, target)
    assert size == 3 * len(LARGE)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("there", [b"", LARGE[:1000], LARGE, LARGE + b"more"])
async def test_a_fetch_goes_on_where_an_earlier_one_broke_off(tmp_path: Path, there: bytes) -> None:
    digest = hashlib.sha256(LARGE).digest()
    target = tmp_path / "target"
    target.write_bytes(there)
    async with http_server(tmp_path) as world:
        await world.client.store(world.located, StoreRequest.of(Kind.BODY, KEY, LARGE, 100.0))
        if len(there) > len(LARGE):  # learns that it is longer than the object, and starts over the next time
            with pytest.raises(NoAnswer):
                await world.client.fetch_to(world.located, FetchRequest(Kind.BODY, KEY, digest), MAX_OBJECT, target)
        await world.client.fetch_to(world.located, FetchRequest(Kind.BODY, KEY, digest), MAX_OBJECT, target)
    assert target.read_bytes() == LARGE


async def test_a_resumed_file_that_is_wrong_is_removed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"x" * 1000)
    async with http_server(tmp_path) as world:
        await world.client.store(world.located, StoreRequest.of(Kind.BODY, KEY, LARGE, 100.0))
        digest = hashlib.sha256(LARGE).digest()
        with pytest.raises(NoAnswer):
            await world.client.fetch_to(world.located, FetchRequest(Kind.BODY, KEY, digest), MAX_OBJECT, target)
    assert not target.exists()


@pytest.mark.parametrize(
    ("wanted", "status", "got"),
    [
        ("bytes=0-9", 206, LARGE[:10]),
        ("bytes=921590-", 206, LARGE[921590:]),
        ("bytes=-5", 206, LARGE[-5:]),
        ("bytes=921600-", 416, b"no such range\n"),
        ("bytes=5-1", 200, LARGE),
        ("bytes=0-1,4-5", 200, LARGE),
    ],
)
@pytest.mark.parametrize("in_memory", [True, False])
async def test_one_range_of_an_object_can_be_had(
    tmp_path: Path, wanted: str, status: int, got: bytes, in_memory: bool
) -> None:
    async with http_server(tmp_path) as world:
        await world.client.store(world.located, StoreRequest.of(Kind.BODY, KEY, LARGE, 100.0))
        if in_memory:
            world.store.objects[Kind.BODY, KEY][hashlib.sha256(LARGE).digest()].content = LARGE
        answer = await world.say("GET", f"/{KEY.hex()}", f"Range: {wanted}")
    assert (answer[0], answer[2]) == (status, got)


async def test_a_thousand_deleters_arrive(tmp_path: Path) -> None:
    deleters = [hashlib.sha256(bytes([n % 256, n // 256])).digest() for n in range(1000)]
    async with http_server(tmp_path) as world:
        await world.client.store(world.located, StoreRequest.of(Kind.BODY, KEY, b"x", 1.0, deleters))
        assert world.store.objects[Kind.BODY, KEY][hashlib.sha256(b"x").digest()].deleters == set(deleters)


@pytest.mark.parametrize("data", [b"short", LARGE])
async def test_a_body_whose_digest_is_wrong_is_not_filed(tmp_path: Path, data: bytes) -> None:
    async with http_server(tmp_path) as world:
        digest = http_format.digest_field(bytes(32))
        lengths = f"Content-Length: {len(data)}", f"Content-Digest: {digest}"
        status, _, words = await world.say("PUT", f"/{KEY.hex()}", *lengths, body=data)
        assert (status, b"digest" in words) == (400, True)
        assert world.store.objects == {}
        assert world.store.spooled == []


async def test_an_upload_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    async with http_server(tmp_path) as world:
        reader, writer = await world.connect()
        token = world.tokens.issue(NOBODY, "127.0.0.1").hex()
        head = f"PUT /{KEY.hex()} HTTP/1.1\r\nHost: x\r\nP2pmail-Token: {token}\r\nContent-Length: 900000\r\n"
        writer.write(head.encode() + b"Expect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(bytes(100_000))
        await writer.drain()
        await hang_up(writer)
        assert await reader.read() == b""
        await world.http_server.answered.wait()
        assert world.store.objects == {}
        assert world.store.spooled == []


async def test_a_full_disk_is_a_refusal_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(server, "write", full)
    async with http_server(tmp_path) as world:
        with pytest.raises(Refused) as refused:
            await world.client.store(world.located, StoreRequest.of(Kind.BODY, KEY, LARGE, 1.0))
        assert refused.value.code == Code.NO_SPACE
        assert world.store.objects == {}
        assert world.store.spooled == []


async def test_an_error_in_this_program_shows_no_traceback_and_acknowledges_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with http_server(tmp_path) as world:
        world.store.refuse_with = RuntimeError("secret")
        status, _, words = await world.say("PUT", f"/{KEY.hex()}", f"Content-Length: {len(LARGE)}", body=LARGE)
        assert status == 500
        assert b"secret" not in words
        assert b"Traceback" not in words
        assert world.store.spooled == []
    assert "secret" in caplog.text


# Refusals


@pytest.mark.parametrize("code", sorted(WORDS))
async def test_a_refusal_reaches_the_asker_as_what_it_is(tmp_path: Path, code: int) -> None:
    async with http_server(tmp_path) as world:
        world.store.refuse_with = code
        with pytest.raises(Refused) as refused:
            await world.client.store(world.located, StoreRequest.of(Kind.BODY, KEY, b"x", 1.0))
        assert (refused.value.code, str(refused.value)) == (code, WORDS[code])
        status, head, words = await world.say("PUT", f"/{KEY.hex()}", "Content-Length: 1", body=b"x")
        assert status == http_format.STATUS[code]
        assert f"P2pmail-Refusal: {code}" in head
        assert words == WORDS[code].encode() + b"\n"


async def test_without_this_nodes_token_for_this_asker_nothing_is_done(tmp_path: Path) -> None:
    async with http_server(tmp_path) as world:
        for token in (bytes(16), world.tokens.issue(b"\x06" * 32, "127.0.0.1"), world.tokens.issue(ASKER, "127.0.0.2")):
            with pytest.raises(Refused) as refused:
                await world.client.store(
                    replace(world.located, token=token), StoreRequest.of(Kind.BODY, KEY, b"x", 1.0)
                )
            assert refused.value.code == Code.BAD_TOKEN
        status, _, _ = await world.say("PUT", f"/{KEY.hex()}", "Content-Length: 1", body=b"x", token=False)
        assert status == 400
        assert world.store.objects == {}


async def test_what_is_too_large_is_refused_before_a_byte_of_it_is_taken(tmp_path: Path) -> None:
    async with http_server(tmp_path, BRIEFLY) as world:
        too_long = f"Content-Length: {MAX_OBJECT + 1}", "Expect: 100-continue"
        status, _, _ = await world.say("PUT", f"/{KEY.hex()}", *too_long)
        assert status == 413


async def test_a_client_that_asks_first_is_told_to_go_on(tmp_path: Path) -> None:
    async with http_server(tmp_path) as world:
        status, _, rest = await world.say(
            "PUT", f"/{KEY.hex()}", "Content-Length: 1", "Expect: 100-continue", body=b"x"
        )
        assert status == 100
        assert rest.startswith(b"HTTP/1.1 200 ")
        assert world.store.objects


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("PUT", ["Transfer-Encoding: chunked"], 411),
        ("PUT", [], 411),
        ("PUT", ["Content-Length: 1", "Content-Encoding: gzip"], 415),
        ("PUT", ["Content-Length: 1", "Expect: a miracle"], 417),
        ("PUT", ["Content-Length: 1", "P2pmail-Kind: letter"], 400),
        ("PUT", ["Content-Length: 1", "P2pmail-Kind: state"], 400),
        ("PUT", ["Content-Length: 1", "Pragma: append-inbx"], 400),
        ("PUT", ["Content-Length: 70000", "Pragma: append-inbox"], 413),
        ("PUT", ["Content-Length: 1", "Pragma: tombstone"], 405),
        ("DELETE", ["Content-Length: 33", "Pragma: read-inbox"], 400),
        ("DELETE", [], 400),
        ("POST", ["Content-Length: 1"], 405),
        ("OPTIONS", [], 405),
        ("GET", [], 404),
    ],
)
async def test_a_request_that_is_not_right_gets_the_word_that_http_has_for_it(
    tmp_path: Path, method: str, headers: Sequence[str], status: int
) -> None:
    body = {"T": b"1\r\nx\r\n0\r\n\r\n", "C": b"x"}.get(headers[0][0] if headers else "", b"")
    async with http_server(tmp_path, BRIEFLY) as world:
        answer = await world.say(method, f"/{KEY.hex()}", *headers, body=body)
        assert answer[0] == status
        assert world.store.objects == {}


@pytest.mark.parametrize("path", ["/", "/../../etc/passwd", f"/{KEY.hex()}/more", f"/closest/{KEY.hex()}?k=41", "/%00"])
async def test_a_path_that_is_none_is_refused(tmp_path: Path, path: str) -> None:
    async with http_server(tmp_path) as world:
        assert (await world.say("GET", path))[0] == 400


@pytest.mark.parametrize(
    "garbage", [b"\x00" * 5000, b"GET / HTTP/9.9\r\n\r\n", b"x" * 100_000, b"GET /\r\n" + b"a:b\r\n" * 99]
)
async def test_garbage_is_answered_with_an_error_and_the_server_stays_open(
    tmp_path: Path, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with http_server(tmp_path) as world:
        assert (await world.shout(garbage + b"\r\n\r\n"))[0] in (0, 400, 405)
        assert (await world.say("GET"))[0] == 404
    assert caplog.records == []


# Owners


async def test_a_recipient_deletes_and_the_signed_delete_stays(tmp_path: Path) -> None:
    async with http_server(tmp_path) as world:
        await world.client.store(world.located, StoreRequest.of(Kind.BODY, KEY, LARGE, 1.0, [alice_hash()]))
        assert await world.client.tombstone(world.located, Kind.BODY, KEY, alice_hash()) is None
        assert await world.client.delete(world.located, DeleteRequest(Kind.BODY, KEY, SALT), ALICE) == 1
        proof = await world.client.tombstone(world.located, Kind.BODY, KEY, alice_hash())
        assert proof is not None
        assert proves_delete(decode_delete_proof(proof), ALICE_KEY)
        with pytest.raises(Refused) as refused:
            await world.client.fetch(world.located, FetchRequest(Kind.BODY, KEY), MAX_OBJECT)
        assert refused.value.code == Code.NOT_FOUND


async def test_a_delete_by_somebody_else_or_signed_for_another_node_deletes_nothing(tmp_path: Path) -> None:
    async with http_server(tmp_path) as world:
        await world.client.store(world.located, StoreRequest.of(Kind.BODY, KEY, b"x", 1.0, [alice_hash()]))
        assert await world.client.delete(world.located, DeleteRequest(Kind.BODY, KEY, SALT), BOB) == 0
        elsewhere = replace(world.located, contact=Contact(b"\x08" * 32, "127.0.0.1", 4000))
        with pytest.raises(Refused) as refused:
            await world.client.delete(elsewhere, DeleteRequest(Kind.BODY, KEY, SALT), ALICE)
        assert refused.value.code == Code.NOT_PERMITTED
        assert await world.client.fetch(world.located, FetchRequest(Kind.BODY, KEY), 10) == b"x"


async def test_an_inbox_is_appended_to_read_and_acknowledged(tmp_path: Path) -> None:
    async with http_server(tmp_path) as world:
        messages = [bytes([n]) * 1000 for n in range(20)]
        for message in messages:
            assert await world.client.append_inbox(world.located, INBOX, message, ttl=100.0)
        assert not await world.client.append_inbox(world.located, INBOX, messages[0], ttl=100.0)
        assert await world.client.read_inbox(world.located, INBOX, ALICE) == (messages, False)
        hashes = [hashlib.sha256(message).digest() for message in messages]
        assert await world.client.acknowledge_inbox(world.located, INBOX, ALICE, hashes) == 20
        assert await world.client.read_inbox(world.located, INBOX, ALICE) == ([], False)


async def test_an_inbox_of_more_than_one_answer_says_that_there_is_more(tmp_path: Path) -> None:
    async with http_server(tmp_path) as world:
        messages = [os.urandom(60_000) for _ in range(80)]
        world.store.inboxes[INBOX] = messages
        some, more = await world.client.read_inbox(world.located, INBOX, ALICE)
        assert more
        assert some == messages[: MAX_HTTP_READ // 60_000]


async def test_only_the_owner_reads_and_empties_an_inbox(tmp_path: Path) -> None:
    async with http_server(tmp_path) as world:
        world.store.inboxes[INBOX] = [b"letter"]
        stranger = Owner(ALICE.certificate, BOB.sign)
        for thief in (BOB, stranger):
            with pytest.raises(Refused) as read:
                await world.client.read_inbox(world.located, INBOX, thief)
            with pytest.raises(Refused) as emptied:
                await world.client.acknowledge_inbox(world.located, INBOX, thief, [hashlib.sha256(b"letter").digest()])
            assert (read.value.code, emptied.value.code) == (Code.NOT_PERMITTED, Code.NOT_PERMITTED)
        assert world.store.inboxes[INBOX] == [b"letter"]


# Lookups


def neighbour(number: int) -> Located:
    return Located(Contact(bytes([number]) * 32, "127.0.0.1", 4000 + number), b"", 5000 + number, bytes(32))


async def test_a_lookup_brings_the_closest_nodes_this_one_among_them_and_the_token(tmp_path: Path) -> None:
    async with http_server(tmp_path) as world:
        world.others = [neighbour(number) for number in range(20, 30)]
        me = world.contact.id
        token, node, found = await world.client.closest("127.0.0.1", world.port, me, 5, IDENTITY.fingerprint)
        assert (node, len(found), world.lookups) == (me, 5, [(me, 5)])
        assert found[0] == replace(world.own(), token=token)
        assert set(found[1:]) < set(world.others)
        assert world.tokens.good(token, ASKER, "127.0.0.1")


async def test_asking_for_no_contacts_costs_no_lookup_and_needs_no_fingerprint(tmp_path: Path) -> None:
    async with http_server(tmp_path) as world:
        token, _, found = await world.client.closest("localhost", world.port, KEY, 0, None)
        assert (found, world.lookups) == ([], [])
        assert world.tokens.good(token, ASKER, "127.0.0.1")


async def test_lookups_for_one_address_are_bounded(tmp_path: Path) -> None:
    async with http_server(tmp_path, ServerLimits(lookups_each=1)) as world:
        asked, answer = asyncio.Event(), asyncio.Event()

        async def slowly(key: bytes, k: int) -> list[Located]:
            asked.set()
            await answer.wait()
            return []

        world.http_server._closest = slowly
        first = asyncio.create_task(world.client.closest("127.0.0.1", world.port, KEY, 5, None))
        await asked.wait()
        with pytest.raises(Refused) as refused:
            await world.client.closest("127.0.0.1", world.port, KEY, 5, None)
        assert refused.value.code == Code.BUSY
        answer.set()
        assert (await first)[2] == [replace(world.own(), token=(await first)[0])]


async def test_contacts_that_the_network_forbids_or_that_lie_about_their_id_are_left_out() -> None:
    good, private = neighbour(1), replace(neighbour(2), contact=Contact(b"\2" * 32, "0.0.0.0", 1))
    text = http_format.encode_closest(KEY, bytes(16), [good, private, neighbour(3)])
    text = text.replace(neighbour(3).contact.id.hex().encode(), b"00" * 20)

    async with node_that(FixedResponse(200, text)) as (client, node):
        _, _, found = await client.closest("127.0.0.1", node.bulk_port, KEY, 3, node.fingerprint)
    assert found == [good]


# Nodes that can't be relied on


class FixedResponse:
    """Reads a request and always sends this answer."""

    def __init__(self, status: int, body: bytes = b"", *headers: str, length: int | None = None) -> None:
        announced = f"Content-Length: {len(body) if length is None else length}"
        head = "\r\n".join([f"HTTP/1.1 {status} So", *([announced] if length != -1 else []), *headers])
        self.data = head.encode() + b"\r\n\r\n" + body

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(self.data)
        await hang_up(writer)


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    try:
        while True:
            writer.write(bytes(100_000))
            await writer.drain()
    except OSError:
        await hang_up(writer)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    await hang_up(writer)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (endless, "sends more than the 1000 bytes"),
        (FixedResponse(200, bytes(2000), "Transfer-Encoding: chunked", length=-1), "over HTTPS"),
        (
            FixedResponse(200, b"fff\r\n" + bytes(4095), "Transfer-Encoding: chunked", length=-1),
            "more than the 1000 bytes",
        ),
        (FixedResponse(200, bytes(2000)), "would send 2000 bytes, more than the 1000"),
        (FixedResponse(200, bytes(10), length=1 << 40), "would send"),
        (FixedResponse(200, bytes(10), length=500), "over HTTPS"),
        (FixedResponse(200, b"not what was asked for"), "something else"),
        (FixedResponse(206, b"a part that nobody wanted"), "status 206"),
        (FixedResponse(500, b"<html>"), "status 500"),
        (FixedResponse(200, b"x", "X: " + "x" * 100_000), "over HTTPS"),
        (FixedResponse(999), "status 999"),
    ],
)
async def test_an_answer_that_is_too_long_or_wrong_is_no_answer(answer: FixedResponse, why: str) -> None:
    async with node_that(answer) as (client, node):
        with pytest.raises(NoAnswer, match=why) as error:
            await client.fetch(node, FetchRequest(Kind.BODY, KEY, bytes(32)), 1000)
        assert str(node.bulk_port) in str(error.value)
        assert "html" not in str(error.value)


async def test_a_node_can_not_send_its_asker_elsewhere() -> None:
    async def redirecting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = writer.get_extra_info("sockname")[1]
        request = await reader.readuntil(b"\r\n\r\n")
        to = f"Location: https://127.0.0.1:{port}/elsewhere"
        answer = FixedResponse(200, b"followed") if b"elsewhere" in request else FixedResponse(302, b"", to)
        writer.write(answer.data)
        await hang_up(writer)

    async with node_that(redirecting) as (client, node):
        with pytest.raises(NoAnswer, match="status 302"):
            await client.fetch(node, FetchRequest(Kind.BODY, KEY), 1000)


async def test_an_object_whose_file_has_lost_its_end_does_not_look_whole(tmp_path: Path) -> None:
    async with http_server(tmp_path) as world:
        await world.client.store(world.located, StoreRequest.of(Kind.BODY, KEY, LARGE, 1.0))
        kept = world.store.objects[Kind.BODY, KEY][hashlib.sha256(LARGE).digest()].content
        assert isinstance(kept, Path)
        kept.write_bytes(LARGE[:-1])
        with pytest.raises(NoAnswer):
            await world.client.fetch(world.located, FetchRequest(Kind.BODY, KEY), MAX_OBJECT)


async def test_a_node_that_stays_silent_is_waited_for_no_longer_than_patience_lasts() -> None:
    async with node_that(silent, ClientTimeouts(idle=0.05)) as (client, node):
        with pytest.raises(NoAnswer, match="too slow"):
            await client.store(node, StoreRequest.of(Kind.BODY, KEY, LARGE * 30, 1.0))
        with pytest.raises(NoAnswer, match="too slow"):
            await client.fetch(node, FetchRequest(Kind.BODY, KEY), 1000)


async def test_a_node_that_trickles_is_cut_off() -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nx")
        await silent(reader, writer)

    async with node_that(trickle, ClientTimeouts(window=0.05)) as (client, node):
        with pytest.raises(NoAnswer, match="too slow"):
            await client.fetch(node, FetchRequest(Kind.BODY, KEY), 1000)


async def test_another_certificate_than_the_one_that_was_announced_is_no_answer() -> None:
    async with node_that(FixedResponse(200, b"mine"), identity=make_identity(NOW)) as (client, node):
        with pytest.raises(NoAnswer, match="another TLS certificate"):
            await client.fetch(node, FetchRequest(Kind.BODY, KEY), 1000)


async def test_a_node_without_an_http_server_is_not_asked(tmp_path: Path) -> None:
    async with http_server(tmp_path) as world:
        for nowhere in (replace(world.located, bulk_port=0), replace(world.located, fingerprint=b"")):
            with pytest.raises(NoAnswer, match="no HTTP server"):
                await world.client.fetch(nowhere, FetchRequest(Kind.BODY, KEY), 1000)
        await world.http_server.stop()
        with pytest.raises(NoAnswer):
            await world.client.fetch(world.located, FetchRequest(Kind.BODY, KEY), 1000)


# Askers that can't be relied on


async def test_an_upload_that_trickles_is_cut_off(tmp_path: Path) -> None:
    async with http_server(tmp_path, ServerLimits(window=0.05, linger=0.05)) as world:
        status, _, _ = await world.say("PUT", f"/{KEY.hex()}", "Content-Length: 900000", body=b"only this")
        assert status == 408
        assert world.store.spooled == []


@pytest.mark.parametrize("first", [b"", b"GET / HTTP/1.1\r\nHost:"])
async def test_a_connection_on_which_no_request_comes_is_closed(tmp_path: Path, first: bytes) -> None:
    async with http_server(tmp_path, ServerLimits(idle=0.05)) as world:
        assert await world.shout(first) == (0, "", b"")


async def test_a_connection_that_never_shakes_hands_is_closed(tmp_path: Path) -> None:
    async with http_server(tmp_path, ServerLimits(handshake=0.05)) as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        assert await reader.read() == b""
        await hang_up(writer)


async def test_an_asker_that_does_not_take_its_answer_is_cut_off(tmp_path: Path) -> None:
    size = 40_000_000
    async with http_server(tmp_path, ServerLimits(window=0.05)) as world:
        with (tmp_path / "sparse").open("wb") as sparse:
            sparse.truncate(size)
        await world.service.store(StoreRequest(Kind.BODY, KEY, tmp_path / "sparse", bytes(32), 1.0))
        reader, writer = await world.connect()
        token = world.tokens.issue(NOBODY, "127.0.0.1").hex()
        writer.write(f"GET /{KEY.hex()} HTTP/1.1\r\nHost: x\r\nP2pmail-Token: {token}\r\n\r\n".encode())
        await world.http_server.answered.wait()
        got = 0
        try:
            while piece := await reader.read(1 << 20):
                got += len(piece)
        except OSError:
            pass
        assert got < size
        await hang_up(writer)


async def test_one_address_has_so_many_connections_and_no_more(tmp_path: Path) -> None:
    async with http_server(tmp_path, ServerLimits(connections_each=2)) as world:
        first, second = await world.connect(), await world.connect()
        with pytest.raises(OSError):
            await world.connect()
        await hang_up(first[1])
        assert await first[0].read() == b""
        while True:  # until the server has noticed too
            try:
                third = await world.connect()
                break
            except OSError:
                await asyncio.sleep(0)
        for _, writer in (second, third):
            await hang_up(writer)


def test_shares_are_bounded_in_all_and_by_address_and_come_back() -> None:
    shares = AddressQuota(10, 4, loopback_free=True)
    assert shares.take("192.0.2.1", 4)
    assert not shares.take("192.0.2.1")
    assert not shares.take("::ffff:192.0.2.1")
    assert shares.take("2001:db8::1", 4)
    assert not shares.take("2001:db8::2")  # the same /56
    assert not shares.take("127.0.0.1", 3)
    assert shares.take("127.0.0.1", 2)
    assert not shares.take("192.0.2.9")
    shares.give("192.0.2.1", 4)
    assert shares.take("192.0.2.1", 4)
    assert not AddressQuota(10, 1, loopback_free=False).take("127.0.0.1", 2)


async def test_what_is_received_and_not_stored_yet_is_bounded(tmp_path: Path) -> None:
    async with http_server(tmp_path, ServerLimits(spool_each=500_000, linger=0.05)) as world:
        with pytest.raises(Refused) as refused:
            await world.client.store(world.located, StoreRequest.of(Kind.BODY, KEY, LARGE, 1.0))
        assert refused.value.code == Code.BUSY
        await world.client.store(world.located, StoreRequest.of(Kind.BODY, KEY, LARGE[:400_000], 1.0))
        await world.client.store(world.located, StoreRequest.of(Kind.BODY, KEY, LARGE[:400_001], 1.0))
        assert world.store.spooled == []


async def test_a_request_under_way_is_answered_before_the_server_stops(tmp_path: Path) -> None:
    async with http_server(tmp_path) as world:
        asked, answer = asyncio.Event(), asyncio.Event()

        async def slowly(key: bytes, k: int) -> list[Located]:
            asked.set()
            await answer.wait()
            return []

        world.http_server._closest = slowly
        lookup = asyncio.create_task(world.client.closest("127.0.0.1", world.port, KEY, 5, None))
        await asked.wait()
        stopping = asyncio.create_task(world.http_server.stop(grace=10.0))
        await asyncio.sleep(0)
        answer.set()
        assert (await lookup)[1] == world.contact.id
        await stopping


async def test_an_asker_over_ipv6_to_a_dual_stack_server_has_the_token_of_its_ipv4_address(tmp_path: Path) -> None:
    async with http_server(tmp_path) as world:
        await world.http_server.stop()
        try:
            world.port = await world.http_server.start("::", 0)
        except OSError:
            pytest.skip("no IPv6 here")
        await world.client.store(world.located, StoreRequest.of(Kind.BODY, KEY, b"x", 1.0))


# The node's identity


def test_an_identity_kept_is_the_same_one_again() -> None:
    assert load_identity(IDENTITY.pem) == IDENTITY
    assert b"PRIVATE" not in repr(IDENTITY).encode()


@pytest.mark.parametrize(
    "pem",
    [b"", b"nonsense", IDENTITY.pem[:300], IDENTITY.pem.replace(b"CERTIFICATE", b"CERTIFICAT")],
)
def test_an_identity_that_is_damaged_is_refused(pem: bytes) -> None:
    with pytest.raises(IdentityError):
        load_identity(pem)


def test_an_identity_of_another_key_is_refused() -> None:
    other = make_identity(NOW).pem
    mixed = IDENTITY.pem[: IDENTITY.pem.index(b"-----BEGIN CERT")] + other[other.index(b"-----BEGIN CERT") :]
    with pytest.raises(IdentityError, match="isn't of its key"):
        load_identity(mixed)


# curl


async def run(*command: str) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out


async def test_curl_goes_through_all_primitives(tmp_path: Path) -> None:
    curl = need_program("curl")
    message = tmp_path / "letter"
    message.write_bytes(LARGE * 2)  # over 1 MB, so curl asks with Expect: 100-continue
    async with http_server(tmp_path) as world:

        async def ask(path: str, *options: str) -> bytes:
            return await run(curl, "-sSk", "--fail-with-body", "--max-time", "60", *options, world.url + path)

        def header(name: str, value: str | bytes) -> tuple[str, str]:
            return "-H", f"{name}: {value if isinstance(value, str) else http_format.base64url(value)}"

        def signed(operation: bytes, key: bytes, *extra: bytes) -> tuple[str, ...]:
            signature = ALICE.sign(statement(operation, key, node, token, extra))
            return (
                *with_token,
                *header("P2pmail-Certificate", ALICE.certificate),
                *header("P2pmail-Signature", signature),
            )

        answer = json.loads(await ask(f"/closest/{KEY.hex()}?k=1"))
        assert [contact["id"] for contact in answer["contacts"]] == [answer["node"]]
        token, node = bytes.fromhex(answer["token"]), bytes.fromhex(answer["node"])
        with_token = header("P2pmail-Token", answer["token"])
        body, inbox = f"/{KEY.hex()}", f"/{INBOX.hex()}"

        mine = header("P2pmail-Deleters", alice_hash())
        assert await ask(body, "-T", str(message), *with_token, *mine, *header("P2pmail-TTL", "3600")) == b"stored\n"
        assert await ask(body, *with_token) == message.read_bytes()
        salted = header("P2pmail-Salt", SALT)
        assert await ask(body, "-X", "DELETE", *signed(DELETE, KEY, SALT), *salted) == b"deleted, objects dropped: 1\n"
        stone = await ask(f"{body}?deleter={alice_hash().hex()}", *with_token, *header("Pragma", "tombstone"))
        trust = TrustStore([ISSUER.der])
        proof = decode_delete_proof(stone)
        assert proves_delete(proof, trust.verify(proof.certificate, NOW).public_key)

        message.write_bytes(b"a notification")
        append = header("Pragma", "append-inbox")
        assert await ask(inbox, "-T", str(message), *with_token, *append) == b"appended\n"
        read = header("Pragma", "read-inbox")
        waiting = http_format.decode_notifications(await ask(inbox, *signed(READ_INBOX, INBOX), *read))
        assert waiting == [b"a notification"]
        digest = hashlib.sha256(waiting[0]).digest()
        hashes = tmp_path / "hashes"
        hashes.write_bytes(digest)
        sent = "-X", "DELETE", "--data-binary", f"@{hashes}"
        assert await ask(inbox, *sent, *signed(ACKNOWLEDGE_INBOX, INBOX, digest), *read) == b"acknowledged: 1\n"
        assert world.store.inboxes[INBOX] == []
