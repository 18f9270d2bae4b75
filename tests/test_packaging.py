"""The source distribution has what the README's commands need (MANIFEST.in), and pyproject.toml says what we are."""

from __future__ import annotations

import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALWAYS = frozenset({"pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "tui", "mail", "overlay", "storage"})
"""What setuptools takes by itself: the packages, and files with a known name."""


def test_the_source_distribution_has_every_file_of_the_project() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone, so what belongs to the project isn't known")
    words = [line.split() for line in (ROOT / "MANIFEST.in").read_text("utf-8").splitlines() if line[:1] != "#"]
    named = {name for command, *names in words if command in ("include", "graft") for name in names}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    there = {line.partition("/")[0] for line in tracked.splitlines()}
    assert there - ALWAYS == named, "add it to MANIFEST.in"


def test_every_package_and_what_it_reads_is_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    patterns = settings["package-data"]["*"]
    for room in ("tui", "mail", "overlay", "storage"):
        assert any(fnmatch(room, pattern) for pattern in settings["packages"]["find"]["include"])
        for path in (ROOT / room).rglob("*"):
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                assert any(fnmatch(path.name, pattern) for pattern in patterns), path
            if path.suffix == ".py":
                assert (path.parent / "__init__.py").is_file(), path
