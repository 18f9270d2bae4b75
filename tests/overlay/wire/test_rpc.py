from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.errors import Malformed, NoAnswer, Refused
from overlay.identity.contact import Contact
from overlay.wire import fragments, messages, rpc, sealed_datagram
from overlay.wire.messages import Code
from overlay.wire.rpc import Handled, RemotePeer, SealedRPC
from overlay.wire.sealed_datagram import Sealer
from tests.overlay.peers import found, new_key
from tests.simulation.world import Address, Transport, Weather, World

A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"
KEY, TOKEN = bytes(20), bytes(16)
FETCH = messages.Fetch(TOKEN, 1, KEY)


class Echo(SealedRPC):
    """Answers with what `answer` returns, and records the requests."""

    answer: Callable[[messages.Request], Handled] = staticmethod(lambda request: messages.Done(7))

    def __init__(self, sealer: Sealer, world: World) -> None:
        super().__init__(sealer, server_mode=True, random=world.chance.randbytes)
        self.requests: list[tuple[RemotePeer, messages.Request]] = []
        self.who_answered: list[tuple[Contact, bool]] = []
        self.who_was_silent: list[Contact] = []

    def handle(self, sender: RemotePeer, request: messages.Request) -> Handled:
        self.requests.append((sender, request))
        return self.answer(request)

    def answered(self, contact: Contact, server_mode: bool) -> None:
        self.who_answered.append((contact, server_mode))

    def silent(self, contact: Contact) -> None:
        self.who_was_silent.append(contact)


class Side:
    def __init__(self, protocol: Echo, transport: Transport) -> None:
        self.protocol, self.transport = protocol, transport
        self.contact = Contact(protocol.sealer.public, *transport.address)


async def side(world: World, ip: str) -> Side:
    sealer = Sealer(new_key(world), "test", world.chance.randbytes)
    transport, protocol = await world.create_datagram_endpoint(lambda: Echo(sealer, world), local_addr=(ip, 4000))
    return Side(protocol, transport)


def play(story: Callable[[World, Side, Side], Awaitable[None]], weather: Weather | None = None, seed: int = 0) -> World:
    """A story of two peers, after which no call may be left."""
    world = World(seed, weather)

    async def begin() -> None:
        one, other = await side(world, A), await side(world, B)
        await story(world, one, other)
        await asyncio.sleep(10)
        for it in (one, other):
            assert not it.protocol._calls
            assert not it.protocol._tasks
            assert not it.protocol._key_requests

    world.play(begin())
    return world


def later(world: World, answer: messages.Answer, seconds: float) -> Callable[[messages.Request], Handled]:
    async def work() -> messages.Answer:
        await asyncio.sleep(seconds)
        return answer

    return lambda request: work()


def test_a_call_is_answered_and_both_know_who_it_was() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        assert await one.protocol.call(other.contact, messages.Ping()) == messages.Done(7)
        ((sender, request),) = other.protocol.requests
        assert (sender.contact, sender.server_mode, request) == (one.contact, True, messages.Ping())
        assert one.protocol.who_answered == [(other.contact, True)]

    play(story)


@pytest.mark.parametrize("size", [0, 1000, 3000, 8192])
def test_large_requests_and_answers_arrive_though_a_tenth_of_the_datagrams_is_lost(size: int) -> None:
    data = bytes(size)

    async def story(world: World, one: Side, other: Side) -> None:
        other.protocol.answer = lambda request: messages.Object(data, size)
        request = messages.Store(TOKEN, 1, KEY, data, [], 1.0)
        for _ in range(5):
            answer = await one.protocol.call(other.contact, request, patience=60.0)
            assert answer == messages.Object(data, size)

    play(story, Weather(loss=0.1, duplication=0.1))


def test_every_datagram_has_1200_bytes_at_most() -> None:
    sizes: list[int] = []

    async def story(world: World, one: Side, other: Side) -> None:
        def watch(source: Address, target: Address, data: bytes) -> bool:
            sizes.append(len(data))
            return True

        world.watch = watch
        other.protocol.answer = lambda request: messages.Object(bytes(8192), 8192)
        await one.protocol.call(other.contact, messages.Store(TOKEN, 1, KEY, bytes(8192), [], 1.0))

    play(story)
    assert max(sizes) <= 1200
    assert len(sizes) >= 16


