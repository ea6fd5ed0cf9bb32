"""Whether memory grows: literal runs with a leak and without one."""

from __future__ import annotations

import random

import pytest

from mailrig.checkers import METRICS
from mailrig.evidence import Evidence
from mailrig.scenario import load_contract, load_scenario

MIB = 2**20


def sampled(size_at, *, seconds=60.0, every_s=0.5, pid=11, kind="worker-child", start_s=0.0):
    """Samples of one process whose PSS is ``size_at(seconds)``."""
    count = int(seconds / every_s)
    return tuple(
        {
            "time_ns": int((start_s + i * every_s) * 1e9),
            "processes": [{"pid": pid, "kind": kind, "pss_bytes": int(size_at(i * every_s))}],
        }
        for i in range(count)
    )


def slopes(memory) -> dict[tuple[str, str], float]:
    measured = METRICS["memory.slope"](Evidence(memory=memory), load_contract(), load_scenario("smoke"))
    return {(s.labels["pid"], s.labels["bound"]): s.value for s in measured.samples}


def noisy(seed, size_mib=50.0, noise_mib=2.0):
    chance = random.Random(seed)
    return lambda _: (size_mib + chance.uniform(0, noise_mib)) * MIB


def test_a_leak_is_found_with_its_size_within_the_interval():
    chance = random.Random(3)
    found = slopes(sampled(lambda at_s: (50 + at_s / 10 + chance.uniform(0, 2)) * MIB))
    assert found["11", "low"] <= 6 * MIB <= found["11", "high"]
    assert found["11", "middle"] == pytest.approx(6 * MIB, rel=0.15)
    assert found["11", "low"] > 4 * MIB


@pytest.mark.parametrize("seed", range(8))
def test_noise_alone_is_no_leak(seed):
    found = slopes(sampled(noisy(seed)))
    assert found["11", "low"] <= 0.2 * MIB
    assert found["11", "low"] < found["11", "middle"] < 1 * MIB


def test_peaks_of_tasks_are_no_leak():
    found = slopes(sampled(lambda at_s: (50 + (30 if int(at_s * 2) % 4 == 0 else 0)) * MIB))
    assert found["11", "middle"] == 0


def test_what_a_process_fills_at_its_start_is_no_leak():
    found = slopes(sampled(lambda at_s: min(30 + at_s * 2, 50) * MIB))
    assert found["11", "high"] == 0


def test_a_process_that_is_recycled_leaks_all_the_same():
    """In the sum of both processes the saw-tooth hides it."""
    first = sampled(lambda at_s: (50 + at_s / 2) * MIB, seconds=30)
    second = sampled(lambda at_s: (50 + at_s / 2) * MIB, seconds=30, pid=12, start_s=30)
    found = slopes(first + second)
    assert found["11", "low"] == pytest.approx(30 * MIB, rel=0.01)
    assert found["12", "low"] == pytest.approx(30 * MIB, rel=0.01)


def test_too_few_samples_and_samples_without_pss_are_unknown():
    assert slopes(sampled(noisy(1), seconds=5)) == {}
    unseen = (
        {"time_ns": i * 10**9, "processes": [{"pid": 1, "kind": "worker-main", "pss_bytes": None}]} for i in range(60)
    )
    measured = METRICS["memory.slope"](Evidence(memory=tuple(unseen)), load_contract(), load_scenario("smoke"))
    assert measured.samples == ()
    assert "no process with 8 memory samples" in measured.reason
