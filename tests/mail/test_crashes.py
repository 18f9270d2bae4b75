"""Whoever's process dies at any step of sending or collecting: the mail arrives once, and its sender knows of it.

Every write to disk and every question to the overlay is a step; one after the other is the last.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mail.checks.spam import GTUBE
from overlay.ids import Kind
from storage.database import DatabaseError
from storage.user.folders import Folders
from storage.user.outbox import State
from tests.mail.fakes import nothing
from tests.mail.user_agents import UserAgent, UserAgentNetwork, body_at, plain_message


class Killed(BaseException):
    """As if the process ended here."""


class Fuse:
    """Kills at step number `last`, and whatever runs on beside it. `named`: the steps, in order."""

    def __init__(self, last: int) -> None:
        self._last = last
        self.named: list[str] = []

    @property
    def blown(self) -> bool:
        return len(self.named) > self._last

    def step(self, name: str) -> None:
        self.named.append(name)
        if self.blown:
            raise Killed

    def around(self, owner: object, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make a call of `owner.name` two steps: before it has happened, and after."""
        real: Callable[..., object] = getattr(owner, name)

        def stepping(*arguments: object, **named: object) -> object:
            self.step(f"before {name}")
            result = real(*arguments, **named)
            self.step(f"after {name}")
            return result

        monkeypatch.setattr(owner, name, stepping)


STATE = ("take_over", "note_filing", "mark_filed", "delete_done")


async def collect_until(fuse: Fuse, world: UserAgentNetwork, bob: UserAgent) -> None:
    """Collect, killed where the fuse says."""
    with pytest.MonkeyPatch.context() as patch:
        world.overlay.before = fuse.step
        for name in STATE:
            fuse.around(bob.state, name, patch)
        fuse.around(Folders, "add", patch)
        try:
            await bob.collect()
        except Killed:
            assert fuse.blown
        finally:
            world.overlay.before = nothing


async def test_a_recipient_that_is_killed_anywhere_has_her_mail_once(tmp_path: Path) -> None:
    steps: list[str] = []
    last = 0
    while last == 0 or len(steps) == last:  # the run before was cut short
        world = UserAgentNetwork(tmp_path / str(last))
        alice, bob = await world.user_agent("alice"), await world.user_agent("bob")
        original = alice.write(bob).file.read_bytes()
        await alice.send()
        fuse = Fuse(last)
        await collect_until(fuse, world, bob)
        steps = fuse.named[: last + 1]
        bob.restart()
        world.clock.now += 120
        await bob.collect()
        where = f"killed at {steps[-1]} ({last})"
        assert bob.everywhere() == [original], where
        assert bob.state.pending(float("inf")) == [], where
        assert world.overlay.bodies(Kind.BODY, body_at()) == [], where
        assert world.overlay.inbox(bob.inbox_key) == set(), where
        await alice.send()
        assert alice.copy(bob).state is State.COLLECTED, where
        world.close()
        last += 1
    assert {f"{when} {name}" for when in ("before", "after") for name in (*STATE, "add")} <= set(fuse.named)
    assert {"read_inbox", "acknowledge_inbox", "fetch", "delete"} <= set(fuse.named)


@pytest.mark.parametrize("name", ["mark_filed", "note_filing", "take_over"])
async def test_a_disk_that_refuses_at_any_write_loses_and_doubles_nothing(tmp_path: Path, name: str) -> None:
    world = UserAgentNetwork(tmp_path)
    alice, bob = await world.user_agent("alice"), await world.user_agent("bob")
    messages = [alice.write(bob, message_id=f"{number}@example.org").file.read_bytes() for number in range(3)]
    await alice.send()
    with pytest.MonkeyPatch.context() as patch:

        def refusing(*_: object) -> None:
            raise DatabaseError("the disk is full; nothing of this was kept")

        patch.setattr(bob.state, name, refusing)
        with pytest.raises(DatabaseError):
            await bob.collect()
    await bob.collect()
    assert sorted(bob.folder("Inbox")) == sorted(messages)
    world.close()


async def test_spam_and_its_reason_survive_a_crash_too(tmp_path: Path) -> None:
    world = UserAgentNetwork(tmp_path)
    alice, bob = await world.user_agent("alice"), await world.user_agent("bob")
    alice.write(bob, message=plain_message(alice.address, [bob.address], "letter@example.org", GTUBE.encode() + b"\n"))
    await alice.send()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bob.state, "mark_filed", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            await bob.collect()
    bob.restart()
    await bob.collect()
    assert len(bob.folder("Junk")) == len(bob.everywhere()) == 1
    assert [event.folder for event in bob.new_mail] == ["Junk"]
    world.close()


async def test_a_send_that_is_killed_anywhere_goes_on_with_the_same_bytes(tmp_path: Path) -> None:
    finished = False
    steps = 0
    while not finished:
        world = UserAgentNetwork(tmp_path / str(steps))
        alice, bob, carol = [await world.user_agent(name) for name in ("alice", "bob", "carol")]
        original = alice.write(bob, carol).file.read_bytes()
        fuse = Fuse(steps)
        with pytest.MonkeyPatch.context() as patch:
            world.overlay.before = fuse.step
            for name in ("save_secrets", "record", "record_attempt"):
                fuse.around(alice.outbox, name, patch)
            try:
                await alice.send()
                finished = not fuse.blown
            except Killed:
                pass
        world.overlay.before = nothing
        alice.restart()
        await alice.send()
        assert [r.state for r in alice.entry().recipients] == [State.STORED, State.STORED], steps
        digests = {digest for node in world.nodes for digest in node.objects.get((Kind.BODY, body_at()), {})}
        assert len(digests) == 1, steps
        for user_agent in (bob, carol):
            assert len(world.overlay.inbox(user_agent.inbox_key)) == 1, steps
            assert await user_agent.collect() == 1
            assert user_agent.folder("Inbox") == [original]
        world.close()
        steps += 1
    assert steps > 15
