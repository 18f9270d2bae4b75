"""Passphrases for commands, from --passphrase-file or the terminal. They are stored nowhere."""

from __future__ import annotations

import argparse
import getpass
import sys
from pathlib import Path

from mail.cli.errors import PERMISSION, USAGE, CommandError
from storage.user.keyring import Keyring
from storage.user.profile import Profile


def from_file(path: Path) -> str:
    """Read the first line of a file. Raises CommandError if it is empty or can't be read."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise CommandError(USAGE, f"The passphrase file {path} can't be read: {why}.") from error
    line = text.splitlines()[0] if text else ""
    if not line:
        raise CommandError(USAGE, f"{path} has no passphrase in its first line.")
    return line


def existing_passphrase(args: argparse.Namespace, profile: Profile) -> str | None:
    """The passphrase of the profile's keys; None if they aren't protected. Raises CommandError."""
    if not Keyring.is_protected(profile.keyring_file):
        return None
    if args.passphrase_file:
        return from_file(args.passphrase_file)
    if not sys.stdin.isatty():
        raise CommandError(PERMISSION, "The keys are protected: name a --passphrase-file, or run this in a terminal.")
    return getpass.getpass("Passphrase: ")


def new_passphrase(args: argparse.Namespace, profile: Profile | None = None) -> str | None:
    """A passphrase for new keys, asked for twice; None (with a warning) without a terminal."""
    if profile is not None and profile.keyring_file.exists():
        return existing_passphrase(args, profile)
    if args.passphrase_file:
        return from_file(args.passphrase_file)
    if not sys.stdin.isatty():
        print("warning: the new keys are written unprotected (mode 0600); no passphrase was given", file=sys.stderr)
        return None
    while True:
        first = getpass.getpass("New passphrase (empty: keys unprotected): ")
        if getpass.getpass("Again: ") == first:
            return first or None
        print("These differ; once more.", file=sys.stderr)
