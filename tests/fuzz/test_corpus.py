"""The corpus of the fuzzers, replayed; and whatever Hypothesis comes up with, cut and changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.run import CORPUS
from tests.fuzz.targets import TARGETS


def corpus(name: str) -> list[Path]:
    return sorted((CORPUS / name).glob("*"))


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_raises_nothing_but_the_decoders_own_errors(name: str) -> None:
    assert corpus(name), "every target has some bytes to begin with"
    for path in corpus(name):
        TARGETS[name](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_and_the_corpus_with_changes_raise_nothing_else(name: str) -> None:
    seeds = [path.read_bytes() for path in corpus(name)]

    @settings(max_examples=40, deadline=None)
    @given(st.data())
    def play(data: st.DataObject) -> None:
        some = data.draw(st.binary(max_size=300))
        TARGETS[name](some)
        seed = data.draw(st.sampled_from(seeds))
        if seed:
            at = data.draw(st.integers(0, len(seed) - 1))
            TARGETS[name](seed[:at] + some + seed[at + data.draw(st.integers(0, 4)) :])
            TARGETS[name](seed[:at])

    play()