def test_a_silent_node_is_asked_three_times_and_then_given_up() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        sent: list[float] = []

        def watch(source: Address, target: Address, data: bytes) -> bool:
            sent.append(world.time())
            return True

        world.watch = watch
        world.part([A])
        with pytest.raises(NoAnswer):
            await one.protocol.call(other.contact, messages.Ping())
        assert sent == [0.0, 0.5, 0.5 + 0.625]
        assert one.protocol.who_was_silent == [other.contact]

    play(story)


def test_patience_ends_when_it_says_and_not_a_time_out_later() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        world.part([A])
        with pytest.raises(NoAnswer):
            await one.protocol.call(other.contact, messages.Ping(), patience=5.0)
        assert world.time() == pytest.approx(5.0)

    play(story)


def test_a_patient_call_doesnt_flood_a_node_that_takes_its_time() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        for _ in range(20):
            await one.protocol.call(other.contact, messages.Ping())
        assert one.protocol.rtt.timeout(other.contact.key) < 0.1
        sent = 0

        def watch(source: Address, target: Address, data: bytes) -> bool:
            nonlocal sent
            sent += source == one.contact.address
            return True

        world.watch = watch
        other.protocol.answer = later(world, messages.Done(), 4.0)
        assert await one.protocol.call(other.contact, FETCH, patience=5.0) == messages.Done()
        assert sent <= 7
        assert len(other.protocol.requests) == 21

    play(story)


def test_slow_is_told_once_and_a_late_answer_still_counts() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        other.protocol.answer = later(world, messages.Done(3), 1.0)
        slow: list[float] = []
        done: list[messages.Answer | None] = []
        one.protocol.start_call(other.contact, FETCH, done.append, on_slow=lambda: slow.append(world.time()))
        await asyncio.sleep(5)
        assert slow == [0.5]
        assert done == [messages.Done(3)]
        assert one.protocol.who_was_silent == []

    play(story)


def test_a_repeated_request_is_served_once_and_answered_again() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        other.protocol.answer = later(world, messages.Done(3), 0.01)
        requests: list[bytes] = []
        answers: list[bytes] = []

        def watch(source: Address, target: Address, data: bytes) -> bool:
            (requests if target == other.contact.address else answers).append(data)
            return True

        world.watch = watch
        await one.protocol.call(other.contact, FETCH)
        other.protocol.datagram_received(requests[0], one.contact.address)
        await asyncio.sleep(1)
        assert len(other.protocol.requests) == 1
        assert len(answers) == 2
        assert answers[0] == answers[1]

    play(story)


def test_a_repeat_while_the_first_is_worked_on_starts_nothing() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        other.protocol.answer = later(world, messages.Done(3), 1.2)
        assert await one.protocol.call(other.contact, FETCH) == messages.Done(3)
        assert len(other.protocol.requests) == 1

    play(story)


def test_a_large_answer_isnt_sent_again_to_a_forged_address() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        other.protocol.answer = later(world, messages.Object(bytes(8192), 8192), 0.01)
        requests: list[bytes] = []
        to_victim: list[bytes] = []

        def watch(source: Address, target: Address, data: bytes) -> bool:
            if target == other.contact.address:
                requests.append(data)
            if target[0] == C:
                to_victim.append(data)
            return True

        world.watch = watch
        await one.protocol.call(other.contact, FETCH)
        other.protocol.answer = lambda request: messages.Refusal(Code.BAD_TOKEN)  # its tokens are bound to addresses
        other.protocol.datagram_received(requests[0], (C, 4000))
        await asyncio.sleep(1)
        assert sum(map(len, to_victim)) <= 3 * len(requests[0])

    play(story)


def test_an_answer_from_somebody_who_wasnt_asked_is_dropped() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        eve = await side(world, C)
        other.protocol.answer = later(world, messages.Done(1), 1.0)
        done: list[messages.Answer | None] = []
        call = one.protocol.start_call(other.contact, FETCH, done.append)
        payload = fragments.cut(fragments.ANSWER, call.message_id, messages.encode(messages.Done(666)))[0]
        false = eve.protocol.sealer.seal(one.contact.key, payload)
        eve.transport.sendto(false, one.contact.address)
        one.protocol.datagram_received(false, other.contact.address)  # with the address of the node that was asked
        await asyncio.sleep(0.4)
        assert done == []
        assert one.protocol.dropped == 2
        assert one.protocol.who_answered == []
        await asyncio.sleep(2)
        assert done == [messages.Done(1)]

    play(story)


