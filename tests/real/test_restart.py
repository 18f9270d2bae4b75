"""A node that is killed with -9 and started again serves everything that it had acknowledged.

The network keeps one copy of each object, on one node: what that node forgets is lost, and the tests see it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from overlay.ids import Kind
from tests.real.process_network import NodeProcess, ProcessNetwork, ask, p2pmail, states, sync, until_state
from tests.real.programs import Process, until

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("restart")]

LARGE = random.Random("seven pieces").randbytes(5_000_000)


def message(name: str, content: bytes) -> bytes:
    """A message to Bob that nothing has to be added to."""
    head = (
        "From: alice@village.example\r\nTo: bob@village.example\r\nDate: Sun, 01 Mar 2026 12:00:00 +0000\r\n"
        f"Message-ID: <{name}@village.example>\r\nSubject: {name}\r\n\r\n"
    )
    return head.encode() + content.hex(" ", 32).replace(" ", "\r\n").encode() + b"\r\n"


@pytest.fixture
def network(tmp_path: Path) -> Iterator[ProcessNetwork]:
    """One node that keeps the only copy, and the authority."""
    made = ProcessNetwork(tmp_path, k=1)
    try:
        made.start(1)
        yield made
    finally:
        made.stop()


def killed_and_started_again(node: NodeProcess) -> None:
    node.process.kill()
    node.start()
    node.ready()


def received(profile: Path, name: str) -> bytes:
    answer = p2pmail(profile, "show", f"<{name}@village.example>", "--raw")
    assert answer.code == 0, answer.err
    return answer.out


def test_a_killed_node_serves_all_that_it_had_acknowledged(network: ProcessNetwork) -> None:
    (node,) = network.nodes
    alice, bob = network.member("alice"), network.member("bob")
    before = node.status()
    messages = {"small": message("small", b"ring twice"), "large": message("large", LARGE)}
    for name, content in messages.items():
        answer = p2pmail(alice, "send", "bob@village.example", stdin=content)
        assert answer.code == 0, answer.err
        assert states(alice, name) == {"bob@village.example": "stored"}
    kept = {kind: node.kept(kind) for kind in Kind}, node.files()
    assert kept[1] > 1, "the large body lies in files"

    killed_and_started_again(node)

    assert ({kind: node.kept(kind) for kind in Kind}, node.files()) == kept
    after = node.status()
    assert (after["node_id"], after["listening"]) == (before["node_id"], before["listening"])
    sync(bob)
    assert {name: received(bob, name) for name in messages} == messages
    until_state(alice, "large", "collected", "bob@village.example", syncing=True)


def test_a_deleted_body_stays_deleted_after_a_kill(network: ProcessNetwork) -> None:
    (node,) = network.nodes
    alice, bob = network.member("alice"), network.member("bob")
    assert p2pmail(alice, "send", "bob@village.example", stdin=message("large", LARGE)).code == 0
    sync(bob)
    until(lambda: node.kept(Kind.BODY) == 0, "the node forgets what was collected")

    killed_and_started_again(node)

    assert (node.kept(Kind.BODY), node.files()) == (0, 0)
    sync(bob)
    assert len(ask(bob, "list")) == 1
    until_state(alice, "large", "collected", "bob@village.example", syncing=True)


def test_a_node_killed_while_mail_comes_in_costs_nobody_a_message(network: ProcessNetwork) -> None:
    (node,) = network.nodes
    alice, bob = network.member("alice"), network.member("bob")
    content = message("large", LARGE)
    spool = alice.parent / "large.eml"
    spool.write_bytes(content)
    sending = Process("p2pmail", "send", "--profile", alice, "bob@village.example", log=alice, stdin=spool)
    try:
        until(lambda: node.kept(Kind.BODY) > 0, "the first piece is on the node's disk")
        killed_and_started_again(node)
        assert sending.wait() == 0, sending.said
    finally:
        sending.end()
    sync(alice)
    sync(bob)
    assert received(bob, "large") == content
    assert len(ask(bob, "list")) == 1
    assert node.kept(Kind.BODY) == 0


def test_a_killed_agent_leaves_a_profile_that_works(network: ProcessNetwork) -> None:
    alice, bob = network.member("alice"), network.member("bob")
    watching = Process("p2pmail", "sync", "--watch", "--profile", bob, log=bob)
    try:
        until(lambda: ask(bob, "status")["listening"], "the agent answers at its socket")
        watching.kill()
    finally:
        watching.end()
    assert ask(bob, "status")["listening"] == ""
    assert p2pmail(alice, "send", "bob@village.example", stdin=message("small", b"ring twice")).code == 0
    sync(bob)
    assert received(bob, "small") == message("small", b"ring twice")
