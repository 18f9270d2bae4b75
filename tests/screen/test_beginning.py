"""What `p2pmail-tui` does before there is a screen, and what it doesn't import for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tui.__main__ import main, parser, slow_link


def test_the_options_of_the_contract_are_understood() -> None:
    args = parser().parse_args(
        [
            "--node-only",
            "--profile",
            "p",
            "--listen",
            "0.0.0.0:1",
            "--join",
            "a:1",
            "--join",
            "b:2/KEY",
            "--network",
            "n",
        ]
    )
    assert args.node_only and args.join == ["a:1", "b:2/KEY"] and args.network == Path("n")


def test_an_unknown_option_is_a_usage_error() -> None:
    assert main(["--nonsense"]) == 64


def test_neither_options_nor_the_node_import_textual() -> None:
    code = (
        "import sys, tui.__main__ as m, mail.cli.node;"
        "m.parser().parse_args(['--node-only']);"
        "sys.exit(any(name.split('.')[0] in ('textual', 'rich') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_first_list_needs_neither_cryptography_nor_the_network() -> None:
    code = (
        "import sys, tui.app, tui.screens.mail;"
        "heavy = {'cryptography', 'aiohttp', 'kademlia', 'yara_x', 'selectolax'};"
        "heavy |= {'overlay.client', 'mail.mime.message'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_without_a_terminal_the_reader_says_what_to_use_instead() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tui"], check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 64
    assert "p2pmail" in done.stderr and "Traceback" not in done.stderr


def test_over_ssh_nothing_moves_and_less_is_sent() -> None:
    environ = {"SSH_CONNECTION": "192.0.2.1 1 192.0.2.2 22"}
    slow_link(environ)
    assert (environ["TEXTUAL_FPS"], environ["TEXTUAL_ANIMATIONS"]) == ("15", "none")
    quick: dict[str, str] = {}
    slow_link(quick)
    assert quick == {}


def test_no_color_is_respected() -> None:
    code = "from tui.app import MailApp; print([type(item).__name__ for item in MailApp()._filters])"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"}
    )
    assert "NoColor" in done.stdout
