"""The whole path with real processes: a message of 5 MB goes to two members, five of twelve nodes die, it arrives.

The journey is made once; each test looks at one thing that must be true at its end.
"""

from __future__ import annotations

import email
import email.policy
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from tests.real.process_network import NodeProcess, ProcessNetwork, ask, bodies, p2pmail, states, sync, until_state
from tests.real.programs import until

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("journey")]

NODES = 12
KILLED = 5
ATTACHMENT = random.Random("a plan of the village").randbytes(5_000_000)
SUBJECT = "Plan for Saturday"
MESSAGE_ID = "20260301120000.4f1c@village.example"
RECIPIENTS = ["bob@village.example", "carol@village.example"]


def message() -> bytes:
    """Alice's message, as a mail program writes it: nothing is missing, so nothing may be changed."""
    message = EmailMessage(email.policy.SMTP)
    message["From"] = "Alice <alice@village.example>"
    message["To"] = "Bob <bob@village.example>"
    message["Cc"] = "carol@village.example"
    message["Date"] = "Sun, 01 Mar 2026 12:00:00 +0000"
    message["Message-ID"] = f"<{MESSAGE_ID}>"
    message["Subject"] = SUBJECT
    message["X-Odd"] = "  two  spaces,\ttab"
    message.set_content("The marquee stands behind the church.\n")
    message.add_attachment(ATTACHMENT, maintype="application", subtype="octet-stream", filename="plan.bin")
    return message.as_bytes()


@dataclass(frozen=True, slots=True)
class JourneyResult:
    """What was sent, what was seen on the way, and what there is at the end."""

    sent: bytes
    after_sending: dict[str, str]
    kept_after_sending: int
    living: list[NodeProcess]
    alice: Path
    bob: Path
    carol: Path


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JourneyResult]:
    """Send, kill, collect."""
    network = ProcessNetwork(tmp_path_factory.mktemp("journey"))
    try:
        network.start(NODES)
        alice, bob, carol = (network.member(name) for name in ("alice", "bob", "carol"))
        sent = message()
        answer = p2pmail(alice, "send", "-t", stdin=sent)
        assert answer.code == 0, answer.err
        sync(alice)
        after, kept = states(alice, SUBJECT), bodies(network.nodes)
        # The first five: among them the one where all others joined.
        for node in network.nodes[:KILLED]:
            node.process.kill()
        sync(bob)
        sync(carol)
        sync(alice)
        yield JourneyResult(sent, after, kept, network.nodes[KILLED:], alice, bob, carol)
    finally:
        network.stop()


def test_after_sending_the_outbox_says_that_nodes_keep_it(journey: JourneyResult) -> None:
    assert journey.after_sending == dict.fromkeys(RECIPIENTS, "stored")
    assert journey.kept_after_sending >= 10  # k copies of a body that both share, each in pieces


@pytest.mark.parametrize("name", ["bob", "carol"])
def test_the_message_arrives_byte_for_byte(journey: JourneyResult, name: str) -> None:
    answer = p2pmail(getattr(journey, name), "show", f"<{MESSAGE_ID}>", "--raw")
    assert answer.code == 0
    assert answer.out == journey.sent
    (attachment,) = email.message_from_bytes(answer.out, policy=email.policy.default).iter_attachments()
    assert attachment.get_filename() == "plan.bin"
    assert attachment.get_content() == ATTACHMENT


def test_show_prints_what_matters_of_it(journey: JourneyResult) -> None:
    text = p2pmail(journey.bob, "show", MESSAGE_ID).text
    assert "From: Alice <alice@village.example>\n" in text
    assert f"Subject: {SUBJECT}\n" in text
    assert "plan.bin" in text
    assert "The marquee stands behind the church." in text
    assert "X-Odd" not in text


def test_the_bodies_are_gone_from_the_living_nodes(journey: JourneyResult) -> None:
    until(lambda: bodies(journey.living) == 0, "nodes forget a body that all recipients have collected")
    assert [node.files() for node in journey.living] == [0] * (NODES - KILLED)


def test_the_outbox_says_collected(journey: JourneyResult) -> None:
    until_state(journey.alice, SUBJECT, "collected", *RECIPIENTS, syncing=True)
    (entry,) = ask(journey.alice, "outbox")
    assert set(entry) == {"id", "subject", "recipients"}
    assert entry["id"] == f"<{MESSAGE_ID}>"
    for recipient in entry["recipients"]:
        assert set(recipient) == {"address", "state", "bodies", "notifications", "reason"}
        assert recipient["bodies"] == [10, 10]
        assert recipient["notifications"][1] == 10
    assert "collected" in p2pmail(journey.alice, "outbox").text


