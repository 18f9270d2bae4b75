from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from overlay.wire import rtt
from overlay.wire.rtt import FIRST_TIMEOUT, LONGEST_TIMEOUT, SHORTEST_TIMEOUT, RTTEstimates

PEER, STRANGER = b"a" * 32, b"b" * 32


def test_nothing_measured_means_half_a_second() -> None:
    assert RTTEstimates().timeout(PEER) == FIRST_TIMEOUT == 0.5


def test_a_peers_first_measurement_counts_as_rfc_6298_says() -> None:
    trips = RTTEstimates()
    trips.measured(PEER, 0.2)
    assert trips.timeout(PEER) == 0.2 + 4 * 0.1


def test_a_steady_peer_is_waited_for_little_longer_than_it_takes() -> None:
    trips = RTTEstimates()
    for _ in range(50):
        trips.measured(PEER, 0.2)
    assert 0.2 <= trips.timeout(PEER) < 0.21


@given(st.lists(st.floats(0, 100), min_size=1))
def test_time_outs_stay_within_their_bounds(measured: list[float]) -> None:
    trips = RTTEstimates()
    for seconds in measured:
        trips.measured(PEER, seconds)
    assert SHORTEST_TIMEOUT <= trips.timeout(PEER) <= LONGEST_TIMEOUT
    assert SHORTEST_TIMEOUT <= trips.timeout(STRANGER) <= FIRST_TIMEOUT


def test_a_stranger_is_expected_to_be_like_everybody_once_enough_are_known() -> None:
    trips = RTTEstimates()
    for number in range(rtt.SAMPLES_TO_TRUST - 1):
        trips.measured(bytes([number]) * 32, 0.001)
    assert trips.timeout(STRANGER) == FIRST_TIMEOUT
    trips.measured(PEER, 0.001)
    assert trips.timeout(STRANGER) == SHORTEST_TIMEOUT


def test_the_number_of_remembered_peers_is_bounded() -> None:
    trips = RTTEstimates()
    for number in range(rtt.PEERS + 10):
        trips.measured(number.to_bytes(32, "big"), 0.1)
    assert len(trips._peers) == rtt.PEERS