def test_an_answer_from_another_address_than_was_asked_is_dropped() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        false = Contact(other.contact.key, C, 4000)
        with pytest.raises(NoAnswer):
            call = asyncio.ensure_future(one.protocol.call(false, messages.Ping()))
            await asyncio.sleep(0)
            payload = fragments.cut(
                fragments.ANSWER, next(iter(one.protocol._calls)), messages.encode(messages.Done())
            )[0]
            other.transport.sendto(other.protocol.sealer.seal(one.contact.key, payload), one.contact.address)
            await call
        assert one.protocol.who_answered == []

    play(story)


def test_an_answer_that_comes_twice_counts_once() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        for _ in range(20):
            assert await one.protocol.call(other.contact, messages.Ping()) == messages.Done(7)
        assert len(one.protocol.who_answered) == 20

    play(story, Weather(duplication=1.0))


def test_an_answer_that_is_nonsense_doesnt_end_the_call() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        other.protocol.answer = later(world, messages.Done(1), 0.2)
        call = asyncio.ensure_future(one.protocol.call(other.contact, FETCH))
        await asyncio.sleep(0)
        message_id = next(iter(one.protocol._calls))
        for nonsense in (
            b"",
            b"nonsense",
            b"\x91" * 1000,
            msgspec.msgpack.encode([102, [[bytes(32), bytes(4), 70000]]]),
        ):
            payload = fragments.cut(fragments.ANSWER, message_id, nonsense)[0]
            other.transport.sendto(other.protocol.sealer.seal(one.contact.key, payload), one.contact.address)
        assert await call == messages.Done(1)
        assert one.protocol.dropped == 4

    play(story)


@settings(max_examples=20)
@given(st.lists(st.binary(max_size=1300), max_size=20))
def test_random_datagrams_are_dropped_and_the_node_goes_on(blobs: list[bytes]) -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        stranger = await side(world, C)
        for blob in blobs:
            stranger.transport.sendto(blob, one.contact.address)
            stranger.transport.sendto(bytes([1]) + stranger.contact.key + blob, one.contact.address)
            sealed = stranger.protocol.sealer.seal(one.contact.key, blob)
            stranger.transport.sendto(sealed, one.contact.address)
            payload = b"\0" + bytes(8) + b"\0\1" + blob[:1000]
            stranger.transport.sendto(stranger.protocol.sealer.seal(one.contact.key, payload), one.contact.address)
        assert await other.protocol.call(one.contact, messages.Ping()) == messages.Done(7)

    play(story)


def test_a_request_of_nested_msgpack_is_dropped() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        for nested in (b"\x91" * 9000, b"\x92\x02" * 4000, b"\x81\xa1a" * 3000):
            for payload in fragments.cut(0, world.chance.randbytes(8), nested):
                one.transport.sendto(one.protocol.sealer.seal(other.contact.key, payload), other.contact.address)
        await asyncio.sleep(1)
        assert other.protocol.dropped == 3
        assert other.protocol.requests == []

    play(story)


def test_a_fault_of_ours_costs_one_datagram_and_not_the_node(caplog: pytest.LogCaptureFixture) -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        def broken(request: messages.Request) -> Handled:
            raise ZeroDivisionError

        other.protocol.answer = broken
        with pytest.raises(NoAnswer):
            await one.protocol.call(other.contact, messages.Ping())
        other.protocol.answer = lambda request: messages.Done()
        assert await one.protocol.call(other.contact, messages.Ping()) == messages.Done()

    play(story)
    assert "ZeroDivisionError" in caplog.text


def test_a_refusal_reaches_the_asker_with_its_reason() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        async def refuse() -> messages.Answer:
            raise Refused(Code.NO_SPACE, "no space")

        other.protocol.answer = lambda request: refuse()
        with pytest.raises(Refused, match="no space left") as caught:
            await one.protocol.call(other.contact, FETCH)
        assert caught.value.code == Code.NO_SPACE

    play(story)


def test_a_request_that_fails_unforeseen_is_refused_and_not_left_unanswered(caplog: pytest.LogCaptureFixture) -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        async def fail() -> messages.Answer:
            raise ZeroDivisionError

        other.protocol.answer = lambda request: fail()
        with pytest.raises(Refused):
            await one.protocol.call(other.contact, FETCH)

    play(story)


@pytest.mark.parametrize("at_once", [True, False])
def test_an_answer_too_long_for_datagrams_is_a_refusal(at_once: bool) -> None:
    long = messages.Notifications([b"x"] * 10_000, False)

    async def story(world: World, one: Side, other: Side) -> None:
        other.protocol.answer = (lambda request: long) if at_once else later(world, long, 0.01)
        with pytest.raises(Refused) as caught:
            await one.protocol.call(other.contact, FETCH)
        assert caught.value.code == Code.TOO_LARGE

    play(story)


