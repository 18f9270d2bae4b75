"""A founder who is alone in the new network can already use mail."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mail.agent import Agent
from mail.events import Event
from mail.identity import Identity
from mail.membership import create_network_with_member
from mail.membership.create_network_with_member import create_with_member
from mail.profile_node import read_network_file
from storage.user.outbox import Envelope, State
from storage.user.profile import Profile
from tests.mail.user_agents import plain_message

ADDRESS = "alice@network.example"


def founded(tmp_path: Path, said: list[str]) -> Profile:
    profile = Profile(tmp_path / "alice", environ={})
    create_with_member(profile, "family", ADDRESS, None, said.append)
    profile.change_config(listen="127.0.0.1:0")  # not the port that founders have: tests run beside each other
    return profile


@pytest.mark.parametrize(("ip", "private"), [("192.168.1.5", True), ("127.0.0.1", True), ("8.8.8.8", False)])
def test_whether_it_is_private_follows_from_the_founder_s_address_and_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ip: str, private: bool
) -> None:
    monkeypatch.setattr(create_network_with_member, "own_address", lambda: ip)
    said: list[str] = []
    network = read_network_file(founded(tmp_path, said).network_file)
    assert network.private_addresses is private
    assert (network.puzzle_bits == 0) is private
    assert len(said) == 1
    assert ("A private network" if private else "A public network") in said[0]


async def test_a_lone_founder_writes_to_herself_and_to_who_has_yet_to_join(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(create_network_with_member, "own_address", lambda: "192.168.1.5")
    profile = founded(tmp_path, [])
    told: list[Event] = []
    identity = Identity.open(profile, None)
    agent = await Agent.open(profile, identity, tell=told.append)
    try:
        await agent.publish_card()
        status = await agent.status()
        assert (status.alone, status.online, status.contacts) == (True, True, 0)
        to = [ADDRESS, "bob@network.example"]
        message = plain_message(ADDRESS, to, "first@network.example")
        agent.outbox.accept(
            message,
            Envelope("first@network.example", subject="Hello", sender=ADDRESS, recipients=to, created=time.time()),
        )
        assert await agent.sync() + await agent.sync() == 1
        (entry,) = agent.outbox.entries()
        mine, bobs = entry.recipients
        assert mine.state in (State.STORED, State.COLLECTED)
        assert bobs.state is State.QUEUED
        assert bobs.reason == "Nobody else is in this network yet. It will be sent when its recipient has joined."
        assert told == [event for event in told if type(event).__name__ in ("NewMail", "OutboxChanged", "Progress")]
    finally:
        await agent.close()
