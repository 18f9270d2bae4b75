"""One measured figure and the bar it is held against.

What lives here is the value and how it is judged and written down. Measuring is each `bench_*.py` module's business,
running them all is `run.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Better = Literal["lower", "higher"]


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured `value` in `unit`, the `bar` it must reach (None: only watched), and what peers did in the same run.

    `machine` is filled in by `bench/run.py`.
    """

    name: str
    value: float
    unit: str
    bar: float | None
    better: Better
    peer: Mapping[str, float] = field(default_factory=dict)
    machine: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the bar was reached; None where there is none."""
        if self.bar is None:
            return None
        return self.value <= self.bar if self.better == "lower" else self.value >= self.bar


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of `values` lie, one of them as it is (nearest rank).

    Raises ValueError without values.
    """
    if not values:
        raise ValueError("a quantile needs at least one value")
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
