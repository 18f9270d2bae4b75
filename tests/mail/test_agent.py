"""The whole user agent on a network of real nodes, with real sockets, stores and folders."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from mail.agent import Agent, status_document
from mail.control import NotRunning, ask
from mail.demo.private_overlay import PrivateOverlay
from mail.events import Event, NewMail, Trouble
from overlay.errors import Unreachable
from overlay.ids import Kind
from overlay.node.node import Node
from storage.database import DatabaseError
from storage.node.objects import StoredObject
from storage.user.outbox import Envelope, State
from storage.user.profile import ConfigError, Profile, ProfileBusy
from tests.mail.user_agents import plain_message

DOMAIN = "test.example"


class AgentNetwork:
    """A network, and agents that are closed with it."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder = folder
        self.private_overlay = PrivateOverlay(folder / "network", "test", k=3)
        self._stack = stack

    def profile(self, name: str) -> Profile:
        return Profile(self.folder / name, environ={})

    async def agent(self, name: str, events: list[Event] | None = None) -> Agent:
        told = [] if events is None else events
        agent = await self.private_overlay.agent(f"{name}@{DOMAIN}", self.profile(name), told.append)
        self._stack.push_async_callback(agent.close)
        return agent

    async def held(self, kind: Kind) -> int:
        """Number of objects of a kind that all nodes hold together."""
        count = 0
        for node in self.private_overlay.nodes:
            assert node.store is not None
            count += sum(found.kind == kind for found in await node.store.objects())
        return count


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[AgentNetwork]:
    async with AsyncExitStack() as stack:
        town = AgentNetwork(tmp_path, stack)
        stack.push_async_callback(town.private_overlay.stop)
        await town.private_overlay.start(5)
        yield town


def write(
    sender: Agent, *recipients: Agent, text: bytes = b"Hello.\n", message_id: str = "letter@test.example"
) -> bytes:
    """Put a message into the outbox. Returns its bytes."""
    to = [recipient.identity.address for recipient in recipients]
    message = plain_message(sender.identity.address, to, message_id, text)
    sender.outbox.accept(
        message,
        Envelope(message_id, subject="Hello", sender=sender.identity.address, recipients=to, created=time.time()),
    )
    return message


def inbox(agent: Agent, name: str = "Inbox") -> list[bytes]:
    folders = agent.profile.folders()
    return [(folders.folder(name) / entry.place).read_bytes() for entry in folders.scan(name)]


def states(agent: Agent) -> list[State]:
    return [r.state for entry in agent.outbox.entries() for r in entry.recipients]


async def test_a_message_to_two_is_collected_deleted_and_proven(town: AgentNetwork) -> None:
    events: list[Event] = []
    alice, bob, carol = await town.agent("alice"), await town.agent("bob", events), await town.agent("carol")
    text = random.Random(3).randbytes(5_000_000)
    original = write(alice, bob, carol, text=text)
    await alice.send()
    assert states(alice) == [State.STORED, State.STORED]
    shares = await town.held(Kind.SHARE)
    assert shares == 5 * alice.probes.code(5).n
    assert await bob.sync() == 1
    assert inbox(bob) == [original]
    assert await town.held(Kind.SHARE) == shares
    assert await carol.sync() == 1
    assert inbox(carol) == [original]
    assert await town.held(Kind.SHARE) == 0
    await alice.send()
    assert states(alice) == [State.COLLECTED, State.COLLECTED]
    assert [event.message_id for event in events if isinstance(event, NewMail)] == ["letter@test.example"]
    assert await bob.sync() == 0


async def test_mail_sealed_to_the_previous_key_opens_after_rotation(town: AgentNetwork) -> None:
    alice, bob = await town.agent("alice"), await town.agent("bob")
    write(alice, bob)
    await alice.send()
    before = set(bob.identity.pairs())
    assert bob.identity.rotate(time.time() + 8 * 86400)
    assert set(bob.identity.pairs()) > before
    await bob.publish_card()
    assert await bob.sync() == 1


async def test_a_second_agent_of_a_profile_is_refused_and_disturbs_nothing(town: AgentNetwork) -> None:
    alice = await town.agent("alice")
    with pytest.raises(ProfileBusy):
        await Agent.open(alice.profile, alice.identity)
    assert (await ask(alice.profile.control_socket, "status"))["mode"] == "client"


async def test_the_control_socket_says_what_is_and_collects(town: AgentNetwork) -> None:
    alice, bob = await town.agent("alice"), await town.agent("bob")
    status = await ask(alice.profile.control_socket, "status")
    assert status == status_document(await alice.status())
    assert status["contacts"] == 5
    assert status["k"] == 3
    write(alice, bob)
    assert await ask(alice.profile.control_socket, "sync") == {"filed": 0, "late": 0}
    assert await ask(bob.profile.control_socket, "sync") == {"filed": 1, "late": 0}
    assert "error" in await ask(bob.profile.control_socket, "dance")
    await bob.close()
    with pytest.raises(NotRunning):
        await ask(bob.profile.control_socket, "status")


async def test_an_agent_that_is_closed_lets_another_one_go_on(town: AgentNetwork) -> None:
    alice, bob = await town.agent("alice"), await town.agent("bob")
    write(alice, bob)
    await alice.close()
    again = await town.private_overlay.agent_of(alice.profile)
    await again.send()
    assert states(again) == [State.STORED]
    await again.close()
    assert await bob.sync() == 1


