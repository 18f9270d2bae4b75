"""`p2pmail send` in sendmail's place: the options that programs pass, and mail that is passed on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mail.cli import main as cli
from storage.user.outbox import Outbox
from tests.mail.commands import CommandNetwork, Member, Shell


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandNetwork]:
    network = CommandNetwork(tmp_path_factory.mktemp("sendmail"))
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


def sent(member: Member) -> bytes:
    """The message in the outbox."""
    outbox = Outbox(member.profile.outbox_file)
    (entry,) = outbox.entries()
    outbox.close()
    return entry.file.read_bytes()


def recipients(member: Member) -> set[str]:
    outbox = Outbox(member.profile.outbox_file)
    (entry,) = outbox.entries()
    outbox.close()
    return {recipient.address for recipient in entry.recipients}


@pytest.mark.parametrize(
    "options",
    [
        "-oi -t",
        "-ti",
        "-i -oem -odb",
        "-bm -odi -oi -f {own}",
        "-f{own} -i",
        "-r {own} -i --",
        "-N never -R hdrs -B8BITMIME -oi",
        "-FCronDaemon -i -odi -oem -oi -t -f root",
        "-oi -f <{own}> -v -n -G -U -em -p SMTP",
    ],
)
def test_the_options_that_programs_pass_are_accepted(run: Shell, alice: Member, bob: Member, options: str) -> None:
    message = f"From: {alice.address}\nTo: {bob.address}\nSubject: x\n\ny\n".encode()
    given = options.format(own=alice.address).split()
    answer = run(alice, "send", *given[: given.index("--") if "--" in given else None], bob.address, stdin=message)
    assert (answer.code, answer.errors) == (0, "")
    assert recipients(alice) == {bob.address}


@pytest.mark.parametrize("option", ["-f", "-r"])
def test_nothing_is_sent_in_somebody_elses_name(run: Shell, alice: Member, bob: Member, option: str) -> None:
    answer = run(alice, "send", option, bob.address, bob.address, stdin=b"Subject: x\n\ny\n")
    assert answer.code == 65
    assert f"You are {alice.address}" in answer.errors
    assert "Nothing was kept" in answer.errors


@pytest.mark.parametrize(
    "field",
    ["From: {other} <{own}>, {other}", "From: {own} <{other}>", "From:", "From: {own}\nFrom: {own}", "From: {other}"],
)
def test_a_from_that_is_not_the_senders_one_address_is_refused(
    run: Shell, alice: Member, bob: Member, field: str
) -> None:
    head = field.format(own=alice.address, other=bob.address)
    answer = run(alice, "send", bob.address, stdin=f"{head}\nSubject: x\n\ny\n".encode())
    assert answer.code == 65
    assert f"you are {alice.address}. Nothing was kept." in answer.errors
    assert run(alice, "outbox", "--json").json == []


@pytest.mark.parametrize(
    ("options", "fields", "written"),
    [
        ((), 'From: "(Cron Daemon)" <root>\n', 'From: "(Cron Daemon)" <{own}>'),
        ((), "From: root\n", "From: {own}"),
        (("-F", "Nightly Report"), "From: root\n", "From: Nightly Report <{own}>"),
        (("-FJörg"), "", "From: =?utf-8?b?SsO2cmc=?= <{own}>"),
        ((), "", "From: {own}"),
    ],
)
def test_a_from_without_a_domain_or_without_words_is_completed(
    run: Shell, alice: Member, bob: Member, options: tuple[str, ...] | str, fields: str, written: str
) -> None:
    given = (options,) if isinstance(options, str) else options
    message = f"Subject: disk\n{fields}To: {bob.address}\nX-Cron-Env: <A=b>\n\nroot: 91% full\n"
    assert run(alice, "send", *given, bob.address, stdin=message.encode()).code == 0
    head, _, body = sent(alice).partition(b"\n\n")
    lines = head.decode().split("\n")
    assert lines[:3] == ["Subject: disk", f"To: {bob.address}", "X-Cron-Env: <A=b>"]
    assert written.format(own=alice.address) in lines
    assert body == b"root: 91% full\n"


def test_mail_that_is_passed_on_goes_to_whom_it_is_passed_on_alone(
    run: Shell, alice: Member, network: CommandNetwork
) -> None:
    to, resent, hidden, earlier = (network.member(name) for name in ("to", "resent", "hidden", "earlier"))
    message = (
        f"Resent-From: {alice.address}\nResent-To: {resent.address}\nResent-Bcc: {hidden.address}\n"
        f"Received: by x\nResent-To: {earlier.address}\nResent-Cc: {earlier.address}\n"
        f"From: {alice.address}\nTo: {to.address}\nCc: {to.address}\nSubject: x\n\ny\n"
    )
    assert run(alice, "send", "-t", stdin=message.encode()).code == 0
    assert recipients(alice) == {resent.address, hidden.address}
    assert hidden.address.encode() not in sent(alice)
    assert earlier.address.encode() in sent(alice)


def test_the_queue_is_shown_as_sendmail_would(run: Shell, alice: Member, bob: Member) -> None:
    assert run(alice, "send", bob.address, stdin=b"Subject: queue\n\ny\n").code == 0
    assert "queue" in run(alice, "send", "-bp").text


def test_a_mode_that_is_not_there_is_said(run: Shell, alice: Member) -> None:
    answer = run(alice, "send", "-bs", stdin=b"HELO x\r\n")
    assert answer.code == 64
    assert "-bs isn't supported" in answer.errors


def test_under_sendmails_name_a_message_is_sent(
    run: Shell, alice: Member, bob: Member, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[list[str]] = []

    def main(argv: list[str]) -> int:
        given.append(argv)
        return 0

    monkeypatch.setattr(cli, "main", main)
    monkeypatch.setattr("sys.argv", ["/usr/sbin/sendmail", "-oi", "-t"])
    assert cli.sendmail() == 0
    assert given == [["send", "-oi", "-t"]]
