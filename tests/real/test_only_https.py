"""A user behind a firewall that lets no UDP out: she joins, writes and reads, through any node."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real.namespaces import two_hosts
from tests.real.programs import Process, inside, until
from tests.real.village import Village, ask, p2pmail, states, sync

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("only_https")]


def letter(subject: str, size: int) -> bytes:
    """A message whose body is at least so large."""
    line = b"What only HTTPS carries, all the way, to the last byte of it.\n"
    return f"Subject: {subject}\n\n".encode() + line * (size // len(line) + 1)


def test_a_user_whom_only_https_lets_out_joins_writes_and_reads(tmp_path: Path) -> None:
    with two_hosts() as two:
        with inside(two.server):
            village = Village(tmp_path, k=3, listen=f"{two.server_ip}:0")
        try:
            with inside(two.server):
                village.start(4)
                bob = village.member("bob")
            two.drop_udp()
            with inside(two.user):
                alice = village.member("alice")
                for subject, size in (("small", 100), ("large", 300_000)):
                    sent = p2pmail(alice, "send", "bob@village.example", stdin=letter(subject, size))
                    assert sent.code == 0, sent.err
                sync(alice)
                assert states(alice, "small") == states(alice, "large") == {"bob@village.example": "stored"}
            with inside(two.server):
                sync(bob)
                rows = {row["subject"]: row for row in ask(bob, "list")}
                raw = p2pmail(bob, "show", rows["large"]["id"], "--raw").out
                assert raw.endswith(letter("large", 300_000).partition(b"\n\n")[2])
                assert p2pmail(bob, "send", "alice@village.example", stdin=letter("answer", 50_000)).code == 0
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
            village.stop()
