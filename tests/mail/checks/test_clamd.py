"""Checking with ClamAV's daemon: a fake one that misbehaves, and the real one (mail/checks/clamd.py)."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mail.checks.clamd import Address, ClamdAddressError, ClamdCheck, find_clamd, parse_address
from mail.checks.pipeline import Clean, IncomingMessage, Infected, Unchecked
from tests.mail.sample_messages import with_attachment

CONTENT = with_attachment(bytes(range(256)) * 4000)
"""About ten chunks."""


class FakeClamd:
    """A daemon that speaks the protocol and then answers, or fails, as `behave` says."""

    def __init__(self, listener: socket.socket, behave: Callable[[FakeClamd, socket.socket], None]) -> None:
        self._listener = listener
        self._behave = behave
        self.received = b""
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                command = self._read_command(connection)
                if not command:
                    return
                if command == b"zPING\0":
                    connection.sendall(b"PONG\0")
                else:
                    assert command == b"zINSTREAM\0"
                    try:
                        self._behave(self, connection)
                    except OSError:
                        pass

    def _read_command(self, connection: socket.socket) -> bytes:
        command = b""
        while not command.endswith(b"\0"):
            data = connection.recv(1)
            if not data:
                return command
            command += data
        return command

    def chunk(self, connection: socket.socket) -> bytes:
        """One chunk of the stream; b"" is its end."""
        size = int.from_bytes(self._exactly(connection, 4))
        data = self._exactly(connection, size) if size else b""
        self.received += data
        return data

    def _exactly(self, connection: socket.socket, size: int) -> bytes:
        data = connection.recv(size, socket.MSG_WAITALL)
        if len(data) < size:
            raise ConnectionError("the caller hung up")
        return data

    def whole(self, connection: socket.socket) -> None:
        """The stream to its end."""
        while self.chunk(connection):
            pass


def _answering(answer: bytes) -> Callable[[FakeClamd, socket.socket], None]:
    def behave(fake: FakeClamd, connection: socket.socket) -> None:
        fake.whole(connection)
        connection.sendall(answer)

    return behave


def _dying(fake: FakeClamd, connection: socket.socket) -> None:
    fake.chunk(connection)


def _over_the_limit(fake: FakeClamd, connection: socket.socket) -> None:
    fake.chunk(connection)
    connection.sendall(b"INSTREAM size limit exceeded. ERROR\0")
    connection.shutdown(socket.SHUT_RD)


@contextmanager
def _clamd(
    where: Path | None, behave: Callable[[FakeClamd, socket.socket], None]
) -> Iterator[tuple[Address, FakeClamd]]:
    """A fake daemon at the socket `where`, or at a TCP port of this machine."""
    family = socket.AF_INET if where is None else socket.AF_UNIX
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0) if where is None else str(where))
        listener.listen()
        address: Address = where if where is not None else ("127.0.0.1", listener.getsockname()[1])
        fake = FakeClamd(listener, behave)
        try:
            yield address, fake
        finally:
            # A connection without a command ends the daemon.
            with socket.socket(family, socket.SOCK_STREAM) as last:
                last.connect(listener.getsockname())
            fake.thread.join()


@pytest.fixture
def incoming(tmp_path: Path) -> IncomingMessage:
    path = tmp_path / "m.eml"
    path.write_bytes(CONTENT)
    return IncomingMessage(path)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (b"stream: OK\0", Clean()),
        (b"stream: Eicar-Signature FOUND\0", Infected("Eicar-Signature")),
        (b"stream: \x1b[2JEvil FOUND\0", Infected("Evil")),
        (b"INSTREAM size limit exceeded. ERROR\0",
         Unchecked("the message is larger than clamd takes (its setting StreamMaxLength)")),
        (b"stream: Can't allocate memory ERROR\0", Unchecked("clamd answered: stream: Can't allocate memory ERROR")),
        (b"OK\0", Unchecked("clamd answered: OK")),
        (b"", Unchecked("clamd stopped in the middle of the scan")),
        (b"\xff" * 10_000, Unchecked("clamd answered: " + "\ufffd" * 200)),
    ],
)  # fmt: skip
def test_only_a_clear_answer_is_a_verdict(
    tmp_path: Path, incoming: IncomingMessage, answer: bytes, verdict: Clean | Infected | Unchecked
) -> None:
    with _clamd(tmp_path / "s", _answering(answer)) as (address, fake):
        assert ClamdCheck(address).check(incoming) == verdict
        assert fake.received == CONTENT


def test_it_works_by_tcp_too(incoming: IncomingMessage) -> None:
    with _clamd(None, _answering(b"stream: OK\0")) as (address, fake):
        assert isinstance(address, tuple)
        check = find_clamd(f"{address[0]}:{address[1]}")
        assert check is not None
        assert check.check(incoming) == Clean()
        assert fake.received == CONTENT


def test_a_daemon_that_dies_in_mid_scan_leaves_the_message_unchecked(tmp_path: Path, incoming: IncomingMessage) -> None:
    with _clamd(tmp_path / "s", _dying) as (address, _):
        verdict = ClamdCheck(address).check(incoming)
    assert isinstance(verdict, Unchecked)
    assert "stopped in the middle" in verdict.reason


def test_a_daemon_that_stops_reading_at_its_limit_is_still_heard(tmp_path: Path, incoming: IncomingMessage) -> None:
    with _clamd(tmp_path / "s", _over_the_limit) as (address, _):
        verdict = ClamdCheck(address).check(incoming)
    assert isinstance(verdict, Unchecked)
    assert "StreamMaxLength" in verdict.reason


def test_a_daemon_that_takes_too_long_leaves_the_message_unchecked(tmp_path: Path, incoming: IncomingMessage) -> None:
    ticks = iter([0.0, *[1.0] * 3])
    with _clamd(tmp_path / "s", _answering(b"stream: OK\0")) as (address, _):
        check = ClamdCheck(address, scan_timeout=60, clock=lambda: next(ticks, 100.0))
        assert check.check(incoming) == Unchecked("clamd stopped in the middle of the scan: it took too long")


def test_an_absent_daemon_is_no_check_and_a_vanished_one_is_no_verdict(
    tmp_path: Path, incoming: IncomingMessage
) -> None:
    assert find_clamd(str(tmp_path / "none")) is None
    assert find_clamd("", places=[str(tmp_path / "none"), str(tmp_path / "neither")]) is None
    verdict = ClamdCheck(tmp_path / "none").check(incoming)
    assert isinstance(verdict, Unchecked)
    assert "can't be reached" in verdict.reason


def test_the_first_daemon_that_answers_is_taken(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with _clamd(tmp_path / "s", _answering(b"")) as (address, _):
        found = find_clamd("", places=[str(tmp_path / "file"), str(tmp_path / "s")])
        assert found is not None
        assert found.address == address


@pytest.mark.parametrize("text", ["", "nonsense", "host:", ":3310", "host:0", "host:70000", "host:x", "host:١"])
def test_what_is_no_socket_is_refused(text: str) -> None:
    with pytest.raises(ClamdAddressError):
        parse_address(text)


def test_sockets_and_ports_are_understood() -> None:
    assert parse_address("/run/clamav/clamd.ctl") == Path("/run/clamav/clamd.ctl")
    assert parse_address("unix:/run/c") == Path("/run/c")
    assert parse_address("[::1]:3310") == ("::1", 3310)


SIGNED = b"HARMLESS-TEST-SIGNATURE-OF-P2PMAIL"


@pytest.mark.real
def test_the_real_clamd_finds_a_signature_in_an_attachment(tmp_path: Path, need_program: Callable[[str], str]) -> None:
    program = need_program("clamd")
    (tmp_path / "db").mkdir()
    # freshclam needs the network; a database with one signature is enough here.
    (tmp_path / "db" / "test.ndb").write_text(f"P2pmail.Test:0:*:{SIGNED.hex()}\n")
    config = tmp_path / "clamd.conf"
    config.write_text(
        f"LocalSocket {tmp_path}/clamd.ctl\nDatabaseDirectory {tmp_path}/db\nTemporaryDirectory {tmp_path}\n"
        "Foreground yes\nStreamMaxLength 1M\n"
    )
    path = tmp_path / "m.eml"

    def verdict(data: bytes) -> object:
        path.write_bytes(data)
        check = find_clamd(str(tmp_path / "clamd.ctl"))
        return check and check.check(IncomingMessage(path))

    with subprocess.Popen(
        [program, "-c", str(config)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as daemon:
        try:
            assert daemon.stdout is not None
            said = []
            for line in daemon.stdout:
                said.append(line)
                if "Self checking" in line:
                    break
            assert daemon.poll() is None, "".join(said)
            assert verdict(with_attachment(b"clean")) == Clean()
            assert verdict(with_attachment(b"before " + SIGNED)) == Infected("P2pmail.Test.UNOFFICIAL")
            assert isinstance(verdict(b"Subject: long\n\n" + b"x" * 3_000_000), Unchecked)
        finally:
            daemon.terminate()
