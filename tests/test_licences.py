"""Under what the libraries are that running p2pmail needs: one that isn't in this list must be looked at first."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent

LICENCES = {
    "aiohappyeyeballs": "PSF-2.0",
    "aiohttp": "Apache-2.0 AND MIT",
    "aiosignal": "Apache-2.0",
    "attrs": "MIT",
    "cffi": "MIT-0",
    "charset-normalizer": "MIT",
    "cryptography": "Apache-2.0 OR BSD-3-Clause",
    "frozenlist": "Apache-2.0",
    "icalendar": "BSD-2-Clause",
    "idna": "BSD-3-Clause",
    "kademlia": "MIT",
    "linkify-it-py": "MIT",
    "markdown-it-py": "MIT",
    "mdit-py-plugins": "MIT",
    "mdurl": "MIT",
    "msgspec": "BSD-3-Clause",
    "multidict": "Apache-2.0",
    "platformdirs": "MIT",
    "propcache": "Apache-2.0",
    "pycparser": "BSD-3-Clause",
    "pygments": "BSD-2-Clause",
    "python-dateutil": "Apache-2.0 OR BSD-3-Clause",
    "rich": "MIT",
    "rpcudp": "MIT",
    "selectolax": "MIT",
    "textual": "MIT",
    "tomli-w": "MIT",
    "typing-extensions": "PSF-2.0",
    "tzdata": "Apache-2.0",
    "u-msgpack-python": "MIT",
    "uc-micro-py": "MIT",
    "uvloop": "MIT OR Apache-2.0",
    "webencodings": "BSD-3-Clause",
    "yara-x": "BSD-3-Clause",
    "yarl": "Apache-2.0",
    "zfec": "GPL-2.0-or-later OR TGPPL-1.0",
}
FAMILIES = ("MIT", "Apache", "BSD", "PSF", "Python Software Foundation", "GPL", "TGPPL")


def required() -> Iterator[tuple[str, Distribution]]:
    """The libraries that pyproject.toml asks for, and what they need in turn, as far as they are installed here."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    found: dict[str, Distribution] = {}
    left = [Requirement(line) for line in wanted]
    while left:
        requirement = left.pop()
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        extras = requirement.extras or {""}
        if requirement.marker is not None and not any(requirement.marker.evaluate({"extra": e}) for e in extras):
            continue
        try:
            installed = distribution(requirement.name)
        except PackageNotFoundError:
            continue
        if name not in found:
            found[name] = installed
            left += [Requirement(line) for line in installed.requires or [] if "extra ==" not in line]
    yield from sorted(found.items())


def families(text: str) -> set[str]:
    """Which kinds of licence are named in it, whatever the spelling."""
    named = {family for family in FAMILIES if re.search(rf"\b{family}", text)}
    return {"PSF" if family.startswith("P") else family for family in named}


def stated(installed: Distribution) -> str:
    """What a library says of its own licence."""
    told = installed.metadata
    classifiers = [line for line in told.get_all("Classifier") or [] if line.startswith("License ::")]
    fields = [text[:100] for name in ("License-Expression", "License") for text in told.get_all(name) or []]
    return " ".join([*fields, *classifiers])


def test_the_licence_of_every_library_that_we_need_is_known() -> None:
    assert {name for name, _ in required()} - set(LICENCES) == set()


def test_every_library_says_the_licence_that_we_know_of() -> None:
    for name, installed in required():
        told = families(stated(installed))
        assert told & families(LICENCES[name]), f"{name} says {stated(installed)!r}, the list {LICENCES[name]!r}"
        assert ("GPL" in told) == ("GPL" in families(LICENCES[name])), name


def test_readme_and_licence_say_what_zfec_brings_with_it() -> None:
    copyleft = [name for name, licence in LICENCES.items() if "GPL" in licence]
    assert copyleft == ["zfec"]
    for file in ("README.md", "LICENSE"):
        assert "zfec" in (ROOT / file).read_text("utf-8")
