"""The commands as scripts use them: exit codes, standard output and error, no questions, nothing lost.

docs/commands.md is the contract. Joining is met in tests/mail/membership/test_enrolment.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from mail.checks.spam import GTUBE
from tests.mail.commands import CommandNetwork, Member, Shell
from tests.mail.sample_messages import EICAR, with_attachment
from tests.mail.user_agents import plain_message

LOCAL = (["list"], ["show", "x@y"], ["search", "word"], ["unread-count"], ["outbox"], ["status"])


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandNetwork]:
    network = CommandNetwork(tmp_path_factory.mktemp("network"))
    yield network
    network.close()


@pytest.fixture
def alice(network: CommandNetwork) -> Member:
    return network.member("alice")


@pytest.fixture
def bob(network: CommandNetwork) -> Member:
    return network.member("bob")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Shell:
    return Shell(monkeypatch, capsysbinary)


def mail(sender: Member, *to: Member, text: bytes = b"Hello.\n", message_id: str = "one@test.example") -> bytes:
    return plain_message(sender.address, [each.address for each in to], message_id, text, "Plan for Saturday")


def test_a_message_goes_from_standard_input_to_the_other_ones_list(run: Shell, alice: Member, bob: Member) -> None:
    message = mail(alice, bob, text="Grüße\r\nbis bald\r\n".encode("latin-1"))
    sent = run(alice, "send", "-t", stdin=message)
    assert (sent.code, sent.output, sent.errors) == (0, b"", "")
    assert run(bob, "unread-count").text == "0\n"
    synced = run(bob, "sync")
    assert (synced.code, synced.output, synced.errors) == (0, b"", "")
    assert run(bob, "unread-count").text == "1\n"
    (row,) = run(bob, "list", "--json").json
    assert datetime.fromisoformat(row.pop("date")).isoformat() == "2026-03-02T12:00:00+00:00"
    assert row == {
        "id": "<one@test.example>",
        "message_id": "<one@test.example>",
        "folder": "Inbox",
        "from": alice.address,
        "to": bob.address,
        "subject": "Plan for Saturday",
        "flags": [],
        "size": len(message),
    }
    shown = run(bob, "show", "<one@test.example>")
    assert shown.code == 0
    assert "Subject: Plan for Saturday" in shown.text
    assert "Grüße" in shown.text
    assert run(bob, "show", "one@test.example", "--raw").output == message
    assert [row["id"] for row in run(bob, "search", "subject:saturday", "--json").json] == ["<one@test.example>"]
    assert run(bob, "search", "sunday", "--json").json == []
    (copy,) = run(alice, "list", "sent", "--json").json
    assert (copy["folder"], copy["flags"]) == ("Sent", ["seen"])


def test_the_outbox_says_what_is_known_and_no_more(run: Shell, alice: Member, bob: Member) -> None:
    run(alice, "send", bob.address.upper(), stdin=mail(alice, bob))
    expected = {"address": bob.address, "bodies": [3, 3], "notifications": [3, 3], "reason": ""}
    (entry,) = run(alice, "outbox", "--json").json
    assert entry == {
        "id": "<one@test.example>",
        "subject": "Plan for Saturday",
        "recipients": [expected | {"state": "stored"}],
    }
    run(bob, "sync")
    assert run(alice, "sync").code == 0
    (entry,) = run(alice, "outbox", "--json").json
    assert entry["recipients"] == [expected | {"state": "collected"}]
    assert "collected" in run(alice, "outbox").text


def test_bcc_is_neither_in_the_message_nor_lost(
    run: Shell, alice: Member, bob: Member, network: CommandNetwork
) -> None:
    carol = network.member("carol")
    message = mail(alice, bob).replace(b"Subject:", f"Bcc: {carol.address}\nSubject:".encode())
    assert run(alice, "send", "-t", stdin=message).code == 0
    for person in (bob, carol):
        assert run(person, "sync").code == 0
        assert run(person, "show", "one@test.example", "--raw").output == mail(alice, bob)
    assert f"Bcc: {carol.address}\n" in run(alice, "show", "one@test.example").text
    ending = b"\r\n" if b"\r\n" in message else b"\n"
    own = run(alice, "show", "one@test.example", "--raw").output
    assert own == f"Bcc: {carol.address}".encode() + ending + mail(alice, bob)
    assert len(run(alice, "search", f"to:{carol.address}", "--json").json) == 1


def test_status_has_its_shape_with_and_without_a_running_process(
    run: Shell, alice: Member, network: CommandNetwork
) -> None:
    names = [
        "node_id",
        "listening",
        "mode",
        "contacts",
        "objects",
        "bytes",
        "quota",
        "inboxes",
        "availability",
        "k",
        "version",
        "interval",
        "observations",
        "target",
        "reached",
        "transport",
        "reachable",
        "online",
        "offline_since",
        "alone",
        "certificate",
        "certificate_ends",
    ]
    still = run(alice, "status", "--json")
    assert still.code == 0
    assert list(still.json) == names
    assert (still.json["online"], still.json["offline_since"], still.json["alone"]) == (None, None, False)
    assert (still.json["listening"], still.json["contacts"], still.json["mode"]) == ("", 0, "client")
    agent = alice.agent()
    try:
        running = run(alice, "status", "--json").json
    finally:
        network.background.run(agent.close())
    assert list(running) == names
    assert (running["contacts"], running["k"], running["availability"]) == (5, 3, None)
    assert (running["online"], running["offline_since"]) == (True, None)
    assert len(running["node_id"]) == 40
    assert "contacts: 0" in run(alice, "status").text


def test_options_may_stand_before_the_command_too(run: Shell, alice: Member, tmp_path: Path) -> None:
    alice.profile.folders().add("Inbox", b"Subject: here\n\nText\n")
    assert run(None, "--profile", alice.profile.root, "unread-count").text == "1\n"
    assert run(None, "--profile", tmp_path / "none", "unread-count", "--profile", alice.profile.root).text == "1\n"


def test_infected_mail_is_shown_by_nothing(run: Shell, alice: Member, bob: Member) -> None:
    message = with_attachment(EICAR).replace(b"mallory@example.org", alice.address.encode())
    message = b"Message-ID: <bad@test.example>\n" + message
    assert run(alice, "send", bob.address, stdin=message).code == 0
    assert run(bob, "sync").code == 0
    assert run(bob, "list", "--json").json == []
    assert [row["id"] for row in run(bob, "list", "Quarantine", "--json").json] == ["<bad@test.example>"]
    assert run(bob, "search", "you", "--json").json == []
    assert run(bob, "search", "in:Quarantine", "you", "--json").json == []
    for arguments in (["show", "bad@test.example"], ["show", "bad@test.example", "--raw"]):
        shown = run(bob, *arguments)
        assert (shown.code, shown.output) == (77, b"")
        assert "Quarantine" in shown.errors


def test_a_good_message_is_shown_though_an_infected_one_has_its_id(run: Shell, alice: Member, bob: Member) -> None:
    infected = with_attachment(EICAR).replace(b"mallory@example.org", alice.address.encode())
    run(alice, "send", bob.address, stdin=mail(alice, bob))
    run(bob, "sync")
    folders = bob.profile.folders()
    folders.add("Quarantine", b"Message-ID: <one@test.example>\n" + infected)
    assert run(bob, "show", "one@test.example", "--raw").output == mail(alice, bob)


def test_spam_goes_to_junk(run: Shell, alice: Member, bob: Member) -> None:
    run(alice, "send", bob.address, stdin=mail(alice, bob, text=GTUBE.encode() + b"\n"))
    assert run(bob, "sync").code == 0
    assert [row["folder"] for row in run(bob, "list", "Junk", "--json").json] == ["Junk"]
    assert run(bob, "unread-count").text == "0\n"


def test_an_unknown_address_is_told_by_send_waits_with_75_and_fails_with_69(
    run: Shell, alice: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = run(alice, "send", "nobody@test.example", stdin=mail(alice, alice))
    assert sent.code == 0
    assert "nobody@test.example isn't known in this network" in sent.errors
    assert run(alice, "sync").code == 75
    monkeypatch.setattr("mail.send.sender.UNKNOWN_FOR", 0.0)
    failed = run(alice, "sync")
    assert failed.code == 69
    assert "nobody@test.example failed" in failed.errors
    assert run(alice, "sync").code == 0
    (entry,) = run(alice, "outbox", "--json").json
    assert entry["recipients"][0]["state"] == "failed"
    assert "isn't known" in entry["recipients"][0]["reason"]


def test_mail_that_cannot_be_collected_yet_is_75(
    run: Shell, alice: Member, bob: Member, network: CommandNetwork
) -> None:
    run(alice, "send", bob.address, stdin=mail(alice, bob))
    from overlay.client import Overlay
    from overlay.errors import NotFound

    async def fetch(*_: object, **__: object) -> bytes:
        raise NotFound("None of the closest nodes has it.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Overlay, "fetch", fetch)
        late = run(bob, "sync")
    assert late.code == 75
    assert "can't be collected yet" in late.errors
    assert run(bob, "sync").code == 0


def test_what_anybody_can_put_into_an_inbox_is_no_reason_for_75(
    run: Shell, alice: Member, bob: Member, network: CommandNetwork
) -> None:
    from overlay.ids import inbox_key

    agent = alice.agent()
    network.background.run(agent.overlay.append_inbox(inbox_key(bob.address), b"\x01" * 3072, ttl=1000))
    network.background.run(agent.close())
    assert run(bob, "sync").code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["list", "--colour"],
        ["show"],
        ["search"],
        ["authority"],
        ["send", "not an address"],
        ["send", "@"],
        ["send", "a@b", "c@@d"],
        ["search", "is:blue"],
    ],
    ids=" ".join,
)
def test_a_command_line_that_is_wrong_is_64(run: Shell, alice: Member, arguments: list[str]) -> None:
    wrong = run(alice, *arguments, stdin=mail(alice, alice))
    assert wrong.code == 64
    assert wrong.output == b""
    assert wrong.errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["send"], b"Subject: nobody\n\nText\n"),
        (["send", "-t"], b"Subject: nobody\n\nText\n"),
        (["send", "-t"], b"To: not an address\n\nText\n"),
        (["send", "bob@test.example"], b"From: mallory@test.example\n\nText\n"),
        (["send", "bob@test.example"], b"From:\n\nText\n"),
        (["send", "bob@test.example"], b"From: alice@test.example <boss@bank.example>\n\nText\n"),
        (["send", "bob@test.example"], b"From: alice@test.example, bob@test.example\n\nText\n"),
        (["send", "bob@test.example"], b"From: =?utf-8?q?x,boss@bank.example,?= <alice@test.example>\n\nText\n"),
        (["send", "-t"], b"To: bob, Alice <alice@test.example>\n\nText\n"),
        (["send", "bob@test.example"], b"Message-ID: <\xff>\n\nText\n"),
        (["show", "nothing@test.example"], b""),
        (["show", ""], b""),
        (["list", "Nowhere"], b""),
        (["join", "not an invite"], b""),
    ],
)
def test_bad_data_is_65_and_nothing_is_kept(run: Shell, alice: Member, arguments: list[str], message: bytes) -> None:
    refused = run(alice, *arguments, stdin=message)
    assert (refused.code, refused.output) == (65, b"")
    assert refused.errors
    assert run(alice, "outbox", "--json").json == []
    assert run(alice, "list", "Sent", "--json").json == []
    assert list(alice.profile.spool.iterdir()) == []


def test_another_message_with_the_same_id_is_65_and_the_first_one_stays(run: Shell, alice: Member, bob: Member) -> None:
    assert run(alice, "send", bob.address, stdin=mail(alice, bob)).code == 0
    assert run(alice, "send", bob.address, stdin=mail(alice, bob, text=b"Another.\n")).code == 65
    assert len(run(alice, "outbox", "--json").json) == 1


@pytest.mark.parametrize("arguments", [*LOCAL, ["send", "a@b.example"], ["sync"]], ids=lambda arguments: arguments[0])
def test_where_there_is_no_profile_it_is_78_and_none_is_made(run: Shell, tmp_path: Path, arguments: list[str]) -> None:
    folder = tmp_path / "none"
    missing = run(folder, *arguments)
    assert missing.code == 78
    assert missing.errors
    assert not folder.exists()


def test_a_configuration_that_cannot_be_read_is_78(run: Shell, alice: Member) -> None:
    alice.profile.config_file.write_text("quota = ")
    assert run(alice, "sync").code == 78
    alice.profile.config_file.write_text("join = ['nowhere']")
    assert run(alice, "sync").code == 78
    alice.profile.config_file.unlink()
    alice.profile.network_file.write_text("nonsense")
    assert run(alice, "sync").code == 78
    alice.profile.network_file.unlink()
    assert run(alice, "sync").code == 78
