"""Commands under failures: no network, a busy profile, a full disk, protected keys, a closed pipe. Nothing is lost."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mail.cli import main as main_module
from mail.cli import user
from mail.send.enqueue import CannotAccept
from storage import space
from storage.database import DatabaseError
from storage.space import NoDiskSpace
from storage.user.folders import Folders
from storage.user.index import Index, IndexUnavailable
from storage.user.outbox import Outbox
from tests.mail.commands import CommandNetwork, Member, Shell
from tests.mail.user_agents import plain_message

LOCAL = (["list"], ["show", "x@y"], ["search", "word"], ["unread-count"], ["outbox"], ["status"])
DEAD_PORT = 9


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


def mail(sender: Member, to: Member) -> bytes:
    return plain_message(sender.address, [to.address], "one@test.example")


def cut_off(member: Member) -> bytes:
    """Let the member know only nodes that don't answer. Returns the former network file."""
    before = member.profile.network_file.read_bytes()
    lines = [
        f'join = ["127.0.0.1:{DEAD_PORT}/{"A" * 43}"]' if line.startswith("join") else line
        for line in before.decode().replace("[\n", "[").replace(",\n", ",").splitlines()
    ]
    member.profile.network_file.write_text("\n".join(lines))
    (member.profile.node_folder / "routing.json").unlink(missing_ok=True)
    return before


def test_without_a_network_send_keeps_and_sync_is_69_and_nothing_is_lost(
    run: Shell, alice: Member, bob: Member
) -> None:
    network = cut_off(alice)
    sent = run(alice, "send", bob.address, stdin=mail(alice, bob))
    assert sent.code == 0
    assert "outbox" in sent.errors
    synced = run(alice, "sync")
    assert synced.code == 69
    (entry,) = run(alice, "outbox", "--json").json
    assert entry["recipients"][0]["state"] == "queued"
    assert entry["recipients"][0]["reason"]
    alice.profile.network_file.write_bytes(network)
    assert run(alice, "sync").code == 0
    assert run(bob, "sync").code == 0
    assert run(bob, "show", "one@test.example", "--raw").output == mail(alice, bob)


