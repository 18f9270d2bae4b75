"""A lasting trouble is stored before it is told, and a command's exit code says that there is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mail.agent import Agent
from mail.agent_thread import AgentThread
from mail.events import Event, NewMail, Trouble
from mail.notices import NoticeKeeper
from storage.database import DatabaseError
from storage.user.profile import Profile
from storage.user.state import UserState
from tests.mail.commands import CommandNetwork, Member, Shell
from tui.ports import Options

NOW = 1_700_000_000.0
LOST = Trouble("A message is lost.", lasting=True)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandNetwork]:
    network = CommandNetwork(tmp_path_factory.mktemp("network"))
    yield network
    network.close()


@pytest.fixture
def bob(network: CommandNetwork) -> Member:
    return network.member("bob")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Shell:
    return Shell(monkeypatch, capsysbinary)


def texts(profile: Profile) -> list[str]:
    state = UserState(profile.state_file)
    try:
        return [notice.text for notice in state.notices.unseen()]
    finally:
        state.close()


def lose(monkeypatch: pytest.MonkeyPatch, trouble: Trouble = LOST) -> None:
    """Make every collection report a lost message."""

    async def sync(agent: Agent, *, everything: bool = True) -> int:
        agent._tell(trouble)
        return 0

    monkeypatch.setattr(Agent, "sync", sync)


def test_a_lasting_trouble_is_on_disk_before_it_is_told_and_no_other_event_is(tmp_path: Path) -> None:
    state = UserState(tmp_path / "state.sqlite")
    told: list[tuple[Event, int]] = []
    tell = NoticeKeeper(state, lambda event: told.append((event, len(state.notices.unseen()))), lambda: NOW)
    events: list[Event] = [Trouble("Nobody answers."), NewMail("a@b", "Bob", "Hello", "Inbox"), LOST]
    for event in events:
        tell(event)
    assert told == [(events[0], 0), (events[1], 0), (LOST, 1)]


def test_a_notice_that_the_disk_refused_is_kept_when_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bool:
        raise DatabaseError("the disk is full")

    state = UserState(tmp_path / "state.sqlite")
    told: list[Event] = []
    tell = NoticeKeeper(state, told.append, lambda: NOW)
    with monkeypatch.context() as patch:
        patch.setattr(state.notices, "add", refuse)
        tell(LOST)
    assert told == [LOST]
    assert state.notices.unseen() == []
    tell.keep()
    assert [notice.text for notice in state.notices.unseen()] == [LOST.text]


def test_what_the_readers_thread_tells_before_its_agent_runs_is_kept_too(tmp_path: Path) -> None:
    profile = Profile(tmp_path / "profile", environ={})
    profile.create()
    told: list[Event] = []
    thread = AgentThread(profile, Options())
    thread.subscribe(told.append)
    thread._tell(LOST)
    assert told == [LOST]
    assert texts(profile) == [LOST.text]


def test_sync_is_69_when_a_notice_arose_and_says_it_once(
    run: Shell, bob: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        lose(patch)
        synced = run(bob, "sync")
    assert synced.code == 69
    assert synced.errors.count(LOST.text) == 1
    again = run(bob, "sync")
    assert again.code == 0
    assert "1 earlier notice that you haven't seen is kept: p2pmail notices" in again.errors


def test_sync_is_69_when_the_agent_in_another_process_finds_that_a_message_is_lost(
    run: Shell, bob: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = bob.agent()
    try:
        with monkeypatch.context() as patch:
            lose(patch)
            synced = run(bob, "sync")
    finally:
        bob.network.background.run(agent.close())
    assert synced.code == 69
    assert synced.errors.count(LOST.text) == 1


def test_watching_ends_with_69_when_a_notice_arose_that_was_not_seen(
    run: Shell, bob: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stopped() -> None:
        pass

    def start(agent: Agent) -> None:
        agent._tell(LOST)

    monkeypatch.setattr("mail.cli.user.stop_requested", stopped)
    monkeypatch.setattr(Agent, "start", start)
    watched = run(bob, "sync", "--watch")
    assert watched.code == 69
    assert watched.errors.count(LOST.text) == 1
    run(bob, "notices", "--seen")
    monkeypatch.setattr(Agent, "start", lambda agent: None)
    assert run(bob, "sync", "--watch").code == 0


def test_send_says_a_notice_and_is_0_because_the_message_is_accepted(
    run: Shell, bob: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def send(agent: Agent) -> None:
        agent._tell(LOST)

    monkeypatch.setattr(Agent, "send", send)
    sent = run(bob, "send", bob.address, stdin=b"Subject: Hello\n\nHello.\n")
    assert sent.code == 0
    assert LOST.text in sent.errors
    assert texts(bob.profile) == [LOST.text]


def test_notices_are_listed_until_they_are_said_to_be_seen(run: Shell, bob: Member) -> None:
    state = UserState(bob.profile.state_file, now=lambda: NOW)
    state.notices.add("One\x1b[31m is lost.", NOW)
    state.close()
    (notice,) = run(bob, "notices", "--json").json
    assert (notice["text"], notice["at"], notice["seen"]) == (
        "One\x1b[31m is lost.",
        "2023-11-14T22:13:20+00:00",
        False,
    )
    listed = run(bob, "notices", "--seen")
    assert listed.code == 0
    assert listed.text.startswith("N ")
    assert "One is lost." in listed.text
    assert run(bob, "notices").text == ""
    (seen,) = run(bob, "notices", "--all", "--json").json
    assert seen["seen"] is True
