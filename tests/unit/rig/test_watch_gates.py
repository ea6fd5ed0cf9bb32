"""A foreign application, judged from literal watches: each gate passes, fails and does not know."""

from __future__ import annotations

from pathlib import Path

import pytest
from watched import (
    NODE,
    application,
    event,
    judged,
    late_events,
    late_samples,
    message,
    ns,
    ran,
    right,
    sample,
    verdicts,
    worker,
    write,
)

from mailrig.evidence import EvidenceError
from mailrig.scenario import ScenarioError
from mailrig.watch.judging import check_gates, judge_folder
from mailrig.watch.limits import limits_of, parse_gates
from mailrig.watch.measure import METRICS
from mailrig.watch.seen import Seen

MIB = 2**20


def detail(found, gate: str) -> str:
    return " ".join(next(g for g in found.verdict.gates if g.id == gate).detail)


def given(text: str):
    return parse_gates(text, Path("mine.toml"))


def gate(metric: str, check: str) -> str:
    return f'[[gate]]\nid = "mine"\nmetric = "{metric}"\ncheck = "{check}"\n'


def retried(delays_s, *, name="shop.flaky"):
    """Events of a task whose retries are due after these delays, each from the end before; nothing else runs then."""
    rows, at_s = [event("received", "r", 25, name=name, retries=0)], 25.0
    for number, delay_s in enumerate(delays_s):
        rows += [event("started", "r", at_s + 0.01), event("retried", "r", at_s + 0.2)]
        at_s += 0.2 + delay_s
        due = {"name": name, "retries": number + 1, "eta_ns": ns(at_s)}
        # As it is: the child publishes its retry before its worker tells of it.
        rows.append(event("received", "r", at_s - delay_s - 0.005, **due))
    return rows


def growing(mib_a_minute):
    process = {"pid": 51, "kind": "worker-child", "node": NODE}
    return [
        {"time_ns": ns(i / 2), "processes": [process | {"pss_bytes": int((50 + mib_a_minute * i / 120) * MIB)}]}
        for i in range(60)
    ]


# --- right ------------------------------------------------------------------------------------------------------------


def test_late_acknowledgement_at_saturation_passes():
    found = judged()
    assert found.verdict.verdict == "pass"
    assert {k: v for k, v in verdicts(found).items() if v != "unknown"} == {
        "sample_gap": "pass",
        "workers_seen": "pass",
        "held": "pass",
        "running": "pass",
        "prefetch-count": "pass",
        "depth": "pass",
    }
    assert found.limits.held_max == 2


def test_an_application_that_nobody_worked_for_is_unknown():
    found = judged(queues=[sample(i / 10) for i in range(200)], events=[], workers=[worker(1)])
    assert found.verdict.verdict == "unknown"
    assert "no worker held a message" in detail(found, "held")


def test_nothing_at_all_is_unknown_for_every_metric():
    nothing = Seen(application=application())
    for name, measure in METRICS.items():
        measurement = measure(nothing, limits_of(nothing))
        assert (measurement.samples, bool(measurement.reason)) == ((), True), name


# --- held -------------------------------------------------------------------------------------------------------------


