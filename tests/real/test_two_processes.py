"""The outbox while several hold it open: the reader, which opens it more than once, and commands beside it."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import pytest

from storage.user.outbox import Envelope, Outbox
from storage.user.profile import Profile
from tests.real.process_network import ask

pytestmark = pytest.mark.real


def test_what_the_reader_accepts_is_seen_by_a_command_that_ran_before(tmp_path: Path) -> None:
    """Closing any handle on a database drops all POSIX locks that the process has on it: a command that comes then
    takes itself for the last user, and removes the log under the reader, whose later messages nobody would ever see.
    """
    profile = Profile(tmp_path / "alice")
    profile.create()
    with closing(Outbox(profile.outbox_file)) as agents, closing(Outbox(profile.outbox_file)):
        assert ask(profile.root, "outbox") == []
        message, sender, recipients = b"Subject: kept\r\n\r\n.\r\n", "alice@village.example", ["bob@village.example"]
        agents.accept(
            message,
            Envelope("1@village.example", subject="kept", sender=sender, recipients=recipients, created=time.time()),
        )
        assert [entry["subject"] for entry in ask(profile.root, "outbox")] == ["kept"]
