"""A user behind a firewall that lets no UDP out, or nothing but a proxy: she joins, writes and reads, by any node."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.programs import need_program
from tests.real.namespaces import TwoNamespaces, two_hosts
from tests.real.process_network import ProcessNetwork, ask, p2pmail, states, sync, until_state
from tests.real.programs import Process, inside, until

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("only_https")]


def message(subject: str, size: int) -> bytes:
    """A message whose body is at least so large."""
    line = b"What only HTTPS carries, all the way, to the last byte of it.\n"
    return f"Subject: {subject}\n\n".encode() + line * (size // len(line) + 1)


PROXY = 8888


@contextmanager
def firewall(two: TwoNamespaces, way: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing leaves the user's host but TCP, or with `way` "proxy" nothing but what Debian's tinyproxy takes."""
    if way == "straight":
        two.drop_udp()
        yield
        return
    need_program("tinyproxy")
    settings = folder / "tinyproxy.conf"
    settings.write_text(f"Port {PROXY}\nListen {two.server_ip}\nAllow {two.user_ip}\nTimeout 600\nMaxClients 50\n")
    proxy = ["ip", "netns", "exec", two.server, "tinyproxy", "-d", "-c", str(settings)]
    with subprocess.Popen(proxy, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        two.drop_all_but(PROXY)
        monkeypatch.setenv("HTTPS_PROXY", f"http://{two.server_ip}:{PROXY}")
        monkeypatch.setenv("NO_PROXY", "")
        try:
            yield
        finally:
            process.terminate()


def test_a_reader_that_is_a_node_and_whom_only_https_lets_out_writes_and_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that was founded at home, or has joined a private network, and is somewhere else today."""
    with two_hosts() as two, ExitStack() as stack:
        with inside(two.server):
            network = ProcessNetwork(tmp_path, k=3, listen=f"{two.server_ip}:0")
        try:
            with inside(two.server):
                network.start(3)
                bob = network.member("bob")
            with inside(two.user):
                alice = network.member("alice")
                (alice / "config.toml").write_text(f'mode = "node"\nlisten = "{two.user_ip}:0"\n')
            with inside(two.server):
                assert p2pmail(bob, "send", "alice@village.example", stdin=message("from home", 50_000)).code == 0
            stack.enter_context(firewall(two, "straight", tmp_path, monkeypatch))
            with inside(two.user):
                watching = Process("p2pmail", "sync", "--watch", "--profile", alice, log=tmp_path / "watching.log")
                try:
                    until(lambda: ask(alice, "status")["listening"], "the agent answers at its socket")
                    status = ask(alice, "status")
                    assert (status["transport"], status["mode"], status["online"]) == ("https", "client", True)
                    assert status["contacts"] > 0
                    assert p2pmail(alice, "send", "bob@village.example", stdin=message("elsewhere", 100)).code == 0
                    until_state(alice, "elsewhere", "stored", "bob@village.example")
                    until(lambda: ask(alice, "list"), "what was sent to her is in her Inbox")
                finally:
                    watching.end()
            with inside(two.server):
                sync(bob)
                assert [row["subject"] for row in ask(bob, "list")] == ["elsewhere"]
        finally:
            network.stop()


@pytest.mark.parametrize("way", ["straight", "proxy"])
def test_a_user_whom_only_https_lets_out_joins_writes_and_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    with two_hosts() as two, ExitStack() as stack:
        with inside(two.server):
            network = ProcessNetwork(tmp_path, k=3, listen=f"{two.server_ip}:0")
        try:
            with inside(two.server):
                network.start(4)
                bob = network.member("bob")
            stack.enter_context(firewall(two, way, tmp_path, monkeypatch))
            with inside(two.user):
                alice = network.member("alice")
                for subject, size in (("small", 100), ("large", 300_000)):
                    sent = p2pmail(alice, "send", "bob@village.example", stdin=message(subject, size))
                    assert sent.code == 0, sent.err
                sync(alice)
                assert states(alice, "small") == states(alice, "large") == {"bob@village.example": "stored"}
            with inside(two.server):
                sync(bob)
                rows = {row["subject"]: row for row in ask(bob, "list")}
                raw = p2pmail(bob, "show", rows["large"]["id"], "--raw").out
                assert raw.endswith(message("large", 300_000).partition(b"\n\n")[2])
                assert p2pmail(bob, "send", "alice@village.example", stdin=message("answer", 50_000)).code == 0
                sync(bob)
            with inside(two.user):
                sync(alice)
                assert [row["subject"] for row in ask(alice, "list")] == ["answer"]
                sync(alice)
                assert states(alice, "large") == {"bob@village.example": "collected"}
                watching = Process("p2pmail", "sync", "--watch", "--profile", alice, log=tmp_path / "watching.log")
                try:
                    until(lambda: ask(alice, "status")["listening"], "the agent answers at its socket")
                    assert ask(alice, "status")["transport"] == "https"
                finally:
                    watching.end()
        finally:
            network.stop()
