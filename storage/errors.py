"""The one root of this program's errors, and what a command exits with (sysexits.h)."""

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


class P2PMailError(Exception):
    """What a user can be told. `str()` of it says what happened and what was kept.

    exit_code   what a command ends with (docs/commands.md)
    advice      what to do about any error of this class, where the message doesn't say it; may be empty
    """

    exit_code: int = SOFTWARE
    advice: str = ""
