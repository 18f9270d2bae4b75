"""What goes wrong at the edges: no network, an invite used twice, a wrong passphrase, a profile at work already.

Each ends with the exit code that docs/commands.md promises and words to act on, and nothing is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.process_network import ProcessNetwork, ask, p2pmail, states, sync, until_state
from tests.real.programs import CommandResult, Process, until

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("no_network")]

MESSAGE = b"Subject: later\n\nStill here.\n"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessNetwork]:
    """Three nodes, which each test leaves running."""
    made = ProcessNetwork(tmp_path_factory.mktemp("village"), k=3)
    try:
        made.start(3)
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def alice(network: ProcessNetwork) -> Path:
    return network.member("alice")


@pytest.fixture(scope="module")
def bob(network: ProcessNetwork) -> Path:
    return network.member("bob")


@pytest.fixture(scope="module")
def guarded(network: ProcessNetwork) -> Path:
    """Carol, whose keys are under a passphrase."""
    secret = network.folder / "secret"
    secret.write_text("a stitch in time\n")
    return network.member("carol", "--passphrase-file", secret)


def refused(answer: CommandResult, code: int) -> str:
    """It ended with this code, printed nothing, and said something readable; what."""
    assert answer.code == code, (answer.code, answer.err)
    assert answer.out == b""
    assert answer.err
    assert "Traceback" not in answer.err
    assert "fault of p2pmail" not in answer.err
    return answer.err


def test_mail_written_without_a_network_is_kept_and_sent_when_there_is_one(
    network: ProcessNetwork, alice: Path, bob: Path
) -> None:
    assert [node.process.terminate() for node in network.nodes] == [0, 0, 0]

    sent = p2pmail(alice, "send", "bob@village.example", stdin=MESSAGE)
    assert (sent.code, sent.out) == (0, b"")
    assert "outbox" in sent.err
    assert states(alice, "later") == {"bob@village.example": "queued"}
    assert [row["subject"] for row in ask(alice, "list", "Sent")] == ["later"]
    refused(p2pmail(alice, "sync"), 69)
    assert states(alice, "later") == {"bob@village.example": "queued"}

    for node in network.nodes:
        node.start(*(other.place for other in network.nodes if other is not node))
    for node in network.nodes:
        node.ready()
    sync(alice)
    assert states(alice, "later") == {"bob@village.example": "stored"}
    sync(bob)
    (row,) = ask(bob, "list")
    assert (row["subject"], row["from"]) == ("later", "alice@village.example")
    raw = p2pmail(bob, "show", row["id"], "--raw").out
    assert raw == p2pmail(alice, "show", row["id"], "--raw").out
    assert raw.startswith(b"Subject: later\n")
    assert raw.endswith(b"\n\nStill here.\n")


def test_collecting_without_a_network_says_so(tmp_path: Path) -> None:
    lonely = ProcessNetwork(tmp_path, k=1)
    try:
        lonely.start(1)
        dora = lonely.member("dora")
    finally:
        lonely.stop()
    words = refused(p2pmail(dora, "sync"), 69)
    assert "answer" in words


def test_an_invite_is_good_for_one_use(network: ProcessNetwork, tmp_path: Path) -> None:
    invite = network.invite("erin@village.example")
    assert p2pmail(tmp_path / "erin", "join", invite).code == 0
    words = refused(p2pmail(tmp_path / "mallory", "join", invite), 77)
    assert "invite" in words
    assert p2pmail(tmp_path / "erin", "join", invite).code == 0  # the same profile again: joined already


@pytest.mark.parametrize("spoil", [lambda line: line[:-9], lambda line: line[:40] + "AAAA" + line[44:], lambda _: "hi"])
def test_a_damaged_invite_is_a_data_error(network: ProcessNetwork, tmp_path: Path, spoil: object) -> None:
    assert callable(spoil)
    refused(p2pmail(tmp_path / "frank", "join", str(spoil(network.invite("frank@village.example")))), 65)
    assert not (tmp_path / "frank").exists()


@pytest.mark.parametrize("command", ["sync", "send"])
def test_a_wrong_passphrase_opens_nothing(guarded: Path, tmp_path: Path, command: str) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("a stitch in space\n")
    arguments = [command] if command == "sync" else [command, "bob@village.example"]
    refused(p2pmail(guarded, *arguments, "--passphrase-file", wrong, stdin=MESSAGE), 77)
    refused(p2pmail(guarded, *arguments, stdin=MESSAGE), 77)  # nobody can be asked
    assert ask(guarded, "outbox") == []
    assert ask(guarded, "list", "Sent") == []


def test_what_needs_no_key_asks_for_no_passphrase(guarded: Path) -> None:
    for command in (["list"], ["search", "word"], ["unread-count"], ["outbox"], ["status"]):
        assert p2pmail(guarded, *command).code == 0, command


def test_the_right_passphrase_opens_the_keys(network: ProcessNetwork, guarded: Path) -> None:
    answer = p2pmail(guarded, "sync", "--passphrase-file", network.folder / "secret")
    assert answer.code == 0, answer.err


def test_a_profile_at_work_is_asked_instead_of_disturbed(network: ProcessNetwork, alice: Path, bob: Path) -> None:
    watching = Process("p2pmail", "sync", "--watch", "--profile", alice, log=network.folder / "watching.log")
    try:
        until(lambda: ask(alice, "status")["listening"], "the agent answers at its socket")
        words = refused(p2pmail(alice, "sync", "--watch"), 75)
        assert "--profile" in words
        assert p2pmail(alice, "sync").code == 0  # asks the one that runs
        assert p2pmail(alice, "send", "bob@village.example", stdin=b"Subject: by the agent\n\n.\n").code == 0
        until_state(alice, "by the agent", "stored", "bob@village.example")
        assert watching.terminate() == 0, watching.said
    finally:
        watching.end()
    sync(bob)
    assert "by the agent" in [row["subject"] for row in ask(bob, "list")]


def test_a_second_node_of_one_profile_is_refused(network: ProcessNetwork) -> None:
    node = network.nodes[0]
    again = Process(
        "p2pmail-tui", "--node-only", "--profile", node.profile, "--network", network.network_file,
        "--listen", "127.0.0.1:0", log=network.folder / "again.log",
    )  # fmt: skip
    try:
        assert again.wait() == 75, again.said
        assert "Traceback" not in again.said
    finally:
        again.end()
    assert node.status()["listening"] == node.place


def test_an_address_that_nobody_holds_is_named_and_keeps_no_other_recipient_waiting(
    network: ProcessNetwork, alice: Path, bob: Path
) -> None:
    message = b"To: nobody@village.example, bob@village.example\nSubject: who\n\n.\n"
    assert p2pmail(alice, "send", "-t", stdin=message).code == 0
    refused(p2pmail(alice, "sync"), 75)  # looked for again for ten minutes: who has the card may be away
    assert states(alice, "who") == {"nobody@village.example": "queued", "bob@village.example": "stored"}
    (entry,) = (entry for entry in ask(alice, "outbox") if entry["subject"] == "who")
    reasons = {recipient["address"]: recipient["reason"] for recipient in entry["recipients"]}
    assert "nobody@village.example" in reasons["nobody@village.example"]
    sync(bob)
    assert "who" in [row["subject"] for row in ask(bob, "list")]


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        (b"Subject: to whom\n\n.\n", ["-t"]),
        (b"From: bob@village.example\nSubject: not me\n\n.\n", ["bob@village.example"]),
        (b"To: undisclosed-recipients:;\n\n.\n", ["-t"]),
    ],
)
def test_a_message_that_can_not_be_sent_is_a_data_error_and_not_kept(
    alice: Path, message: bytes, arguments: list[str]
) -> None:
    before = ask(alice, "outbox"), ask(alice, "list", "Sent")
    refused(p2pmail(alice, "send", *arguments, stdin=message), 65)
    assert (ask(alice, "outbox"), ask(alice, "list", "Sent")) == before


def test_a_profile_that_never_joined_is_told_to(tmp_path: Path) -> None:
    assert "p2pmail join" in refused(p2pmail(tmp_path / "new", "sync"), 78)
    refused(p2pmail(tmp_path / "new", "send", "bob@village.example", stdin=MESSAGE), 78)
    refused(p2pmail(tmp_path / "new", "list"), 78)
