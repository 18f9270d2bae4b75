"""The benches of the overlay still run against the program as it is: on a few nodes, with a few calls.

What they measure on this scale is nothing to hold against a bar.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bench import (
    bench_absent,
    bench_analysis,
    bench_calls,
    bench_crash,
    bench_erasure,
    bench_flood,
    bench_hostile,
    bench_letter,
    bench_lookup,
    bench_recipients,
    bench_resume,
    bench_scale,
    bench_soak,
    peer_kademlia,
)
from bench.figure import Figure
from mail.analysis.measured import FILE, decode

PEER = peer_kademlia.Lookups((1.0,), (0.01,))


def test_lookups_are_measured_alive_and_among_the_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"NODES": 5, "LOOKUPS": 2, "DEAD_LOOKUPS": 1, "SEEDS": (1,)}.items():
        monkeypatch.setattr(bench_lookup, name, value)
    monkeypatch.setattr(bench_lookup, "SYSTEM_PYTHON", "/nonexistent")
    monkeypatch.setattr(peer_kademlia, "measure", lambda **_: peer_kademlia.KademliaFigures(PEER, PEER))
    figures = bench_lookup.measure()
    assert len(figures) == 9
    check(figures)


def test_sealed_calls_are_measured_beside_unsealed_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"NODES": 5, "ANSWER": 150, "CALLS": 40, "ROUNDS": 1}.items():
        monkeypatch.setattr(bench_calls, name, value)
    figures = bench_calls.measure()
    assert all(rate > 0 for figure in figures for rate in figure.peer.values())
    check(figures)


def test_messages_to_an_absent_recipient_are_measured_until_all_are_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"NODES": 4, "MESSAGES": 20}.items():
        monkeypatch.setattr(bench_absent, name, value)
    figures = bench_absent.measure()
    stored, _, _ = figures
    assert stored.value == 20
    check(figures)


def test_a_message_is_measured_until_it_is_filed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"NODES": 4, "MESSAGES": 1, "WARM_UP": 0}.items():
        monkeypatch.setattr(bench_letter, name, value)
    figures = bench_letter.measure()
    filed, _, sending = figures
    assert sending.value < filed.value
    check(figures)


def test_shares_are_measured_beside_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"NODES": 12, "SIZE": 100_000, "CASES": (0.9,), "TRIALS": 2_000}.items():
        monkeypatch.setattr(bench_erasure, name, value)
    figures = bench_erasure.measure()
    stored = figures[0]
    assert 1 < stored.value < stored.peer["copies"]
    check(figures)


def test_section_4_is_measured_with_real_nodes_and_kept_for_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small = {"NODES": 15, "WORLDS": 1, "HALF_WORLDS": 1, "ACTIONS": 4, "CASES": ((0.5, 5),), "WHERE": tmp_path / FILE}
    for name, value in small.items():
        monkeypatch.setattr(bench_analysis, name, value)
    figures = bench_analysis.measure()
    assert [figure.bar is None for figure in figures] == [True, False]
    kept = decode((tmp_path / FILE).read_text())
    assert [case.trials for case in (*kept.cases, kept.half)] == [4, 4]
    assert kept.half.measured.share == figures[1].value
    check(figures)


def test_one_message_to_many_is_measured_and_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"NODES": 3, "RECIPIENTS": 12, "COLLECTORS": 2}.items():
        monkeypatch.setattr(bench_recipients, name, value)
    rate, stored, collected, silence, *_ = bench_recipients.measure()
    assert (stored.value, collected.value) == (1, 1)
    check([rate, silence])


def test_a_flood_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"SECONDS": 3.0, "WARM_UP": 1.0, "NODES": 2, "RANDOM_RATE": 200, "FORMED_RATE": 200, "MESSAGE_EVERY": 0.1}
    for name, value in values.items():
        monkeypatch.setattr(bench_flood, name, value)
    _, messages, pings = bench_flood.measure()
    assert messages.value == 1
    check([messages, pings])


def test_crashes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_crash, "ROUNDS", 4)
    figures = bench_crash.measure()
    assert [figure.value for figure in figures] == [0, 0, 0, 0]
    assert figures[0].peer["checked"] > 0


def test_what_is_fetched_again_after_a_kill_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.overlay.K", 2)
    for name, value in {"NODES": 3, "SIZE": 9_000_000}.items():
        monkeypatch.setattr(bench_resume, name, value)
    sent_again, stored, again, same, memory = bench_resume.measure()
    assert sent_again.value < 0.5
    assert stored.value == 1
    assert again.value < 0.5  # the pieces that were on their way weigh more in a small message
    assert same.value == 1
    assert memory.value > 0


def test_hostile_nodes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"NODES": 15, "SEEDS": (1,), "TRIALS": 2}.items():
        monkeypatch.setattr(bench_hostile, name, value)
    check(bench_hostile.measure())


def test_lookups_in_large_networks_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SIZES": (20, 40), "JOINED": 20, "LOOKUPS": 3, "BARS": {}}.items():
        monkeypatch.setattr(bench_scale, name, value)
    figures = bench_scale.measure()
    assert all(figure.value == 1 for figure in figures if "recall" in figure.name)
    check(figures)


def test_what_was_played_at_length_is_added_up_each_seed_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench_soak, "LINES", tmp_path / "soak_workload.jsonl")
    monkeypatch.setattr(bench_soak, "BEFORE", tmp_path / "soak.jsonl")
    assert [figure.value for figure in bench_soak.measure()] == [0] * 10
    broken = ["letter 8 is lost", "letter 9 came back", "memory grew", "untrue: letter 9 is called expired"]
    played = [
        bench_soak.SoakLine(1, 2, 30, 400, ["letter 7 is lost"]),
        bench_soak.SoakLine(2, 2, 31, 400, broken),
        bench_soak.SoakLine(1, 2, 30, 400, []),
    ]
    bench_soak.LINES.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in played))
    bench_soak.BEFORE.write_bytes(b'{"seed":1,"letters":2,"messages":7,"datagrams":8093307,"broken":[]}\n')
    assert [figure.value for figure in bench_soak.measure()] == [61, 1, 1, 1, 1, 7, 0, 0, 0, 0]


def check(figures: list[Figure]) -> None:
    """Something was measured for each figure."""
    assert all(figure.value > 0 for figure in figures), figures
