from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from overlay.wire import rtt
from overlay.wire.rtt import FIRST_TIMEOUT, LONGEST_TIMEOUT, SHORTEST_TIMEOUT, RTTEstimates

PEER, STRANGER = b"a" * 32, b"b" * 32


def test_nothing_measured_means_half_a_second() -> None:
    assert RTTEstimates().timeout(PEER) == FIRST_TIMEOUT == 0.5


def test_a_peers_first_measurement_counts_as_rfc_6298_says() -> None:
    estimates = RTTEstimates()
    estimates.add_sample(PEER, 0.2)
    assert estimates.timeout(PEER) == 0.2 + 4 * 0.1


def test_a_steady_peer_is_waited_for_little_longer_than_it_takes() -> None:
    estimates = RTTEstimates()
    for _ in range(50):
        estimates.add_sample(PEER, 0.2)
    assert 0.2 <= estimates.timeout(PEER) < 0.21


@given(st.lists(st.floats(0, 100), min_size=1))
def test_time_outs_stay_within_their_bounds(measured: list[float]) -> None:
    estimates = RTTEstimates()
    for seconds in measured:
        estimates.add_sample(PEER, seconds)
    assert SHORTEST_TIMEOUT <= estimates.timeout(PEER) <= LONGEST_TIMEOUT
    assert SHORTEST_TIMEOUT <= estimates.timeout(STRANGER) <= FIRST_TIMEOUT


def test_a_stranger_is_expected_to_be_like_everybody_once_enough_are_known() -> None:
    estimates = RTTEstimates()
    for number in range(rtt.SAMPLES_TO_TRUST - 1):
        estimates.add_sample(bytes([number]) * 32, 0.001)
    assert estimates.timeout(STRANGER) == FIRST_TIMEOUT
    estimates.add_sample(PEER, 0.001)
    assert estimates.timeout(STRANGER) == SHORTEST_TIMEOUT


def test_the_number_of_remembered_peers_is_bounded() -> None:
    estimates = RTTEstimates()
    for number in range(rtt.PEERS + 10):
        estimates.add_sample(number.to_bytes(32, "big"), 0.1)
    assert len(estimates._peers) == rtt.PEERS