def test_send_is_0_once_the_message_is_accepted_whatever_happens_then(
    run: Shell, alice: Member, bob: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.profile.network_file.unlink()
    sent = run(alice, "send", bob.address, stdin=mail(alice, bob))
    assert sent.code == 0
    assert "It is in the outbox" in sent.errors
    assert len(run(alice, "outbox", "--json").json) == 1
    for error in (RuntimeError("a bug"), IndexUnavailable("no index"), DatabaseError("no state")):
        monkeypatch.setattr("mail.agent.Index.open", raising(error))
        again = run(alice, "send", bob.address, stdin=mail(alice, bob))
        assert again.code == 0
    assert len(run(alice, "outbox", "--json").json) == 1


def test_a_full_disk_at_accepting_is_75_and_nothing_is_kept(
    run: Shell, alice: Member, bob: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "accept", raising(OSError(errno.ENOSPC, "No space left on device")))
        refused = run(alice, "send", bob.address, stdin=mail(alice, bob))
    assert refused.code == 75
    assert "No space left" in refused.errors
    with monkeypatch.context() as patch:
        patch.setattr(Folders, "stage", raising(OSError(errno.ENOSPC, "No space left on device")))
        assert run(alice, "send", bob.address, stdin=mail(alice, bob)).code == 75
    assert run(alice, "outbox", "--json").json == []
    assert run(alice, "list", "Sent", "--json").json == []
    assert run(bob, "sync").code == 0
    assert run(bob, "list", "--json").json == []


def test_a_copy_that_cannot_be_shown_in_sent_is_no_refusal_and_is_shown_later(
    run: Shell, alice: Member, bob: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Folders, "publish", raising(OSError(errno.ENOSPC, "No space left on device")))
        assert run(alice, "send", bob.address, stdin=mail(alice, bob)).code == 0
    assert run(alice, "sync").code == 0
    assert len(run(alice, "list", "Sent", "--json").json) == 1
    assert run(bob, "sync").code == 0
    assert len(run(bob, "list", "--json").json) == 1


def test_a_message_in_a_file_that_is_too_large_is_refused_before_it_is_copied(alice: Member, tmp_path: Path) -> None:
    with (tmp_path / "large").open("w+b") as file, closing(Outbox(alice.profile.outbox_file)) as outbox:
        file.truncate(1_006_632_961)
        with pytest.raises(CannotAccept, match="960 MiB"):
            user._check_size(outbox, alice.profile, file)
        file.seek(1)
        with pytest.raises(NoDiskSpace), pytest.MonkeyPatch.context() as patch:
            patch.setattr(space, "free_bytes", lambda _: 1_900_000_000)
            user._check_size(outbox, alice.profile, file)


def test_a_running_process_sends_and_collects_for_the_commands(
    run: Shell, alice: Member, bob: Member, network: CommandNetwork
) -> None:
    agents = [alice.agent(), bob.agent()]
    try:
        assert run(alice, "send", bob.address, stdin=mail(alice, bob)).code == 0
        assert run(alice, "outbox", "--json").json[0]["recipients"][0]["state"] == "stored"
        assert run(bob, "sync").code == 0
        assert run(bob, "unread-count").text == "1\n"
        assert run(alice, "sync").code == 0
        assert run(alice, "outbox", "--json").json[0]["recipients"][0]["state"] == "collected"
    finally:
        for agent in agents:
            network.background.run(agent.close())


def test_a_profile_that_is_busy_without_answering_is_75_and_send_keeps(run: Shell, alice: Member, bob: Member) -> None:
    with alice.profile.lock("agent"):
        assert run(alice, "send", bob.address, stdin=mail(alice, bob)).code == 0
        busy = run(alice, "sync")
    assert busy.code == 75
    assert "Another process" in busy.errors
    assert run(alice, "sync").code == 0
    assert run(bob, "sync").code == 0
    assert run(bob, "unread-count").text == "1\n"


@pytest.mark.parametrize("arguments", LOCAL, ids=lambda arguments: arguments[0])
def test_what_needs_no_key_asks_for_no_passphrase(run: Shell, network: CommandNetwork, arguments: list[str]) -> None:
    member = network.member("protected", passphrase="secret")
    member.profile.keyring_file.chmod(0)
    looked = run(member, *arguments)
    assert looked.code == (65 if arguments[0] == "show" else 0)


def test_protected_keys_are_opened_by_a_passphrase_file_alone(
    run: Shell, network: CommandNetwork, bob: Member, tmp_path: Path
) -> None:
    member = network.member("protected", passphrase="secret")
    good, wrong, empty = tmp_path / "good", tmp_path / "wrong", tmp_path / "empty"
    good.write_text("secret\nmore\n")
    wrong.write_text("public\n")
    empty.write_text("\n")
    message = mail(member, bob)
    assert run(member, "send", bob.address, stdin=message).code == 77
    assert run(member, "sync").code == 77
    assert run(member, "send", bob.address, "--passphrase-file", wrong, stdin=message).code == 77
    assert run(member, "sync", "--passphrase-file", empty).code == 64
    assert run(member, "sync", "--passphrase-file", tmp_path / "missing").code == 64
    assert run(member, "outbox", "--json").json == []
    assert run(member, "--passphrase-file", good, "send", bob.address, stdin=message).code == 0
    assert run(member, "sync", "--passphrase-file", good).code == 0


def test_a_keyring_that_is_damaged_is_78_and_left_as_it_is(run: Shell, alice: Member) -> None:
    alice.profile.keyring_file.write_bytes(b"damaged")
    assert run(alice, "sync").code == 78
    assert alice.profile.keyring_file.read_bytes() == b"damaged"


def test_an_index_that_is_damaged_is_made_again(run: Shell, alice: Member, bob: Member) -> None:
    run(alice, "send", bob.address, stdin=mail(alice, bob))
    run(bob, "sync")
    bob.profile.index_file.write_bytes(b"damaged" * 1000)
    assert [row["id"] for row in run(bob, "list", "--json").json] == ["<one@test.example>"]


def test_an_index_that_cannot_be_used_now_is_75(run: Shell, alice: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Index, "update", raising(IndexUnavailable("The index can't be used.")))
    assert run(alice, "list").code == 75


def test_an_outbox_that_is_damaged_is_said_and_left_as_it_is(run: Shell, alice: Member, bob: Member) -> None:
    run(alice, "send", bob.address, stdin=mail(alice, bob))
    for file in alice.profile.outbox_folder.glob("outbox.sqlite-*"):
        file.unlink()
    alice.profile.outbox_file.write_bytes(b"damaged" * 1000)
    assert run(alice, "outbox").code == 75
    assert run(alice, "send", bob.address, stdin=mail(alice, bob)).code == 75
    assert alice.profile.outbox_file.read_bytes() == b"damaged" * 1000


def test_a_fault_of_the_program_is_70_without_a_traceback(
    run: Shell, alice: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mail.cli.local.unread_count", raising(RuntimeError("a bug")))
    fault = run(alice, "unread-count")
    assert fault.code == 70
    assert "a fault of p2pmail" in fault.errors


def test_an_interrupt_is_130(run: Shell, alice: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mail.cli.local.unread_count", raising(KeyboardInterrupt()))
    assert run(alice, "unread-count").code == 130


def test_what_a_terminal_cannot_show_is_escaped(alice: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    alice.profile.folders().add("Inbox", "From: x@y\nSubject: Grüße\nMessage-ID: <u@x>\n\nÄ\n".encode())
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", screen)
    assert main_module.main(["show", "u@x", "--profile", str(alice.profile.root)]) == 0
    screen.seek(0)
    assert "Gr\\xfc\\xdfe" in screen.read()


def test_control_sequences_reach_no_terminal_and_json_escapes_them(run: Shell, alice: Member) -> None:
    hostile = b"From: \x1b[2Jx@y\nSubject: a\x1b]0;owned\x07\xe2\x80\xaeb\nMessage-ID: <c@x>\n\n\x1b[31mred\n"
    alice.profile.folders().add("Inbox", hostile)
    for arguments in (["list"], ["list", "--json"], ["show", "c@x"], ["search", "red"]):
        looked = run(alice, *arguments)
        assert looked.code == 0
        assert not {0x1B, 0x07} & set(looked.output)
        assert "\u202e" not in looked.text
    assert run(alice, "show", "c@x", "--raw").output == hostile


def raising(error: BaseException) -> object:
    def raise_it(*_: object, **__: object) -> None:
        raise error

    return raise_it
