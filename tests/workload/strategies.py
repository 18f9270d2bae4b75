"""The workload for Hypothesis: shapes whose every choice shrinks, and lengths of pieces."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from tests.workload.shapes import EDGES, LARGEST, MOST_RECIPIENTS, Ending, Head, Shape
from tests.workload.texts import BodyKind


def sizes(largest: int = LARGEST, edges: Sequence[int] = EDGES) -> st.SearchStrategy[int]:
    """Bytes: log-uniform up to `largest`, or within 40 bytes of one of `edges`."""
    near = [edge for edge in edges if 40 < edge <= largest - 40]
    powers = st.integers(0, largest.bit_length() - 1).flatmap(
        lambda exponent: st.integers((1 << exponent) - 1, min(largest, (2 << exponent) - 2))
    )
    if not near:
        return powers
    return powers | st.builds(int.__add__, st.sampled_from(near), st.integers(-40, 40))


def shapes(
    largest: int = LARGEST, most_recipients: int = MOST_RECIPIENTS, *, complete: bool = True
) -> st.SearchStrategy[Shape]:
    """Shapes as `draw` draws them."""
    heads = [head for head in Head if head is not Head.BARE or not complete]
    return st.builds(
        Shape,
        seed=st.integers(0, (1 << 48) - 1),
        kind=st.sampled_from(list(BodyKind)),
        size=sizes(largest),
        ending=st.sampled_from(list(Ending)),
        head=st.sampled_from(heads),
        recipients=sizes(most_recipients, ()).map(lambda number: max(1, number)),
    )


def chunkings() -> st.SearchStrategy[tuple[int, ...]]:
    """Lengths of pieces in bytes, for cutting.chunks; single bytes are among them."""
    return st.lists(sizes(1 << 21).map(lambda size: max(1, size)), min_size=1, max_size=8).map(tuple)
