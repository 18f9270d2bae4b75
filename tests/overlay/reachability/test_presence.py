"""Whether other nodes answer, and whose word counts."""

from __future__ import annotations

from overlay.reachability.presence import BACK_EVERY, QUIET, Presence

OWN, OTHER = b"own", b"other"


class Clocks:
    def __init__(self) -> None:
        self.time = 5.0

    def wall(self) -> float:
        return 1000.0 + self.time

    def monotonic(self) -> float:
        return self.time


def watched() -> tuple[Clocks, Presence, list[str]]:
    clocks = Clocks()
    presence = Presence(OWN, clocks.wall, clocks.monotonic)
    said: list[str] = []
    presence.back = lambda: said.append("back")
    presence.changed = lambda: said.append("online" if presence.online else "offline")
    return clocks, presence, said


def test_offline_is_told_with_when_it_began_and_its_end_sets_work_going() -> None:
    clocks, presence, said = watched()
    presence.heard()
    clocks.time += 30
    presence.nobody()
    clocks.time += 30
    presence.nobody()
    assert (presence.online, presence.since) == (False, 1005.0)
    presence.heard()
    assert (presence.online, presence.since) == (True, None)
    assert said == ["back", "offline", "online", "back"]


def test_a_node_that_answers_now_and_then_does_not_set_everything_going_each_time() -> None:
    clocks, presence, said = watched()
    for _ in range(20):
        presence.heard()
        presence.nobody()
        clocks.time += BACK_EVERY / 10
    assert said.count("back") == 2


def test_it_is_doubtful_after_some_quiet_and_not_while_it_is_known_to_be_offline() -> None:
    clocks, presence, _ = watched()
    presence.heard()
    doubts = [presence.doubtful]
    clocks.time += QUIET
    doubts.append(presence.doubtful)
    presence.nobody()
    assert [*doubts, presence.doubtful] == [False, True, False]


def test_its_own_word_counts_beside_anothers_and_in_a_network_of_nobody_else() -> None:
    _, presence, _ = watched()
    assert presence.count({OWN, OTHER}, lone=False) == 2
    assert presence.count({OTHER}, lone=False) == 1
    assert presence.count({OWN}, lone=False) == 0
    assert presence.count({OWN}, lone=True) == 1
    assert presence.count(set(), lone=True) == 0
    assert not presence.others(set(), lone=True)
