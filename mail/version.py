"""The program's version, and the option `--version`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def program_version() -> str:
    """The installed version of p2pmail, or "unknown" where it runs without being installed."""
    from importlib.metadata import PackageNotFoundError, version  # slow to import: a quarter of a short command's time

    try:
        return version("p2pmail")
    except PackageNotFoundError:
        return "unknown"


class Version(argparse.Action):
    """The option `--version`. Looks the version up only when used."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:  # noqa: A002
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help or "print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print the version and exit."""
        print(f"{parser.prog} {program_version()}")
        parser.exit()
