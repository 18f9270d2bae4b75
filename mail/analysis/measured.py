"""What the real nodes did in the simulated world when it was last measured: measured.toml, as shipped.

Written by bench/bench_analysis.py, never by hand; shown by `p2pmail analyse`.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources

import msgspec
import tomli_w

from mail.analysis.simulation import Measured

FILE = "measured.toml"


@dataclass(frozen=True, slots=True)
class Case:
    """So many actions succeeded of so many, with k copies at nodes of which each stayed up with p."""

    p: float
    k: int
    done: int
    trials: int

    @property
    def measured(self) -> Measured:
        """The same with its interval."""
        return Measured(self.done, self.trials)


@dataclass(frozen=True, slots=True)
class Measurements:
    """All cases of one run of the bench. `half`: exactly half of all nodes were killed at once."""

    date: str
    command: str
    nodes: int
    operations: int
    cases: list[Case]
    half: Case


def encode(measurements: Measurements) -> bytes:
    """As TOML for the file."""
    return tomli_w.dumps(msgspec.to_builtins(measurements)).encode()


def decode(text: str) -> Measurements:
    """From the file's text."""
    return msgspec.convert(tomllib.loads(text), Measurements)


def shipped() -> Measurements:
    """Those that came with the program."""
    return decode(resources.files("mail.analysis").joinpath(FILE).read_text("utf-8"))
