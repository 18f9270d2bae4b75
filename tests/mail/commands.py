"""Runs `p2pmail` in this process against a network of real nodes in another thread."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from mail.agent import Agent
from mail.cli.main import main
from mail.demo.private_overlay import PrivateOverlay
from mail.identity import Identity
from storage.user.keyring import Keyring
from storage.user.profile import Profile

T = TypeVar("T")
DOMAIN = "test.example"


class Background:
    """An event loop in a thread, so that commands can run their own loops in the test's thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass(frozen=True)
class CommandOutcome:
    """A command's exit code and output."""

    code: int
    output: bytes
    errors: str

    @property
    def text(self) -> str:
        return self.output.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.output)


class CommandNetwork:
    """A network of five nodes for tests of commands."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self.background = Background()
        self.private_overlay = PrivateOverlay(folder / "network", "test", k=3)
        self.background.run(self.private_overlay.start(5))

    def close(self) -> None:
        self.background.run(self.private_overlay.stop())
        self.background.close()

    def member(self, name: str, passphrase: str | None = None) -> Member:
        """A new member with a published card."""
        number = next(self._numbers)
        profile = Profile(self._folder / f"{name}{number}", environ={})
        address = f"{name}{number}@{DOMAIN}"
        agent = self.background.run(self.private_overlay.agent(address, profile))
        self.background.run(agent.close())
        if passphrase:
            Keyring.open(profile.keyring_file, None).change_passphrase(passphrase)
        return Member(self, profile, address)


@dataclass(frozen=True)
class Member:
    """A member with a profile."""

    network: CommandNetwork
    profile: Profile
    address: str

    def agent(self) -> Agent:
        """Open the member's agent in the background; close it there too."""
        return self.network.background.run(Agent.open(self.profile, Identity.open(self.profile, None)))


class Shell:
    """Runs commands, and fails if one asks for a passphrase."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[bytes]) -> None:
        self._monkeypatch = monkeypatch
        self._capture = capture
        monkeypatch.setattr("getpass.getpass", self._asked)

    def __call__(self, who: Member | Path | None, *arguments: str | Path, stdin: bytes = b"") -> CommandOutcome:
        profile = who.profile.root if isinstance(who, Member) else who
        argv = [str(argument) for argument in arguments]
        if profile is not None:
            argv += ["--profile", str(profile)]
        self._monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        self._capture.readouterr()
        try:
            code = main(argv)
        except SystemExit as end:
            code = int(end.code or 0)
        captured = self._capture.readouterr()
        errors = captured.err.decode()
        assert "Traceback" not in errors
        return CommandOutcome(code, captured.out, errors)

    @staticmethod
    def _asked(*_: object) -> str:
        raise AssertionError("a passphrase was asked for")