def test_a_request_too_long_for_datagrams_isnt_sent() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        with pytest.raises(Malformed):
            await one.protocol.call(other.contact, messages.Store(TOKEN, 1, KEY, bytes(20_000), [], 1.0))

    play(story)


def test_a_cancelled_call_leaves_nothing_behind() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        other.protocol.answer = later(world, messages.Done(), 0.4)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(one.protocol.call(other.contact, FETCH), 0.3)
        assert not one.protocol._calls
        await asyncio.sleep(1)
        assert one.protocol.dropped == 1  # the answer to a call that has ended

    play(story)


def test_a_finished_call_isnt_held_by_its_timer() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        class Witness:
            pass

        witness = Witness()
        gone = weakref.ref(witness)
        one.protocol.start_call(other.contact, messages.Ping(), lambda answer, kept=witness: None)  # type: ignore[misc]
        del witness
        await asyncio.sleep(0.1)
        gc.collect()
        assert gone() is None

    play(story)


def test_closing_ends_all_calls_at_once_and_later_ones_too() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        world.part([A])
        again: list[messages.Answer | None] = []

        def ask_again(answer: messages.Answer | None) -> None:
            one.protocol.start_call(other.contact, messages.Ping(), again.append)

        one.protocol.start_call(other.contact, messages.Ping(), ask_again)
        waiting = asyncio.ensure_future(one.protocol.call(other.contact, messages.Ping(), patience=60))
        await asyncio.sleep(0)
        one.transport.close()
        with pytest.raises(NoAnswer):
            await waiting
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert again == [None]
        assert world.time() < 0.001

    play(story)


def test_closing_ends_the_work_on_requests() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        other.protocol.answer = later(world, messages.Done(), 1000.0)
        one.protocol.start_call(other.contact, FETCH, lambda answer: None)
        await asyncio.sleep(0.1)
        assert len(other.protocol._tasks) == 1
        other.transport.close()

    play(story)


def test_stopping_waits_for_answers_that_are_worked_on() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        other.protocol.answer = later(world, messages.Done(5), 0.3)
        call = asyncio.ensure_future(one.protocol.call(other.contact, FETCH))
        await asyncio.sleep(0.1)
        await other.protocol.settle()
        other.transport.close()
        assert await call == messages.Done(5)

    play(story)


def test_a_node_that_has_too_much_to_do_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "TASKS", 5)

    async def story(world: World, one: Side, other: Side) -> None:
        other.protocol.answer = later(world, messages.Done(), 1.0)
        calls = [one.protocol.call(other.contact, FETCH, patience=5) for _ in range(10)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(answer, Refused) and answer.code == Code.BUSY for answer in answers) == 5
        assert sum(answer == messages.Done() for answer in answers) == 5

    play(story)


def test_what_the_system_doesnt_take_is_dropped_beyond_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        one.protocol._send_buffer_size = lambda: rpc.QUEUED_BYTES + 1
        with pytest.raises(NoAnswer):
            await one.protocol.call(other.contact, messages.Ping())
        assert other.protocol.requests == []

    play(story)


def test_only_a_request_that_was_sent_once_measures_a_round_trip() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        other.protocol.answer = later(world, messages.Done(), 0.6)
        await one.protocol.call(other.contact, FETCH)
        assert one.protocol.rtt.timeout(other.contact.key) == 0.5
        other.protocol.answer = lambda request: messages.Done()
        await one.protocol.call(other.contact, messages.Ping())
        assert one.protocol.rtt.timeout(other.contact.key) < 0.3

    play(story)


def test_a_key_request_is_answered() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        assert await one.protocol.ask_key(B, 4000) == other.contact.key
        with pytest.raises(NoAnswer):
            await one.protocol.ask_key(C, 4000)

    play(story)


def test_a_key_is_asked_for_again_when_a_datagram_is_lost() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        dropped = 0

        def watch(source: Address, target: Address, data: bytes) -> bool:
            nonlocal dropped
            dropped += 1
            return dropped > 2

        world.watch = watch
        assert await one.protocol.ask_key(B, 4000) == other.contact.key

    play(story)


def test_a_told_key_without_the_cookie_is_dropped() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        eve = await side(world, C)
        asking = asyncio.ensure_future(one.protocol.ask_key(B, 4000))
        await asyncio.sleep(0)
        false = eve.protocol.sealer.tell_key(one.protocol.sealer.ask_key(bytes(16)))
        one.protocol.datagram_received(false, other.contact.address)
        assert await asking == other.contact.key

    play(story)


