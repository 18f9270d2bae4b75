"""`p2pmail` commands as processes of their own that begin at once: forked from one that has imported everything.

Importing takes most of what a short command costs. Apart from that a child is what `p2pmail` is: it has its own
standard streams, its own process id, and can be killed.

    python -m tests.real.journey.forking FD     serves the requests that come on the socket FD
"""

from __future__ import annotations

import gc
import io
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

from tests.real.programs import ROOT, CommandResult, environment


class CommandHangs(AssertionError):
    """A command didn't end; it was killed."""


class ForkRequest(NamedTuple):
    """What a child is to be: arguments of `p2pmail`, and the files that are its standard streams."""

    number: int
    arguments: list[str]
    stdin: str
    out: str
    err: str


class Command:
    """A command that was started."""

    def __init__(self, forker: Forker, number: int, out: Path, err: Path) -> None:
        self._forker = forker
        self._number = number
        self.out, self.err = out, err
        self._ended = threading.Event()
        self._code = 0

    def ended(self, code: int) -> None:
        """For the forker: it has ended; `code` is negative for a signal."""
        self._code = code
        self._ended.set()

    @property
    def running(self) -> bool:
        """Whether it hasn't ended."""
        return not self._ended.is_set()

    def ends_within(self, seconds: float) -> bool:
        """Wait so long at most; whether it has ended."""
        return self._ended.wait(seconds)

    def signal(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal, unless it has ended."""
        self._forker.tell({"number": self._number, "signal": int(number)})

    def wait(self, within: float = 300) -> CommandResult:
        """Wait until it ends. Raises Hangs."""
        if not self._ended.wait(within):
            self.signal()
            self._ended.wait(30)
            raise CommandHangs(
                f"not ended after {within:.0f} s: {self.err.name}: {self.err.read_text(errors='replace')}"
            )
        return CommandResult(self._code, self.out.read_bytes(), self.err.read_text(errors="replace"))


class Forker:
    """The process that has imported everything, seen from outside. For any thread."""

    def __init__(self, logs: Path, **env: str) -> None:
        """`logs`: a folder for what commands print; `env`: what their environment has beside the usual."""
        logs.mkdir(parents=True, exist_ok=True)
        self._logs = logs
        self._socket, theirs = socket.socketpair()
        with theirs, (logs / "forking.err").open("wb") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __spec__.name, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stderr=err,
                cwd=ROOT,
                env=environment(**env),
            )
        self._lock = threading.Lock()
        self._commands: dict[int, Command] = {}
        self._count = 0
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def start(self, *arguments: str | Path, stdin: Path = Path(os.devnull)) -> Command:
        """Start `p2pmail` with these arguments."""
        with self._lock:
            number = self._count
            self._count += 1
            name = f"{number}-{arguments[0]}"
            command = Command(self, number, self._logs / f"{name}.out", self._logs / f"{name}.err")
            self._commands[number] = command
        for path in (command.out, command.err):  # there even when it is killed before it opens them
            path.touch()
        request = ForkRequest(number, [*map(str, arguments)], str(stdin), str(command.out), str(command.err))
        self.tell(request._asdict())
        return command

    def tell(self, message: dict[str, object]) -> None:
        """For commands: a request to the process."""
        with self._lock:
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def close(self) -> None:
        """End it, and what runs."""
        for command in list(self._commands.values()):
            if command.running:
                command.signal()
                command.ends_within(10)
        self._socket.shutdown(socket.SHUT_WR)
        self._process.wait(30)
        self._listener.join(30)
        self._socket.close()

    def _listen(self) -> None:
        with self._socket.makefile("rb") as lines:
            for line in lines:
                number, code = json.loads(line)
                with self._lock:
                    command = self._commands.pop(number)
                command.ended(code)


def serve(connection: socket.socket) -> ForkRequest | None:
    """Fork a child for each request until there are no more. Returns twice: None here at the end; in a child, what it
    is to be."""
    children: dict[int, int] = {}  # number to process id, until it has been waited for
    waiting = b""
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is not None:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    _, status = os.waitpid(children.pop(key.data), 0)
                    answer = [key.data, os.waitstatus_to_exitcode(status)]
                    connection.sendall(json.dumps(answer).encode() + b"\n")
                    continue
                received = connection.recv(1 << 16)
                if not received:
                    for pid in children.values():
                        os.kill(pid, signal.SIGKILL)
                    return None
                *lines, waiting = (waiting + received).split(b"\n")
                for line in lines:
                    message = json.loads(line)
                    if "signal" in message:
                        if message["number"] in children:
                            os.kill(children[message["number"]], message["signal"])
                        continue
                    request = ForkRequest(**message)
                    pid = os.fork()
                    if not pid:
                        return request
                    children[request.number] = pid
                    selector.register(os.pidfd_open(pid), selectors.EVENT_READ, request.number)


def become(request: ForkRequest) -> None:
    """Take the standard streams of the request."""
    written = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for number, name, flags in ((0, request.stdin, os.O_RDONLY), (1, request.out, written), (2, request.err, written)):
        handle = os.open(name, flags, 0o600)
        os.dup2(handle, number)
        os.close(handle)
    sys.stdin = io.TextIOWrapper(open(0, "rb", closefd=False))  # noqa: SIM115
    sys.stdout = io.TextIOWrapper(open(1, "wb", closefd=False), write_through=True)  # noqa: SIM115
    sys.stderr = io.TextIOWrapper(open(2, "wb", closefd=False), write_through=True)  # noqa: SIM115


def run() -> int:
    """Import, serve; in a child, be the command."""
    import mail.cli.errors
    import mail.cli.local
    import mail.cli.user  # noqa: F401
    from mail.cli.main import main

    connection = socket.socket(fileno=int(sys.argv[1]))
    gc.freeze()
    request = serve(connection)
    if request is None:
        return 0
    connection.close()
    become(request)
    return main(request.arguments)


if __name__ == "__main__":
    sys.exit(run())