async def test_an_agent_that_cannot_open_leaves_nothing_locked(
    town: AgentNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await town.agent("alice")
    await alice.close()
    with monkeypatch.context() as patch:
        patch.setattr("mail.agent.Index.open", lambda _: (_ for _ in ()).throw(DatabaseError("damaged")))
        with pytest.raises(DatabaseError):
            await town.private_overlay.agent_of(alice.profile)
    with monkeypatch.context() as patch:
        patch.setattr("mail.agent.ControlServer.start", lambda _: (_ for _ in ()).throw(OSError("no socket")))
        with pytest.raises(OSError, match="no socket"):
            await town.private_overlay.agent_of(alice.profile)
    await (await town.private_overlay.agent_of(alice.profile)).close()


async def test_a_bad_place_to_join_is_a_fault_of_the_configuration(town: AgentNetwork) -> None:
    alice = await town.agent("alice")
    await alice.close()
    with pytest.raises(ConfigError):
        await Agent.open(alice.profile, alice.identity, join=["nowhere"])
    with pytest.raises(ConfigError):
        await Agent.open(alice.profile, alice.identity, listen="nowhere")


async def test_without_a_network_everything_waits_and_goes_when_it_is_back(town: AgentNetwork) -> None:
    alice, bob = await town.agent("alice"), await town.agent("bob")
    write(alice, bob)
    with pytest.MonkeyPatch.context() as patch:
        for node in town.private_overlay.nodes:
            patch.setattr(node.protocol, "datagram_received", lambda *_: None)
        await alice.send()
        assert states(alice) == [State.QUEUED]
        with pytest.raises(Unreachable):
            await alice.sync()
        assert states(alice) == [State.QUEUED]
        await alice.close()
    again = await town.private_overlay.agent_of(alice.profile)
    await again.send()
    assert states(again) == [State.STORED]
    await again.close()
    assert await bob.sync() == 1


async def test_an_outbox_that_fails_keeps_no_mail_from_being_collected(
    town: AgentNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = await town.agent("alice"), await town.agent("bob")
    write(alice, bob)
    await alice.send()

    def due(*_: object) -> None:
        raise DatabaseError("the disk is full")

    monkeypatch.setattr(bob.outbox, "due", due)
    with pytest.raises(DatabaseError):
        await bob.sync()
    assert len(inbox(bob)) == 1


async def test_the_regular_work_sends_collects_and_learns_by_itself(town: AgentNetwork) -> None:
    alice, bob = await town.agent("alice"), await town.agent("bob")
    stored, came, collected = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def alice_hears(_: Event) -> None:
        if states(alice) == [State.STORED]:
            stored.set()
        if states(alice) == [State.COLLECTED]:
            collected.set()

    def bob_hears(event: Event) -> None:
        if isinstance(event, NewMail):
            came.set()

    alice._sending._tell = alice_hears
    bob._receiving._tell = bob_hears
    alice.start()
    write(alice, bob)
    alice.wake()
    await stored.wait()
    bob.start()
    await came.wait()
    await collected.wait()


async def test_regular_work_that_fails_is_told_once_and_tried_again(
    town: AgentNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []
    alice = await town.agent("alice", events)
    monkeypatch.setattr("mail.agent.RETRY", 0.001)
    tries = 0
    enough = asyncio.Event()

    async def failing() -> float:
        nonlocal tries
        tries += 1
        if tries == 5:
            enough.set()
        raise [Unreachable("away"), DatabaseError("full"), RuntimeError("a bug")][min(tries // 2, 2)]

    task = asyncio.create_task(alice._forever(failing))
    await enough.wait()
    task.cancel()
    told = [event.text for event in events if isinstance(event, Trouble)]
    assert told[:3] == ["away", "full", "RuntimeError: a bug"]
    assert len(told) == 3


async def test_a_large_message_in_shares_survives_nodes_that_are_killed_and_is_deleted_and_proven(
    tmp_path: Path,
) -> None:
    async with AsyncExitStack() as stack:
        town = AgentNetwork(tmp_path, stack)
        town.private_overlay.authority.close()
        town.private_overlay = PrivateOverlay(tmp_path / "large", "test")
        stack.push_async_callback(town.private_overlay.stop)
        await town.private_overlay.start(16)
        alice, bob = await town.agent("alice"), await town.agent("bob")
        text = random.Random(1).randbytes(300_000)
        message = write(alice, bob, text=text)
        await alice.send()
        coding = alice.probes.code(16)
        assert coding.m >= 2
        assert await town.held(Kind.SHARE) == coding.n
        assert await town.held(Kind.BODY) == 0
        kept = [(node, found.kind) for node in town.private_overlay.nodes for found in await objects(node)]
        holders = [node for node, kind in kept if kind == Kind.SHARE]
        await asyncio.gather(*(node.vanish() for node in holders[: coding.n - coding.m - 3]))
        assert await bob.sync() == 1
        assert inbox(bob) == [message]
        living = [node for node in town.private_overlay.nodes if node.port]
        assert not [found for node in living for found in await objects(node) if found.kind == Kind.SHARE]
        await alice.sync()
        assert states(alice) == [State.COLLECTED]


async def objects(node: Node) -> list[StoredObject]:
    assert node.store is not None
    return await node.store.objects()


async def test_what_a_process_that_died_left_unseen_in_a_folder_is_swept_at_the_start(town: AgentNetwork) -> None:
    profile = town.profile("alice")
    profile.create()
    tmp = profile.folders().folder("Inbox") / "tmp"
    for name, age in (("old", 37 * 3600), ("new", 35 * 3600)):
        (tmp / name).write_bytes(b"message")
        os.utime(tmp / name, (time.time() - age,) * 2)
    await town.agent("alice")
    assert [path.name for path in tmp.iterdir()] == ["new"]