def early(*, events: bool):
    """Early acknowledgement: while two run, the next two are held, not acknowledged."""
    queues = [sample(i / 10, *(message(f"t{i // 10 * 2 + k}", i // 10) for k in (2, 3))) for i in range(200)]
    return {"queues": queues} | ({} if events else {"events": []})


@pytest.mark.parametrize("events", [True, False])
def test_early_acknowledgement_holds_twice_as_much_and_fails(events):
    found = judged(**early(events=events))
    assert found.verdict.verdict == "fail"
    assert verdicts(found)["held"] == "fail"
    assert "4 held: 2 not acknowledged, 0 of them not due yet" in detail(found, "held")
    assert verdicts(found)["running"] == "pass"


def test_countdowns_are_held_beside_the_prefetch_limit_and_fail():
    later = [message(f"c{i}", eta_ns=ns(300), name="shop.flaky") for i in range(50)]
    found = judged(queues=[{**row, "unacked": [*row["unacked"], *later]} for row in late_samples()])
    assert verdicts(found)["held"] == "fail"
    assert "52 held: 52 not acknowledged, 50 of them not due yet" in detail(found, "held")


def test_what_a_dead_worker_left_and_what_others_hold_in_the_same_database_is_not_held():
    left = message("dead", -500)
    others = message("theirs", name="elsewhere.task")
    found = judged(queues=[{**row, "unacked": [*row["unacked"], left, others]} for row in late_samples()])
    assert verdicts(found)["held"] == "pass"
    assert any("elsewhere.task" in note for note in found.notes)


def test_a_task_that_was_acknowledged_a_moment_before_its_end_was_told_is_not_held_twice():
    """Its successor is received between the two: that is four ids within 15 ms, and never more than two at once."""
    events = [e for k in range(20) for i in (0, 1) for e in ran(f"t{2 * k + i}", k + 0.005, k + 1.015)]
    assert verdicts(judged(events=events))["held"] == "pass"


def test_clocks_that_differ_are_noticed_and_make_no_failure():
    """The worker is 300 ms ahead: by its clock the tasks of a second still run when the next are received."""
    shifted = [
        {**row, "unacked": [{**e, "received_ns": e["received_ns"] + 300_000_000} for e in row["unacked"]]}
        for row in late_samples()
    ]
    events = [{**e, "time_ns": e["time_ns"] + 300_000_000} for e in late_events()]
    assert right(queues=shifted).clock_error_ns == pytest.approx(300_000_000, abs=1_000_000)
    assert verdicts(judged(queues=shifted, events=events, workers=[worker(1)]))["held"] == "pass"


def test_the_limit_is_that_of_the_workers_of_one_moment():
    both = [{**worker(s), "nodes": {**worker(s)["nodes"], **worker(s, node="celery@b")["nodes"]}} for s in range(20)]
    assert limits_of(right(workers=both)).held_max == 4
    in_turn = [*(worker(s) for s in range(10)), *(worker(s, node="celery@b") for s in range(10, 20))]
    assert limits_of(right(workers=in_turn)).held_max == 2


def test_a_multiplier_from_the_command_line_is_seen_and_told():
    found = judged(workers=[worker(s, prefetch_count=8) for s in range(20)])
    assert found.limits.held_max == 8
    assert any("started with a prefetch multiplier of 4; the application says 1" in note for note in found.notes)


def test_without_a_limit_there_is_no_gate_and_no_pass():
    found = judged(application=application(worker_prefetch_multiplier=0), workers=[worker(1, prefetch_count=0)])
    assert "held" not in verdicts(found)
    assert found.verdict.verdict == "unknown"
    assert any("nothing limits what it holds" in note for note in found.notes)


def test_limits_that_nothing_came_near_to_are_told():
    found = judged(queues=[sample(i / 10, message("t0")) for i in range(200)], events=[], workers=[worker(1)])
    assert any("at most 1 of 2 slots" in note for note in found.notes)


# --- running ----------------------------------------------------------------------------------------------------------


def test_a_third_task_on_two_processes_fails_by_its_events():
    found = judged(events=[*late_events(), *ran("third", 5.5, 5.6)])
    assert verdicts(found)["running"] == "fail"
    assert "celery@shop: 3 at" in detail(found, "running")


def test_a_third_task_on_two_processes_fails_by_the_worker_s_own_word():
    three = worker(7, ("a", 6.1), ("b", 6.2), ("c", 6.3))
    assert verdicts(judged(workers=[worker(1), three], events=[]))["running"] == "fail"


def test_a_task_that_died_does_not_run_beside_its_successor():
    killed = [event("started", "t0", 0.005), event("started", "t0", 3)]
    found = judged(events=[*killed, *ran("x", 1, 2), *ran("y", 1, 2)], workers=[worker(1)])
    assert verdicts(found)["running"] == "pass"


# --- retries ----------------------------------------------------------------------------------------------------------


def test_the_declared_backoff_passes():
    found = judged(events=[*late_events(), *retried([2, 4, 8])])
    assert verdicts(found)["retry-backoff"] == "pass"


@pytest.mark.parametrize("delays_s", [[2, 2], [4], [2, 4, 6], [0.2], [2, 4, 12]])
def test_another_backoff_fails(delays_s):
    found = judged(events=[*late_events(), *retried(delays_s)])
    assert verdicts(found)["retry-backoff"] == "fail"
    assert "declared" in detail(found, "retry-backoff")


def test_a_retry_that_was_seen_in_the_broker_alone_is_judged():
    """The message's next receipt was not heard, but the broker shows when it is due."""
    events = [e for e in retried([7]) if e.get("retries") != 1]
    waiting = message("r", 26, name="shop.flaky", retries=1, eta_ns=ns(32.2))
    found = judged(events=[*late_events(), *events], queues=[*late_samples(), sample(26.1, waiting)])
    assert verdicts(found)["retry-backoff"] == "fail"
    assert "7.000 s, declared 2 s" in detail(found, "retry-backoff")


def test_with_jitter_any_delay_up_to_the_bound_passes():
    jittery = application()
    jittery["tasks"][1]["retry_jitter"] = True
    assert verdicts(judged(application=jittery, events=retried([1.3, 0.1])))["retry-backoff"] == "pass"
    assert verdicts(judged(application=jittery, events=retried([2.9])))["retry-backoff"] == "fail"


def test_without_events_a_backoff_is_unknown_and_the_reason_is_told():
    found = judged(events=[])
    assert verdicts(found)["retry-backoff"] == "unknown"
    assert "no worker sends events of tasks" in detail(found, "retry-backoff")
    assert found.verdict.verdict == "pass"


def test_a_delay_that_the_code_passes_is_unknown_until_it_is_declared():
    gates = '[limits.backoff]\n"shop.work" = [1, 5]\n' + gate("retry.delay_error", "max < 100ms")
    events = retried([1, 5, 5], name="shop.work")
    assert "declare it by --gates" in detail(judged(events=events), "retry-backoff")
    assert judged(given(gates), events=events).verdict.verdict == "pass"
    assert judged(given(gates), events=retried([1, 9], name="shop.work")).verdict.verdict == "fail"


# --- prefetch, depth, memory ------------------------------------------------------------------------------------------


def test_a_prefetch_count_that_drifts_down_warns():
    """celery 5.7.0 with worker_eta_task_limit: one of the slots works for ever, the others are idle."""
    found = judged(workers=[worker(1), *(worker(s, prefetch_count=1) for s in range(2, 20))])
    assert verdicts(found)["prefetch-count"] == "warn"
    assert "1 of 2" in detail(found, "prefetch-count")


def test_a_queue_that_grows_warns_and_one_that_drains_does_not():
    rising = [{**row, "ready": {"celery": 3 * i}} for i, row in enumerate(late_samples())]
    falling = [{**row, "ready": {"celery": 900 - 3 * i}} for i, row in enumerate(late_samples())]
    assert verdicts(judged(queues=rising))["depth"] == "warn"
    assert verdicts(judged(queues=falling))["depth"] == "pass"


def test_memory_that_grows_warns_and_memory_that_does_not_passes():
    assert verdicts(judged(memory=growing(30)))["memory-growth"] == "warn"
    assert verdicts(judged(memory=growing(0)))["memory-growth"] == "pass"


def test_a_watcher_that_slept_has_seen_nothing():
    found = judged(queues=[row for i, row in enumerate(late_samples()) if i % 30 == 0])
    assert found.verdict.verdict == "invalid"
    assert verdicts(found)["sample_gap"] == "invalid"


# --- the user's own gates ---------------------------------------------------------------------------------------------


def test_of_the_user_s_own_gates_each_must_be_known():
    assert judged(given(gate("retry.delay_error", "max < 100ms")), events=[]).verdict.verdict == "unknown"


def test_a_limit_of_the_user_s_replaces_the_declared_one():
    gates = "[limits]\nheld_max = 1\n" + gate("worker.held", "max <= {contract.watch.held_max}")
    assert judged(given(gates)).verdict.verdict == "fail"


def test_the_gates_that_are_made_can_be_read_again():
    found = judged()
    again = judged(given(found.gates_text), events=[*late_events(), *retried([2])], memory=growing(0))
    assert again.verdict.verdict == "pass"
    assert [g.id for g in again.verdict.gates] == [g.id for g in found.verdict.gates]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            '[[gate]]\nid = "a"\nmetric = "task.e2e"\ncheck = "max < 1s"\n',
            "mine.toml:2: gate a: metric 'task.e2e' is not known",
        ),
        ('[[gate]]\nid = "a"\nmetric = "worker.held"\ncheck = "most < 1"\n', "mine.toml:2: gate a: check 'most < 1'"),
        ("[limits]\nheld_max = 0\n", "mine.toml:2: limits.held_max = 0 is not allowed"),
        ('[limits.backoff]\n"a.b" = 5\n', 'is not allowed; allowed: "TASK" = [SECONDS, ...]'),
        ("[other]\nx = 1\n", "other"),
        ("", "has no gate"),
    ],
)
def test_gates_that_could_never_be_judged_are_refused_with_their_line(text, words):
    with pytest.raises(ScenarioError) as refused:
        check_gates(given(text))
    assert words in str(refused.value)


def test_a_worker_started_before_the_watch_has_executions_that_nobody_saw_begin():
    seen = right(events=[event("succeeded", "old", 0.4)], workers=[worker(0.2, ("old", -30))])
    assert [(one.task_id, one.start_ns, one.end_ns) for one in seen.executions] == [("old", ns(-30), ns(0.2))]


def test_a_watch_whose_watcher_was_killed_can_be_judged(tmp_path):
    write(tmp_path / "watch", right())
    verdict = judge_folder(tmp_path / "watch", None).verdict
    assert (verdict.verdict, round(verdict.duration_s, 1)) == ("pass", 19.9)


@pytest.mark.parametrize("lacking", ["application.json", "run.json"])
def test_a_folder_that_is_none_of_a_watch_is_told_so(tmp_path, lacking):
    for name in {"application.json", "run.json"} - {lacking}:
        (tmp_path / name).write_text("{}")
    with pytest.raises(EvidenceError, match="is no folder of a watch"):
        judge_folder(tmp_path, None)
