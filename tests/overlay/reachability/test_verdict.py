"""What a round of dial-back means, and how many rounds change the mode."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.identity.contact import Contact
from overlay.reachability.verdict import ASKED, FALL, LATER, RISE, SOON, Reachability, choose, verdict

YES, NO = [True, True, True], [False, False, False]


@pytest.mark.parametrize(
    ("votes", "said"),
    [
        ([], None),
        ([True], True),
        ([False], False),
        ([True, True], True),
        ([True, False], None),
        ([True, True, False], True),
        ([False, True, False], False),
    ],
)
def test_two_must_agree_or_all_where_fewer_answer(votes: list[bool], said: bool | None) -> None:
    assert verdict(votes) is said


def test_a_client_becomes_a_node_when_it_was_reached_twice() -> None:
    reach = Reachability(server_mode=False, fixed=False)
    assert [reach.heard(YES) for _ in range(RISE)] == [False] * (RISE - 1) + [True]
    assert reach.server_mode
    assert not reach.heard(YES)


def test_a_node_becomes_a_client_when_nobody_has_reached_it_for_some_rounds() -> None:
    reach = Reachability(server_mode=True, fixed=False)
    assert [reach.heard(NO) for _ in range(FALL)] == [False] * (FALL - 1) + [True]
    assert not reach.server_mode


def test_one_round_of_liars_changes_nothing() -> None:
    reach = Reachability(server_mode=True, fixed=False)
    for _ in range(10):
        assert not any((reach.heard(NO), reach.heard(NO), reach.heard(YES)))
    assert reach.server_mode


def test_what_its_owner_decided_stays_and_is_told() -> None:
    reach = Reachability(server_mode=True, fixed=True)
    assert not any(reach.heard(NO) for _ in range(10))
    assert (reach.server_mode, reach.reachable) == (True, False)


def test_it_is_asked_often_until_it_is_settled() -> None:
    reach = Reachability(server_mode=False, fixed=False)
    assert reach.pause == SOON
    reach.heard(YES)
    assert reach.pause == SOON
    reach.heard(YES)
    assert reach.pause == LATER
    reach.heard(NO)
    assert reach.pause == SOON


@given(st.lists(st.lists(st.booleans(), max_size=ASKED), max_size=30), st.booleans())
def test_it_changes_only_after_as_many_rounds_that_said_so(rounds: list[list[bool]], server_mode: bool) -> None:
    reach = Reachability(server_mode=server_mode, fixed=False)
    said: list[bool] = []
    for votes in rounds:
        found = verdict(votes)
        said += [] if found is None else [found]
        if reach.heard(votes):
            needed = RISE if reach.server_mode else FALL
            assert said[-needed:] == [reach.server_mode] * needed


def test_those_who_are_asked_are_of_different_ranges_as_far_as_there_are() -> None:
    def at(ip: str) -> Contact:
        return Contact(ip.encode().ljust(32), ip, 4000)

    same = [at(f"203.0.113.{n}") for n in range(4)]
    assert choose([*same, at("198.51.100.1")]) == [same[0], at("198.51.100.1"), same[1]]
    assert choose(same) == same[:ASKED]
