"""The shipped measurements (measured.toml): how often real nodes succeeded in a simulated network.

bench/bench_analysis.py writes the file, nobody edits it by hand; `p2pmail analyse` shows it.
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
    """`done` of `trials` actions succeeded with k copies, when each node stayed up with probability p."""

    p: float
    k: int
    done: int
    trials: int

    @property
    def measured(self) -> Measured:
        """The success rate with its interval."""
        return Measured(self.done, self.trials)


@dataclass(frozen=True, slots=True)
class Measurements:
    """All cases of one benchmark run. `half`: exactly half of all nodes were killed at once."""

    date: str
    command: str
    nodes: int
    operations: int
    cases: list[Case]
    half: Case


def encode(measurements: Measurements) -> bytes:
    """Encode as TOML."""
    return tomli_w.dumps(msgspec.to_builtins(measurements)).encode()


def decode(text: str) -> Measurements:
    """Decode from TOML."""
    return msgspec.convert(tomllib.loads(text), Measurements)


def shipped() -> Measurements:
    """The measurements that come with the program."""
    return decode(resources.files("mail.analysis").joinpath(FILE).read_text("utf-8"))
