"""Finding the real programs (neomutt, clamd, openssl ...) that some tests drive.

Where one is absent its tests are skipped, with the reason in the summary; with P2PMAIL_REQUIRE_PROGRAMS=1, as on
CI, they fail instead, so that nothing goes untested in silence.
"""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

ADMINISTRATORS_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where daemons such as clamd live; the PATH of an ordinary user leaves them out."""


def need_program(name: str) -> str:
    """The absolute path of the program `name`. Skips the test where it is absent, or fails it when CI insists."""
    path = shutil.which(name) or shutil.which(name, path=os.pathsep.join(ADMINISTRATORS_FOLDERS))
    if path is None:
        lacking(f"the program {name} is not installed")
    return path


def lacking(reason: str) -> NoReturn:
    """Skip the test that runs for this reason, or fail it when CI insists."""
    if os.environ.get("P2PMAIL_REQUIRE_PROGRAMS") == "1":
        pytest.fail(f"{reason}, and P2PMAIL_REQUIRE_PROGRAMS=1 says that it must be", pytrace=False)
    pytest.skip(reason)
