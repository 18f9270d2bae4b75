"""`p2pmail-tui --demo` without a terminal makes the whole journey and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real.programs import run

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("demo")]


def test_the_demo_without_a_terminal_makes_the_journey(tmp_path: Path) -> None:
    answer = run("p2pmail-tui", "--demo", env={"TMPDIR": str(tmp_path)}, within=240)
    assert answer.code == 0, answer.err
    steps = answer.text.splitlines()
    told = [
        "12 nodes and 2 members are up",
        "Alice collected 7 messages",
        "Junk",
        "Quarantine",
        "the attachment of 5,000,000 bytes is saved",
        "the nodes hold 0 copies of Bob's messages now",
        "5 of the 12 nodes were cut off",
        "Bob's answer is in the Inbox",
        "the outbox says collected",
    ]
    places = [next((at for at, step in enumerate(steps) if words in step), None) for words in told]
    assert None not in places, answer.text
    assert "Traceback" not in answer.err
    assert list(tmp_path.iterdir()) == []


def test_the_reader_without_a_terminal_says_what_to_use_instead(tmp_path: Path) -> None:
    answer = run("p2pmail-tui", "--profile", tmp_path / "profile")
    assert (answer.code, answer.out) == (64, b"")
    assert "p2pmail" in answer.err
    assert not (tmp_path / "profile").exists()