def test_keys_are_told_so_often_a_second_and_no_more() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        told: list[bytes] = []

        def watch(source: Address, target: Address, data: bytes) -> bool:
            told.append(data)
            return True

        world.watch = watch
        question = one.protocol.sealer.ask_key(bytes(16))
        for _ in range(2 * rpc.KEY_ANSWERS_A_SECOND):
            other.protocol.datagram_received(question, (C, 4000))
        assert len(told) == rpc.KEY_ANSWERS_A_SECOND
        assert all(len(data) <= len(question) for data in told)
        await asyncio.sleep(1)
        other.protocol.datagram_received(question, (C, 4000))
        assert len(told) == rpc.KEY_ANSWERS_A_SECOND + 1

    play(story)


@pytest.mark.parametrize("address", [(C, 0), ("not an address", 4000), ("", 4000)])
def test_a_datagram_from_where_nothing_can_be_sent_is_dropped(address: Address) -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        payload = fragments.cut(0, bytes(8), messages.encode(messages.Ping()))[0]
        other.protocol.datagram_received(one.protocol.sealer.seal(other.contact.key, payload), address)
        other.protocol.datagram_received(one.protocol.sealer.ask_key(bytes(16)), address)
        assert other.protocol.dropped == 2

    play(story)


def test_a_sender_behind_an_ipv6_socket_is_the_ipv4_address_that_it_is() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        payload = fragments.cut(0, bytes(8), messages.encode(messages.Ping()))[0]
        sealed = one.protocol.sealer.seal(other.contact.key, payload)
        other.protocol.datagram_received(sealed, ("::ffff:10.0.0.1", 4000, 0, 0))
        assert other.protocol.requests[0][0].contact == one.contact

    play(story)


def test_a_name_that_isnt_there_is_an_error_and_no_remote_call() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        for name in ("stun", "store", "find_value", "no_such_thing", "rpc_nothing", "_nothing"):
            with pytest.raises(AttributeError):
                getattr(one.protocol, name)

    play(story)


def test_sealed_calls_are_the_only_calls() -> None:
    import umsgpack

    async def story(world: World, one: Side, other: Side) -> None:
        for name in ("ping", "stun", "store", "find_node", "handle", "settle"):
            for args in ([], [bytes(20)], [bytes(20), bytes(20), b"value"]):
                old = b"\x00" + bytes(20) + umsgpack.packb([name, args])
                other.protocol.datagram_received(old, one.contact.address)
        assert other.protocol.requests == []
        assert other.protocol.dropped == 18

    play(story)


def test_an_answer_is_known_by_what_it_answers() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        other.protocol.answer = lambda request: found() if isinstance(request, messages.Find) else messages.Done(1)
        calls = [
            one.protocol.call(other.contact, messages.Find(KEY, 1) if number % 2 else messages.Ping())
            for number in range(50)
        ]
        answers = await asyncio.gather(*calls)
        assert [type(answer) for answer in answers] == [messages.Done, messages.Found] * 25

    play(story)


def test_a_datagram_that_cant_be_sealed_is_refused_before_anything_is_sent() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        with pytest.raises(Malformed):
            one.protocol.start_call(Contact(bytes(32), B, 4000), messages.Ping(), lambda answer: None)

    play(story)


def test_overhead_is_what_amplification_is_reckoned_with() -> None:
    assert sealed_datagram.OVERHEAD + fragments.HEADER == 72


def test_an_answer_that_comes_after_all_tries_still_tells_that_its_node_lives() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        other.protocol.answer = later(world, messages.Done(3), 3.0)
        done: list[messages.Answer | None] = []
        one.protocol.start_call(other.contact, FETCH, done.append)
        await asyncio.sleep(2.5)
        assert done == [None]
        assert one.protocol.who_was_silent == [other.contact]
        await asyncio.sleep(1)
        assert done == [None, messages.Done(3)]
        assert one.protocol.who_answered == [(other.contact, True)]
        assert one.protocol.rtt.timeout(other.contact.key) == 2.0

    play(story)


def test_a_node_that_stays_silent_is_waited_for_no_longer_than_its_late_answer_may_take() -> None:
    async def story(world: World, one: Side, other: Side) -> None:
        world.part([A])
        done: list[messages.Answer | None] = []
        one.protocol.start_call(other.contact, FETCH, done.append)
        await asyncio.sleep(4)
        assert done == [None]
        assert not one.protocol._calls

    play(story)
