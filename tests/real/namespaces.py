"""Network namespaces for tests: two hosts with a cable between them, and a firewall that drops UDP without a word."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.programs import need_program


@dataclass(frozen=True, slots=True)
class TwoNamespaces:
    """Two namespaces by name, and the address of each."""

    server: str
    user: str
    server_ip: str = "10.77.0.1"
    user_ip: str = "10.77.0.2"

    def drop_udp(self) -> None:
        """What the user sends by UDP is lost from now on; TCP gets through."""
        self._first(f"from {self.user_ip} ipproto udp blackhole")

    def drop_all_but(self, port: int) -> None:
        """Of UDP and TCP only what the user sends to this TCP port gets through from now on."""
        self._first(
            f"from {self.user_ip} ipproto tcp dport {port} lookup local",
            f"from {self.user_ip} ipproto tcp blackhole",
            f"from {self.user_ip} ipproto udp blackhole",
        )

    def _first(self, *rules: str) -> None:
        """Delivery to this host comes first (rule 0), so that it is put behind these."""
        for number, rule in enumerate(rules):
            _ip(f"-n {self.server} rule add pref {50 + number} {rule}")
        _ip(f"-n {self.server} rule add pref 100 lookup local")
        _ip(f"-n {self.server} rule del pref 0")


def _ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True, capture_output=True)


@contextmanager
def two_hosts() -> Iterator[TwoNamespaces]:
    """Two namespaces of this test's own. Skips it where this process may not make any."""
    need_program("ip")
    two = TwoNamespaces(f"p2pmail-s{os.getpid()}", f"p2pmail-u{os.getpid()}")
    try:
        _ip(f"netns add {two.server}")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespace can be made here: {error.stderr.decode().strip()}")
    try:
        _ip(f"netns add {two.user}")
        _ip(f"link add p2p0 netns {two.server} type veth peer name p2p1 netns {two.user}")
        for name, device, address in ((two.server, "p2p0", two.server_ip), (two.user, "p2p1", two.user_ip)):
            _ip(f"-n {name} address add {address}/24 dev {device}")
            _ip(f"-n {name} link set {device} up")
            _ip(f"-n {name} link set lo up")
        yield two
    finally:
        for name in (two.server, two.user):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
