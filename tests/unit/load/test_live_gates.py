"""What is said of gates while a run goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mailrig.clients import Tally, Timing
from mailrig.history import HistoryWriter
from mailrig.live import BROKEN, HELD, HOLDS, WAITING, LiveGates, Peak, summary
from mailrig.runner.load import HistoryTail
from mailrig.scenario import load_contract, load_scenario, parse_scenario

SMOKE = load_scenario("smoke")
CONTRACT = load_contract()
MS = 1_000_000


def gates(*checks, alone=True):
    text = SMOKE.text.partition("[validity]")[0]
    text += "".join(
        f'\n[[gate]]\nid = "g{number}"\nmetric = "{metric}"\ncheck = "{check}"\n'
        for number, (metric, check) in enumerate(checks)
    )
    return LiveGates(parse_scenario(text, Path("live.toml")), CONTRACT, alone=alone)


def states(live):
    return [(row.observed, row.state) for row in live.rows()]


def test_of_the_smoke_scenario_held_running_lag_and_latencies_are_seen():
    seen = {row.id for row in LiveGates(SMOKE, CONTRACT).rows()}
    assert seen == {"schedule_lag", "saturation", "held", "running", "send-accept-p95", "send-e2e-p95"}
    assert all(row.state == WAITING for row in LiveGates(SMOKE, CONTRACT).rows())


def test_where_others_have_workers_too_nothing_is_said_of_one_s():
    assert not {"held", "running", "saturation"} & {row.id for row in LiveGates(SMOKE, CONTRACT, alone=False).rows()}


def test_a_latency_gate_takes_its_own_queue_and_no_warm_up():
    live = gates(("task.e2e{queue=send}", "p95 < 500ms"), ("task.e2e", "max < 2s"))
    live.time([Timing(kind="TASK", name="e2e send", duration_ns=9_000 * MS, warmup=True)])
    assert states(live) == [("", WAITING), ("", WAITING)]
    live.time([Timing(kind="TASK", name="e2e send", duration_ns=400 * MS)])
    live.time([Timing(kind="TASK", name="e2e sync", duration_ns=3_000 * MS, error="failed")])
    assert states(live) == [("400 ms", HOLDS), ("3 s", BROKEN)]


def test_a_refused_request_is_no_sample_of_how_fast_one_is_accepted():
    live = gates(("http.accept{f=send}", "max < 100ms"))
    live.time([Timing(kind="API", name="accept send", duration_ns=900 * MS, error="Unprocessable")])
    assert states(live) == [("", WAITING)]


def test_a_fifth_message_breaks_held_and_a_floor_is_waited_for():
    live = gates((HELD, "max <= 4"), ("saturation", "max >= 4"))
    live.see(HELD, 3)
    assert states(live) == [("3", HOLDS), ("3", WAITING)]
    live.see(HELD, 5)
    live.see(HELD, 0)
    assert states(live) == [("5", BROKEN), ("5", HOLDS)]


def test_a_gate_that_nothing_tells_of_is_not_listed():
    live = gates(("jobs.missing", "== 0"), ("task.queue_time{attempt=1}", "p95 < 1s"), ("task.e2e", "p95 < 5"))
    assert live.rows() == []


@pytest.mark.parametrize(
    ("check", "seen"),
    [
        ("p95 < 1s", True),
        ("last < 1s", False),
        ("p95 ratio baseline <= 1.15", False),
        ("slope < 1s/min", False),
        ('p95 < 1s"\nfor = "10s', False),
        ('max < 1s"\nfor = "10s', True),
    ],
)
def test_what_needs_times_or_another_run_is_left_to_the_judge(check, seen):
    assert bool(gates(("task.e2e", check)).rows()) == seen


@pytest.mark.parametrize(
    ("ran", "most"),
    [
        ([], 0),
        ([(0, 10), (5, 15), (10, 20)], 2),
        ([(0, 10), (1, 9), (2, 8), (3, 7), (4, 6)], 5),
        ([(5, 5), (4, 6)], 1),
    ],
)
def test_the_most_at_once_counts_an_end_before_a_start_at_one_instant(ran, most):
    peak = Peak()
    for start, end in ran:
        peak.add(start, end)
    assert peak.value() == most
    assert peak.value() == most


def test_what_is_long_over_is_folded_and_its_peak_is_kept():
    peak, second = Peak(), 10**9
    for start, end in [(0, 10), (1, 9), (2, 8)]:
        peak.add(start * second, end * second)
    peak.add(5_000 * second, 5_001 * second)
    assert peak.value() == 3
    assert peak._ran == [(5_000 * second, 5_001 * second)]
    assert peak.value() == 3


def test_what_is_broken_is_named_and_the_rest_is_counted():
    live = gates((HELD, "max <= 4"), ("http.accept", "p95 < 1s"), ("task.e2e", "max < 1s"))
    assert summary(live.rows()) == ""
    live.see(HELD, 5)
    live.time([Timing(kind="API", name="accept send", duration_ns=10 * MS)])
    assert summary(live.rows()) == "broken so far: g0 5 (max <= 4); gates that hold so far: 1"


def test_the_load_s_history_is_read_as_the_judge_reads_it(tmp_path):
    """Lag and accept from the intended time, the rest from the row; five executions at once are seen."""
    live = gates(
        ("schedule_lag", "max < 1s"),
        ("http.accept", "max < 1s"),
        ("task.e2e", "max < 1s"),
        ("task.queue_time", "max < 1s"),
        ("worker.running", "max <= 4"),
    )
    tail = HistoryTail(tmp_path / "history.jsonl", live)
    with HistoryWriter(tmp_path / "history.jsonl", "load") as history:
        history.append("info", "phase", {"name": "warmup", "scheduled": 5}, time_ns=0)
        for k in range(5):
            value = {"arrival": k, "intended_ns": 0, "warmup": False}
            history.append("invoke", "send", value, time_ns=2 * MS)
            history.append("ok", "send", {**value, "task_id": f"t{k}"}, time_ns=20 * MS)
            row = {"task_id": f"t{k}", "queue": "send", "state": "succeeded", "enqueued_ns": 10 * MS, "due_ns": None}
            history.append("ok", "complete", row | {"started_ns": 40 * MS, "ended_ns": 90 * MS, "tenant": "acme"})
    tail.read()
    assert states(live) == [
        ("0.002 s", HOLDS),
        ("0.02 s", HOLDS),
        ("0.09 s", HOLDS),
        ("0.03 s", HOLDS),
        ("5", BROKEN),
    ]


def test_only_a_success_tells_when_its_execution_ended(tmp_path):
    live = gates(("worker.running", "max <= 4"))
    tail = HistoryTail(tmp_path / "history.jsonl", live)
    with HistoryWriter(tmp_path / "history.jsonl", "load") as history:
        row = {"task_id": "t", "queue": "send", "state": "failed", "enqueued_ns": 0, "started_ns": 1, "ended_ns": 9}
        history.append("ok", "complete", row)
    tail.read()
    assert states(live) == [("", WAITING)]


def test_a_timing_has_its_trace_and_knows_the_warm_up():
    tally = Tally()
    row = {"task_id": "t", "queue": "send", "state": "unknown", "enqueued_ns": 0, "started_ns": 5, "ended_ns": 9}
    tally.accepted("t", 1, warmup=True)
    timings = tally.settled(row | {"trace_id": "ab" * 16})
    assert [(t.name, t.duration_ns, t.error) for t in timings] == [
        ("e2e send", 8, "unknown"),
        ("queue send", 5, None),
        ("run send", 4, "unknown"),
    ]
    assert {(t.trace_id, t.warmup) for t in timings} == {("ab" * 16, True)}


def test_a_check_that_does_not_fit_its_metric_is_left_to_the_judge():
    broken = replace(SMOKE, gates=tuple(replace(gate, check="max < 5 apples") for gate in SMOKE.gates))
    assert LiveGates(broken, CONTRACT).rows() == []
