"""Checks messages with ClamAV's daemon, where one runs: INSTREAM over its Unix socket or TCP (man clamd).

The daemon may be slow, overloaded or dying: anything but a clear answer is Unchecked. ClamAV unpacks messages and
archives by itself, so it gets the whole message.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mail.checks.pipeline import Clean, IncomingMessage, Infected, Unchecked, Verdict
from mail.mime import sanitize
from storage.errors import CONFIGURATION, P2PMailError

PLACES = ("/run/clamav/clamd.ctl", "/run/clamd.scan/clamd.sock", "/run/clamav/clamd.sock", "/var/run/clamd.sock")
"""Where Debian, Fedora, Arch and the BSDs put the socket. Never in /tmp, where anybody could make one."""
CHUNK = 128 * 1024
"""Bytes sent at once."""
ANSWER_LIMIT = 4096
"""Bytes of an answer; real ones stay below 300."""
CONNECT_TIMEOUT = 5.0
"""Seconds until a daemon must have accepted the connection."""
SCAN_TIMEOUT = 180.0
"""Seconds for one message (clamd's own ReadTimeout and MaxScanTime are 120)."""

Address = Path | tuple[str, int]


class ClamdAddressError(P2PMailError, ValueError):
    """The setting `clamd` isn't the address of a socket."""

    exit_code = CONFIGURATION


def parse_address(text: str) -> Address:
    """`/path`, `unix:/path` or `HOST:PORT`. Raises ClamdAddressError."""
    if text.startswith(("/", "unix:")):
        return Path(text.removeprefix("unix:"))
    host, colon, port = text.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ClamdAddressError(f"{text!r} is no socket of clamd: /PATH or HOST:PORT is needed.")
    return host.strip("[]"), int(port)


def find_clamd(configured: str = "", places: Sequence[str] = PLACES) -> ClamdCheck | None:
    """The check if a daemon answers at `configured`, or, when that is empty, at one of the usual places; else None.

    Raises ClamdAddressError.
    """
    for place in [configured] if configured else places:
        check = ClamdCheck(parse_address(place))
        if check.answers():
            return check
    return None


class ClamdCheck:
    """Sends each message to the daemon at `address`."""

    name = "ClamAV"

    def __init__(
        self,
        address: Address,
        *,
        connect_timeout: float = CONNECT_TIMEOUT,
        scan_timeout: float = SCAN_TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.address = address
        self._connect_timeout = connect_timeout
        self._scan_timeout = scan_timeout
        self._clock = clock

    def answers(self) -> bool:
        """Whether a daemon answers."""
        try:
            with self._connected() as connection:
                connection.sendall(b"zPING\0")
                return _answer(connection, self._clock, self._clock() + self._connect_timeout) == b"PONG"
        except OSError:
            return False

    def check(self, incoming: IncomingMessage) -> Verdict:
        """The daemon's verdict; Unchecked when its answer isn't clear. Raises OSError when the file can't be read."""
        with incoming.path.open("rb") as file:
            deadline = self._clock() + self._scan_timeout
            try:
                connection = self._connected()
            except OSError as error:
                return Unchecked(f"clamd can't be reached: {_reason(error)}")
            with connection:
                try:
                    connection.sendall(b"zINSTREAM\0")
                    # A file that can't be read isn't the daemon's fault, so that error is raised.
                    while chunk := file.read(CHUNK):
                        if not self._sent(connection, struct.pack(">I", len(chunk)) + chunk, deadline):
                            break
                    else:
                        self._sent(connection, struct.pack(">I", 0), deadline)
                    return _verdict(_answer(connection, self._clock, deadline))
                except OSError as error:
                    return Unchecked(f"clamd stopped in the middle of the scan: {_reason(error)}")

    def _sent(self, connection: socket.socket, data: bytes, deadline: float) -> bool:
        """Send `data`; False when the daemon closed early, as it does when a stream is over its limit."""
        _limit(connection, self._clock, deadline)
        try:
            connection.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def _connected(self) -> socket.socket:
        if isinstance(self.address, tuple):
            return socket.create_connection(self.address, self._connect_timeout)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(self._connect_timeout)
            connection.connect(str(self.address))
        except BaseException:
            connection.close()
            raise
        return connection


def _limit(connection: socket.socket, clock: Callable[[], float], deadline: float) -> None:
    left = deadline - clock()
    if left <= 0:
        raise TimeoutError("it took too long")
    connection.settimeout(left)


def _answer(connection: socket.socket, clock: Callable[[], float], deadline: float) -> bytes:
    """The daemon's answer up to its NUL, or until it closes the connection."""
    answer = b""
    while b"\0" not in answer and len(answer) < ANSWER_LIMIT:
        _limit(connection, clock, deadline)
        data = connection.recv(ANSWER_LIMIT)
        if not data:
            break
        answer += data
    return answer.partition(b"\0")[0]


def _verdict(answer: bytes) -> Verdict:
    text = sanitize.line(answer.decode("utf-8", "replace"))
    if text == "stream: OK":
        return Clean()
    if text.startswith("stream: ") and text.endswith(" FOUND"):
        return Infected(text.removeprefix("stream: ").removesuffix(" FOUND")[:200])
    if "size limit exceeded" in text:
        return Unchecked("the message is larger than clamd takes (its setting StreamMaxLength)")
    if not text:
        return Unchecked("clamd stopped in the middle of the scan")
    return Unchecked(f"clamd answered: {text[:200]}")


def _reason(error: OSError) -> str:
    return sanitize.line(error.strerror or str(error) or type(error).__name__)[:200]
