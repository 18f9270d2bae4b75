"""The agent and the commands when the certificate ends, is renewed by another process, or is revoked."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from mail.agent import Agent, status_document
from mail.demo.private_overlay import PrivateOverlay
from mail.events import Event, Trouble
from mail.identity import Identity
from mail.membership.certificate_status import REVOCATIONS_FACT
from overlay.client import Overlay
from overlay.identity.certificates import CertificateExpired, Revoked, parse_certificate
from overlay.ids import Kind, revocations_key
from overlay.protocol_limits import RETENTION
from storage.user.keyring import IdentityKey as Certified
from storage.user.keyring import Keyring
from storage.user.outbox import Envelope, Outbox, State
from storage.user.profile import Profile
from storage.user.state import UserState
from tests.mail.commands import CommandNetwork, Member, Shell
from tests.mail.user_agents import plain_message

DAY = 86_400.0


class StatusNetwork:
    """A network with a clock that a test sets, and Alice's agent."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.time = time.time()
        self.private_overlay = PrivateOverlay(folder / "network", "test", k=3, now=lambda: self.time)
        self.profile = Profile(folder / "alice", environ={})
        self.events: list[Event] = []
        self._stack = stack

    async def agent(self) -> Agent:
        agent = await self.private_overlay.agent_of(self.profile, self.events.append)
        self._stack.push_async_callback(agent.close)
        return agent

    @property
    def lasting(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Trouble) and event.lasting]

    async def publish_revocations(self) -> None:
        authority = self.private_overlay.authority
        key = revocations_key(authority.fingerprint)
        await Overlay(self.private_overlay.nodes[0]).store(
            Kind.REVOCATIONS, key, authority.revocations(), ttl=RETENTION
        )


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[StatusNetwork]:
    async with AsyncExitStack() as stack:
        town = StatusNetwork(tmp_path, stack)
        stack.push_async_callback(town.private_overlay.stop)
        await town.private_overlay.start(3)
        town.private_overlay.member("alice@test.example", town.profile)
        yield town


async def test_the_node_says_how_it_is_though_the_clock_is_before_the_certificate_s_beginning(
    town: StatusNetwork,
) -> None:
    agent = await town.agent()
    town.time -= 3 * DAY
    status = await agent.status()
    assert (status.mode, status.certificate) == ("client", None)


async def test_the_end_of_a_certificate_is_told_once_at_each_step_and_stays_until_it_is_seen(
    town: StatusNetwork,
) -> None:
    agent = await town.agent()
    ends = parse_certificate(agent.identity.owner.certificate).not_after
    told = []
    for days in (61, 30, 29, 8, 7, 1, -1, -2):
        town.time = ends - days * DAY
        await agent.renew()
        told.append(len(town.lasting))
    assert told == [0, 1, 1, 1, 2, 2, 3, 3]
    await agent.close()
    again = await town.agent()
    await again.renew()
    assert len(town.lasting) == 3
    assert len(again.state.notices.unseen()) == 3
    document = status_document(await again.status())
    assert document["certificate"] == "ended"
    assert str(document["certificate_ends"]).endswith("+00:00")


async def test_an_agent_takes_over_a_certificate_that_came_while_it_ran(town: StatusNetwork) -> None:
    agent = await town.agent()
    before = agent.identity.certified
    town.time += 320 * DAY
    renewed = town.private_overlay.authority.issue(before.address, _public(before)).der
    other = Keyring.open(town.profile.keyring_file, None)
    other.set_identity(Certified(before.address, before.private_key, renewed))
    town.time += 60 * DAY  # the old one has ended
    await agent.publish_card()
    await agent.send()
    assert agent.identity.owner.certificate == renewed
    card = await agent.directory.card(before.address)
    assert card.certificate.der == renewed
    assert status_document(await agent.status())["certificate"] == "valid"


async def test_an_agent_that_hears_of_its_revocation_gives_up_what_is_under_way_and_says_so(
    town: StatusNetwork,
) -> None:
    agent = await town.agent()
    bob = Profile(town.profile.root.parent / "bob", environ={})
    reader = await town.private_overlay.agent("bob@test.example", bob)
    await reader.close()
    message = plain_message("alice@test.example", ["bob@test.example"], "one@test.example")
    agent.outbox.accept(
        message,
        Envelope(
            "one@test.example",
            subject="Hello",
            sender="alice@test.example",
            recipients=["bob@test.example"],
            created=town.time,
        ),
    )
    await agent.send()
    assert agent.outbox.entries()[0].recipients[0].state is State.STORED
    town.private_overlay.authority.revoke("alice@test.example")
    await town.publish_revocations()
    town.time += 3601
    await agent.send()
    (copy,) = agent.outbox.entries()[0].recipients
    assert copy.state is State.FAILED and "was revoked" in copy.reason
    assert any("was revoked" in text and '"Hello"' in text for text in town.lasting)
    with pytest.raises(Revoked):
        await agent.publish_card()
    await agent.renew()
    assert any(text.startswith("The certificate of alice@test.example was revoked") for text in town.lasting)


async def test_who_has_ended_publishes_nothing_and_is_told_why(town: StatusNetwork) -> None:
    agent = await town.agent()
    town.time += 366 * DAY
    assert agent.ended
    with pytest.raises(CertificateExpired, match="can't send or collect"):
        await agent.publish_card()


def _public(who: Certified) -> bytes:
    return parse_certificate(who.certificate).public_key.public_bytes_raw()


# Commands


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandNetwork]:
    network = CommandNetwork(tmp_path_factory.mktemp("network"))
    yield network
    network.close()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Shell:
    return Shell(monkeypatch, capsysbinary)


def accepted(member: Member) -> int:
    outbox = Outbox(member.profile.outbox_file)
    try:
        return len(outbox.entries())
    finally:
        outbox.close()


def test_send_of_a_member_who_was_revoked_is_refused_before_anything_is_accepted(
    network: CommandNetwork, run: Shell
) -> None:
    alice = network.member("alice")
    network.private_overlay.authority.revoke(alice.address)
    state = UserState(alice.profile.state_file)
    state.keep_fact(REVOCATIONS_FACT, network.private_overlay.authority.revocations())
    state.close()
    message = plain_message(alice.address, ["bob@test.example"], "one@test.example")
    refused = run(alice, "send", "-t", stdin=message)
    assert refused.code == 77
    assert "was revoked" in refused.errors and "Nothing was accepted" in refused.errors
    assert accepted(alice) == 0
    assert run(alice, "list", "Sent", "--json").json == []
    assert run(alice, "sync").code == 77
    assert run(alice, "status", "--json").json["certificate"] == "revoked"


def test_send_under_a_certificate_that_has_ended_is_refused(
    network: CommandNetwork, run: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = network.member("alice")
    ends = parse_certificate(Identity.open(alice.profile, None).owner.certificate).not_after
    monkeypatch.setattr("mail.cli.user.time.time", lambda: ends + 1)
    refused = run(alice, "send", "-t", stdin=plain_message(alice.address, ["bob@test.example"], "one@test.example"))
    assert refused.code == 77
    assert "ended on" in refused.errors and "not accepted" in refused.errors
    assert accepted(alice) == 0
