"""A small story of the workload by real processes: kills, a full disk, a clock that jumps, neomutt, mbsync, a backup.

What is checked doesn't depend on when things happen. `make soak` plays thousands of messages in the same way.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.programs import lacking
from tests.real.journey.story import JourneyScale, JourneyStory
from tests.workload import Event

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("workload journey")]

SEED = 601
"""A story in which each of the events happens to somebody."""
EVENTS = (
    Event.KILL, Event.KILL, Event.RESTART, Event.BACKUP, Event.RESTORE, Event.SECOND_PROGRAM, Event.CLOCK,
    Event.FULL_DISK, Event.FLAGS, Event.MOVE, Event.DELETE,
)  # fmt: skip
SMALL = JourneyScale(messages=20, users=4, nodes=4, k=3, largest=1_000_000, happenings=0.8, events=EVENTS, patience=100)


def test_messages_of_every_shape_arrive_once_and_unchanged_whatever_is_killed(tmp_path: Path) -> None:
    outcome = JourneyStory(SEED, tmp_path / "net", SMALL).play()
    assert [str(wrong) for wrong in outcome.wrong] == []
    assert outcome.messages == 20
    if outcome.left_out:
        lacking(f"all was well, but some was left out: {'; '.join(outcome.left_out)}")
    happened = {"backups", "full disks", "jumps of the clock", "mbsync", "neomutt", "nodes killed", "restarts"}
    assert happened <= set(outcome.counts), "another seed is needed: the workload has changed"