def test_the_sender_keeps_a_copy_in_sent(journey: JourneyResult) -> None:
    (row,) = ask(journey.alice, "list", "Sent")
    assert (row["id"], row["folder"], row["flags"]) == (f"<{MESSAGE_ID}>", "Sent", ["seen"])
    assert p2pmail(journey.alice, "show", MESSAGE_ID, "--raw").out == journey.sent


def test_list_as_json_has_the_shape_that_scripts_count_on(journey: JourneyResult) -> None:
    assert ask(journey.bob, "list") == [
        {
            "id": f"<{MESSAGE_ID}>",
            "message_id": f"<{MESSAGE_ID}>",
            "folder": "Inbox",
            "from": "Alice <alice@village.example>",
            "to": "Bob <bob@village.example>, carol@village.example",
            "subject": SUBJECT,
            "date": "2026-03-01T12:00:00+00:00",
            "flags": [],
            "size": len(journey.sent),
        }
    ]
    assert datetime.fromisoformat(ask(journey.bob, "list")[0]["date"]).utcoffset() is not None
    for folder in ("Archive", "Drafts", "Junk", "Trash", "Requests", "Quarantine"):
        assert ask(journey.bob, "list", folder) == []
    assert re.fullmatch(rf"N 2026-03-01 .*Alice .*{SUBJECT}\n", p2pmail(journey.bob, "list").text)


def test_what_came_is_counted_as_unread(journey: JourneyResult) -> None:
    assert p2pmail(journey.bob, "unread-count").text == "1\n"
    assert p2pmail(journey.alice, "unread-count").text == "0\n"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("marquee", 1),
        ("subject:saturday from:alice", 1),
        ("has:attachment is:unread after:2026-03 before:2026-04", 1),
        ('"behind the church"', 1),
        ("in:Archive marquee", 0),
        ("marquee -church", 0),
    ],
)
def test_search_finds_it_by_what_it_has(journey: JourneyResult, query: str, found: int) -> None:
    assert [row["id"] for row in ask(journey.bob, "search", query)] == [f"<{MESSAGE_ID}>"] * found


def test_a_query_that_means_nothing_is_a_usage_error(journey: JourneyResult) -> None:
    answer = p2pmail(journey.bob, "search", "is:blue")
    assert (answer.code, answer.out) == (64, b"")
    assert "blue" in answer.err


def test_an_id_that_is_not_there_is_a_data_error(journey: JourneyResult) -> None:
    assert p2pmail(journey.bob, "show", "<nobody@village.example>").code == 65


KINDS: dict[str, tuple[type, ...]] = {
    "node_id": (str,),
    "listening": (str,),
    "mode": (str,),
    "contacts": (int,),
    "objects": (int,),
    "bytes": (int,),
    "quota": (int,),
    "inboxes": (int,),
    "availability": (float, int, type(None)),
    "k": (int,),
    "version": (str,),
    "interval": (list, type(None)),
    "observations": (int,),
    "target": (float,),
    "reached": (float, type(None)),
    "transport": (str,),
    "reachable": (bool, type(None)),
    "online": (bool, type(None)),
    "offline_since": (float, type(None)),
    "alone": (bool,),
    "certificate": (str, type(None)),
    "certificate_ends": (str, type(None)),
}


def _has_shape(status: dict[str, Any]) -> bool:
    return list(status) == list(KINDS) and all(isinstance(status[name], kinds) for name, kinds in KINDS.items())


def test_status_of_a_node_says_what_it_sees(journey: JourneyResult) -> None:
    for node in journey.living:
        status = node.status()
        assert _has_shape(status), status
        assert (status["mode"], status["listening"], status["k"]) == ("node", node.place, 10)
        assert re.fullmatch("[0-9a-f]{40}", status["node_id"])
        assert status["contacts"] >= NODES - KILLED - 1
        assert 0 < status["bytes"] < status["quota"]


def test_status_of_a_profile_that_runs_nothing_says_what_is_on_disk(journey: JourneyResult) -> None:
    status = ask(journey.bob, "status")
    assert _has_shape(status), status
    assert (status["mode"], status["listening"], status["contacts"]) == ("client", "", 0)


def test_collecting_again_brings_nothing_twice(journey: JourneyResult) -> None:
    sync(journey.bob)
    assert len(ask(journey.bob, "list")) == 1
