"""What every test shares: no test reaches the mail of whoever runs it, and none depends on chance or on speed.

Fakes and worlds for one room live beside that room's tests, not here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import programs

settings.register_profile(
    "same every time", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same every time")
"""A loaded machine is no bug, and a failure must come again. To look further: pytest --hypothesis-profile=explore."""


LONGEST_BYTES_IN_A_NAME = 15
"""Keys, digests and certificates are longer."""


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a parameter of many bytes after its argument: bytes made afresh differ between xdist's processes."""
    if isinstance(val, bytes) and len(val) > LONGEST_BYTES_IN_A_NAME:
        return argname
    return None


@pytest.fixture(scope="session", autouse=True)
def _away_from_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Point everything that finds the user's own folders at an empty one, for child processes too."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("P2PMAIL_PROFILE", raising=False)
        for name in ("DATA", "CONFIG", "STATE", "CACHE"):
            patch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
        yield home


@pytest.fixture
def need_program() -> Callable[[str], str]:
    """`need_program("neomutt")` gives its path, or skips the test (fails it with P2PMAIL_REQUIRE_PROGRAMS=1)."""
    return programs.need_program
