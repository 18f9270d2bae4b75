"""Exit codes (sysexits.h) and the error that carries one. What other errors mean is in errors.py, which knows them all
and takes half a second to import: it is wanted only when something went wrong."""

from __future__ import annotations

import os

OK = 0
USAGE = os.EX_USAGE
DATA = os.EX_DATAERR
UNAVAILABLE = os.EX_UNAVAILABLE
SOFTWARE = os.EX_SOFTWARE
CANT_CREATE = os.EX_CANTCREAT
TEMPORARY = os.EX_TEMPFAIL
PERMISSION = os.EX_NOPERM
CONFIGURATION = os.EX_CONFIG


class CommandError(Exception):
    """A command can't go on; `code` is what it exits with."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code
