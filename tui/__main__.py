"""`p2pmail-tui`: reads the command line and starts what was asked for; textual only when a screen is wanted."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import MutableMapping, Sequence
from pathlib import Path

from mail.version import Version

USAGE, OK = 64, 0


def parser() -> argparse.ArgumentParser:
    """The options (docs/commands.md)."""
    parse = argparse.ArgumentParser(prog="p2pmail-tui", description="Mail without a server: the mail reader.")
    parse.add_argument("--version", action=Version)
    parse.add_argument("--profile", type=Path, metavar="DIR", help="the profile (else P2PMAIL_PROFILE)")
    parse.add_argument("--passphrase-file", type=Path, metavar="FILE", help="its first line opens the keys")
    parse.add_argument("--demo", action="store_true", help="a private network on this machine; nothing is kept")
    parse.add_argument("--node-only", action="store_true", help="a node without a screen")
    parse.add_argument("--listen", metavar="HOST:PORT", help="where the node listens")
    parse.add_argument("--join", action="append", default=[], metavar="HOST:PORT[/KEY]", help="a node to join by")
    parse.add_argument("--network", type=Path, metavar="FILE", help="the network file")
    return parse


def slow_link(environ: MutableMapping[str, str]) -> None:
    """Settings that textual reads when it is imported: over SSH nothing moves, and less is sent."""
    if environ.get("SSH_CONNECTION") or environ.get("SSH_TTY"):
        environ.setdefault("TEXTUAL_FPS", "15")
        environ.setdefault("TEXTUAL_ANIMATIONS", "none")
        environ.setdefault("TEXTUAL_SMOOTH_SCROLL", "0")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; returns the exit code (sysexits.h)."""
    try:
        args = parser().parse_args(arguments)
    except SystemExit as stop:
        return USAGE if stop.code else OK
    if args.node_only:
        from mail.cli.node import run

        return run(args)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if not terminal:
        if args.demo:
            from mail.demo.journey import run_headless

            return run_headless()
        print("p2pmail-tui needs a terminal; for scripts there is the command p2pmail.", file=sys.stderr)
        return USAGE
    slow_link(os.environ)
    from tui.app import run_screen

    return run_screen(args)


if __name__ == "__main__":
    sys.exit(main())
