"""Whether a network is private or public, and what the user is told."""

from __future__ import annotations

import pytest

from overlay.identity.network_scope import decide, is_private

KNOWN = {"node.example": ["8.8.4.4"], "home.example": ["192.168.1.5"], "both.example": ["192.168.1.5", "8.8.8.8"]}


def resolve(host: str) -> list[str]:
    return KNOWN.get(host, [])


def test_it_is_said_what_a_name_resolves_to_and_how_to_choose_otherwise() -> None:
    scope = decide(["home.example:4600"], resolve=resolve)
    assert scope.private
    assert "A private network" in scope.words
    assert "home.example is 192.168.1.5" in scope.words
    assert "--public" in scope.words
    assert scope.warning == ""
    scope = decide(["node.example:4600"], resolve=resolve)
    assert not scope.private
    assert "A public network" in scope.words
    assert "--private" in scope.words
    assert scope.warning == ""


@pytest.mark.parametrize("place", ["home.example:4600", "10.0.0.1:4600", "[::1]:4600", "100.64.0.1:4600"])
def test_a_public_network_that_nobody_can_join_is_warned_about(place: str) -> None:
    scope = decide([place], private=False, resolve=resolve)
    assert not scope.private
    assert scope.warning.startswith("NOBODY CAN JOIN")


@pytest.mark.parametrize("places", [["both.example:1"], ["8.8.8.8:1", "192.168.1.5:1"]])
def test_places_of_both_kinds_are_taken_and_said(places: list[str]) -> None:
    scope = decide(places, resolve=resolve)
    assert scope.private
    assert "192.168.1.5" in scope.words
    assert "8.8.8.8" in scope.words
    assert "Members outside your local network can't reach" in scope.warning


def test_a_name_that_cannot_be_resolved_is_taken_for_public_and_said() -> None:
    scope = decide(["away.example:4600"], resolve=resolve)
    assert not scope.private
    assert "away.example couldn't be resolved" in scope.warning
    assert decide(["nas.local:4600"], resolve=resolve).private


@pytest.mark.parametrize(
    ("host", "private"),
    [("192.168.1.5", True), ("::1", True), ("8.8.8.8", False), ("*", False), ("0.0.0.0", False), ("home.lan", False)],
)
def test_an_address_to_listen_on_is_private_when_only_a_local_network_reaches_it(host: str, private: bool) -> None:
    assert is_private(host) is private


def test_without_a_place_to_join_it_is_private_and_what_is_set_is_what_it_is() -> None:
    assert decide([]).private
    assert not decide([], private=False).private
    assert decide(["8.8.8.8:1"], private=True).private
    assert "says otherwise" not in decide(["8.8.8.8:1"], private=True).words
