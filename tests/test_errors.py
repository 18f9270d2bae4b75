"""One root of errors; what each of them exits with is documented."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import mail
import overlay
import storage
import tui
from mail.cli.errors import exit_code, words
from storage.errors import P2PMailError

ROOT = Path(__file__).parent.parent
COMMANDS = (ROOT / "docs" / "commands.md").read_text("utf-8")


def _exceptions() -> set[type[BaseException]]:
    """Every exception class that a module of ours defines."""
    found: set[type[BaseException]] = set()
    for room in (storage, overlay, mail, tui):
        for module in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            if module.name.endswith("__main__"):
                continue
            for _, value in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
                if issubclass(value, BaseException) and value.__module__ == module.name:
                    found.add(value)
    return found


def test_every_error_of_ours_has_the_one_root() -> None:
    found = _exceptions()
    assert len(found) > 60
    assert {kind for kind in found if not issubclass(kind, P2PMailError)} == set()


def test_every_exit_code_is_documented() -> None:
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", COMMANDS, re.MULTILINE)}
    codes = {kind.exit_code for kind in _exceptions() if issubclass(kind, P2PMailError)}
    assert codes - documented == set()


def test_an_error_is_told_with_its_advice() -> None:
    class Lost(P2PMailError):
        exit_code = 69
        advice = "Look under the sofa."

    assert words(Lost("The key is lost.")) == "The key is lost.\nLook under the sofa."
    assert exit_code(Lost()) == 69


def test_what_the_system_says_is_temporary_and_a_bug_has_no_code() -> None:
    assert exit_code(OSError(28, "No space left on device")) == 75
    assert exit_code(ValueError("a bug")) is None
